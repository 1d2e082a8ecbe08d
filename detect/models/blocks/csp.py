"""Cross-stage-partial stages.

Letters: B batch, C input channels, O output channels, H W cells, h hidden channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detect.models.blocks.conv import Conv, Pieces
from detect.models.registry import Block, register
from detect.structures import FeatureShape


class Bottleneck(nn.Module):
    """1x1 convolution → 3x3 convolution, added to the input when ``shortcut``.

    Args:
        channels: h, in and out.
        shortcut: whether the input is added.
        activation: name of the activation.
    """

    def __init__(self, channels: int, shortcut: bool, activation: str) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 1, activation=activation)
        self.conv2 = Conv(channels, channels, 3, activation=activation)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, H, W) to the same shape."""
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


@register
class C3(Block):
    """The CSP stage of YOLOv5: two 1x1 convolutions divide the input, bottlenecks run on one half, a third joins them.

    Args:
        in_channels: C.
        out_channels: O, even; h = O / 2.
        repeats: bottlenecks.
        shortcut: whether the bottlenecks add their input.
        activation: name of the activation.

    Source: CSPNet (Wang et al., 2020), section 3.1; YOLOv5 v6.0 for the form.
    """

    def __init__(
        self, in_channels: int, out_channels: int, repeats: int = 1, shortcut: bool = True, activation: str = "silu"
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        # The two 1x1 convolutions that divide the input are one of twice the channels: the input is read once.
        self.divide = Conv(in_channels, 2 * hidden, 1, activation=activation)
        self.blocks = nn.Sequential(*(Bottleneck(hidden, shortcut, activation) for _ in range(repeats)))
        self.fuse = Conv(2 * hidden, out_channels, 1, activation=activation)

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H, W)."""
        computed, bypass = self.divide(x).chunk(2, dim=1)
        return self.fuse(torch.cat([self.blocks(computed), bypass], dim=1))

    @property
    def accepts_pieces(self) -> bool:
        """The input may be given as pieces."""
        return True

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same reduction."""
        return FeatureShape(self.fuse.conv.out_channels, inputs[0].reduction)
