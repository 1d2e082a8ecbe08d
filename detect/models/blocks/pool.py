"""A pool that keeps a map's size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from detect.models.registry import Block, register
from detect.structures import FeatureShape


@register
class StrideOnePool(Block):
    """2x2 max-pool of stride 1: each cell, its right, its lower and its lower right neighbour.

    Windows that reach over the right or the lower edge hold the cells that there are, so that the size stays.

    Args:
        in_channels: C.

    Source: YOLOv3-tiny's configuration for Darknet, in place of the backbone's last halving.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        # PyTorch pads all sides alike, by cells that never win: the windows over the upper and left edge are dropped.
        return F.max_pool2d(x, 2, stride=1, padding=1)[..., 1:, 1:]

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """The shape of the input."""
        return FeatureShape(self.channels, inputs[0].reduction)
