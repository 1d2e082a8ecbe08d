from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv, make_activation
from detect.models.blocks.space_to_depth import Piece, convolve, space_to_depth, unfold_kernel
from detect.structures import FeatureShape


def random(seed: int, *shape: int) -> Tensor:
    """Normal values in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --------------------------------------------------------------------------------------- space-to-depth


def test_channel_order() -> None:
    """Column offset outer, row offset inner: top left, bottom left, top right, bottom right."""
    x = torch.arange(4).view(1, 1, 2, 2)  # [[0, 1], [2, 3]]
    assert space_to_depth(x, 2).flatten().tolist() == [0, 2, 1, 3]


def test_channels_of_one_offset_stay_together() -> None:
    x = torch.tensor([[[[0, 1], [2, 3]], [[10, 11], [12, 13]]]])
    assert space_to_depth(x, 2).flatten().tolist() == [0, 10, 2, 12, 1, 11, 3, 13]


def from_pixel_unshuffle(channels: int, s: int) -> list[int]:
    """Which channel of pixel_unshuffle (c*s*s + i*s + j) each of ours ((j*s + i)*C + c) is."""
    return [c * s * s + i * s + j for j in range(s) for i in range(s) for c in range(channels)]


@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_is_a_permuted_pixel_unshuffle(s: int, channels: int) -> None:
    x = random(0, 2, channels, 4 * s, 2 * s)
    y = space_to_depth(x, s)
    assert y.shape == (2, channels * s * s, 4, 2)
    assert torch.equal(y, F.pixel_unshuffle(x, s)[:, from_pixel_unshuffle(channels, s)])


@pytest.mark.parametrize("s", [2, 3])
def test_nothing_is_lost(s: int) -> None:
    x = random(1, 2, 3, 2 * s, 5 * s)
    inverse = torch.tensor(from_pixel_unshuffle(3, s)).argsort()
    assert torch.equal(F.pixel_shuffle(space_to_depth(x, s)[:, inverse], s), x)


# ---------------------------------------------------------- what a space-to-depth and a convolution can do


def behind_space_to_depth(weight: Tensor) -> Tensor:
    """The 3x3 kernel that, behind a space-to-depth by 2, does what a strided kernel does.

    A strided 3x3 kernel (padding 1) sees the offsets -1, 0, 1 from the even pixel 2n: -1 is the odd pixel of the pair
    before, 0 and 1 are the even and odd pixel of the pair itself. A 6x6 one (padding 2) sees three whole pairs.
    """
    num_out, channels, k, _ = weight.shape
    folded = weight.new_zeros(num_out, 4 * channels, 3, 3)
    for a in range(k):
        for b in range(k):
            (tap_y, i), (tap_x, j) = (divmod(offset - (k - 1) // 2, 2) for offset in (a, b))
            folded[:, (j * 2 + i) * channels : (j * 2 + i + 1) * channels, tap_y + 1, tap_x + 1] = weight[:, :, a, b]
    return folded


@pytest.mark.parametrize("k", [3, 6])
def test_contains_every_strided_convolution(k: int) -> None:
    x, weight = random(2, 2, 3, 10, 14), random(3, 5, 3, k, k)
    strided = F.conv2d(x, weight, stride=2, padding=(k - 1) // 2)
    folded = F.conv2d(space_to_depth(x, 2), behind_space_to_depth(weight), padding=1)
    torch.testing.assert_close(folded, strided, atol=1e-12, rtol=0)


def test_taps_of_a_strided_3x3_kernel() -> None:
    """Rows -1, 0, 1 lie in (odd, above), (even, centre), (odd, centre); columns likewise."""
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)  # [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    even_even, odd_even, even_odd, odd_odd = behind_space_to_depth(weight)[0]  # (row, column) offset, rows inner
    assert even_even.tolist() == [[0, 0, 0], [0, 5, 0], [0, 0, 0]]
    assert odd_even.tolist() == [[0, 2, 0], [0, 8, 0], [0, 0, 0]]
    assert even_odd.tolist() == [[0, 0, 0], [4, 6, 0], [0, 0, 0]]
    assert odd_odd.tolist() == [[1, 3, 0], [7, 9, 0], [0, 0, 0]]


# --------------------------------------------------------------- convolution without the space-to-depth


def test_unfolded_kernel() -> None:
    """Behind a space-to-depth by 2 a 1x1 kernel of four channels is a 2x2 kernel, rows inner: [[0, 2], [1, 3]]."""
    weight = torch.arange(4.0).view(1, 4, 1, 1)
    assert unfold_kernel(weight, 2).tolist() == [[[[0, 2], [1, 3]]]]
    assert unfold_kernel(weight, 1) is weight


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("s", [2, 3])
def test_unfolded_kernel_in_place_of_space_to_depth(k: int, s: int) -> None:
    x, weight = random(4, 2, 2, 4 * s, 3 * s), random(5, 3, 2 * s * s, k, k)
    expected = F.conv2d(space_to_depth(x, s), weight, padding=k // 2)
    unfolded = F.conv2d(x, unfold_kernel(weight, s), stride=s, padding=k // 2 * s)
    torch.testing.assert_close(unfolded, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("block_sizes", [(2,), (3,), (1,), (1, 2), (2, 3, 1), (2, 2)], ids=str)
def test_convolution_of_pieces(k: int, bias: bool, block_sizes: tuple[int, ...]) -> None:
    """Values and gradients are those of a convolution of the concatenated space-to-depths."""
    channels = [2 + number for number in range(len(block_sizes))]
    maps = [
        random(number, 2, c, 4 * s, 6 * s).requires_grad_()
        for number, (c, s) in enumerate(zip(channels, block_sizes, strict=True))
    ]
    folded = sum(c * s * s for c, s in zip(channels, block_sizes, strict=True))
    conv = nn.Conv2d(folded, 5, k, padding=k // 2, bias=bias, dtype=torch.float64)
    learnt = [*maps, *conv.parameters()]
    pieces = tuple(Piece(m, s) for m, s in zip(maps, block_sizes, strict=True))
    expected = conv(torch.cat([space_to_depth(m, s) for m, s in zip(maps, block_sizes, strict=True)], dim=1))
    found = convolve(conv, pieces)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)

    weights = random(99, *expected.shape)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), learnt),
        torch.autograd.grad((expected * weights).sum(), learnt),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_convolution_of_a_map() -> None:
    conv, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(1, 3, 5, 5)
    assert torch.equal(convolve(conv, x), conv(x))


# ------------------------------------------------------------------------------------------------- Conv


@pytest.mark.parametrize(
    ("k", "stride"), [(1, 1), (3, 1), (5, 1), (1, 2), (2, 2), (3, 2), (4, 2), (6, 2), (3, 3), (5, 3), (4, 4), (7, 4)]
)
def test_size_of_the_output(k: int, stride: int) -> None:
    """Each kernel keeps its promise: the input's size over the stride."""
    conv = Conv(3, 8, k, stride)
    assert conv(torch.zeros(1, 3, 24, 12)).shape == (1, 8, 24 // stride, 12 // stride)
    assert conv.out_shape(FeatureShape(3, 4)) == FeatureShape(8, 4 * stride)


def test_conv_is_convolution_norm_activation() -> None:
    conv = Conv(3, 4, 3).double()
    x = random(6, 2, 3, 6, 6)
    y = F.conv2d(x, conv.conv.weight, padding=1)
    mean, variance = y.mean(dim=(0, 2, 3), keepdim=True), y.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    z = (y - mean) / (variance + conv.norm.eps).sqrt()
    torch.testing.assert_close(conv(x), z * z.sigmoid(), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("k", [2, 6])
def test_an_even_kernel_needs_a_stride(k: int) -> None:
    """It would give a map that is one cell larger than its input."""
    with pytest.raises(InputError, match=rf"^kernel_size: must be odd where the stride is 1, found {k}$"):
        Conv(3, 8, k)


def test_accepts_pieces_where_the_rearrangement_holds() -> None:
    assert Conv(4, 8, 3).accepts_pieces
    assert not Conv(4, 8, 3, stride=2).accepts_pieces
    assert not Conv(4, 8, 3, groups=2).accepts_pieces


@pytest.mark.parametrize(("name", "expected"), [("silu", -0.5 / (1 + 1.6487212707)), ("relu", 0.0), ("none", -0.5)])
def test_activations(name: str, expected: float) -> None:
    """At -1/2; exp(1/2) = 1.64872."""
    assert make_activation(name)(torch.tensor(-0.5)).item() == pytest.approx(expected)


def test_unknown_activation() -> None:
    with pytest.raises(InputError, match=r"^activation: unknown 'sliu'; allowed: silu, relu, leaky, mish, none \("):
        Conv(3, 8, activation="sliu")
