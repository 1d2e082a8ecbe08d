"""Convolutions: with norm and activation behind or in front, alone, and of a space-to-depth that is never carried out.

The order of channels behind a space-to-depth is the SPD-Conv paper's, (j*s + i)*C + c for column offset j and row
offset i; that of ``torch.nn.functional.pixel_unshuffle`` is another, c*s*s + i*s + j.
Letters: B batch, C channels of a map, O output channels, H W cells, k kernel size, s block size of a space-to-depth.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detect.config.model import Convolutions
from detect.errors import InputError
from detect.models.rearrangement import Channels, State, rearrange_parts, rearrange_pooled
from detect.models.registry import Block, ResizePoint, register
from detect.runtime.plugins import require_plugin
from detect.structures import FeatureShape

LEAKY_SLOPE = 0.1
"""Of Darknet's leaky ReLU."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": lambda: nn.SiLU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "none": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """Return an activation by its name, in place where possible. The papers call ``silu`` swish."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"activation: unknown {name!r}; allowed: {known} (what the papers call swish is silu)")
    return ACTIVATIONS[name]()


@dataclass(frozen=True)
class Piece:
    """Some channels of a convolution's input.

    Args:
        map: (B, C, s*H, s*W), a map whose space-to-depth by ``block_size`` has not been carried out.
        block_size: s; 1 is the map itself.
    """

    map: Tensor
    block_size: int = 1


Pieces = tuple[Piece, ...]
"""The input of a convolution as a concatenation along the channels."""


def convolve(conv: nn.Module, x: Tensor | Pieces) -> Tensor:
    """Convolve a map, or the concatenation of pieces without building it.

    A k x k convolution of stride 1 after a space-to-depth by s equals a (k*s) x (k*s) convolution of stride s with the
    same weights, rearranged: no copy of the map is needed, and the arithmetic is the same. A convolution of a
    concatenation is the sum of the convolutions of its parts.

    Args:
        conv: convolution of stride 1, dilation 1 and padding k // 2; or a module in the place of one (``SteppedConv``),
            which takes pieces itself.
        x: (B, C, H, W), or pieces with C channels in all after their space-to-depth.

    Returns:
        (B, O, H, W).
    """
    if isinstance(x, Tensor) or not isinstance(conv, nn.Conv2d):
        convolved: Tensor = conv(x)
        return convolved
    if conv.groups > 1:  # a group reads channels of several pieces
        return F.conv2d(joined(x), conv.weight, conv.bias, padding=conv.padding, groups=conv.groups)
    channels = [piece.map.shape[1] * piece.block_size**2 for piece in x]
    weights = conv.weight.split(channels, dim=1)
    bias = conv.bias
    total: Tensor | None = None
    for piece, weight in zip(x, weights, strict=True):
        s = piece.block_size
        padding = conv.kernel_size[0] // 2 * s
        # (B, C, s*H, s*W) to (B, O, H, W)
        part = F.conv2d(whole_blocks(piece.map, s), unfold_kernel(weight, s), bias, stride=s, padding=padding)
        total = part if total is None else total + part
        bias = None  # added once, with the first piece
    assert total is not None, "a convolution needs an input"
    return total


def joined(pieces: Pieces) -> Tensor:
    """Return the concatenation (B, C, H, W) of pieces after their space-to-depth."""
    return torch.cat([space_to_depth(piece.map, piece.block_size) for piece in pieces], dim=1)


class SteppedConv(nn.Module):
    """Several steps that replace one k x k convolution (``detect.papers.bdsc``); takes a map or pieces.

    It has the convolution's ``out_channels``, ``stride`` and ``groups``, and a ``norm`` between its steps.
    """

    last: ClassVar[str]
    """Name of its last convolution, into which a norm behind the module can be fused."""

    def fuse(self) -> None:
        """Fold the norm and binary weights into ordinary convolutions, in place; in evaluation mode."""
        raise NotImplementedError


class SeparableConv(SteppedConv):
    """k x k convolution of each channel on its own → batch norm → activation → 1x1 convolution.

    Args:
        replaced: an ordinary convolution; its stride and padding go to the first step, its bias to the second.
        activation: between the two.

    Source: MobileNets (Howard et al., 2017), section 3.1.
    """

    last = "pointwise"

    def __init__(self, replaced: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        channels = replaced.in_channels
        made: dict[str, Any] = {"device": replaced.weight.device, "dtype": replaced.weight.dtype}
        window: dict[str, Any] = {key: getattr(replaced, key) for key in ("kernel_size", "stride", "padding")}
        self.depthwise = nn.Conv2d(channels, channels, groups=channels, bias=False, **window, **made)
        self.norm = nn.BatchNorm2d(channels, **made)
        self.activation = activation
        self.pointwise = nn.Conv2d(channels, replaced.out_channels, 1, bias=replaced.bias is not None, **made)
        self.out_channels, self.stride, self.groups = replaced.out_channels, replaced.stride, 1

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H / stride, W / stride)."""
        if not isinstance(x, Tensor):
            x = joined(x)
        return self.pointwise(self.activation(self.norm(self.depthwise(x))))

    def fuse(self) -> None:
        fuse_norm(self, self, "depthwise")


def replace_convolutions(module: nn.Module, wanted: Convolutions) -> int:
    """Replace the k x k convolutions of a module in place by modules of the same names; return their number.

    1x1 convolutions and those of several groups stay. ``wanted`` is not ``standard``; an ``InputError`` reports a
    paper's kind that this installation does not have.
    """
    found = [
        (parent, name, conv)
        for parent in module.modules()
        for name, conv in parent.named_children()
        if isinstance(conv, nn.Conv2d) and conv.groups == 1 and max(conv.kernel_size) > 1
    ]
    for parent, name, conv in found:
        setattr(parent, name, _replacement(conv, parent, wanted))
    return len(found)


def _replacement(conv: nn.Conv2d, parent: nn.Module, wanted: Convolutions) -> nn.Module:
    if wanted.kind == "separable":  # with the activation of the module that holds the convolution, if that has one
        return SeparableConv(conv, copy.deepcopy(getattr(parent, "activation", nn.Identity())))
    module: nn.Module = require_plugin("convolutions", wanted.kind, f"conv: {wanted.kind}")(conv, wanted)
    return module


def fuse_norm(layer: nn.Module, parent: nn.Module, name: str) -> None:
    """Fold ``layer.norm``, if it is a batch norm, into the convolution ``parent.name``; in evaluation mode."""
    if isinstance(layer.norm, nn.BatchNorm2d):
        setattr(parent, name, fuse_conv_bn_eval(getattr(parent, name), layer.norm))
        layer.add_module("norm", nn.Identity())


def unfold_kernel(weight: Tensor, block_size: int) -> Tensor:
    """Return the kernel of stride ``block_size`` (s) that is equivalent to ``weight`` behind a space-to-depth.

    (O, s*s*C, k, k) to (O, C, k*s, k*s); channel (j*s + i)*C + c of ``weight`` holds row offset i, column offset j.

    Source: SPD-Conv (Sunkara and Luo, 2022), equation 1, for the channel order.
    """
    if block_size == 1:
        return weight
    num_out, folded, k, _ = weight.shape
    s = block_size
    channels = folded // (s * s)
    split = weight.view(num_out, s, s, channels, k, k)  # (O, j, i, C, k rows, k columns)
    # rows (k, i) and columns (k, j): the offset within a block is the inner index of each
    return split.permute(0, 3, 4, 2, 5, 1).reshape(num_out, channels, k * s, k * s)  # (O, C, k*s, k*s)


@register
class Conv(Block):
    """Convolution → batch norm → activation.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd, or even together with a stride.
        stride: 1 or more.
        groups: as in ``torch.nn.Conv2d``.
        activation: name of the activation.
        bias: give the convolution a bias. The norm cancels it; some published networks have it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "silu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if stride == 1 and kernel_size % 2 == 0:
            raise InputError(f"kernel_size: must be odd where the stride is 1, found {kernel_size}")
        # An even kernel with a stride of 2 (YOLOv5's 6x6 stem) is padded by one less than half: the map is halved.
        padding = (kernel_size - 1) // 2 if stride > 1 else kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = make_activation(activation)

    @property
    def accepts_pieces(self) -> bool:
        return self.conv.stride == (1, 1) and self.conv.groups == 1

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H / stride, W / stride)."""
        return self.activation(self.norm(convolve(self.conv, x)))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.conv.out_channels, inputs[0].reduction * self.conv.stride[0])


@register
class ConvStage(Block):
    """3x3 convolutions at one resolution, with a point behind each.

    Args:
        in_channels: C.
        out_channels: O, of each.
        repeats: convolutions.
        bias: give each a bias, in front of its norm.
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
        return [m for m in self.behind if isinstance(m, ResizePoint)]

    @property
    def accepts_pieces(self) -> bool:
        return True

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.out_channels, inputs[0].reduction)


class PreConv(nn.Module):
    """Batch norm → activation → convolution without bias.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd.
        activation: name of the activation.
        groups: as in ``torch.nn.Conv2d``; 1 with a space-to-depth.
        block_size: s, of a space-to-depth between activation and convolution; 1 for none.
        stride: of the convolution; 1 with a space-to-depth.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        activation: str,
        groups: int = 1,
        block_size: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)
        folded = in_channels * block_size**2
        self.conv = nn.Conv2d(folded, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.block_size = block_size
        self.dropout = 0.0
        """Probability, in training, that the convolution reads 0 in place of a value."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / s, W / s), or to (B, O, H / stride, W / stride)."""
        y = self.activation(self.norm(x))
        if self.dropout and self.training:
            y = F.dropout(y, self.dropout)
        return convolve(self.conv, y if self.block_size == 1 else (Piece(y, self.block_size),))

    def from_strided(self, strided: nn.Module, inputs: Sequence[Channels]) -> State:
        """See ``HasStridedForm``. Nearly: the pool of the strided form averages before norm and activation."""
        if self.block_size > 1 and isinstance(strided, nn.Sequential):
            return rearrange_pooled(self, strided)
        return rearrange_parts(self, strided, inputs)


@register
class NormActivation(Block):
    """Batch norm → activation, behind the last convolution of a pre-activation network.

    Args:
        in_channels: C.
        activation: name of the activation.
    """

    def __init__(self, in_channels: int, activation: str = "relu") -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.activation(self.norm(x))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return inputs[0]


@register
class BareConv(Block):
    """Convolution of stride 1 without bias, norm or activation: the first layer of a pre-activation network.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd.
        groups: as in ``torch.nn.Conv2d``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, groups: int = 1) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size: must be odd, found {kernel_size}")
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        return self.conv(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.conv.out_channels, inputs[0].reduction)


def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """Move (B, C, H, W) to (B, s*s*C, H/s, W/s), with zeros below or on the right where H or W is no multiple of s.
    Channel (j*s + i)*C + c is x[:, c, i::s, j::s]. Source: SPD-Conv (Sunkara and Luo, 2022), section 3.1, equation 1.
    """
    s = block_size
    x = whole_blocks(x, s)
    return torch.cat([x[..., i::s, j::s] for j in range(s) for i in range(s)], dim=1)


def whole_blocks(x: Tensor, block_size: int) -> Tensor:
    """Pad a map (B, C, H, W) with zeros below and on the right, so that its sides are multiples of ``block_size``."""
    # Other sides occur only behind an active point (SDPoint).
    below, right = -x.shape[2] % block_size, -x.shape[3] % block_size
    return F.pad(x, (0, right, 0, below)) if has_known_sides(x) and (below or right) else x


def has_known_sides(x: Tensor) -> bool:
    """Test whether the sides of a map (B, C, H, W) are numbers; in an exported graph of any size, which takes multiples
    only, they are symbols that must not be compared.
    """
    return not isinstance(x.shape[2], torch.SymInt)
