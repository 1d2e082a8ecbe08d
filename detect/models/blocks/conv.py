"""Convolution, and convolution of a space-to-depth that is never carried out.

Letters: B batch, C channels of a map, O output channels, H W cells, k kernel size, s block size of a space-to-depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detect.config.model import Convolutions
from detect.errors import InputError, did_you_mean
from detect.models.registry import Block, register
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
    """An activation by name, in place where it can be. The papers call ``silu`` swish."""
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
    """``conv`` of a map, or of the concatenation of pieces, which is never built.

    A k x k convolution of stride 1 after a space-to-depth by s is a (k*s) x (k*s) convolution of stride s and the same
    weights, rearranged: no copy of the map is needed, and the arithmetic is the same. A convolution of a concatenation
    is the sum of the convolutions of its parts.

    Args:
        conv: convolution of stride 1, dilation 1, one group and padding k // 2; or a module in the place of one
            (``SteppedConv``), which takes pieces itself.
        x: (B, C, H, W), or pieces with C channels in all after their space-to-depth.

    Returns:
        (B, O, H, W).
    """
    if isinstance(x, Tensor) or not isinstance(conv, nn.Conv2d):
        convolved: Tensor = conv(x)
        return convolved
    channels = [piece.map.shape[1] * piece.block_size**2 for piece in x]
    weights = conv.weight.split(channels, dim=1)
    bias = conv.bias
    total: Tensor | None = None
    for piece, weight in zip(x, weights, strict=True):
        s = piece.block_size
        padding = conv.kernel_size[0] // 2 * s
        part = F.conv2d(whole_blocks(piece.map, s), unfold_kernel(weight, s), bias, stride=s, padding=padding)
        total = part if total is None else total + part
        bias = None
    assert total is not None, "a convolution needs an input"
    return total


class SteppedConv(nn.Module):
    """Several steps in the place of one k x k convolution (``detect.papers.bdsc``); takes a map or pieces.

    It has ``out_channels``, ``stride`` and ``groups`` as the convolution had, and a ``norm`` between its steps.
    """

    last: ClassVar[str]
    """Name of its last convolution, into which a norm behind the module can be fused."""

    def fuse(self) -> None:
        """Become ordinary convolutions without a norm between them, in place; in evaluation mode."""
        raise NotImplementedError


def replace_convolutions(module: nn.Module, wanted: Convolutions) -> int:
    """Put a paper's modules in the place of the k x k convolutions, under the same names.

    Those of 1x1 and those of several groups stay.

    Args:
        module: is changed.
        wanted: what they become; not ``standard``.

    Returns:
        How many were replaced.

    Raises:
        InputError: this installation does not have the kind.
    """
    make = require_plugin("convolutions", wanted.kind, f"conv: {wanted.kind}")
    found = [
        (parent, name, conv)
        for parent in module.modules()
        for name, conv in parent.named_children()
        if isinstance(conv, nn.Conv2d) and conv.groups == 1 and max(conv.kernel_size) > 1
    ]
    for parent, name, conv in found:
        setattr(parent, name, make(conv, wanted))
    return len(found)


def fuse_norm(layer: nn.Module, parent: nn.Module, name: str) -> None:
    """Fuse ``layer.norm``, if it has one, into the convolution ``parent.name``; in evaluation mode."""
    if isinstance(layer.norm, nn.BatchNorm2d):
        setattr(parent, name, fuse_conv_bn_eval(getattr(parent, name), layer.norm))
        layer.add_module("norm", nn.Identity())  # in its place


def unfold_kernel(weight: Tensor, block_size: int) -> Tensor:
    """The kernel of stride ``block_size`` that does what ``weight`` does behind a space-to-depth.

    Args:
        weight: (O, s*s*C, k, k); channel (j*s + i)*C + c holds row offset i, column offset j (the paper's order).
        block_size: s.

    Returns:
        (O, C, k*s, k*s).

    Source: SPD-Conv (Sunkara and Luo, 2022), equation 1, for the channel order.
    """
    if block_size == 1:
        return weight
    num_out, folded, k, _ = weight.shape
    s = block_size
    channels = folded // (s * s)
    split = weight.view(num_out, s, s, channels, k, k)  # (O, j, i, C, k rows, k columns)
    return split.permute(0, 3, 4, 2, 5, 1).reshape(num_out, channels, k * s, k * s)  # rows (k, i), columns (k, j)


def check_choice(word: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a keyword's value that is not one of those allowed."""
    if value not in allowed:
        raise InputError(f"{word}: unknown {value!r}{did_you_mean(str(value), allowed)}")


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
        bias: whether the convolution has one. The norm takes it out again; some published networks have it.
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
        padding = (kernel_size - 1) // 2 if stride > 1 else kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = make_activation(activation)

    @property
    def accepts_pieces(self) -> bool:
        """Whether the input may be given as pieces."""
        return self.conv.stride == (1, 1) and self.conv.groups == 1

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H / stride, W / stride)."""
        return self.activation(self.norm(convolve(self.conv, x)))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at ``stride`` times the reduction."""
        return FeatureShape(self.conv.out_channels, inputs[0].reduction * self.conv.stride[0])


def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """Space-to-depth in the order of the SPD-Conv paper.

    Args:
        x: (B, C, H, W); where H or W is no multiple of ``block_size``, zeros are added below or on the right.
        block_size: s.

    Returns:
        (B, s*s*C, H/s, W/s); channel (j*s + i)*C + c is x[:, c, i::s, j::s]: column offset j outer, row offset i inner.
        ``torch.nn.functional.pixel_unshuffle`` has another order (channel c*s*s + i*s + j).

    Source: SPD-Conv (Sunkara and Luo, 2022), section 3.1, equation 1.
    """
    s = block_size
    x = whole_blocks(x, s)
    return torch.cat([x[..., i::s, j::s] for j in range(s) for i in range(s)], dim=1)


def whole_blocks(x: Tensor, block_size: int) -> Tensor:
    """A map (B, C, H, W) with zeros below and on the right, so that its sides are multiples of ``block_size``.

    Behind a point (SDPoint) they need not be. An exported graph takes multiples only.
    """
    below, right = -x.shape[2] % block_size, -x.shape[3] % block_size
    return F.pad(x, (0, right, 0, below)) if not torch.compiler.is_exporting() and (below or right) else x
