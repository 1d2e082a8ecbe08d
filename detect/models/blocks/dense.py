"""Densely connected stages (DenseNet, PeleeNet), plain or cross-stage-partial, and the transitions between them.

Letters: B batch, C input channels, O output channels, H W cells, g growth, n layers.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.attention import SqueezeExcite
from detect.models.blocks.conv import check_choice
from detect.models.blocks.csp import ChannelDivide, CrossStage, Fusion
from detect.models.blocks.dense_layers import (
    ConvStyle,
    DenseBody,
    DenseLayer,
    ElasticDenseLayer,
    TwoWayDenseLayer,
    layer_sources,
)
from detect.models.blocks.downsample import BLOCK_SIZE, Kind, Pool
from detect.models.blocks.residual import block_points
from detect.models.registry import Block, register
from detect.models.resize import ResizePoint
from detect.structures import FeatureShape

CompressedBy = Literal["first", "second"]
SQUEEZE = 2
"""Channels per squeezed channel in each layer: the ratio that fits the parameters of SEPeleeNet (CSPNet, Table 3)."""


@register
class DenseStage(Block):
    """Dense layers at one resolution and their first transition, plain or cross-stage-partial.

    When partial, the first ``gamma`` of the channels pass by; the layers run on the rest. The first transition is a 1x1
    convolution of what was computed; the second one stands behind the pool, in ``Transition``.

    Args:
        in_channels: C.
        growth: g, channels that each layer adds.
        repeats: n.
        bottleneck: channels of each layer's 1x1 convolution; None leaves it out.
        two_way: whether layers have two branches (PeleeNet).
        elastic: whether layers have a second branch at half the size (ELASTIC).
        sparse: whether a layer reads only what lies 1, 2, 4, 8, ... layers before it (SparseNet).
        group_width: input channels of one group of the 3x3 convolutions; None for one group.
        se: whether squeeze-and-excitation follows each layer.
        preactivation: whether norm and activation come before the convolutions (DenseNet) or behind them.
        transition: whether a plain stage ends with a transition; a partial one has those of its ``fusion``.
        compression: where this stage's transition compresses, width of the whole behind it as a share of C + n g, in
            (0, 1]; beside a wide bypass the transition has at least g channels.
        compressed_by: with ``fusion: csp``, the transition that compresses; the other one keeps the width.
        fusion: how the parts are joined; ``none`` is the plain stage.
        gamma: share of the input that passes by, in [0, 1).
        downsample: ``stride`` or ``spd``, of the layers' second branch.
        activation: name of the activation.

    Source: DenseNet (Huang et al., 2017); PeleeNet (Wang et al., 2018); CSPNet (Wang et al., 2020), section 3.1,
    equations 3 and 4, and Table 1 for ``sparse`` and ``group_width``.
    """

    widths: ClassVar[tuple[str, ...]] = ("growth", "bottleneck")

    def __init__(
        self,
        in_channels: int,
        growth: int,
        repeats: int = 1,
        bottleneck: int | None = None,
        two_way: bool = False,
        elastic: bool = False,
        sparse: bool = False,
        group_width: int | None = None,
        se: bool = False,
        preactivation: bool = False,
        transition: bool = True,
        compression: float = 1.0,
        compressed_by: CompressedBy = "second",
        fusion: Fusion = "none",
        gamma: float = 0.5,
        downsample: Kind = "stride",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        _check_words(fusion, compressed_by, compression, downsample)
        bypass = 0 if fusion == "none" else round(gamma * in_channels)
        if not 0 <= gamma < 1 or bypass == in_channels:
            raise InputError(
                f"gamma: must be at least 0 and below 1, and leave some of {in_channels} channels to compute, "
                f"found {gamma!r}"
            )
        style = ConvStyle(preactivation, activation, downsample, group_width)
        widths = [in_channels - bypass] + [growth] * repeats
        sources = [layer_sources(number, sparse) for number in range(1, repeats + 1)]
        layers = []
        for read in sources:
            layer = _layer(sum(widths[i] for i in read), growth, bottleneck, two_way, elastic, style)
            layers.append(nn.Sequential(layer, SqueezeExcite(growth, growth // SQUEEZE, activation)) if se else layer)
        body = DenseBody(layers, sources)

        computed = out = sum(widths)
        if transition and (fusion in ("none", "last") or (fusion == "csp" and compressed_by == "first")):
            out = max(int((bypass + computed) * compression) - bypass, growth)
        has_first = transition if fusion == "none" else fusion != "first"
        first = style.conv(computed, out, 1) if has_first else nn.Identity()
        self.out_channels = bypass + out
        self.stage: nn.Module = (
            nn.Sequential(body, first)
            if fusion == "none"
            else CrossStage(ChannelDivide(bypass), body, first, nn.Identity(), bypass_first=True)
        )

    @property
    def points(self) -> list[ResizePoint]:
        """Of a plain stage, one behind each layer."""
        return block_points(self.stage)

    @property
    def point_behind(self) -> bool:
        """Whether the stage is cross-stage-partial."""
        return isinstance(self.stage, CrossStage)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        return self.stage(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same reduction."""
        return FeatureShape(self.out_channels, inputs[0].reduction)


@register
class Transition(Block):
    """Between dense stages: a 2x2 average pool, then the second transition of a partial stage, a 1x1 convolution.

    Args:
        in_channels: C.
        pool: whether there is a pool; behind the last stage there is none.
        compression: output channels of the convolution, as a share of C, in (0, 1].
        compressed_by: that of the stage; the convolution keeps the width when it is ``first``.
        preactivation: whether norm and activation come before the convolution.
        downsample: ``stride``; or ``spd``, where the convolution reads a space-to-depth in place of the pool.
        fusion: that of the stage; ``none`` and ``last`` have no second transition.
        activation: name of the activation.

    Source: CSPNet (Wang et al., 2020), section 3.1; that the convolution stands behind the pool is what the cost in
    Table 1 allows.
    """

    widths: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        in_channels: int,
        pool: bool = True,
        compression: float = 1.0,
        compressed_by: CompressedBy = "second",
        preactivation: bool = False,
        downsample: Kind = "stride",
        fusion: Fusion = "none",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        _check_words(fusion, compressed_by, compression, downsample)
        self.reduction = BLOCK_SIZE if pool else 1
        second = fusion in ("first", "csp")
        compresses = fusion == "first" or (fusion == "csp" and compressed_by == "second")
        self.out_channels = int(in_channels * compression) if compresses else in_channels
        style = ConvStyle(preactivation, activation, downsample)
        self.layers: nn.Module = nn.Identity()
        if second and pool:
            self.layers = style.halving_conv(in_channels, self.out_channels)
        elif second:
            self.layers = style.conv(in_channels, self.out_channels, 1)
        elif pool:
            self.layers = _pool(in_channels, style)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2), or to the same size without a pool."""
        return self.layers(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at twice the reduction, or the same without a pool."""
        return FeatureShape(self.out_channels, inputs[0].reduction * self.reduction)


@register
class DividedTransition(Block):
    """Between dense stages that are fused first: the two parts of the next stage's input are made apart.

    What will pass by is a pool → 1x1 convolution; what will be computed is a 1x1 convolution → pool.

    Args:
        in_channels: C, which is also the width of both parts together.
        gamma: share that passes by in the next stage, in (0, 1).
        downsample: ``stride``, for 2x2 average pools, or ``spd``.
        activation: name of the activation.

    Source: CSPNet (Wang et al., 2020), Table 1: with this transition ``fusion: first`` costs what the paper says.
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
        self.computed = nn.Sequential(style.conv(in_channels, computed, 1), _pool(computed, style))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2): what passes by, then what is computed."""
        return torch.cat([self.bypass(x), self.computed(x)], dim=1)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """C channels at twice the reduction."""
        return FeatureShape(self.out_channels, inputs[0].reduction * BLOCK_SIZE)


def _check_words(fusion: Fusion, compressed_by: CompressedBy, compression: float, downsample: Kind) -> None:
    check_choice("fusion", fusion, get_args(Fusion))
    check_choice("compressed_by", compressed_by, get_args(CompressedBy))
    check_choice("downsample", downsample, get_args(Kind))
    if not 0 < compression <= 1:
        raise InputError(f"compression: must be above 0 and at most 1, found {compression!r}")


def _layer(
    in_channels: int, growth: int, bottleneck: int | None, two_way: bool, elastic: bool, style: ConvStyle
) -> nn.Module:
    """The layer of that kind."""
    if not (two_way or elastic):
        return DenseLayer(in_channels, growth, bottleneck, style)
    if two_way and elastic:
        raise InputError("elastic: two-way layers cannot be elastic")
    if bottleneck is None:
        raise InputError("bottleneck: layers with two branches need it")
    if two_way and growth % 2:
        raise InputError(f"growth: must be even, half of it for each branch, found {growth}")
    return (TwoWayDenseLayer if two_way else ElasticDenseLayer)(in_channels, growth, bottleneck, style)


def _pool(channels: int, style: ConvStyle) -> Pool:
    """A pool that nothing absorbs: in ``spd`` it brings its own convolution."""
    return Pool(channels, "avg", downsample=style.downsample, activation=style.activation)
