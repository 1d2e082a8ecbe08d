from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detect.errors import InputError
from detect.models.blocks.pool import SPP, SPPF, ConvSet
from detect.models.blocks.space_to_depth import Piece, space_to_depth
from detect.structures import FeatureShape

X = torch.randn(1, 4, 16, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pools(x: torch.Tensor, *windows: int) -> list[torch.Tensor]:
    """Parallel max-pools."""
    return [F.max_pool2d(x, window, stride=1, padding=window // 2) for window in windows]


@pytest.mark.parametrize("hw", [(1, 1), (2, 3), (16, 20)])
def test_spp_is_parallel_pools_the_widest_first(hw: tuple[int, int]) -> None:
    """Also where the map is smaller than the windows."""
    x = X[..., : hw[0], : hw[1]]
    assert torch.equal(SPP()(x), torch.cat([*pools(x, 13, 9, 5), x], dim=1))


def test_spp_has_four_times_the_channels_and_no_weights() -> None:
    assert SPP().out_shape(FeatureShape(512, 32)) == FeatureShape(2048, 32)
    assert not list(SPP().parameters())


def test_three_pools_in_a_row_are_three_windows() -> None:
    """5x5, 9x9 and 13x13 cells, as parallel pools would see them."""
    block = SPPF(4, 6).double().eval()
    y = block.reduce(X)
    torch.testing.assert_close(block(X), block.fuse(torch.cat([y, *pools(y, 5, 9, 13)], dim=1)))


def test_shape_and_parameters() -> None:
    """Half of 4 channels in, 4 * 2 channels to 6 out, 2 values of the norm per output channel."""
    block = SPPF(4, 6, kernel_size=3)
    assert block(torch.zeros(1, 4, 1, 2)).shape == (1, 6, 1, 2)
    assert block.out_shape(FeatureShape(4, 32)) == FeatureShape(6, 32)
    assert sum(p.numel() for p in block.parameters()) == 4 * 2 + 4 + 8 * 6 + 12


def test_an_even_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"^kernel_size: must be odd, found 4$"):
        SPPF(4, 6, kernel_size=4)


@pytest.mark.parametrize(
    ("spp", "expected"),
    [
        (False, [(3, 4, 1), (6, 3, 3), (3, 6, 1), (6, 3, 3), (3, 6, 1)]),
        (True, [(3, 4, 1), (6, 3, 3), (3, 6, 1), (3, 12, 1), (6, 3, 3), (3, 6, 1)]),
    ],
)
def test_the_convolutions_of_a_set(spp: bool, expected: list[tuple[int, int, int]]) -> None:
    """(out, in, kernel) in the order of Darknet's files, for C 4 and O 3; SPP makes 12 channels of 3."""
    block = ConvSet(4, 3, spp=spp).double()
    assert [tuple(p.shape[:3]) for name, p in block.named_parameters() if name.endswith("conv.weight")] == expected
    assert block(X).shape == (1, 3, 16, 20)
    assert block.out_shape(FeatureShape(4, 32)) == FeatureShape(3, 32)


def test_a_set_reads_pieces() -> None:
    block = ConvSet(16, 3).double().eval()
    assert block.accepts_pieces
    torch.testing.assert_close(block((Piece(X, 2),)), block(space_to_depth(X, 2)), atol=1e-12, rtol=0)
