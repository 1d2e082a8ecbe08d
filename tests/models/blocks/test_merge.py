from __future__ import annotations

import pytest
import torch

from detect.errors import InputError
from detect.models.blocks.merge import Add, Concat, GlobalContext, Upsample
from detect.models.blocks.space_to_depth import Piece
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


def test_add_the_channels_that_both_have() -> None:
    """2 + 10, then 3 alone where only the first map has a channel; a wider second map loses its last channel."""
    narrow, wide = torch.tensor([10.0]).view(1, 1, 1, 1), torch.tensor([2.0, 3]).view(1, 2, 1, 1)
    assert Add()(wide, narrow).flatten().tolist() == [12, 3]
    assert Add()(narrow, wide).flatten().tolist() == [12]
    assert Add().out_shape(FeatureShape(1, 8), FeatureShape(2, 8)) == FeatureShape(1, 8)


def test_add_activates_behind_each_addition() -> None:
    """Leaky of -2 + 1 = -1 is -0.1; -0.1 - 0.9 = -1 is -0.1 again. One activation at the end would give -0.19."""
    x, y, z = (torch.tensor([value]).view(1, 1, 1, 1) for value in (-2.0, 1.0, -0.9))
    assert Add("leaky")(x, y, z).item() == pytest.approx(-0.1)
    assert x.item() == -2  # an activation in place must not reach the inputs


def test_add_needs_maps_of_one_size() -> None:
    with pytest.raises(InputError, match=r"^from: Add needs two maps or more, found 1$"):
        Add().out_shape(FeatureShape(2, 8))
    with pytest.raises(InputError, match=r"^from: maps of reductions 8, 16 cannot be added; they must be equal$"):
        Add().out_shape(FeatureShape(2, 8), FeatureShape(2, 16))


def test_global_context_is_the_same_everywhere() -> None:
    """The second map's means are 2 and 5; the convolution adds them up, and the first map gets 7 in every cell."""
    block = GlobalContext((1, 2), activation="none").eval()
    block.conv.norm.eps = 1e-30  # next to nothing; PyTorch refuses 0
    torch.nn.init.ones_(block.conv.conv.weight)
    x = torch.tensor([[[[0.0, 1, 2]]]])
    source = torch.tensor([[[[1.0, 3]], [[5, 5]]]])
    with torch.no_grad():
        assert block(x, source).tolist() == [[[[7, 8, 9]]]]
    assert block.out_shape(FeatureShape(1, 8), FeatureShape(2, 32)) == FeatureShape(1, 8)


def test_global_context_of_a_single_image_in_training() -> None:
    """A batch norm cannot take statistics from one value: one image is treated as in evaluation, and still learns."""
    torch.manual_seed(0)
    block = GlobalContext((3, 2))
    x, source = torch.rand(1, 3, 2, 2), torch.rand(1, 2, 4, 4)
    block(x, source).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
    assert torch.equal(block.train()(x, source), block.eval()(x, source))
    assert block.conv.norm.num_batches_tracked == 0


def test_global_context_of_a_batch_takes_statistics() -> None:
    torch.manual_seed(0)
    block = GlobalContext((3, 2))
    block(torch.rand(2, 3, 2, 2), torch.rand(2, 2, 4, 4))
    assert block.conv.norm.num_batches_tracked == 1


def test_global_context_needs_two_maps() -> None:
    message = r"^from: must name a map and what its context is taken from, found 1 maps$"
    with pytest.raises(InputError, match=message):
        GlobalContext((3,))
