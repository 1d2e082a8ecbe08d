from __future__ import annotations

import math

import torch

from detect.models.blocks.attention import AttendedConv, SpatialAttention
from detect.models.blocks.conv import Conv
from detect.models.blocks.space_to_depth import Piece, space_to_depth
from detect.structures import FeatureShape


def test_without_an_opinion_it_halves() -> None:
    """Convolution and bias 0: each weight is sigmoid(0) = 1/2, whatever the statistics."""
    block = SpatialAttention(6)
    torch.nn.init.zeros_(block.weigh.conv.weight)
    x = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x / 2)
    assert torch.equal(block.eval()(x), x / 2)


def test_by_hand() -> None:
    """The running statistics of a new batch norm are mean 0 and variance 1. The convolution swaps the channels."""
    block = SpatialAttention(2).eval()
    block.weigh.norm.eps = 1e-30  # next to nothing; PyTorch refuses 0
    with torch.no_grad():
        block.weigh.conv.weight.copy_(torch.tensor([[0.0, 1], [1, 0]]).view(2, 2, 1, 1))
        y = block(torch.tensor([2.0, -math.log(3)]).view(1, 2, 1, 1))
    # sigmoid(-log 3) = 1/4; sigmoid(2) = 0.8808
    torch.testing.assert_close(y.flatten(), torch.tensor([0.5, -math.log(3) * 0.8807971]))


def test_shapes() -> None:
    assert SpatialAttention(6).out_shape(FeatureShape(6, 8)) == FeatureShape(6, 8)
    assert AttendedConv(6, 8, 3).out_shape(FeatureShape(6, 8)) == FeatureShape(8, 8)


def test_attended_conv_is_attention_behind_the_convolution() -> None:
    torch.manual_seed(0)
    block = AttendedConv(4, 6, 3, activation="leaky").eval()
    conv = Conv(4, 6, 3, activation="leaky").eval()
    missing, unexpected = conv.load_state_dict(block.state_dict(), strict=False)
    assert missing == []  # the weights of a neck without attention fit one with it
    assert all(name.startswith("attention.") for name in unexpected)
    x = torch.randn(1, 4, 5, 6)
    with torch.no_grad():
        assert torch.equal(block(x), block.attention(conv(x)))


def test_attended_conv_takes_pieces() -> None:
    torch.manual_seed(0)
    block = AttendedConv(12, 4, 3).eval()
    x = torch.randn(1, 3, 8, 8)
    assert block.accepts_pieces
    with torch.no_grad():
        torch.testing.assert_close(block((Piece(x, 2),)), block(space_to_depth(x, 2)), atol=1e-5, rtol=1e-5)
