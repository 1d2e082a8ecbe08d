"""Residual stages, plain or cross-stage-partial: Darknet, ResNet, ResNeXt.

Letters: B batch, C input channels, O output channels, H W cells, s stride.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.ops import DropBlock2d

from detect.errors import InputError
from detect.models.blocks.conv import BareConv, Conv, NormActivation, make_activation
from detect.models.blocks.csp import ConvDivide, CrossStage, Fusion, divide_channels
from detect.models.blocks.downsample import BLOCK_SIZE, HalvingPool, Kind, SpaceToDepth
from detect.models.blocks.space_to_depth import Piece, Pieces, space_to_depth
from detect.models.rearrangement import (
    Channels,
    State,
    fold_kernel,
    identity_norm,
    prefixed,
    rearrange,
    rearrange_parts,
)
from detect.models.registry import Block, BlockOptions, ResizePoint, check_probability, register
from detect.structures import FeatureShape

DROP_CELLS = 7
"""Side of the squares that DropBlock sets to 0."""

BlockKind = Literal["basic", "bottleneck", "darknet"]
Shortcut = Literal["partial", "projection", "pool"]
SpdForm = Literal["conv", "absorb", "inside"]
"""Place of a halving stage's space-to-depth, and the reader of its 4*C channels. ``conv``: in front of the stage, read
by a convolution back to C channels. ``absorb``: in front, read by the first block. ``inside``: in the first block
behind its 3x3 convolution, read by the block's last convolution; the shortcut keeps its stride."""


def partial_add(x: Tensor, shortcut: Tensor, stride: int = 1) -> Tensor:
    """Add every ``stride``-th row and column of ``shortcut`` (B, C2, stride * H, stride * W) to ``x`` (B, C1, H, W).
    The first min(C1, C2) channels are added, without weights; the others of ``x`` stay.
    Source: Darknet's ``shortcut`` layer; Wang et al., "Enriching Variety of Layer-wise Learning Information by Gradient
    Combination" (2019).
    """
    if stride > 1:
        shortcut = shortcut[..., ::stride, ::stride]  # (B, C2, H, W)
    channels = min(x.shape[1], shortcut.shape[1])
    total = x[:, :channels] + shortcut[:, :channels]
    return total if channels == x.shape[1] else torch.cat([total, x[:, channels:]], dim=1)


def block_points(stage: nn.Module) -> list[ResizePoint]:
    """Return the points of a stack of blocks; none where the blocks are a part of a cross-stage-partial stage."""
    return [] if isinstance(stage, CrossStage) else [m for m in stage.modules() if isinstance(m, ResizePoint)]


class ResidualBlock(nn.Module):
    """Convolutions whose input is added to their output; its point lies between the addition and the activation.

    Args:
        layers: the convolutions.
        shortcut: from the input to what is added.
        stride: step between the rows and columns of the shortcut's output that are added.
        activation: name of the activation behind the addition.
    """

    def __init__(self, layers: nn.Sequential, shortcut: nn.Module, stride: int, activation: str) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut
        self.stride = stride
        self.point = ResizePoint()
        self.activation = make_activation(activation)
        self.drop: nn.Module = nn.Identity()
        """In training, of the convolutions' and the shortcut's output alike."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / s, W / s)."""
        y, skipped = self.drop(self.layers(x)), self.drop(self.shortcut(x))
        return self.activation(self.point(partial_add(y, skipped, self.stride)))

    def from_strided(self, strided: nn.Module, inputs: Sequence[Channels]) -> State:
        """See ``HasStridedForm``; a space-to-depth between the layers puts the strided map into its first sub-map."""
        state = rearrange_parts(self, strided, inputs)
        if isinstance(strided, ResidualBlock) and any(isinstance(layer, SpaceToDepth) for layer in self.layers):
            halving = strided.layers[-2]
            assert isinstance(halving, Conv), "the strided convolution is the last but one"
            copies, hidden, behind = BLOCK_SIZE**2, halving.conv.out_channels, len(self.layers) - 1
            norm = {name: t.repeat(copies) if t.ndim else t for name, t in halving.norm.state_dict().items()}
            reads = [Channels.first(hidden, hidden * copies)]
            state |= prefixed(f"layers.{behind - 1}.norm", norm)
            state |= prefixed(f"layers.{behind}", rearrange(self.layers[behind], strided.layers[-1], reads))
        return state


@dataclass(frozen=True)
class ResidualOptions(BlockOptions):
    """Keywords of ``ResidualStage``.

    Args:
        out_channels: O. With ``fusion: last`` the output has ``divided_channels``.
        block: kind of the blocks.
        repeats: number of blocks.
        ratio: inner channels of ``bottleneck`` and ``darknet``, as a share of their output.
        groups: of the 3x3 convolution of ``bottleneck`` (ResNeXt); where they do not divide its channels, as in a
            narrower model, their greatest common divisor.
        halve: halve the map: ``stride`` in the first block's (first) 3x3 convolution; in ``spd``, a space-to-depth and
            a convolution back to C channels come first, unless ``spd_form`` says otherwise.
        shortcut: of a block that changes the shape: ``partial`` adds the channels that both have, ``projection`` is a
            1x1 convolution, ``pool`` a 2x2 max-pool.
        downsample: ``stride`` or ``spd``.
        spd_form: of ``spd``: ``conv``, ``absorb`` or ``inside`` (``SpdForm``).
        spd_kernel_size: of the convolution of ``conv``, odd; by default 1, for ``basic`` blocks 3.
        fusion: order in which the parts are joined; ``none`` is the plain stage.
        gamma: share of the divided channels that pass by, in (0, 1).
        divided_channels: channels of both parts together; O by default.
        entry_channels: of the convolution in front of the blocks; by default as many as they have.
        divide_activation: activation of the dividing convolutions; by default ``activation``.
        activation: name of the activation.
        drop_block: probability of DropBlock behind the last convolution and the shortcut of each block, in [0, 1).
            Source: Ghiasi et al. 2018, "DropBlock" (arXiv:1810.12890), section 4.1, with its 7x7 cells; it also drops
            behind the other convolutions, and raises the probability from 0 during the training.
    """

    out_channels: int
    block: BlockKind = "basic"
    repeats: int = 1
    ratio: float = 1.0
    groups: int = 1
    halve: bool = False
    shortcut: Shortcut = "partial"
    downsample: Kind = "stride"
    spd_form: SpdForm = "conv"
    spd_kernel_size: int | None = None
    fusion: Fusion = "none"
    gamma: float = 0.5
    divided_channels: int | None = None
    entry_channels: int | None = None
    divide_activation: str | None = None
    activation: str = "relu"
    drop_block: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probability("drop_block", self.drop_block)
        if self.downsample != "spd" and self.spd_form != "conv":
            raise InputError(f"spd_form: belongs to downsample spd, found {self.spd_form} with {self.downsample}")
        if self.spd_kernel_size is not None and (self.downsample != "spd" or self.spd_form != "conv"):
            found = self.spd_form if self.downsample == "spd" else self.downsample
            raise InputError(
                "spd_kernel_size: belongs to downsample spd with spd_form conv, "
                f"found {self.spd_kernel_size} with {found}"
            )
        if self.spd_form == "inside" and self.block == "darknet":
            raise InputError("spd_form: inside belongs to blocks basic and bottleneck, found darknet")

    def hidden(self, out_channels: int) -> int:
        """Inner channels of a block with O channels."""
        return max(round(out_channels * self.ratio), 1)


class StageForm(ABC):
    """Blocks and 1x1 convolutions of a stage, and their assembly."""

    fusion: Fusion
    gamma: float
    repeats: int

    @abstractmethod
    def block(self, in_channels: int, out_channels: int, stride: int) -> nn.Module: ...

    @abstractmethod
    def conv1x1(self, in_channels: int, out_channels: int) -> nn.Module: ...

    def dividing_conv(self, in_channels: int, out_channels: int) -> nn.Module:
        return self.conv1x1(in_channels, out_channels)

    def stack(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        """Return the blocks; the first one changes width and size."""
        first = self.block(in_channels, out_channels, stride)
        return nn.Sequential(first, *(self.block(out_channels, out_channels, 1) for _ in range(self.repeats - 1)))

    def stage(
        self, in_channels: int, out_channels: int, stride: int, divided: int | None = None, entry: int | None = None
    ) -> nn.Module:
        """Return the blocks, in a cross stage unless ``fusion`` is ``none``.

        Args:
            in_channels: C.
            out_channels: O.
            stride: s.
            divided: channels of both parts together; O by default.
            entry: channels in front of the blocks; by default those of the computed part.
        """
        if self.fusion == "none":
            return self.stack(in_channels, out_channels, stride)
        divided = divided or out_channels
        bypass, computed = divide_channels(divided, self.gamma)
        entry = entry or computed
        # (B, C, H, W) to bypass and computed channels, blocks on the computed ones, then their concatenation to O
        return CrossStage(
            ConvDivide(
                self.dividing_conv(in_channels, bypass), self.dividing_conv(in_channels, entry), halve=stride > 1
            ),
            self.stack(entry, computed, stride),
            nn.Identity() if self.fusion == "first" else self.conv1x1(computed, computed),
            nn.Identity() if self.fusion == "last" else self.conv1x1(divided, out_channels),
            bypass_first=False,
        )


class _ResidualForm(StageForm):
    """Blocks with norm and activation behind each convolution."""

    def __init__(self, options: ResidualOptions) -> None:
        self.options = options
        self.fusion, self.gamma, self.repeats = options.fusion, options.gamma, options.repeats

    def conv1x1(self, in_channels: int, out_channels: int) -> Conv:
        return Conv(in_channels, out_channels, 1, activation=self.options.activation)

    def dividing_conv(self, in_channels: int, out_channels: int) -> Conv:
        options = self.options
        return Conv(in_channels, out_channels, 1, activation=options.divide_activation or options.activation)

    def block(self, in_channels: int, out_channels: int, stride: int) -> ResidualBlock:
        shortcut, kind = self.options.shortcut, self.options.block
        path: nn.Module = nn.Identity()
        skipped = stride  # a shortcut that keeps the size is read with the block's stride
        if shortcut == "projection" and (stride > 1 or in_channels != out_channels):
            path, skipped = Conv(in_channels, out_channels, 1, stride, activation="none"), 1
        elif shortcut == "pool" and stride > 1:
            path, skipped = HalvingPool(), 1
        behind = "none" if kind == "darknet" else self.options.activation
        block = ResidualBlock(self._layers(in_channels, out_channels, stride), path, skipped, behind)
        if self.options.drop_block:
            block.drop = DropBlock2d(self.options.drop_block, DROP_CELLS)
        return block

    def _layers(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        activation, kind = self.options.activation, self.options.block
        if stride > 1 and self.options.spd_form == "inside":
            return self._layers_around_space_to_depth(in_channels, out_channels)
        if kind == "basic":
            return nn.Sequential(
                Conv(in_channels, out_channels, 3, stride, activation=activation),
                Conv(out_channels, out_channels, 3, activation="none"),
            )
        hidden = self.options.hidden(out_channels)
        if kind == "darknet":
            return nn.Sequential(
                Conv(in_channels, hidden, 1, activation=activation),
                Conv(hidden, out_channels, 3, stride, activation=activation),
            )
        return nn.Sequential(
            Conv(in_channels, hidden, 1, activation=activation),
            Conv(hidden, hidden, 3, stride, math.gcd(self.options.groups, hidden), activation),
            Conv(hidden, out_channels, 1, activation="none"),
        )

    def _layers_around_space_to_depth(self, in_channels: int, out_channels: int) -> nn.Sequential:
        """Halve by a space-to-depth between the 3x3 convolution and its norm, which so has 4 times the channels."""
        activation = self.options.activation
        first: list[nn.Module] = []
        hidden, groups, last_kernel = out_channels, 1, 3
        if self.options.block == "bottleneck":  # its 1x1 convolution comes first and narrows
            hidden, last_kernel = self.options.hidden(out_channels), 1
            groups = math.gcd(self.options.groups, hidden)
            first, in_channels = [self.conv1x1(in_channels, hidden)], hidden
        folded = hidden * BLOCK_SIZE**2
        return nn.Sequential(
            *first,
            BareConv(in_channels, hidden, 3, groups),
            SpaceToDepth(),
            NormActivation(folded, activation),
            Conv(folded, out_channels, last_kernel, activation="none"),
        )


class StackedStage(Block):
    """Interface of a stage of residual blocks; subclasses set the three attributes."""

    stage: nn.Module
    out_channels: int
    reduction: int

    @property
    def points(self) -> list[ResizePoint]:
        """Points of the blocks of a plain stage, one in each."""
        return block_points(self.stage)

    @property
    def point_behind(self) -> bool:
        return isinstance(self.stage, CrossStage)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.out_channels, inputs[0].reduction * self.reduction)


@register
class ResidualStage(StackedStage):
    """Residual blocks at one resolution, plain or cross-stage-partial.

    ``basic`` is 3x3 → 3x3; ``bottleneck`` 1x1 → 3x3 → 1x1, both with the activation behind the addition; ``darknet``
    1x1 → 3x3 with none there. When partial, two 1x1 convolutions divide the input into ``gamma`` of
    ``divided_channels``, which pass by, and the rest, on which the blocks run; transitions are 1x1 convolutions.

    Args:
        in_channels: C.
        options: further keywords.

    Source: ResNet (He et al., 2016); ResNeXt (Xie et al., 2017); YOLOv3 (Redmon and Farhadi, 2018); CSPNet (Wang et
    al., 2020), section 3.1 and figure 5; SPD-Conv, Table 3, for ``spd``, and its published code for ``inside``. Table 3
    does not say what reads the 4*C channels: ``conv`` and ``absorb`` are readings of it, and so is the kernel size.
    """

    Options = ResidualOptions
    widths: ClassVar[tuple[str, ...]] = ("out_channels", "divided_channels", "entry_channels")

    def __init__(self, in_channels: int, options: ResidualOptions) -> None:
        super().__init__()
        self.reduction = BLOCK_SIZE if options.halve else 1
        self.folds_first = options.halve and options.downsample == "spd" and options.spd_form != "inside"
        stride = 1 if self.folds_first else self.reduction  # the space-to-depth in front halves, no block has a stride
        self.down: Conv | None = None
        if self.folds_first:
            folded = in_channels * BLOCK_SIZE**2
            if options.spd_form == "absorb":
                in_channels = folded  # the first block reads all 4*C channels
            else:
                kernel_size = options.spd_kernel_size or (3 if options.block == "basic" else 1)
                self.down = Conv(folded, in_channels, kernel_size, activation=options.activation)
        out, divided = options.out_channels, options.divided_channels
        self.out_channels = (divided or out) if options.fusion == "last" else out
        self.stage = _ResidualForm(options).stage(in_channels, out, stride, divided, options.entry_channels)

    @property
    def accepts_pieces(self) -> bool:
        """True where the stage starts with 1x1 convolutions, which read its input in pieces."""
        return isinstance(self.stage, CrossStage) and not self.folds_first

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W), or pieces, to (B, O, H, W), or to half the size."""
        if self.folds_first:
            assert isinstance(x, Tensor), "only a stage that starts with 1x1 convolutions accepts pieces"
            x = space_to_depth(x, BLOCK_SIZE) if self.down is None else self.down((Piece(x, BLOCK_SIZE),))
        return self.stage(x)

    def from_strided(self, strided: nn.Module, inputs: Sequence[Channels]) -> State:
        """See ``HasStridedForm``. With ``spd_form: conv`` nearly: C channels cannot hold what a 3x3 window reads."""
        state = rearrange_parts(self, strided, inputs)
        if self.down is not None and isinstance(strided, ResidualStage):
            state |= prefixed("down", _even_cells(self.down))
            for name, layer in strided.stage.named_modules():
                if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2) and layer.kernel_size == (3, 3):
                    state[f"stage.{name}.weight"] = narrow_taps(layer.weight)
        return state


def _even_cells(conv: Conv) -> State:
    """Return the weights with which a convolution of a space-to-depth returns even rows and columns, if positive."""
    identity = torch.eye(conv.conv.out_channels)[..., None, None]  # (C, C, 1, 1)
    kernel = fold_kernel(identity, conv.conv.kernel_size[0], BLOCK_SIZE)
    return {"conv.weight": kernel, **prefixed("norm", identity_norm(conv.norm))}


def narrow_taps(weight: Tensor) -> Tensor:
    """Return the 3x3 kernel for every second cell that is nearest to ``weight`` (O, C, 3, 3) on all cells."""
    # A tap at a distance of half a cell goes in equal parts to the cells on both sides: linear interpolation.
    move = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]).to(weight)  # taps to cells
    return torch.einsum("ocyx,yr,xq->ocrq", weight, move, move)
