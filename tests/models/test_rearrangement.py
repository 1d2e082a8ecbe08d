"""Kernels of strided convolutions behind a space-to-depth, by hand and against the strided convolution itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detect.models.blocks.residual import narrow_taps
from detect.models.blocks.space_to_depth import space_to_depth, unfold_kernel
from detect.models.rearrangement import Channels, fold_kernel, identity_norm, rearrange


def counted(kernel_size: int) -> torch.Tensor:
    """(1, 1, k, k) kernel of 1, 2, 3, ... row by row."""
    return torch.arange(1.0, kernel_size**2 + 1).view(1, 1, kernel_size, kernel_size)


def test_a_3x3_kernel_by_hand() -> None:
    """Taps at offset -1, 0 and 1 are odd rows of the block before, even and odd rows of the block itself.

    Sub-maps: even rows and columns; odd rows, even columns; even rows, odd columns; odd both (SPD-Conv, equation 1).
    """
    assert fold_kernel(counted(3), 3, 2)[0].tolist() == [
        [[0, 0, 0], [0, 5, 0], [0, 0, 0]],
        [[0, 2, 0], [0, 8, 0], [0, 0, 0]],
        [[0, 0, 0], [4, 6, 0], [0, 0, 0]],
        [[1, 3, 0], [7, 9, 0], [0, 0, 0]],
    ]


def test_a_1x1_kernel_reads_even_rows_and_columns() -> None:
    assert fold_kernel(torch.full((1, 1, 1, 1), 7.0), 1, 2).flatten().tolist() == [7, 0, 0, 0]
    assert fold_kernel(torch.full((1, 1, 1, 1), 7.0), 3, 2).nonzero().tolist() == [[0, 0, 1, 1]]


def test_a_6x6_kernel_has_a_place_for_every_tap() -> None:
    """Padded by 2 its first tap is the even row of the block before; so rows 0, 2, 4 of it read even rows."""
    kernel = counted(6)[0, 0]
    expected = [kernel[i::2, j::2].tolist() for j in (0, 1) for i in (0, 1)]
    assert fold_kernel(counted(6), 3, 2)[0].tolist() == expected


def test_a_7x7_kernel_needs_five_blocks() -> None:
    """Its taps at -3, ..., 3 are the odd row two blocks before, then three whole blocks' but the last odd row."""
    kernel = counted(7)[0, 0]
    folded = fold_kernel(counted(7), 5, 2)[0]
    assert folded[0].tolist() == F.pad(kernel[1::2, 1::2], (1, 1, 1, 1)).tolist()  # -2, 0, 2 in blocks 1 to 3 of 0 to 4
    assert folded[3].tolist() == F.pad(kernel[0::2, 0::2], (0, 1, 0, 1)).tolist()  # -3, -1, 1, 3 in blocks 0 to 3


def test_taps_beyond_the_window_join_the_nearest() -> None:
    """Of a 7x7 kernel in 3x3 blocks: tap -3 joins tap -2, the even row of the first block."""
    column = torch.tensor([1.0, 10, 100, 1000, 0, 0, 0]).view(1, 1, 7, 1) * F.one_hot(torch.tensor(3), 7)
    even, odd, *others = fold_kernel(column, 3, 2)[0]
    assert even.tolist() == [[0, 11, 0], [0, 1000, 0], [0, 0, 0]]
    assert odd.tolist() == [[0, 100, 0], [0, 0, 0], [0, 0, 0]]
    assert not any(other.any() for other in others)


@pytest.mark.parametrize(
    ("kernel_size", "folded"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 3), (3, 5), (4, 3), (5, 3), (6, 3), (7, 5)]
)
def test_the_same_convolution(kernel_size: int, folded: int) -> None:
    generator = torch.Generator().manual_seed(kernel_size)
    x = torch.randn(2, 3, 8, 12, dtype=torch.double, generator=generator)
    weight = torch.randn(4, 3, kernel_size, kernel_size, dtype=torch.double, generator=generator)
    expected = F.conv2d(x, weight, stride=2, padding=(kernel_size - 1) // 2)
    kernel = fold_kernel(weight, folded, 2)
    torch.testing.assert_close(F.conv2d(space_to_depth(x, 2), kernel, padding=folded // 2), expected)
    assert kernel.count_nonzero() == weight.numel()  # every weight once
    assert torch.equal(fold_kernel(unfold_kernel(kernel, 2), folded, 2), kernel) or folded == 5


def test_channels_that_the_strided_map_lacks_have_no_weight() -> None:
    """Two channels that are the channels 3 and 0 of four."""
    spread = Channels(torch.tensor([3, 0]), 4).spread(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
    assert spread.flatten().tolist() == [2, 0, 0, 1]


def test_convolutions_that_do_not_fit_are_left_out() -> None:
    strided = nn.Conv2d(2, 4, 3, stride=2, padding=1)
    assert rearrange(nn.Conv2d(8, 6, 3, padding=1), strided, ()).keys() == set()  # other outputs
    assert rearrange(nn.Conv2d(6, 4, 3, padding=1), strided, ()).keys() == {"bias"}  # not four times the inputs
    assert rearrange(nn.Conv2d(8, 4, 3, padding=1, groups=2), strided, ()).keys() == {"bias"}


def test_the_identity_of_a_norm() -> None:
    norm = nn.BatchNorm2d(2, eps=0.5).eval()
    norm.load_state_dict(identity_norm(norm))
    x = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(norm(x), x)


def test_a_linear_map_is_read_alike_at_every_second_cell() -> None:
    """On rows of a linear map, the 3x3 kernel of stride 2 and its narrow form agree away from the border."""
    x = torch.arange(16.0).view(1, 1, 1, 16).expand(-1, -1, 16, -1)
    expected = F.conv2d(x, counted(3), stride=2, padding=1)
    found = F.conv2d(x[..., ::2, ::2], narrow_taps(counted(3)), padding=1)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
