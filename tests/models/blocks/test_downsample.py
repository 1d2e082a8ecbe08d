from __future__ import annotations

import pytest
import torch

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.blocks.downsample import Downsample, HalvingPool, Pool, SpaceToDepth, Stem
from detect.models.blocks.space_to_depth import Piece, space_to_depth
from detect.structures import FeatureShape

IMAGE = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def count(module: torch.nn.Module) -> int:
    """Learnt values."""
    return sum(p.numel() for p in module.parameters())


def test_space_to_depth_block() -> None:
    block = SpaceToDepth(2)
    assert torch.equal(block(IMAGE), space_to_depth(IMAGE, 2))
    assert block.out_shape(FeatureShape(3, 4)) == FeatureShape(12, 8)
    (piece,) = block.pieces(IMAGE)
    assert piece.map is IMAGE
    assert piece.block_size == 2


@pytest.mark.parametrize("downsample", ["stride", "spd"])
def test_stem(downsample: str) -> None:
    """36 weights per input and output channel either way: 6 * 6, or 4 * 3 * 3; and 2 values of the norm per channel."""
    stem = Stem(3, 8, downsample=downsample).double()
    assert stem(IMAGE).shape == (2, 8, 6, 10)
    assert stem.out_shape(FeatureShape(3, 1)) == FeatureShape(8, 2)
    assert count(stem) == 36 * 3 * 8 + 2 * 8


def test_stem_spd_is_space_to_depth_and_convolution() -> None:
    stem = Stem(3, 8, downsample="spd").double().eval()
    torch.testing.assert_close(stem(IMAGE), stem.conv(space_to_depth(IMAGE, 2)), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("downsample", "order", "channels", "parameters"),
    [
        ("stride", "conv_first", 8, 9 * 3 * 8 + 16),
        ("stride", "spd_first", 8, 9 * 3 * 8 + 16),  # nothing to order
        ("spd", "conv_first", 32, 9 * 3 * 8 + 16),  # the same convolution; its consumer has 4 times the channels
        ("spd", "spd_first", 8, 9 * 12 * 8 + 16),
    ],
)
def test_downsample(downsample: str, order: str, channels: int, parameters: int) -> None:
    block = Downsample(3, 8, downsample=downsample, order=order).double()
    assert block(IMAGE).shape == (2, channels, 6, 10)
    assert block.out_shape(FeatureShape(3, 4)) == FeatureShape(channels, 8)
    assert count(block) == parameters
    assert block.emits_pieces == (downsample == "spd" and order == "conv_first")


def test_convolution_first() -> None:
    block = Downsample(3, 8, downsample="spd").double().eval()
    assert torch.equal(block(IMAGE), space_to_depth(block.conv(IMAGE), 2))
    (piece,) = block.pieces(IMAGE)
    assert torch.equal(space_to_depth(piece.map, piece.block_size), block(IMAGE))


def test_space_to_depth_first() -> None:
    block = Downsample(3, 8, downsample="spd", order="spd_first").double().eval()
    torch.testing.assert_close(block(IMAGE), block.conv(space_to_depth(IMAGE, 2)), atol=1e-12, rtol=0)


def test_space_to_depth_before_a_grouped_convolution() -> None:
    """Three channels become twelve, in three groups of four inputs, which lie in several sub-maps."""
    block = Downsample(3, 6, groups=3, downsample="spd", order="spd_first").double().eval()
    assert block.conv.conv.groups == 3
    torch.testing.assert_close(block(IMAGE), block.conv(space_to_depth(IMAGE, 2)), atol=1e-12, rtol=0)


def test_convolution_first_contains_the_strided_block() -> None:
    """With zeros for the three offsets that a stride skips, the following 1x1 convolution sees what it sees there."""
    strided, spd = Downsample(3, 8).double().eval(), Downsample(3, 8, downsample="spd").double().eval()
    spd.load_state_dict(strided.state_dict())
    after_stride, after_spd = Conv(8, 5).double().eval(), Conv(32, 5).double().eval()
    with torch.no_grad():
        after_spd.conv.weight.zero_()
        after_spd.conv.weight[:, :8] = after_stride.conv.weight
    expected = after_stride(strided(IMAGE))
    torch.testing.assert_close(after_spd(spd(IMAGE)), expected, atol=1e-13, rtol=0)
    torch.testing.assert_close(after_spd(spd.pieces(IMAGE)), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Stem(3, 8, downsample="sdp"), r"^downsample: unknown 'sdp'; did you mean 'spd'\?$"),
        (lambda: Downsample(3, 8, downsample="pool"), r"^downsample: unknown 'pool'; allowed: spd, stride$"),
        (
            lambda: Downsample(3, 8, downsample="spd", order="conv-first"),
            r"^order: unknown 'conv-first'; did you mean 'conv_first'\?$",
        ),
        (lambda: Downsample(3, 8, 2, downsample="spd"), r"^kernel_size: must be odd where the stride is 1, found 2$"),
    ],
)
def test_refused(build, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_odd_sides_are_rounded_up(kind: str, kernel_size: int) -> None:
    """As a convolution of stride 2 does; a side of 1 stays, so VGG-19 can look at 16 px."""
    pool = Pool(3, kind, kernel_size)
    assert pool(torch.rand(1, 3, 5, 8)).shape == (1, 3, 3, 4)
    assert pool(torch.rand(1, 3, 1, 1)).shape == (1, 3, 1, 1)
    assert HalvingPool()(torch.rand(1, 3, 5, 8)).shape == (1, 3, 3, 4)


def test_the_last_window_of_an_odd_side_is_partial() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0, 4.0, 6.0]] * 2]])
    assert Pool(1, "max")(row).tolist() == [[[[2, 4, 6]]]]
    assert Pool(1, "avg")(row).tolist() == [[[[1.5, 3.5, 6]]]]


def test_space_to_depth_of_an_odd_side() -> None:
    """Zeros below and on the right; in pieces the same, for kernels of 1 and 3."""
    odd = IMAGE[:, :, :11, :19]
    padded = torch.nn.functional.pad(odd, (0, 1, 0, 1))
    assert torch.equal(space_to_depth(odd, 2), space_to_depth(padded, 2))
    for kernel_size in (1, 3):
        conv = Conv(12, 4, kernel_size).double().eval()
        torch.testing.assert_close(conv((Piece(odd, 2),)), conv(space_to_depth(odd, 2)))
