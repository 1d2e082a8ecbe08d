from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detect.models.blocks.merge import Maxout
from detect.structures import FeatureShape


def reference(x: Tensor, m: int) -> Tensor:
    """Channel g is the maximum over the channels k with k mod m = g, one value at a time."""
    y = torch.full((x.shape[0], m, *x.shape[2:]), -torch.inf, dtype=x.dtype)
    for k in range(x.shape[1]):
        y[:, k % m] = torch.where(x[:, k] > y[:, k % m], x[:, k], y[:, k % m])
    return y


# 704 = 5 * 128 + 64, CSPPeleeNet's coarsest map; 200 = 128 + 72, less than two groups; 7 = 3 + 3 + 1.
@pytest.mark.parametrize(("channels", "m"), [(704, 128), (512, 128), (256, 128), (200, 128), (7, 3), (5, 1)])
def test_against_the_reference(channels: int, m: int) -> None:
    x = torch.randn(2, channels, 2, 3, generator=torch.Generator().manual_seed(0))
    block = Maxout(channels, m)
    assert torch.equal(block(x), reference(x, m))
    assert block.out_shape(FeatureShape(channels, 8)) == FeatureShape(m, 8)


def test_by_hand() -> None:
    """Five channels to two: channel 0 is the largest of 0, 2, 4 and channel 1 of 1, 3."""
    x = torch.tensor([3.0, -7, 1, -2, 5]).view(1, 5, 1, 1)
    assert Maxout(5, 2)(x).flatten().tolist() == [5, -2]


@pytest.mark.parametrize("m", [4, 5, 128])
def test_a_narrow_map_passes(m: int) -> None:
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    block = Maxout(4, m)
    assert torch.equal(block(x), x)
    assert block.out_shape(FeatureShape(4, 8)) == FeatureShape(4, 8)


def test_equal_groups_are_kept() -> None:
    x = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Maxout(9, 3)(x.repeat(1, 3, 1, 1)), x)


def test_the_gradient_goes_to_the_largest() -> None:
    x = torch.tensor([3.0, -7, 1, -2, 5]).view(1, 5, 1, 1).requires_grad_()
    Maxout(5, 2)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 0, 0, 1, 1]
    wide = torch.randn(1, 7, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(Maxout(7, 3), wide)
