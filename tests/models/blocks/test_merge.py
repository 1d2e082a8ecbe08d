from __future__ import annotations

import pytest
import torch

from detect.errors import InputError
from detect.models.blocks.conv import Piece
from detect.models.blocks.merge import Concat, Upsample
from detect.structures import FeatureShape


def test_upsample_repeats_each_cell() -> None:
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert Upsample()(x).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]
    assert Upsample(3)(x).shape == (1, 1, 3, 6)
    assert Upsample().out_shape(FeatureShape(5, 16)) == FeatureShape(5, 8)


def test_upsample_to_a_fraction_of_a_pixel() -> None:
    with pytest.raises(InputError, match=r"^scale_factor: a map of reduction 8 cannot be enlarged 3 times$"):
        Upsample(3).out_shape(FeatureShape(5, 8))


def test_concat_keeps_the_order() -> None:
    a, b = torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, 1)
    assert Concat()(b, a).flatten().tolist() == [1, 0, 0]
    assert Concat().out_shape(FeatureShape(2, 8), FeatureShape(1, 8)) == FeatureShape(3, 8)


def test_concat_of_pieces_is_flat() -> None:
    a, b, c = (torch.zeros(1, 1, 2, 2) for _ in range(3))
    pieces = Concat().pieces(a, (Piece(b, 2), Piece(c, 1)))
    assert [(piece.map is m, piece.block_size) for piece, m in zip(pieces, (a, b, c), strict=True)] == [
        (True, 1),
        (True, 2),
        (True, 1),
    ]


def test_concat_of_unequal_maps() -> None:
    message = r"^from: maps of reductions 8, 16 cannot be concatenated; they must be equal$"
    with pytest.raises(InputError, match=message):
        Concat().out_shape(FeatureShape(2, 8), FeatureShape(1, 16))
