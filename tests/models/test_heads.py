from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from detect.boxes.coding import BoxCoding
from detect.errors import InputError
from detect.models.class_heads import Classify
from detect.models.heads import (
    MIN_MEAN,
    AnchorDetect,
    AnchorFreeDetect,
    AnchorFreeOptions,
    side_means,
    side_means_apart,
)
from detect.structures import FeatureShape

ANCHORS = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]]]


def head(num_classes: int = 4, **words: Any) -> AnchorDetect:
    torch.manual_seed(0)
    return AnchorDetect((6, 8), (8, 16), num_classes, ANCHORS, **words)


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
    ("words", "expected"),
    [
        ({}, [BoxCoding(2.0, "square")] * 2),
        ({"coding": "yolov5"}, [BoxCoding(2.0, "square")] * 2),
        ({"coding": "yolov3"}, [BoxCoding(1.0, "exp")] * 2),
        ({"coding": "yolov3", "xy_scale": 2}, [BoxCoding(2.0, "exp")] * 2),
        ({"coding": "yolov3", "xy_scale": [1.2, 1.05]}, [BoxCoding(1.2, "exp"), BoxCoding(1.05, "exp")]),
    ],
)
def test_codings(words: dict[str, Any], expected: list[BoxCoding]) -> None:
    assert head(**words).codings == tuple(expected)


def test_each_level_is_decoded_by_its_own_coding() -> None:
    """Raw ln 3 is s = 3/4: 1.2 * 3/4 - 0.1 = 0.8 of the fine cell of 8 px, 3/4 of the coarse one; sides times 3."""
    raw = [torch.full((1, 3, 1, 1, 9), math.log(3)) for _ in range(2)]
    decoded = head(coding="yolov3", xy_scale=[1.2, 1.0]).decode(raw)
    assert decoded[0, 0, :4].tolist() == pytest.approx([6.4, 6.4, 30, 39])
    assert decoded[0, 3, :4].tolist() == pytest.approx([12, 12, 90, 183])
    torch.testing.assert_close(decoded[..., 4:], torch.full((1, 6, 5), 0.75))


def test_unknown_coding() -> None:
    with pytest.raises(InputError, match=r"^coding: unknown 'yolov33'; did you mean 'yolov3'\?$"):
        head(coding="yolov33")


@pytest.mark.parametrize("scale", [0.9, [1.2], [1.2, 1.1, 1.05], [1.2, 0.5], [1.2, "a"], "wide", True], ids=str)
def test_wrong_xy_scale(scale: Any) -> None:
    with pytest.raises(InputError, match=r"^xy_scale: must be a number of at least 1, or 2 of them, found "):
        head(coding="yolov3", xy_scale=scale)


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


def test_classifier() -> None:
    """The mean of each channel over all cells, then the fully connected layer."""
    torch.manual_seed(0)
    classify = Classify(2, 3)
    x = torch.tensor([[[[1.0, 3], [5, 7]], [[2, 2], [2, 6]]]])  # means 4 and 3
    torch.testing.assert_close(classify(x), classify.linear(torch.tensor([[4.0, 3.0]])))
    assert classify.out_shape(FeatureShape(2, 32)) == FeatureShape(3, 32)


def test_classify_by_the_maximum() -> None:
    classify = Classify(2, 3, pool="max")
    x = torch.tensor([[[[1.0, 3], [5, 7]], [[2, 2], [2, 6]]]])  # maxima 7 and 6
    torch.testing.assert_close(classify(x), classify.linear(torch.tensor([[7.0, 6.0]])))
    torch.testing.assert_close(classify(x[..., :1, :1]), classify.linear(torch.tensor([[1.0, 2.0]])))  # of one cell


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"pool": "mean"}, r"^pool: unknown 'mean'; allowed: avg, max$"),
        ({"pool": "max", "average_last": True}, r"^average_last: belongs to pool avg, found max$"),
    ],
)
def test_wrong_pool(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classify(2, 3, **words)


def test_yolov5_has_one_reach() -> None:
    with pytest.raises(InputError, match=r"^xy_scale: belongs to coding yolov3, found 1\.1 with yolov5$"):
        head(coding="yolov5", xy_scale=1.1)


# ------------------------------------------------------------------------------------- without anchors


def free_head(num_classes: int = 4) -> AnchorFreeDetect:
    torch.manual_seed(0)
    return AnchorFreeDetect((6, 8), (8, 16), num_classes, AnchorFreeOptions(hidden_channels=8))


def test_branches_of_a_head_without_anchors() -> None:
    """x, y, w, h and objectness come from one branch, the classes from the other."""
    detect = free_head().eval()
    maps = (torch.randn(2, 6, 4, 6), torch.randn(2, 8, 2, 3))
    raw = detect(*maps)
    assert [tuple(y.shape) for y in raw] == [(2, 1, 4, 6, 9), (2, 1, 2, 3, 9)]
    for i, (y, x) in enumerate(zip(raw, maps, strict=True)):
        stem = detect.stems[i](x)
        boxes = detect.boxes[i](detect.box_branches[i](stem)).permute(0, 2, 3, 1)
        classes = detect.classes[i](detect.class_branches[i](stem)).permute(0, 2, 3, 1)
        assert torch.equal(y[:, 0], torch.cat([boxes, classes], dim=-1))


def test_decoding_without_anchors() -> None:
    """Raw zeros are a cell's own size around its first corner; offsets and logarithms of sides are in cells."""
    raw = [torch.zeros(1, 1, 2, 2, 9), torch.zeros(1, 1, 1, 1, 9)]
    raw[0][0, 0, 1, 0, :4] = torch.tensor([0.5, -1.25, math.log(2), math.log(3)])
    decoded = free_head().decode(raw)
    assert decoded[0, :, :4].tolist() == [
        [0, 0, 8, 8],
        [8, 0, 8, 8],
        pytest.approx([4, -2, 16, 24]),  # (0.5 + 0) * 8, (-1.25 + 1) * 8
        [8, 8, 8, 8],
        [0, 0, 16, 16],
    ]
    assert (decoded[..., 4:] == 0.5).all()


def test_priors_without_anchors() -> None:
    """Objectness and each class have a probability of 0.01."""
    detect = free_head()
    before = [conv.bias.detach().clone() for conv in detect.boxes]
    detect.reset_biases()
    for boxes, classes, old in zip(detect.boxes, detect.classes, before, strict=True):
        assert torch.equal(boxes.bias[:4], old[:4])
        assert torch.cat([boxes.bias[4:], classes.bias]).sigmoid().tolist() == pytest.approx([0.01] * 5)


def test_cells_are_no_part_of_the_weights() -> None:
    assert not [name for name in free_head().state_dict() if "anchors" in name]
    assert free_head().anchors_px.tolist() == [[[8, 8]], [[16, 16]]]
    assert (free_head().fitted_args, free_head().num_anchors) == ({}, 1)
    assert free_head().out_shape(FeatureShape(6, 8), FeatureShape(8, 16)) == FeatureShape(9, 8)


def aligned_head(bins: int | None = None) -> AnchorFreeDetect:
    torch.manual_seed(0)
    options = {"coding": "distances", "objectness": False, "bins": bins}
    return AnchorFreeDetect((6, 8), (8, 16), 4, AnchorFreeOptions(hidden_channels=8, **options))


def test_distances_from_the_centre() -> None:
    """The second cell's centre is (12, 4). Sides 1/2, 1, 2 and 1 cells away: 8 to 28 and -4 to 12 px.

    The third has sides at -1/4, 0, 1/2 and 0 cells: its centre is (20 + 3, 4), it is 2 px wide, and its height, 0, is a
    tenth of a cell's over e.
    """
    raw = [torch.zeros(1, 1, 1, 3, 9), torch.zeros(1, 1, 1, 1, 9)]
    raw[0][0, 0, 0, 1:, :4] = torch.tensor([[1.5, 2, 3, 2], [0.75, 1, 1.5, 1]]).log()
    assert aligned_head().decode(raw)[0, 1:, :4].tolist() == [
        pytest.approx([18, 4, 20, 16]),
        pytest.approx([23, 4, 2, 0.8 / math.e]),
        pytest.approx([8, 8, 1.6 / math.e, 1.6 / math.e]),
    ]


def test_a_score_without_objectness_is_the_class() -> None:
    """Objectness is 1, in half precision as well."""
    detect = aligned_head().eval()
    raw = detect(torch.randn(1, 6, 4, 6), torch.randn(1, 8, 2, 3))
    assert all((y[..., 4].sigmoid() == 1).all() and (y[..., 4].half().sigmoid() == 1).all() for y in raw)
    assert detect.boxes[0].out_channels == 4


def test_distributions_become_their_means() -> None:
    """Shares 1/2, 1/4 and 1/4 of 0, 1 and 2 cells: 3/4 of a cell. A side at 0 stays finite."""
    logits = torch.tensor([math.log(2), 0, 0, *[0.0] * 6, 200, 0, 0]).view(1, 12, 1, 1)
    assert side_means(logits, 3)[0, :, 0, 0].tolist() == pytest.approx([0.75, 1, 1, MIN_MEAN])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_means_side_by_side(dtype: torch.dtype) -> None:
    """The same means, each side with distributions of its own, and at the least mean."""
    logits = 3 * torch.randn(2, 4 * 16, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[0, 16] = 200
    expected = side_means(logits, 16)
    assert (expected[0, 1] == MIN_MEAN).all()
    torch.testing.assert_close(side_means_apart(logits, 16), expected)


def test_distributions_of_half_precision_have_means_in_full() -> None:
    """Shares 1/4 and 3/4 of 12 and 13 cells: 12.75. Half precision has steps of 1/128 there."""
    logits = torch.full((1, 4 * 16, 1, 1), -60.0)
    logits[:, 12::16], logits[:, 13::16] = 0.0, math.log(3)
    found = side_means(logits.half(), 16)
    assert found.dtype == torch.float32
    # log(3) is rounded by at most 1/2048, which moves the mean by at most 3/16 of that.
    torch.testing.assert_close(found.flatten(), torch.full((4,), 12.75), atol=1e-4, rtol=0)


def test_distributions_are_behind_in_training() -> None:
    """4 * R logits; the values in front are the logarithms of their means, as in evaluation and export."""
    detect = aligned_head(bins=3)
    maps = (torch.randn(2, 6, 4, 6), torch.randn(2, 8, 2, 3))
    raw = detect(*maps)
    assert [tuple(y.shape) for y in raw] == [(2, 1, 4, 6, 9 + 12), (2, 1, 2, 3, 9 + 12)]
    assert not torch.autograd.grad(raw[0][..., :4].sum(), detect.boxes[0].weight, retain_graph=True)[0].any()
    values = detect.box_values(raw[0])
    torch.testing.assert_close(raw[0][..., :4], values)
    assert torch.autograd.grad(values.sum(), detect.boxes[0].weight)[0].all()
    detect.eval()
    assert [y.shape[-1] for y in detect(*maps)] == [9, 9]
    assert [y.shape[1] for y in detect.level_maps(*maps)] == [9, 9]


@pytest.mark.parametrize("bins", [None, 64])
def test_first_boxes_are_a_cell(bins: int | None) -> None:
    """Each side half a cell from the centre."""
    detect = aligned_head(bins)
    for conv in (*detect.boxes, *detect.classes):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    detect.reset_biases()
    decoded = detect.eval().decode(detect(torch.randn(1, 6, 2, 2), torch.randn(1, 8, 1, 1)))
    assert decoded[0, 3].tolist() == pytest.approx([12, 12, 8, 8, 1, *[0.01] * 4], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 8}, "bins: must be from 2 to 64 and belong to distances, found 8 with exp"),
        (
            {"bins": 1, "coding": "distances"},
            "bins: must be from 2 to 64 and belong to distances, found 1 with distances",
        ),
        ({"coding": "yolov5"}, "coding: unknown 'yolov5'; allowed: distances, exp"),
    ],
)
def test_wrong_options_without_anchors(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AnchorFreeDetect((6,), (8,), 4, AnchorFreeOptions(**options))


def test_cells_of_levels_that_an_instance_has_shrunk() -> None:
    """A 32 x 48 image in 2 x 4 cells: 12 px wide and 16 px high; in 4 x 6 cells the nominal 8 px."""
    raw = [torch.zeros(1, 3, 2, 4, 9), torch.zeros(1, 3, 2, 3, 9)]
    assert head().cells_px(raw, (32, 48)) == [(12.0, 16.0), 16]
    assert head().cells_px(raw, None) == [8, 16]
    decoded = head().decode(raw, (32, 48))
    assert decoded[0, :8, :2].tolist() == [[x, y] for y in (8, 24) for x in (6, 18, 30, 42)]
    assert decoded[0, 0, 2:4].tolist() == ANCHORS[0][0]  # sizes are in pixels, whatever the cells
