"""Signs as bits, one each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BITS = 8
"""Of a byte."""


def pack_signs(q: Tensor) -> Tensor:
    """The signs of a tensor as bits, as ``numpy.packbits`` packs them.

    Args:
        q: n values of any shape; the sign of 0 is +1.

    Returns:
        uint8 (ceil(n / 8),) on the same device: 1 for +1, the first value in the highest bit, the end filled with 0.
    """
    positive = (~(q < 0)).flatten().to(torch.uint8)
    rows = F.pad(positive, (0, -len(positive) % BITS)).view(-1, BITS)
    return (rows << _shifts(q.device)).sum(dim=1, dtype=torch.uint8)


def unpack_signs(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What ``pack_signs`` packed.

    Args:
        bits: uint8 (ceil(n / 8),).
        shape: of the n signs.

    Returns:
        float32 of that shape: -1 and +1.
    """
    found = ((bits[:, None] >> _shifts(bits.device)) & 1).flatten()
    return (2.0 * found - 1)[: torch.Size(shape).numel()].view(shape)


def _shifts(device: torch.device) -> Tensor:
    """How far each bit of a byte is from the lowest, the highest first."""
    return torch.arange(BITS - 1, -1, -1, dtype=torch.uint8, device=device)
