"""Residual stages whose norm and activation come before each convolution (pre-activation ResNet, Wide ResNet).

Letters: B batch, C input channels, O output channels, H W cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from detect.models.blocks.conv import check_choice, make_activation
from detect.models.blocks.csp import CrossStage, Fusion
from detect.models.blocks.downsample import BLOCK_SIZE, HalvingPool, Kind
from detect.models.blocks.preactivation import PreConv
from detect.models.blocks.residual import block_points, divide_channels
from detect.models.registry import Block, register
from detect.models.resize import ResizePoint
from detect.structures import FeatureShape

PreBlockKind = Literal["basic", "bottleneck"]


class PreResidualBlock(nn.Module):
    """Batch norm → activation → convolutions, whose result is added to the input; the block's point lies behind.

    Args:
        in_channels: C.
        layers: the convolutions, the first without a norm of its own.
        shortcut: where the shape changes, what the activated map goes through before it is added; None adds the input
            itself.
        activation: name of the activation.

    Source: Identity Mappings in Deep Residual Networks (He et al., 2016), figure 1b; Wide Residual Networks (Zagoruyko
    and Komodakis, 2016), section 2. The published code of both has the shortcut read the activated map.
    """

    def __init__(self, in_channels: int, layers: nn.Module, shortcut: nn.Module | None, activation: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)
        self.layers = layers
        self.shortcut = shortcut
        self.point = ResizePoint()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / s, W / s), s the stride of the convolutions."""
        y = self.activation(self.norm(x))
        return self.point(self.layers(y) + (x if self.shortcut is None else self.shortcut(y)))


@dataclass(frozen=True)
class PreBlockForm:
    """What the blocks of a stage have in common; fields as for ``PreResidualStage``."""

    kind: PreBlockKind
    ratio: float
    projection_norm: bool
    activation: str

    def stack(self, in_channels: int, out_channels: int, repeats: int, stride: int) -> nn.Sequential:
        """``repeats`` blocks, of which the first changes width and size."""
        first = self.block(in_channels, out_channels, stride)
        return nn.Sequential(first, *(self.block(out_channels, out_channels, 1) for _ in range(repeats - 1)))

    def block(self, in_channels: int, out_channels: int, stride: int) -> PreResidualBlock:
        """One block from C to O channels."""
        shortcut: nn.Module | None = None
        if stride > 1 or in_channels != out_channels:
            shortcut = _conv(in_channels, out_channels, 1, stride)
            if self.projection_norm:
                shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))
        return PreResidualBlock(in_channels, self._layers(in_channels, out_channels, stride), shortcut, self.activation)

    def _layers(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        if self.kind == "basic":
            return nn.Sequential(
                _conv(in_channels, out_channels, 3, stride), PreConv(out_channels, out_channels, 3, self.activation)
            )
        hidden = max(round(out_channels * self.ratio), 1)
        return nn.Sequential(
            _conv(in_channels, hidden, 1),
            PreConv(hidden, hidden, 3, self.activation, stride=stride),
            PreConv(hidden, out_channels, 1, self.activation),
        )


class PreDivide(nn.Module):
    """Division by two 1x1 convolutions that each see all channels, behind a norm and an activation each.

    Args:
        in_channels: C.
        bypass_channels: of the part that passes by.
        computed_channels: of the part that is computed.
        activation: name of the activation in front of both.
        halve: whether the part that passes by is halved by a 2x2 max-pool, where the computed part halves itself.
    """

    def __init__(
        self, in_channels: int, bypass_channels: int, computed_channels: int, activation: str, halve: bool
    ) -> None:
        super().__init__()
        self.bypass = PreConv(in_channels, bypass_channels, 1, activation)
        self.computed = PreConv(in_channels, computed_channels, 1, activation)
        self.pool = HalvingPool() if halve else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to what passes by and what is computed."""
        return self.pool(self.bypass(x)), self.computed(x)


@register
class PreResidualStage(Block):
    """Residual blocks in pre-activation at one resolution, plain or cross-stage-partial.

    ``basic`` is 3x3 → 3x3, ``bottleneck`` 1x1 → 3x3 → 1x1. Behind the last stage stands a ``NormActivation``. When
    partial, two 1x1 convolutions divide the input into ``gamma`` of the output's channels, which pass by, and the rest,
    on which the blocks run; these and the transitions are in pre-activation too.

    Args:
        in_channels: C.
        out_channels: O / ``widen``.
        block: kind of the blocks.
        repeats: blocks.
        ratio: inner channels of ``bottleneck``, as a share of its output.
        widen: factor on ``out_channels``; unlike the model's width, not on the stem's.
        halve: whether the stage halves the map: ``stride`` in the first block's (first) 3x3 convolution; in ``spd``,
            space-to-depth and a convolution back to C channels (1x1, for ``basic`` 3x3) come first.
        projection_norm: whether a batch norm follows the 1x1 convolution on the shortcut of a block that changes the
            shape.
        downsample: ``stride`` or ``spd``.
        fusion: how the parts are joined; ``none`` is the plain stage.
        gamma: share of O that passes by, in (0, 1).
        activation: name of the activation.

    Source: Identity Mappings in Deep Residual Networks (He et al., 2016); Wide Residual Networks (Zagoruyko and
    Komodakis, 2016), section 2, for ``widen``; CSPNet (Wang et al., 2020), section 3.1; SPD-Conv, Table 3, for ``spd``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block: PreBlockKind = "basic",
        repeats: int = 1,
        ratio: float = 1.0,
        widen: int = 1,
        halve: bool = False,
        projection_norm: bool = False,
        downsample: Kind = "stride",
        fusion: Fusion = "none",
        gamma: float = 0.5,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_choice("block", block, get_args(PreBlockKind))
        check_choice("downsample", downsample, get_args(Kind))
        check_choice("fusion", fusion, get_args(Fusion))
        form = PreBlockForm(block, ratio, projection_norm, activation)
        out = self.out_channels = out_channels * widen
        self.reduction = stride = BLOCK_SIZE if halve else 1
        self.down: nn.Module = nn.Identity()
        if halve and downsample == "spd":
            kernel_size, stride = 3 if block == "basic" else 1, 1
            self.down = PreConv(in_channels, in_channels, kernel_size, activation, block_size=BLOCK_SIZE)
        if fusion == "none":
            self.stage: nn.Module = form.stack(in_channels, out, repeats, stride)
            return
        bypass, computed = divide_channels(out, gamma)
        self.stage = CrossStage(
            PreDivide(in_channels, bypass, computed, activation, halve=stride > 1),
            form.stack(computed, computed, repeats, stride),
            nn.Identity() if fusion == "first" else PreConv(computed, computed, 1, activation),
            nn.Identity() if fusion == "last" else PreConv(out, out, 1, activation),
            bypass_first=False,
        )

    @property
    def points(self) -> list[ResizePoint]:
        """Of a plain stage, one behind each block."""
        return block_points(self.stage)

    @property
    def point_behind(self) -> bool:
        """Whether the stage is cross-stage-partial."""
        return isinstance(self.stage, CrossStage)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W), or to half the size."""
        return self.stage(self.down(x))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same or twice the reduction."""
        return FeatureShape(self.out_channels, inputs[0].reduction * self.reduction)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution alone."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
