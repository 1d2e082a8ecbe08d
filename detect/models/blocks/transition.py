"""Transitions between dense stages: pools, space-to-depth and 1x1 convolutions.

Letters: B batch, C input channels, O output channels, H W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.csp import Fusion
from detect.models.blocks.dense import CompressedBy, ConvStyle, check_compression
from detect.models.blocks.downsample import BLOCK_SIZE, Kind
from detect.models.registry import Block, BlockOptions, check_choice, register
from detect.structures import FeatureShape


@dataclass(frozen=True)
class TransitionOptions(BlockOptions):
    """Keywords of ``Transition``.

    Args:
        pool: put a pool in front; there is none behind the last stage.
        compression: output channels of the convolution, as a share of C, in (0, 1].
        compressed_by: that of the stage; the convolution keeps the width when it is ``first``.
        preactivation: put norm and activation in front of the convolution.
        downsample: ``stride``; or ``spd``, where the convolution reads a space-to-depth in place of the pool.
        fusion: that of the stage; ``none`` and ``last`` have no second transition.
        activation: name of the activation.
    """

    pool: bool = True
    compression: float = 1.0
    compressed_by: CompressedBy = "second"
    preactivation: bool = False
    downsample: Kind = "stride"
    fusion: Fusion = "none"
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_compression(self.compression)


@register
class Transition(Block):
    """Between dense stages: a 2x2 average pool, then the second transition of a partial stage, a 1x1 convolution.

    Args:
        in_channels: C.
        options: further keywords.

    Source: CSPNet (Wang et al., 2020), section 3.1; that the convolution stands behind the pool follows from the cost
    in Table 1.
    """

    Options = TransitionOptions
    widths: ClassVar[tuple[str, ...]] = ()

    def __init__(self, in_channels: int, options: TransitionOptions) -> None:
        super().__init__()
        pool, fusion = options.pool, options.fusion
        self.reduction = BLOCK_SIZE if pool else 1
        second = fusion in ("first", "csp")  # these have a transition behind the concatenation
        compresses = fusion == "first" or (fusion == "csp" and options.compressed_by == "second")
        self.out_channels = int(in_channels * options.compression) if compresses else in_channels
        style = ConvStyle(options.preactivation, options.activation, options.downsample)
        self.layers: nn.Module = nn.Identity()
        if second and pool:
            self.layers = style.halving_conv(in_channels, self.out_channels)
        elif second:
            self.layers = style.conv(in_channels, self.out_channels, 1)
        elif pool:
            self.layers = style.pool(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2), or to the same size without a pool."""
        return self.layers(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.out_channels, inputs[0].reduction * self.reduction)


@register
class DividedTransition(Block):
    """Between dense stages with ``fusion: first``: separate layers for the two parts of the next stage's input.

    The next bypass is a pool → 1x1 convolution; the next computed part is a 1x1 convolution → pool.

    Args:
        in_channels: C, also the width of both parts together.
        gamma: share that passes by in the next stage, in (0, 1).
        downsample: ``stride``, for 2x2 average pools, or ``spd``.
        activation: name of the activation.

    Source: CSPNet (Wang et al., 2020), Table 1: with this transition ``fusion: first`` has the paper's cost.
    """

    widths: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, in_channels: int, gamma: float = 0.5, downsample: Kind = "stride", activation: str = "relu"
    ) -> None:
        super().__init__()
        check_choice("downsample", downsample, get_args(Kind))
        bypass = round(gamma * in_channels)
        if not 0 < bypass < in_channels:
            raise InputError(f"gamma: must leave channels to both parts, found {gamma!r}")
        self.out_channels = in_channels
        style = ConvStyle(preactivation=False, activation=activation, downsample=downsample)
        self.bypass = style.halving_conv(in_channels, bypass)
        computed = in_channels - bypass
        self.computed = nn.Sequential(style.conv(in_channels, computed, 1), style.pool(computed))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2): the bypass, then the part to be computed."""
        return torch.cat([self.bypass(x), self.computed(x)], dim=1)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.out_channels, inputs[0].reduction * BLOCK_SIZE)
