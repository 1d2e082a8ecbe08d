"""A model as ordinary convolutions only: what is fastest to run, and what an exported file computes."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detect.models.blocks.bdsc import DecoupledConv, DepthwiseConv, MaskConv, binarise
from detect.models.blocks.conv import Conv
from detect.models.model import Model

ModelKind = TypeVar("ModelKind", bound=Model)


@torch.no_grad()
def melted(model: ModelKind) -> ModelKind:
    """A copy without binarisation, whose norms right behind a convolution have become its weights and bias.

    The same function: a norm scales and shifts each channel. That between the two steps of a decoupled convolution goes
    into the first, whose bias acts before the zeros that the second is padded with, as the norm did. A binary weight
    times a norm's factor is still one magnitude for each output.

    Args:
        model: in evaluation mode, float32.
    """
    ordinary = copy.deepcopy(model).double()  # so that each weight is rounded once, at the end
    for layer in ordinary.modules():
        if isinstance(layer, MaskConv) and layer.binary:
            layer.weight.copy_(binarise(layer.weight))
            layer.binary = False
    for layer in list(ordinary.modules()):
        if isinstance(layer, DecoupledConv):
            _melt(layer, layer, "project")
        elif isinstance(layer, DepthwiseConv):
            _melt(layer, layer, "depthwise")
        elif isinstance(layer, Conv):
            _melt(layer, *_last_step(layer))
    return ordinary.float()


def _last_step(layer: Conv) -> tuple[nn.Module, str]:
    """The convolution in front of a layer's norm: the module that has it, and its name there."""
    if isinstance(layer.conv, DecoupledConv):
        return layer.conv, "spatial"
    if isinstance(layer.conv, DepthwiseConv):
        return layer.conv, "pointwise"
    return layer, "conv"


def _melt(layer: nn.Module, parent: nn.Module, name: str) -> None:
    """Melt ``layer.norm``, if it has one, into the convolution ``parent.name``."""
    if not isinstance(layer.norm, nn.BatchNorm2d):
        return
    setattr(parent, name, fuse_conv_bn_eval(getattr(parent, name), layer.norm))
    layer.add_module("norm", nn.Identity())  # in its place
