"""Residual stages in pre-activation, plain or cross-stage-partial: ResNets and wide ResNets.

Letters: B batch, C input channels, O output channels, H W cells, s stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from detect.models.blocks.conv import PreConv, make_activation
from detect.models.blocks.csp import Fusion
from detect.models.blocks.downsample import BLOCK_SIZE, Kind
from detect.models.blocks.residual import StackedStage, StageForm
from detect.models.registry import BlockOptions, ResizePoint, check_probability, register

PreBlockKind = Literal["basic", "bottleneck"]


class PreResidualBlock(nn.Module):
    """Batch norm → activation → convolutions, whose result is added to the input; the block's point lies behind.

    Args:
        in_channels: C.
        layers: the convolutions, the first without a norm of its own.
        shortcut: where the shape changes, from the activated map to what is added; None adds the input itself.
        activation: name of the activation.

    Source: Identity Mappings in Deep Residual Networks (He et al., 2016), figure 1b; Wide Residual Networks (Zagoruyko
    and Komodakis, 2016), section 2. In the published code of both the shortcut reads the activated map.
    """

    def __init__(self, in_channels: int, layers: nn.Module, shortcut: nn.Module | None, activation: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)
        self.layers = layers
        self.shortcut = shortcut
        self.point = ResizePoint()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / s, W / s)."""
        y = self.activation(self.norm(x))
        return self.point(self.layers(y) + (x if self.shortcut is None else self.shortcut(y)))


@dataclass(frozen=True)
class PreResidualOptions(BlockOptions):
    """Keywords of ``PreResidualStage``.

    Args:
        out_channels: O / ``widen``.
        block: kind of the blocks.
        repeats: number of blocks.
        ratio: inner channels of ``bottleneck``, as a share of its output.
        widen: factor on ``out_channels``; unlike the model's width, not on the stem's.
        halve: halve the map: ``stride`` in the first block's (first) 3x3 convolution; in ``spd``, a space-to-depth and
            a convolution back to C channels (1x1, for ``basic`` 3x3) come first.
        projection_norm: put a batch norm behind the 1x1 convolution on the shortcut of a block that changes the shape.
        downsample: ``stride`` or ``spd``.
        fusion: order in which the parts are joined; ``none`` is the plain stage.
        gamma: share of O that passes by, in (0, 1).
        activation: name of the activation.
        dropout: probability of a value in front of the 3x3 convolution that is a block's second, in [0, 1).
    """

    out_channels: int
    block: PreBlockKind = "basic"
    repeats: int = 1
    ratio: float = 1.0
    widen: int = 1
    halve: bool = False
    projection_norm: bool = False
    downsample: Kind = "stride"
    fusion: Fusion = "none"
    gamma: float = 0.5
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability("dropout", self.dropout)


class _PreResidualForm(StageForm):
    """Blocks with norm and activation in front of each convolution."""

    def __init__(self, options: PreResidualOptions) -> None:
        self.options = options
        self.fusion, self.gamma, self.repeats = options.fusion, options.gamma, options.repeats

    def conv1x1(self, in_channels: int, out_channels: int) -> PreConv:
        return PreConv(in_channels, out_channels, 1, self.options.activation)

    def block(self, in_channels: int, out_channels: int, stride: int) -> PreResidualBlock:
        shortcut: nn.Module | None = None
        if stride > 1 or in_channels != out_channels:  # otherwise the input itself is added
            shortcut = _bare(in_channels, out_channels, 1, stride)
            if self.options.projection_norm:
                shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))
        layers = self._layers(in_channels, out_channels, stride)
        return PreResidualBlock(in_channels, layers, shortcut, self.options.activation)

    def _layers(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        activation, is_basic = self.options.activation, self.options.block == "basic"
        hidden = out_channels if is_basic else max(round(out_channels * self.options.ratio), 1)
        second = PreConv(hidden, hidden, 3, activation, stride=1 if is_basic else stride)
        second.dropout = self.options.dropout
        if is_basic:
            return nn.Sequential(_bare(in_channels, hidden, 3, stride), second)
        return nn.Sequential(_bare(in_channels, hidden, 1), second, PreConv(hidden, out_channels, 1, activation))


def _bare(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)


@register
class PreResidualStage(StackedStage):
    """Residual blocks in pre-activation at one resolution, plain or cross-stage-partial.

    ``basic`` is 3x3 → 3x3, ``bottleneck`` 1x1 → 3x3 → 1x1. Behind the last stage stands a ``NormActivation``. When
    partial, two 1x1 convolutions divide the input into ``gamma`` of the output's channels, which pass by, and the rest,
    on which the blocks run; these and the transitions are in pre-activation too.

    Args:
        in_channels: C.
        options: further keywords.

    Source: Identity Mappings in Deep Residual Networks (He et al., 2016); Wide Residual Networks (Zagoruyko and
    Komodakis, 2016), section 2 for ``widen`` and 2.4 for ``dropout``; CSPNet (Wang et al., 2020), section 3.1;
    SPD-Conv, Table 3, for ``spd``.
    """

    Options = PreResidualOptions

    def __init__(self, in_channels: int, options: PreResidualOptions) -> None:
        super().__init__()
        self.out_channels = options.out_channels * options.widen
        self.reduction = stride = BLOCK_SIZE if options.halve else 1
        self.down: nn.Module = nn.Identity()
        if options.halve and options.downsample == "spd":
            kernel_size, stride = 3 if options.block == "basic" else 1, 1
            self.down = PreConv(in_channels, in_channels, kernel_size, options.activation, block_size=BLOCK_SIZE)
        self.stage = _PreResidualForm(options).stage(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W), or to half the size."""
        return self.stage(self.down(x))
