"""A model as ordinary convolutions only: what is fastest to run, and what an exported file computes."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from detect.models.blocks.conv import Conv, SteppedConv, fuse_norm
from detect.models.model import Model

ModelKind = TypeVar("ModelKind", bound=Model)


@torch.no_grad()
def fuse_conv_bn(model: ModelKind) -> ModelKind:
    """A copy without binarisation, whose norms right behind a convolution have become its weights and bias.

    The same function: a norm scales and shifts each channel. That between the two steps of a decoupled convolution goes
    into the first, whose bias acts before the zeros that the second is padded with, as the norm did.

    Args:
        model: in evaluation mode, float32.
    """
    ordinary = copy.deepcopy(model).double()  # so that each weight is rounded once, at the end
    layers = list(ordinary.modules())
    for layer in layers:
        if isinstance(layer, SteppedConv):
            layer.fuse()
    for layer in layers:
        if isinstance(layer, Conv):
            steps = isinstance(layer.conv, SteppedConv)
            fuse_norm(layer, *((layer.conv, layer.conv.last) if steps else (layer, "conv")))
    return ordinary.float()
