"""Residual stages (Darknet, ResNet, ResNeXt), plain or cross-stage-partial.

Letters: B batch, C input channels, O output channels, H W cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv, Piece, Pieces, check_choice, make_activation, space_to_depth
from detect.models.blocks.csp import ConvDivide, CrossStage, Fusion
from detect.models.blocks.downsample import BLOCK_SIZE, HalvingPool, Kind, SpaceToDepth
from detect.models.blocks.preactivation import BareConv, NormActivation
from detect.models.registry import Block, register
from detect.models.resize import ResizePoint
from detect.structures import FeatureShape

BlockKind = Literal["basic", "bottleneck", "darknet"]
Shortcut = Literal["partial", "projection", "pool"]
SpdForm = Literal["conv", "absorb", "inside"]
"""Where the space-to-depth of a halving stage is, and what reads its 4*C channels: in front of the stage, a convolution
back to C channels (``conv``) or the first block itself (``absorb``); or in the first block behind its 3x3 convolution,
the block's last one (``inside``), where the shortcut keeps its stride."""


def partial_add(x: Tensor, shortcut: Tensor, stride: int = 1) -> Tensor:
    """Residual addition of maps that may differ in width and size, without weights.

    Args:
        x: (B, C1, H, W).
        shortcut: (B, C2, stride * H, stride * W).
        stride: every so many rows and columns of ``shortcut`` count.

    Returns:
        (B, C1, H, W): ``shortcut`` is added to the first min(C1, C2) channels; the others stay.

    Source: Darknet's ``shortcut`` layer; Wang et al., "Enriching Variety of Layer-wise Learning Information by Gradient
    Combination" (2019).
    """
    if stride > 1:
        shortcut = shortcut[..., ::stride, ::stride]
    channels = min(x.shape[1], shortcut.shape[1])
    total = x[:, :channels] + shortcut[:, :channels]
    return total if channels == x.shape[1] else torch.cat([total, x[:, channels:]], dim=1)


class ResidualBlock(nn.Module):
    """Convolutions whose input is added to their output; its point lies between the addition and the activation.

    Args:
        layers: the convolutions.
        shortcut: what the input goes through before it is added.
        stride: every so many rows and columns of what the shortcut gives count.
        activation: name of the activation behind the addition.
    """

    def __init__(self, layers: nn.Module, shortcut: nn.Module, stride: int, activation: str) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut
        self.stride = stride
        self.point = ResizePoint()
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / s, W / s), s the stride of the convolutions."""
        return self.activation(self.point(partial_add(self.layers(x), self.shortcut(x), self.stride)))


@dataclass(frozen=True)
class BlockForm:
    """What the residual blocks of a stage have in common; fields as for ``ResidualStage``, ``inside`` for ``spd``."""

    kind: BlockKind
    ratio: float
    groups: int
    shortcut: Shortcut
    activation: str
    inside: bool = False

    def stack(self, in_channels: int, out_channels: int, repeats: int, stride: int) -> nn.Sequential:
        """``repeats`` blocks, of which the first changes width and size."""
        first = self.block(in_channels, out_channels, stride)
        return nn.Sequential(first, *(self.block(out_channels, out_channels, 1) for _ in range(repeats - 1)))

    def block(self, in_channels: int, out_channels: int, stride: int) -> ResidualBlock:
        """One block from C to O channels."""
        path: nn.Module = nn.Identity()
        skipped = stride
        if self.shortcut == "projection" and (stride > 1 or in_channels != out_channels):
            path, skipped = Conv(in_channels, out_channels, 1, stride, activation="none"), 1
        elif self.shortcut == "pool" and stride > 1:
            path, skipped = HalvingPool(), 1
        behind = "none" if self.kind == "darknet" else self.activation
        return ResidualBlock(self._layers(in_channels, out_channels, stride), path, skipped, behind)

    def _layers(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        activation = self.activation
        if stride > 1 and self.inside:
            return self._layers_around_space_to_depth(in_channels, out_channels)
        if self.kind == "basic":
            return nn.Sequential(
                Conv(in_channels, out_channels, 3, stride, activation=activation),
                Conv(out_channels, out_channels, 3, activation="none"),
            )
        hidden = self._hidden(out_channels)
        if self.kind == "darknet":
            return nn.Sequential(
                Conv(in_channels, hidden, 1, activation=activation),
                Conv(hidden, out_channels, 3, stride, activation=activation),
            )
        return nn.Sequential(
            Conv(in_channels, hidden, 1, activation=activation),
            Conv(hidden, hidden, 3, stride, math.gcd(self.groups, hidden), activation),
            Conv(hidden, out_channels, 1, activation="none"),
        )

    def _layers_around_space_to_depth(self, in_channels: int, out_channels: int) -> nn.Sequential:
        """Halving by a space-to-depth between the 3x3 convolution and its norm, which so has 4 times the channels."""
        first: list[nn.Module] = []
        hidden, groups, last_kernel = out_channels, 1, 3
        if self.kind == "bottleneck":
            hidden, last_kernel = self._hidden(out_channels), 1
            groups = math.gcd(self.groups, hidden)
            first, in_channels = [Conv(in_channels, hidden, 1, activation=self.activation)], hidden
        folded = hidden * BLOCK_SIZE**2
        return nn.Sequential(
            *first,
            BareConv(in_channels, hidden, 3, groups),
            SpaceToDepth(),
            NormActivation(folded, self.activation),
            Conv(folded, out_channels, last_kernel, activation="none"),
        )

    def _hidden(self, out_channels: int) -> int:
        return max(round(out_channels * self.ratio), 1)


@register
class ResidualStage(Block):
    """Residual blocks at one resolution, plain or cross-stage-partial.

    ``basic`` is 3x3 → 3x3; ``bottleneck`` 1x1 → 3x3 → 1x1, both with the activation behind the addition; ``darknet``
    1x1 → 3x3 with none there. When partial, two 1x1 convolutions divide the input into ``gamma`` of
    ``divided_channels``, which pass by, and the rest, on which the blocks run; transitions are 1x1 convolutions.

    Args:
        in_channels: C.
        out_channels: O. With ``fusion: last`` the output has ``divided_channels``.
        block: kind of the blocks.
        repeats: blocks.
        ratio: inner channels of ``bottleneck`` and ``darknet``, as a share of their output.
        groups: of the 3x3 convolution of ``bottleneck`` (ResNeXt); where they do not divide its channels, as in a
            narrower model, their greatest common divisor.
        halve: whether the stage halves the map: ``stride`` in the first block's (first) 3x3 convolution; in ``spd``,
            space-to-depth and a convolution back to C channels come first, unless ``spd_form`` says otherwise.
        shortcut: of a block that changes the shape: ``partial`` adds the channels that there are, ``projection`` is a
            1x1 convolution, ``pool`` a 2x2 max-pool.
        downsample: ``stride`` or ``spd``.
        spd_form: of ``spd``: ``conv``, ``absorb`` or ``inside`` (``SpdForm``).
        spd_kernel_size: of the convolution of ``conv``, odd; by default 1, for ``basic`` blocks 3.
        fusion: how the parts are joined; ``none`` is the plain stage.
        gamma: share of the divided channels that pass by, in (0, 1).
        divided_channels: see above; O by default.
        entry_channels: of the convolution in front of the blocks; by default as many as they have.
        divide_activation: activation of the dividing convolutions; by default ``activation``.
        activation: name of the activation.

    Source: ResNet (He et al., 2016); ResNeXt (Xie et al., 2017); YOLOv3 (Redmon and Farhadi, 2018); CSPNet (Wang et
    al., 2020), section 3.1 and figure 5; SPD-Conv, Table 3, for ``spd``, and its published code for ``inside``. Table 3
    does not say what reads the 4*C channels: ``conv`` and ``absorb`` are readings of it, and so is the kernel size.
    """

    widths: ClassVar[tuple[str, ...]] = ("out_channels", "divided_channels", "entry_channels")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block: BlockKind = "basic",
        repeats: int = 1,
        ratio: float = 1.0,
        groups: int = 1,
        halve: bool = False,
        shortcut: Shortcut = "partial",
        downsample: Kind = "stride",
        spd_form: SpdForm = "conv",
        spd_kernel_size: int | None = None,
        fusion: Fusion = "none",
        gamma: float = 0.5,
        divided_channels: int | None = None,
        entry_channels: int | None = None,
        divide_activation: str | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        for word, value, kind in [
            ("block", block, BlockKind),
            ("shortcut", shortcut, Shortcut),
            ("downsample", downsample, Kind),
            ("spd_form", spd_form, SpdForm),
            ("fusion", fusion, Fusion),
        ]:
            check_choice(word, value, get_args(kind))
        _check_spd_words(block, downsample, spd_form, spd_kernel_size)
        form = BlockForm(block, ratio, groups, shortcut, activation, spd_form == "inside")
        self.reduction = BLOCK_SIZE if halve else 1
        self.folds_first = halve and downsample == "spd" and spd_form != "inside"
        stride = 1 if self.folds_first else self.reduction
        self.down: Conv | None = None
        if self.folds_first:
            folded = in_channels * BLOCK_SIZE**2
            if spd_form == "absorb":
                in_channels = folded
            else:
                kernel_size = spd_kernel_size or (3 if block == "basic" else 1)
                self.down = Conv(folded, in_channels, kernel_size, activation=activation)
        self.out_channels = out_channels
        if fusion == "none":
            self.stage: nn.Module = form.stack(in_channels, out_channels, repeats, stride)
            return
        divided = divided_channels or out_channels
        bypass, computed = divide_channels(divided, gamma)
        entry = entry_channels or computed
        self.out_channels = divided if fusion == "last" else out_channels
        self.stage = CrossStage(
            ConvDivide(in_channels, bypass, entry, divide_activation or activation, halve=stride > 1),
            form.stack(entry, computed, repeats, stride),
            nn.Identity() if fusion == "first" else Conv(computed, computed, 1, activation=activation),
            nn.Identity() if fusion == "last" else Conv(divided, out_channels, 1, activation=activation),
            bypass_first=False,
        )

    @property
    def accepts_pieces(self) -> bool:
        """Whether the stage starts with 1x1 convolutions that read its input in pieces."""
        return isinstance(self.stage, CrossStage) and not self.folds_first

    @property
    def points(self) -> list[ResizePoint]:
        """Of a plain stage, one in each block."""
        return block_points(self.stage)

    @property
    def point_behind(self) -> bool:
        """Whether the stage is cross-stage-partial."""
        return isinstance(self.stage, CrossStage)

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W), or pieces, to (B, O, H, W), or to half the size."""
        if self.folds_first:
            assert isinstance(x, Tensor), "only a stage that starts with 1x1 convolutions accepts pieces"
            x = space_to_depth(x, BLOCK_SIZE) if self.down is None else self.down((Piece(x, BLOCK_SIZE),))
        return self.stage(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same or twice the reduction."""
        return FeatureShape(self.out_channels, inputs[0].reduction * self.reduction)


def block_points(stage: nn.Module) -> list[ResizePoint]:
    """The points of a stack of blocks; none where the blocks are only a part of a cross-stage-partial stage."""
    return [] if isinstance(stage, CrossStage) else [m for m in stage.modules() if isinstance(m, ResizePoint)]


def _check_spd_words(block: BlockKind, downsample: Kind, spd_form: SpdForm, spd_kernel_size: int | None) -> None:
    """Refuse words of ``spd`` that would have no effect."""
    if downsample != "spd" and spd_form != "conv":
        raise InputError(f"spd_form: belongs to downsample spd, found {spd_form} with {downsample}")
    if spd_kernel_size is not None and (downsample != "spd" or spd_form != "conv"):
        found = spd_form if downsample == "spd" else downsample
        raise InputError(
            f"spd_kernel_size: belongs to downsample spd with spd_form conv, found {spd_kernel_size} with {found}"
        )
    if spd_form == "inside" and block == "darknet":
        raise InputError("spd_form: inside belongs to blocks basic and bottleneck, found darknet")


def divide_channels(channels: int, gamma: float) -> tuple[int, int]:
    """How many channels pass by and how many are computed."""
    bypass = round(gamma * channels)
    if not 0 < gamma < 1 or not 0 < bypass < channels:
        raise InputError(
            f"gamma: must be between 0 and 1, and leave some of {channels} channels on each side, found {gamma!r}"
        )
    return bypass, channels - bypass
