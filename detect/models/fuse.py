"""Fusion of a model into ordinary convolutions, for inference and export."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from detect.models.blocks.conv import Conv, SteppedConv, fuse_norm
from detect.models.model import Model

ModelKind = TypeVar("ModelKind", bound=Model)


@torch.no_grad()
def fuse_conv_bn(model: ModelKind) -> ModelKind:
    """Return a copy whose norms are fused into the convolutions before them, with ordinary in place of binary weights.

    It computes the same function: a norm scales and shifts each channel. The norm between the two steps of a decoupled
    convolution goes into the first, whose bias acts before the zero padding of the second, as the norm did.

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
