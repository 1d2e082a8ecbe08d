from __future__ import annotations

import math

import pytest
import torch

from detect.errors import InputError
from detect.models.heads import AnchorDetect
from detect.structures import FeatureShape

ANCHORS = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]]]


def head(num_classes: int = 4) -> AnchorDetect:
    torch.manual_seed(0)
    return AnchorDetect((6, 8), (8, 16), num_classes, ANCHORS)


def test_raw_predictions_are_the_convolution_rearranged() -> None:
    """Channel a * (5 + K) + v of the 1x1 convolution is value v of anchor a."""
    detect = head()
    maps = (torch.randn(2, 6, 4, 6), torch.randn(2, 8, 2, 3))
    raw = detect(*maps)
    assert [tuple(y.shape) for y in raw] == [(2, 3, 4, 6, 9), (2, 3, 2, 3, 9)]
    for y, conv, x in zip(raw, detect.predict, maps, strict=True):
        channels = conv(x)
        for anchor in range(3):
            for value in range(9):
                assert torch.equal(y[:, anchor, :, :, value], channels[:, anchor * 9 + value])


def test_decoding_puts_levels_and_anchors_in_order() -> None:
    """P = 3 * 2 * 2 + 3 * 1 * 1; raw zeros are the anchors in the middle of their cells, and 1/2 everywhere else."""
    raw = [torch.zeros(1, 3, 2, 2, 9), torch.zeros(1, 3, 1, 1, 9)]
    decoded = head().decode(raw)
    assert decoded.shape == (1, 15, 9)
    assert (decoded[..., 4:] == 0.5).all()
    assert decoded[0, :, :4].tolist() == [
        *([x, y, *anchor] for anchor in ANCHORS[0] for y in (4, 12) for x in (4, 12)),
        *([8, 8, *anchor] for anchor in ANCHORS[1]),
    ]


def test_decoding_keeps_each_value_with_its_cell() -> None:
    raw = [torch.full((1, 3, 2, 2, 9), -9.0), torch.full((1, 3, 1, 1, 9), -9.0)]
    raw[0][0, 1, 1, 0, 4] = 2.0  # objectness of anchor 1 in row 1, column 0: prediction 1 * 4 + 1 * 2 + 0
    raw[1][0, 2, 0, 0, 8] = 3.0  # class 3 of anchor 2 of the second level: prediction 12 + 2
    decoded = head().decode(raw)
    best = decoded[0, :, 4].argmax(), decoded[0, :, 8].argmax()
    assert best == (6, 14)
    assert decoded[0, 6, 4].item() == pytest.approx(1 / (1 + math.exp(-2)))
    assert decoded[0, 14, 8].item() == pytest.approx(1 / (1 + math.exp(-3)))


@pytest.mark.parametrize(
    ("num_classes", "class_logit"),
    [
        (80, math.log(0.6 / 79.01)),
        (4, math.log(0.6 / 3.01)),
        (1, math.log(60)),  # 0.6 / 0.01: the only class is nearly certain
    ],
)
def test_priors(num_classes: int, class_logit: float) -> None:
    """8 objects among the cells of a 640 px image: 80 x 80 at reduction 8, 40 x 40 at 16."""
    detect = head(num_classes)
    before = [conv.bias.detach().clone().view(3, -1) for conv in detect.predict]
    detect.reset_biases()
    for conv, old, cells in zip(detect.predict, before, (80 * 80, 40 * 40), strict=True):
        change = conv.bias.detach().view(3, -1) - old
        torch.testing.assert_close(change[:, :4], torch.zeros(3, 4))
        torch.testing.assert_close(change[:, 4], torch.full((3,), math.log(8 / cells)))
        torch.testing.assert_close(change[:, 5:], torch.full((3, num_classes), class_logit))
        assert conv.bias.requires_grad


def test_shape() -> None:
    assert head().out_shape(FeatureShape(6, 8), FeatureShape(8, 16)) == FeatureShape(27, 8)


def test_levels_come_finest_first() -> None:
    """The loss weighs levels by their place."""
    with pytest.raises(InputError, match=r"^from: maps must come finest first, found reductions 16, 8$"):
        head().out_shape(FeatureShape(6, 16), FeatureShape(8, 8))


@pytest.mark.parametrize(
    "anchors",
    [
        [],
        3,
        "anchors",
        [[10, 13], [16, 30]],
        ANCHORS[:1],  # one level too few
        [*ANCHORS, ANCHORS[0]],
        [ANCHORS[0], ANCHORS[1][:2]],  # not as many in each
        [[[10, 13, 1]], [[10, 13, 1]]],
        [[], []],
        [[[10, 0]], [[10, 13]]],
        [[[10, -1]], [[10, 13]]],
        [[[10, "a"]], [[10, 13]]],
        [[[10, float("nan")]], [[10, 13]]],
    ],
    ids=str,
)
def test_wrong_anchors(anchors) -> None:
    with pytest.raises(
        InputError, match=r"^anchors_px: must be 2 lists \(one for each input map\) of \[width, height\]"
    ):
        AnchorDetect((6, 8), (8, 16), 4, anchors)
