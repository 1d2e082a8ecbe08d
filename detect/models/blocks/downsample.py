"""Modules that halve a map: strided convolutions and pools, or a space-to-depth with a convolution of stride 1.

The keyword ``downsample`` selects between the two. In the ``defaults`` of a model YAML it turns a whole model into its
SPD counterpart.

Letters: B batch, C input channels, O output channels, H W cells, k kernel size, s block size of a space-to-depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.models.blocks.conv import Conv
from detect.models.blocks.space_to_depth import Piece, Pieces, has_known_sides, space_to_depth
from detect.models.rearrangement import Channels, State, fold_kernel, identity_norm, prefixed
from detect.models.registry import Block, PoolPoint, ResizePoint, check_choice, pooled_hw, register
from detect.structures import FeatureShape

Kind = Literal["stride", "spd"]
Order = Literal["conv_first", "spd_first"]
PoolKind = Literal["max", "avg"]
BLOCK_SIZE = 2


def is_odd(x: Tensor) -> bool:
    """Test a map (B, C, H, W) for an odd side, as behind an active point (SDPoint)."""
    return has_known_sides(x) and bool(x.shape[2] % 2 or x.shape[3] % 2)


class HalvingPool(nn.MaxPool2d):
    """2x2 max-pool of stride 2; an odd side is rounded up, as a strided convolution beside it does."""

    def __init__(self) -> None:
        super().__init__(BLOCK_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        return F.max_pool2d(x, BLOCK_SIZE, ceil_mode=is_odd(x))


@register
class SpaceToDepth(Block):
    """Space-to-depth by ``block_size``: it moves values and computes none.

    Args:
        block_size: s.

    Source: SPD-Conv, section 3.1.
    """

    def __init__(self, block_size: int = BLOCK_SIZE) -> None:
        super().__init__()
        self.block_size = block_size

    @property
    def emits_pieces(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, s*s*C, H/s, W/s)."""
        return space_to_depth(x, self.block_size)

    def pieces(self, x: Tensor) -> Pieces:
        """Return the map as a piece, whose space-to-depth the next convolution absorbs."""
        return (Piece(x, self.block_size),)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(inputs[0].channels * self.block_size**2, inputs[0].reduction * self.block_size)


@register
class Stem(Block):
    """The first layer: k x k convolution of stride 2, or space-to-depth → k x k convolution, 3x3 in the paper.

    With YOLOv5's 6x6 kernel both forms have 36 weights per input and output channel and express the same functions.

    Args:
        in_channels: C, 3 for images.
        out_channels: O.
        kernel_size: k, of ``stride``.
        folded_kernel_size: k of ``spd``, odd; 3 holds a strided kernel of up to 6x6, 5 one of 7x7.
        downsample: ``stride`` or ``spd``.
        activation: name of the activation.

    Source: SPD-Conv, section 4.1, replacement 1; YOLOv5 v6.0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 6,
        folded_kernel_size: int = 3,
        downsample: Kind = "stride",
        activation: str = "silu",
    ) -> None:
        super().__init__()
        check_choice("downsample", downsample, get_args(Kind))
        self.spd = downsample == "spd"
        if self.spd:
            self.conv = Conv(in_channels * BLOCK_SIZE**2, out_channels, folded_kernel_size, activation=activation)
        else:
            self.conv = Conv(in_channels, out_channels, kernel_size, stride=2, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2)."""
        return self.conv((Piece(x, BLOCK_SIZE),)) if self.spd else self.conv(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
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
        groups: of the convolution; where they do not divide its channels, as in a narrower model, their greatest
            common divisor.
        downsample: ``stride`` or ``spd``.
        order: order of convolution and space-to-depth in ``spd``.
        activation: name of the activation.

    Source: SPD-Conv, sections 3 and 4.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        groups: int = 1,
        downsample: Kind = "stride",
        order: Order = "conv_first",
        activation: str = "silu",
    ) -> None:
        super().__init__()
        check_choice("downsample", downsample, get_args(Kind))
        check_choice("order", order, get_args(Order))
        # Position of the space-to-depth relative to the convolution; None is the strided form.
        self.space_to_depth: Literal["before", "after"] | None = None
        if downsample == "spd":
            self.space_to_depth = "after" if order == "conv_first" else "before"
        if self.space_to_depth == "before":
            in_channels *= BLOCK_SIZE**2
        stride = 1 if self.space_to_depth else 2
        self.conv = Conv(
            in_channels, out_channels, kernel_size, stride, math.gcd(groups, in_channels, out_channels), activation
        )

    @property
    def emits_pieces(self) -> bool:
        return self.space_to_depth == "after"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2), or (B, 4*O, H/2, W/2) when the space-to-depth comes last."""
        if self.space_to_depth == "before":
            return self.conv((Piece(x, BLOCK_SIZE),))
        y = self.conv(x)
        return space_to_depth(y, BLOCK_SIZE) if self.space_to_depth == "after" else y

    def places(self, *inputs: Channels) -> Channels | None:
        """Return the first sub-map, of even rows and columns: where the strided convolution is computed."""
        channels = self.conv.conv.out_channels
        return Channels.first(channels, channels * BLOCK_SIZE**2) if self.space_to_depth == "after" else None

    def pieces(self, x: Tensor) -> Pieces:
        """Return the convolution's output as a piece, whose space-to-depth the next convolution absorbs."""
        return (Piece(self.conv(x), BLOCK_SIZE),)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        channels = self.conv.conv.out_channels * (BLOCK_SIZE**2 if self.space_to_depth == "after" else 1)
        return FeatureShape(channels, inputs[0].reduction * BLOCK_SIZE)


@register
class Pool(Block):
    """Halving by a pool; in ``spd``, by space-to-depth → 1x1 convolution back to C channels.

    Args:
        in_channels: C.
        kind: ``max`` or ``avg``.
        kernel_size: window, 2 (without padding) or 3 (with a padding of 1).
        downsample: ``stride`` or ``spd``.
        activation: name of the activation behind the convolution of ``spd``.

    Source: SPD-Conv, section 3 (in place of every stride and every pool).
    """

    def __init__(
        self,
        in_channels: int,
        kind: PoolKind = "max",
        kernel_size: int = 2,
        downsample: Kind = "stride",
        activation: str = "silu",
    ) -> None:
        super().__init__()
        check_choice("kind", kind, get_args(PoolKind))
        check_choice("downsample", downsample, get_args(Kind))
        self.channels = in_channels
        self.pool = F.max_pool2d if kind == "max" else F.avg_pool2d
        self.kernel_size = kernel_size
        spd = downsample == "spd"
        # In spd: (B, 4*C, H/2, W/2) back to C channels.
        self.conv = Conv(in_channels * BLOCK_SIZE**2, in_channels, 1, activation=activation) if spd else None
        self.point = PoolPoint() if kind == "max" and not spd else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2); an odd side is rounded up."""
        if self.conv is not None:
            return self.conv((Piece(x, BLOCK_SIZE),))
        if self.point is not None and self.point.ratio is not None:
            # The stem's pool is itself the point: it pools straight to the reduced size.
            half_hw = (-(-x.shape[2] // BLOCK_SIZE), -(-x.shape[3] // BLOCK_SIZE))
            return F.adaptive_max_pool2d(x, pooled_hw(half_hw, self.point.ratio))
        padding = (self.kernel_size - 1) // 2  # 0 for a window of 2, 1 for 3
        return self.pool(x, self.kernel_size, BLOCK_SIZE, padding, ceil_mode=padding == 0 and is_odd(x))

    def from_strided(self, strided: nn.Module, inputs: Sequence[Channels]) -> State:
        """See ``HasStridedForm``; the mean of 2x2 cells. An average pool, if the activation keeps its values."""
        if self.conv is None:
            return {}
        s = BLOCK_SIZE
        mean = torch.eye(self.channels)[..., None, None].expand(-1, -1, s, s) / s**2  # (C, C, s, s)
        state = {"conv.weight": fold_kernel(mean, 1, s), **prefixed("norm", identity_norm(self.conv.norm))}
        return prefixed("conv", state)

    def places(self, *inputs: Channels) -> Channels | None:
        return inputs[0]

    @property
    def points(self) -> list[ResizePoint]:
        """The pool itself, if it is a max-pool."""
        return [] if self.point is None else [self.point]

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.channels, inputs[0].reduction * BLOCK_SIZE)
