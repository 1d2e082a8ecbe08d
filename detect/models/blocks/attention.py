"""Attention over channels, and over the values of a map (SAM).

Letters: B batch, C channels, O output channels, H W cells, h squeezed channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from detect.models.blocks.conv import Conv, make_activation
from detect.models.blocks.space_to_depth import Pieces
from detect.models.registry import Block, register
from detect.structures import FeatureShape


class SqueezeExcite(nn.Module):
    """Weights in (0, 1) for the channels, computed from the means of all channels.

    Args:
        channels: C.
        squeezed_channels: h, between the two fully connected layers, which have biases.
        activation: name of the activation between them.

    Source: Squeeze-and-Excitation Networks (Hu et al., 2018), section 3.
    """

    def __init__(self, channels: int, squeezed_channels: int, activation: str) -> None:
        super().__init__()
        # 1x1 convolutions of a map of one cell are fully connected layers without reshaping.
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, squeezed_channels, 1),
            make_activation(activation),
            nn.Conv2d(squeezed_channels, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x * self.weigh(x.mean(dim=(2, 3), keepdim=True))  # (B, C, 1, 1) weights


@register
class SpatialAttention(Block):
    """Spatial attention: the map times the sigmoid of its 1x1 convolution with batch norm, a weight for each value.

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
        return inputs[0]


@register
class AttendedConv(Conv):
    """``Conv`` with spatial attention behind it; ``override`` of a neck's last rows switches SAM on.

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
