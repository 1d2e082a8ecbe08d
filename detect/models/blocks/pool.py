"""Pools that keep a map's size: stride one, spatial pyramids, and the convolutions around those.

Letters: B batch, C input channels, O output channels, H W cells, k window of a pool.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.blocks.space_to_depth import Pieces
from detect.models.registry import Block, register
from detect.structures import FeatureShape


@register
class StrideOnePool(Block):
    """2x2 max-pool of stride 1: each cell, its right, its lower and its lower right neighbour.

    Windows over the right or the lower edge are cut there, so that the size stays.

    Args:
        in_channels: C.

    Source: YOLOv3-tiny's configuration for Darknet, in place of the backbone's last halving.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        # PyTorch pads all sides alike, by cells that are never the maximum: (B, C, H + 1, W + 1) without its first row
        # and column is what padding on the right and below gives.
        return F.max_pool2d(x, 2, stride=1, padding=1)[..., 1:, 1:]

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.channels, inputs[0].reduction)


def pool_pyramid(x: Tensor, kernel_size: int) -> list[Tensor]:
    """Return the map (B, C, H, W) and three max-pools of stride 1 in a row, with windows of k, 2k - 1 and 3k - 2 cells.

    With k = 5 these are the values of parallel pools of 5, 9 and 13 cells, for a quarter of the work. k is odd.
    """
    maps = [x]
    for _ in range(3):
        maps.append(F.max_pool2d(maps[-1], kernel_size, stride=1, padding=kernel_size // 2))
    return maps


@register
class SPP(Block):
    """Max-pools of 13x13, 9x9 and 5x5 cells and the map itself, concatenated in that order.

    Source: SPP (He et al., 2015); YOLOv3-SPP, whose weights depend on the order.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4*C, H, W)."""
        return torch.cat(pool_pyramid(x, 5)[::-1], dim=1)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(4 * inputs[0].channels, inputs[0].reduction)


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
        return self.fuse(torch.cat(pool_pyramid(self.reduce(x), self.kernel_size), dim=1))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.fuse.conv.out_channels, inputs[0].reduction)


@register
class ConvSet(Block):
    """Convolutions between two levels of YOLOv3 and PANet: 1x1 to O → 3x3 to 2*O → 1x1 → 3x3 → 1x1 to O channels.

    With ``spp`` the map is pooled in the middle: 1x1 → 3x3 → 1x1 → SPP → 1x1 → 3x3 → 1x1, one convolution more.

    Args:
        in_channels: C.
        out_channels: O.
        spp: put an SPP in the middle.
        activation: name of the activation.

    Source: YOLOv3 (Redmon and Farhadi, 2018), section 2.3; yolov3-spp.cfg of Darknet.
    """

    def __init__(self, in_channels: int, out_channels: int, spp: bool = False, activation: str = "leaky") -> None:
        super().__init__()
        wide = 2 * out_channels
        pooled: list[nn.Module] = [SPP(), Conv(4 * out_channels, out_channels, 1, activation=activation)] if spp else []
        self.first = Conv(in_channels, out_channels, 1, activation=activation)
        self.layers = nn.Sequential(
            Conv(out_channels, wide, 3, activation=activation),
            Conv(wide, out_channels, 1, activation=activation),
            *pooled,
            Conv(out_channels, wide, 3, activation=activation),
            Conv(wide, out_channels, 1, activation=activation),
        )

    @property
    def accepts_pieces(self) -> bool:
        return True

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H, W)."""
        return self.layers(self.first(x))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.first.conv.out_channels, inputs[0].reduction)
