"""Spatial pyramid pooling: context from growing windows at one resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.registry import Block, register
from detect.structures import FeatureShape


@register
class SPPF(Block):
    """1x1 convolution to C/2 → three max-pools of stride 1 in a row → concatenation of the four maps → 1x1 convolution.

    Three 5x5 pools in a row see 5x5, 9x9 and 13x13 cells, like the parallel pools of SPP.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: window of each pool, odd.
        activation: name of the activation.

    Source: YOLOv5 v6.0; SPP (He et al., 2015).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5, activation: str = "silu") -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size: must be odd, found {kernel_size}")
        hidden = in_channels // 2
        self.reduce = Conv(in_channels, hidden, 1, activation=activation)
        self.fuse = Conv(4 * hidden, out_channels, 1, activation=activation)
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        maps = [self.reduce(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], self.kernel_size, stride=1, padding=self.kernel_size // 2))
        return self.fuse(torch.cat(maps, dim=1))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same reduction."""
        return FeatureShape(self.fuse.conv.out_channels, inputs[0].reduction)
