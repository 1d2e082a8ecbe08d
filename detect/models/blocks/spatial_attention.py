"""Spatial attention (SAM): a map weighs its own values.

Letters: B batch, C input channels, O output channels, H W cells.
"""

from __future__ import annotations

from torch import Tensor

from detect.models.blocks.conv import Conv, Pieces
from detect.models.registry import Block, register
from detect.structures import FeatureShape


@register
class SpatialAttention(Block):
    """The map times the sigmoid of its 1x1 convolution with batch norm: a weight in (0, 1) for each value.

    Args:
        in_channels: C.

    Source: ThunderNet (Qin et al., 2019), "Spatial Attention Module"; CSPNet (Wang et al., 2020), Table 2, whose costs
    say that the convolution keeps the width and that the map weighs itself.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.weigh = Conv(in_channels, in_channels, 1, activation="none")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x * self.weigh(x).sigmoid()

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """The shape of the input."""
        return inputs[0]


@register
class AttendedConv(Conv):
    """``Conv`` with spatial attention behind it: what ``override`` puts in a neck's last rows to switch SAM on.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd.
        activation: name of the convolution's activation.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, activation: str = "silu") -> None:
        super().__init__(in_channels, out_channels, kernel_size, activation=activation)
        self.attention = SpatialAttention(out_channels)

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H, W)."""
        return self.attention(super().forward(x))
