from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detect.errors import InputError
from detect.models.blocks.spp import SPPF
from detect.structures import FeatureShape


def test_three_pools_in_a_row_are_three_windows() -> None:
    """5x5, 9x9 and 13x13 cells, as parallel pools would see them."""
    block = SPPF(4, 6).double().eval()
    x = torch.randn(1, 4, 16, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = block.reduce(x)
    pools = [F.max_pool2d(y, window, stride=1, padding=window // 2) for window in (5, 9, 13)]
    torch.testing.assert_close(block(x), block.fuse(torch.cat([y, *pools], dim=1)))


def test_shape_and_parameters() -> None:
    """Half of 4 channels in, 4 * 2 channels to 6 out, 2 values of the norm per output channel."""
    block = SPPF(4, 6, kernel_size=3)
    assert block(torch.zeros(1, 4, 1, 2)).shape == (1, 6, 1, 2)
    assert block.out_shape(FeatureShape(4, 32)) == FeatureShape(6, 32)
    assert sum(p.numel() for p in block.parameters()) == 4 * 2 + 4 + 8 * 6 + 12


def test_an_even_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"^kernel_size: must be odd, found 4$"):
        SPPF(4, 6, kernel_size=4)
