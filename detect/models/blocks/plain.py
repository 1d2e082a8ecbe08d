"""Stages of plain convolutions, one after the other (VGG).

Letters: B batch, C input channels, O output channels, H W cells.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from detect.models.blocks.conv import Conv, Pieces
from detect.models.registry import Block, register
from detect.models.resize import ResizePoint
from detect.structures import FeatureShape


@register
class ConvStage(Block):
    """3x3 convolutions at one resolution.

    Args:
        in_channels: C.
        out_channels: O, of each.
        repeats: convolutions.
        bias: whether they have one, in front of their norms.
        activation: name of the activation.

    Source: VGG (Simonyan and Zisserman, 2015), Table 1, with batch norms.
    """

    def __init__(
        self, in_channels: int, out_channels: int, repeats: int = 1, bias: bool = False, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        inputs = [in_channels] + [out_channels] * (repeats - 1)
        self.convs = nn.ModuleList(
            Conv(channels, out_channels, 3, activation=activation, bias=bias) for channels in inputs
        )
        self.behind = nn.ModuleList(ResizePoint() for _ in inputs)

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H, W)."""
        y: Any = x
        for conv, point in zip(self.convs, self.behind, strict=True):
            y = point(conv(y))
        return y

    @property
    def points(self) -> list[ResizePoint]:
        """One behind each convolution."""
        return [m for m in self.behind if isinstance(m, ResizePoint)]

    @property
    def accepts_pieces(self) -> bool:
        """The input may be given as pieces."""
        return True

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same reduction."""
        return FeatureShape(self.out_channels, inputs[0].reduction)
