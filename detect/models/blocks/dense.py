"""Densely connected stages (DenseNet, PeleeNet), plain or cross-stage-partial.

Letters: B batch, C input channels, O output channels, H W cells, g growth, n layers, b bottleneck channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.attention import SqueezeExcite
from detect.models.blocks.conv import Conv, PreConv
from detect.models.blocks.csp import ChannelDivide, CrossStage, Fusion
from detect.models.blocks.downsample import BLOCK_SIZE, Kind, Pool, is_odd
from detect.models.blocks.residual import block_points
from detect.models.blocks.space_to_depth import Piece
from detect.models.rearrangement import Channels, State, prefixed, rearrange_parts, rearrange_pooled
from detect.models.registry import Block, BlockOptions, ResizePoint, register, resize_cells
from detect.structures import FeatureShape

CompressedBy = Literal["first", "second"]
SQUEEZE = 2
"""Channels per squeezed channel in each layer: the ratio that fits the parameters of SEPeleeNet (CSPNet, Table 3)."""


class FoldedConv(nn.Module):
    """Space-to-depth → 1x1 convolution → batch norm → activation.

    Args:
        in_channels: C, before the space-to-depth.
        out_channels: O.
        activation: name of the activation.
    """

    def __init__(self, in_channels: int, out_channels: int, activation: str) -> None:
        super().__init__()
        self.conv = Conv(in_channels * BLOCK_SIZE**2, out_channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2)."""
        return self.conv((Piece(x, BLOCK_SIZE),))

    def from_strided(self, strided: nn.Module, inputs: Sequence[Channels]) -> State:
        """See ``HasStridedForm``; an average pool and the convolution behind it are one convolution."""
        if not isinstance(strided, nn.Sequential):
            return rearrange_parts(self, strided, inputs)
        return prefixed("conv", rearrange_pooled(self.conv, strided))


@dataclass(frozen=True)
class ConvStyle:
    """Form of all convolutions of a stage.

    Args:
        preactivation: put norm and activation in front of the convolution (DenseNet), not behind it.
        activation: name of the activation.
        downsample: ``stride``, for a 2x2 average pool, or ``spd``.
        group_width: input channels of one group of the 3x3 convolutions; None for one group.
    """

    preactivation: bool
    activation: str
    downsample: Kind = "stride"
    group_width: int | None = None

    def conv(self, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
        groups = 1
        if self.group_width is not None and kernel_size > 1:
            # A narrow model may have too few channels for this number of groups.
            groups = math.gcd(max(in_channels // self.group_width, 1), in_channels, out_channels)
        if self.preactivation:
            return PreConv(in_channels, out_channels, kernel_size, self.activation, groups)
        return Conv(in_channels, out_channels, kernel_size, 1, groups, self.activation)

    def halving_conv(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return a 1x1 convolution of the map at half its size: behind a pool, or of the space-to-depth itself."""
        if self.downsample == "stride":
            return nn.Sequential(Pool(in_channels, "avg"), self.conv(in_channels, out_channels, 1))
        if self.preactivation:
            return PreConv(in_channels, out_channels, 1, self.activation, block_size=BLOCK_SIZE)
        return FoldedConv(in_channels, out_channels, self.activation)

    def pool(self, channels: int) -> Pool:
        """Return a pool that no convolution absorbs: in ``spd`` it has its own."""
        return Pool(channels, "avg", downsample=self.downsample, activation=self.activation)


class DenseLayer(nn.Sequential):
    """[1x1 →] 3x3 convolution: (B, C, H, W) to (B, g, H, W).

    Args:
        in_channels: C.
        growth: g.
        bottleneck: b, of the 1x1 convolution; None leaves it out.
        style: form of the convolutions.

    Source: DenseNet (Huang et al., 2017), section 3.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int | None, style: ConvStyle) -> None:
        if bottleneck is None:
            super().__init__(style.conv(in_channels, growth, 3))
        else:
            super().__init__(style.conv(in_channels, bottleneck, 1), style.conv(bottleneck, growth, 3))


class TwoWayDenseLayer(nn.Module):
    """Two branches of g / 2 channels each, 1x1 → 3x3 and 1x1 → 3x3 → 3x3, side by side.

    Args:
        in_channels: C.
        growth: g, even.
        bottleneck: b, of each 1x1 convolution.
        style: form of the convolutions.

    Source: PeleeNet (Wang et al., 2018), section 2.1.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int, style: ConvStyle) -> None:
        super().__init__()
        half = growth // 2
        self.near = nn.Sequential(style.conv(in_channels, bottleneck, 1), style.conv(bottleneck, half, 3))
        self.far = nn.Sequential(
            style.conv(in_channels, bottleneck, 1), style.conv(bottleneck, half, 3), style.conv(half, half, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, g, H, W)."""
        return torch.cat([self.near(x), self.far(x)], dim=1)


class ElasticDenseLayer(nn.Module):
    """Two branches 1x1 → 3x3, at full and at half size, each with half of the bottleneck, are added.

    Args:
        in_channels: C.
        growth: g.
        bottleneck: b, even; of both 1x1 convolutions together.
        style: form of the convolutions.

    Source: ELASTIC (Wang et al., 2019), section 3; there the small branch is enlarged bilinearly.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int, style: ConvStyle) -> None:
        super().__init__()
        half = bottleneck // 2
        # The full branch sees (H, W), the small one (H/2, W/2).
        self.full = nn.Sequential(style.conv(in_channels, half, 1), style.conv(half, growth, 3))
        self.small = nn.Sequential(style.halving_conv(in_channels, half), style.conv(half, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, g, H, W)."""
        # An odd map was padded before it was halved, so that the enlarged one is too large.
        enlarged = F.interpolate(self.small(x), scale_factor=float(BLOCK_SIZE), mode="nearest")
        return self.full(x) + (resize_cells(enlarged, (x.shape[2], x.shape[3])) if is_odd(x) else enlarged)


class DenseBody(nn.Module):
    """Layers that each read outputs of earlier layers; the input and all outputs are concatenated at the end.

    Behind each layer there is a point, where all maps so far may be made smaller.

    Args:
        layers: (B, C, H, W) to (B, g, H, W) each, C the channels of what the layer reads.
        sources: for each layer the numbers of the maps that it reads, ascending: 0 is the input, i the output of layer
            i, counted from 1.
    """

    def __init__(self, layers: Sequence[nn.Module], sources: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sources = sources
        self.points = nn.ModuleList(ResizePoint() for _ in layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C + n*g, H, W) for n layers: the input, then the outputs in order."""
        maps = [x]
        for layer, sources, point in zip(self.layers, self.sources, self.points, strict=True):
            # (B, C + i*g, H, W) to (B, g, H, W), for i outputs among the sources
            maps.append(layer(torch.cat([maps[i] for i in sources], dim=1)))
            if point.ratio is not None:  # later layers read all maps, so that all get the smaller size
                maps = [point(m) for m in maps]
        return torch.cat(maps, dim=1)


def layer_sources(layer: int, sparse: bool) -> tuple[int, ...]:
    """Return the maps that layer 1, 2, ... of a ``DenseBody`` reads, by ascending number; number 0 is the input."""
    if not sparse:
        return tuple(range(layer))
    # The maps 1, 2, 4, 8, ... before it: Sparsely Aggregated Convolutional Networks (Zhu et al., 2018), section 3.
    return tuple(layer - 2**exponent for exponent in reversed(range(layer.bit_length())))


@dataclass(frozen=True)
class DenseOptions(BlockOptions):
    """Keywords of ``DenseStage``.

    Args:
        growth: g, channels that each layer adds.
        repeats: n.
        bottleneck: b, channels of each layer's 1x1 convolution; None leaves it out.
        two_way: give layers two branches (PeleeNet).
        elastic: give layers a second branch at half the size (ELASTIC).
        sparse: let a layer read only the maps 1, 2, 4, 8, ... layers before it (SparseNet).
        group_width: input channels of one group of the 3x3 convolutions; None for one group.
        se: put squeeze-and-excitation behind each layer.
        preactivation: put norm and activation in front of the convolutions (DenseNet), not behind them.
        transition: end a plain stage with a transition; a partial one has those of its ``fusion``.
        compression: where this stage's transition compresses, width of the whole behind it as a share of C + n*g, in
            (0, 1]; beside a wide bypass the transition has at least g channels.
        compressed_by: with ``fusion: csp``, the transition that compresses; the other one keeps the width.
        fusion: order in which the parts are joined; ``none`` is the plain stage.
        gamma: share of the input that passes by, in [0, 1).
        downsample: ``stride`` or ``spd``, of the layers' second branch.
        activation: name of the activation.
    """

    growth: int
    repeats: int = 1
    bottleneck: int | None = None
    two_way: bool = False
    elastic: bool = False
    sparse: bool = False
    group_width: int | None = None
    se: bool = False
    preactivation: bool = False
    transition: bool = True
    compression: float = 1.0
    compressed_by: CompressedBy = "second"
    fusion: Fusion = "none"
    gamma: float = 0.5
    downsample: Kind = "stride"
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_compression(self.compression)

    @property
    def style(self) -> ConvStyle:
        return ConvStyle(self.preactivation, self.activation, self.downsample, self.group_width)

    @property
    def compresses(self) -> bool:
        """True where the stage's own transition compresses, not that behind the pool."""
        first = self.fusion in ("none", "last") or (self.fusion == "csp" and self.compressed_by == "first")
        return self.transition and first


@register
class DenseStage(Block):
    """Dense layers at one resolution and their first transition, plain or cross-stage-partial.

    When partial, the first ``gamma`` of the channels pass by; the layers run on the rest. The first transition is a 1x1
    convolution of the computed part; the second one stands behind the pool, in ``Transition``.

    Args:
        in_channels: C.
        options: further keywords.

    Source: DenseNet (Huang et al., 2017); PeleeNet (Wang et al., 2018); CSPNet (Wang et al., 2020), section 3.1,
    equations 3 and 4, and Table 1 for ``sparse`` and ``group_width``.
    """

    Options = DenseOptions
    widths: ClassVar[tuple[str, ...]] = ("growth", "bottleneck")

    def __init__(self, in_channels: int, options: DenseOptions) -> None:
        super().__init__()
        bypass = 0 if options.fusion == "none" else round(options.gamma * in_channels)
        if not 0 <= options.gamma < 1 or bypass == in_channels:
            raise InputError(
                f"gamma: must be at least 0 and below 1, and leave some of {in_channels} channels to compute, "
                f"found {options.gamma!r}"
            )
        growth = options.growth
        widths = [in_channels - bypass] + [growth] * options.repeats  # of map 0, the input, and of each layer's output
        sources = [layer_sources(number, options.sparse) for number in range(1, options.repeats + 1)]
        body = DenseBody([_layer(sum(widths[i] for i in read), options) for read in sources], sources)

        computed = out = sum(widths)
        if options.compresses:
            # The whole, bypass included, shrinks to the share; the bypass keeps its width, the transition at least g.
            out = max(int((bypass + computed) * options.compression) - bypass, growth)
        has_first = options.transition if options.fusion == "none" else options.fusion != "first"
        first = options.style.conv(computed, out, 1) if has_first else nn.Identity()
        self.out_channels = bypass + out
        self.stage: nn.Module = (
            nn.Sequential(body, first)
            if options.fusion == "none"
            else CrossStage(ChannelDivide(bypass), body, first, nn.Identity(), bypass_first=True)
        )

    @property
    def points(self) -> list[ResizePoint]:
        """Points behind the layers of a plain stage."""
        return block_points(self.stage)

    @property
    def point_behind(self) -> bool:
        return isinstance(self.stage, CrossStage)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        return self.stage(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.out_channels, inputs[0].reduction)


def check_compression(compression: float) -> None:
    if not 0 < compression <= 1:
        raise InputError(f"compression: must be above 0 and at most 1, found {compression!r}")


def _layer(in_channels: int, options: DenseOptions) -> nn.Module:
    layer = _plain_layer(in_channels, options)
    if not options.se:
        return layer
    return nn.Sequential(layer, SqueezeExcite(options.growth, options.growth // SQUEEZE, options.activation))


def _plain_layer(in_channels: int, options: DenseOptions) -> nn.Module:
    growth, bottleneck = options.growth, options.bottleneck
    if not (options.two_way or options.elastic):
        return DenseLayer(in_channels, growth, bottleneck, options.style)
    if options.two_way and options.elastic:
        raise InputError("elastic: two-way layers cannot be elastic")
    if bottleneck is None:
        raise InputError("bottleneck: layers with two branches need it")
    if options.two_way and growth % 2:
        raise InputError(f"growth: must be even, half of it for each branch, found {growth}")
    return (TwoWayDenseLayer if options.two_way else ElasticDenseLayer)(in_channels, growth, bottleneck, options.style)
