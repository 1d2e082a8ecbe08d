from __future__ import annotations

import pytest
import torch

from detect.models.blocks.csp import C3, Bottleneck
from detect.models.blocks.space_to_depth import Piece, space_to_depth
from detect.structures import FeatureShape

X = torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shortcut", [True, False])
def test_bottleneck(shortcut: bool) -> None:
    block = Bottleneck(6, shortcut, "silu").double().eval()
    expected = block.conv2(block.conv1(X))
    torch.testing.assert_close(block(X), X + expected if shortcut else expected)


def test_parameters() -> None:
    """C 6, O 8, h 4, two bottlenecks; each convolution has 2 values of its norm per output channel.

    Divide 6 * 8 + 16, bottleneck 4 * 4 + 8 + 9 * 4 * 4 + 8 = 176, fuse 8 * 8 + 16.
    """
    assert sum(p.numel() for p in C3(6, 8, repeats=2).parameters()) == 64 + 2 * 176 + 80


def test_one_half_is_computed_the_other_passes() -> None:
    """Without bottlenecks the halves come together again as they were."""
    block = C3(6, 8, repeats=0).double().eval()
    torch.testing.assert_close(block(X), block.fuse(block.divide(X)))
    block = C3(6, 8, repeats=1, shortcut=False).double().eval()
    first, second = block.divide(X).split(4, dim=1)
    torch.testing.assert_close(block(X), block.fuse(torch.cat([block.blocks[0](first), second], dim=1)))


def test_shape_and_shortcut() -> None:
    block = C3(6, 8, repeats=3, shortcut=False).double()
    assert block(X).shape == (2, 8, 4, 8)
    assert block.out_shape(FeatureShape(6, 16)) == FeatureShape(8, 16)
    assert [b.shortcut for b in block.blocks] == [False] * 3
    assert [b.shortcut for b in C3(6, 8, repeats=2).blocks] == [True] * 2


def test_pieces() -> None:
    block = C3(24, 8).double().eval()
    assert block.accepts_pieces
    torch.testing.assert_close(block((Piece(X, 2),)), block(space_to_depth(X, 2)), atol=1e-12, rtol=0)
