from __future__ import annotations

import torch

from detect.models.blocks.pool import StrideOnePool
from detect.structures import FeatureShape


def test_one_cell_keeps_its_value() -> None:
    """No neighbour there is, and none of padding: -3 is below a zero."""
    x = torch.tensor([[[[-3.0]]]])
    assert torch.equal(StrideOnePool(1)(x), x)


def test_right_and_lower_neighbours() -> None:
    """By hand: each cell with its right, lower and lower right neighbour; fewer at the right and the lower edge."""
    x = torch.tensor([[[[-9.0, 4, -1], [-5, -7, -2]]]])
    # -9 4 -5 -7 -> 4;  4 -1 -7 -2 -> 4;  -1 -2 -> -1
    # -5 -7 -> -5;      -7 -2 -> -2;      -2
    assert StrideOnePool(1)(x).tolist() == [[[[4, 4, -1], [-5, -2, -2]]]]


def test_shape_stays() -> None:
    pool = StrideOnePool(5)
    assert pool(torch.zeros(2, 5, 3, 4)).shape == (2, 5, 3, 4)
    assert pool.out_shape(FeatureShape(5, 32)) == FeatureShape(5, 32)
