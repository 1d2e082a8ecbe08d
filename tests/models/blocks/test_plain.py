from __future__ import annotations

import pytest
import torch

from detect.models.blocks.conv import Conv, ConvStage
from detect.models.blocks.space_to_depth import Piece, space_to_depth
from detect.structures import FeatureShape

X = torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        # 3x3 6 to 8 and two values of the norm for each of 8 channels; with a bias each
        ({}, 9 * 6 * 8 + 16),
        ({"bias": True}, 9 * 6 * 8 + 8 + 16),
        ({"repeats": 3, "bias": True}, 9 * 6 * 8 + 24 + 2 * (9 * 8 * 8 + 24)),
    ],
)
def test_parameters(words: dict, parameters: int) -> None:
    assert sum(p.numel() for p in ConvStage(6, 8, **words).parameters()) == parameters


def test_one_after_the_other() -> None:
    stage = ConvStage(6, 8, repeats=2).double().eval()
    first, second = stage.convs
    torch.testing.assert_close(stage(X), second(first(X)))
    assert isinstance(first, Conv)
    assert stage(X).min() == 0  # behind a ReLU
    assert stage.out_shape(FeatureShape(6, 4)) == FeatureShape(8, 4)


@pytest.mark.parametrize("bias", [False, True])
def test_pieces(bias: bool) -> None:
    stage = ConvStage(24, 8, repeats=2, bias=bias).double().eval()
    assert stage.accepts_pieces
    torch.testing.assert_close(stage((Piece(X, 2),)), stage(space_to_depth(X, 2)), atol=1e-12, rtol=0)


def test_a_norm_takes_the_bias_out_again() -> None:
    """In training, when the norm subtracts the mean; so two stages that differ in the bias alone are the same."""
    stage = ConvStage(6, 8, bias=True).double().train()
    before = stage(X)
    with torch.no_grad():
        stage.convs[0].conv.bias += torch.arange(8)
    torch.testing.assert_close(stage(X), before)
