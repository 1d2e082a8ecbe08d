"""Every way to halve a map: one strided convolution, or space-to-depth with a convolution that has no stride.

``downsample`` is the one word that turns a model into its SPD counterpart, so it is meant for the ``defaults`` of a
model YAML.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from detect.errors import InputError, did_you_mean
from detect.models.blocks.conv import Conv, Piece, Pieces, space_to_depth
from detect.models.registry import Block, register
from detect.structures import FeatureShape

Kind = Literal["stride", "spd"]
Order = Literal["conv_first", "spd_first"]
BLOCK_SIZE = 2


def _check(word: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{word}: unknown {value!r}{did_you_mean(str(value), allowed)}")


@register
class SpaceToDepth(Block):
    """Space-to-depth by ``block_size``: no information is lost, none is computed.

    Args:
        block_size: s.

    Source: SPD-Conv, section 3.1.
    """

    def __init__(self, block_size: int = BLOCK_SIZE) -> None:
        super().__init__()
        self.block_size = block_size

    @property
    def emits_pieces(self) -> bool:
        """The output may be left for the following convolution to rearrange."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, s*s*C, H/s, W/s)."""
        return space_to_depth(x, self.block_size)

    def pieces(self, x: Tensor) -> Pieces:
        """The same, left for the following convolution to carry out."""
        return (Piece(x, self.block_size),)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """s*s times the channels at s times the reduction."""
        return FeatureShape(inputs[0].channels * self.block_size**2, inputs[0].reduction * self.block_size)


@register
class Stem(Block):
    """The first layer of YOLOv5: 6x6 convolution of stride 2, or space-to-depth → 3x3 convolution.

    Both hold 36 weights per input and output channel, and can express the same maps.

    Args:
        in_channels: C, 3 for images.
        out_channels: O.
        downsample: ``stride`` or ``spd``.
        activation: name of the activation.

    Source: SPD-Conv, section 4.1, replacement 1; YOLOv5 v6.0.
    """

    def __init__(
        self, in_channels: int, out_channels: int, downsample: Kind = "stride", activation: str = "silu"
    ) -> None:
        super().__init__()
        _check("downsample", downsample, get_args(Kind))
        self.spd = downsample == "spd"
        if self.spd:
            self.conv = Conv(in_channels * BLOCK_SIZE**2, out_channels, 3, activation=activation)
        else:
            self.conv = Conv(in_channels, out_channels, 6, stride=2, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2)."""
        return self.conv((Piece(x, BLOCK_SIZE),)) if self.spd else self.conv(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at twice the reduction."""
        return FeatureShape(self.conv.conv.out_channels, inputs[0].reduction * BLOCK_SIZE)


@register
class Downsample(Block):
    """Halving between stages.

    ``stride``: one k x k convolution of stride 2. ``spd``, ``conv_first`` (the released models): k x k convolution of
    stride 1 → space-to-depth, whose 4*O channels the next layer's 1x1 convolutions absorb. ``spd``, ``spd_first`` (the
    paper's Figure 3): space-to-depth → k x k convolution of stride 1.

    Args:
        in_channels: C.
        out_channels: O, of the convolution.
        kernel_size: k.
        downsample: ``stride`` or ``spd``.
        order: order of the two in ``spd``.
        activation: name of the activation.

    Source: SPD-Conv, sections 3 and 4.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        downsample: Kind = "stride",
        order: Order = "conv_first",
        activation: str = "silu",
    ) -> None:
        super().__init__()
        _check("downsample", downsample, get_args(Kind))
        _check("order", order, get_args(Order))
        self.space_to_depth: Literal["before", "after"] | None = None
        if downsample == "spd":
            self.space_to_depth = "after" if order == "conv_first" else "before"
        if self.space_to_depth == "before":
            in_channels *= BLOCK_SIZE**2
        stride = 1 if self.space_to_depth else 2
        self.conv = Conv(in_channels, out_channels, kernel_size, stride, activation=activation)

    @property
    def emits_pieces(self) -> bool:
        """Whether the output may be left for the following convolution to rearrange."""
        return self.space_to_depth == "after"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2), or (B, 4*O, H/2, W/2) when the space-to-depth comes last."""
        if self.space_to_depth == "before":
            return self.conv((Piece(x, BLOCK_SIZE),))
        y = self.conv(x)
        return space_to_depth(y, BLOCK_SIZE) if self.space_to_depth == "after" else y

    def pieces(self, x: Tensor) -> Pieces:
        """The convolution's output with its space-to-depth not carried out."""
        return (Piece(self.conv(x), BLOCK_SIZE),)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """The channels of ``forward`` at twice the reduction."""
        channels = self.conv.conv.out_channels * (BLOCK_SIZE**2 if self.space_to_depth == "after" else 1)
        return FeatureShape(channels, inputs[0].reduction * BLOCK_SIZE)
