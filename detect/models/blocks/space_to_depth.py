"""Space-to-depth, and the convolution behind one that is never carried out.

The order of channels is the SPD-Conv paper's, (j*s + i)*C + c for column offset j and row offset i; that of
``torch.nn.functional.pixel_unshuffle`` is another, c*s*s + i*s + j.
Letters: B batch, C channels of a map, O output channels, H W cells, k kernel size, s block size of a space-to-depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """True where the sides of a map (B, C, H, W) are numbers."""
    # In an exported graph of any size, which takes multiples only, they are symbols that must not be compared.
    return not isinstance(x.shape[2], torch.SymInt)
