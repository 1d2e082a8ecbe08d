from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision

from detect.boxes.nms import _operator, non_max_suppression


def predict(*rows: tuple) -> torch.Tensor:
    """One image of predictions from (xyxy, objectness, class probabilities)."""
    return torch.tensor([[[(a + c) / 2, (b + d) / 2, c - a, d - b, o, *p] for (a, b, c, d), o, p in rows]])


def crowd(seed: int, num_images: int = 1, num_predictions: int = 120, num_classes: int = 3) -> torch.Tensor:
    """Boxes around few centres, so that many overlap."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randint(0, 4, (num_images, num_predictions, 2), generator=generator) * 30 + 20
    jitter = torch.randn(num_images, num_predictions, 2, generator=generator) * 3
    sizes = torch.rand(num_images, num_predictions, 2, generator=generator) * 10 + 15
    probabilities = torch.rand(num_images, num_predictions, 1 + num_classes, generator=generator)
    return torch.cat([centres + jitter, sizes, probabilities], dim=2)


def overlap(a: list[float], b: list[float]) -> float:
    """IoU of two boxes, written down as in a textbook."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def reference(image, score_threshold, iou_threshold, max_detections, multi_label, class_agnostic=False, classes=None):
    """The slow way: (box, score, label) of one image, best first."""
    candidates = []
    for x, y, w, h, objectness, *probabilities in image.tolist():
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        scored = [(box, objectness * p, k) for k, p in enumerate(probabilities) if classes is None or k in classes]
        if not multi_label:
            scored = [max(scored, key=lambda s: s[1])]
        candidates += [s for s in scored if s[1] > score_threshold]
    kept: list[tuple[list[float], float, int]] = []
    for box, score, label in sorted(candidates, key=lambda s: -s[1]):
        rivals = [other for other, _, k in kept if class_agnostic or k == label]
        if all(overlap(box, rival) <= iou_threshold for rival in rivals):
            kept.append((box, score, label))
    return kept[:max_detections]


def test_the_best_few_of_many() -> None:
    """Around 16 centres most of the best candidates lose, so that twice the limit is not enough to look at."""
    for max_detections in [1, 3, 8, 40]:
        (image,) = crowd(5, num_predictions=400, num_classes=1)
        (found,) = non_max_suppression(image[None], 0.05, 0.1, max_detections, multi_label=False)
        expected = reference(image, 0.05, 0.1, max_detections, multi_label=False)
        assert len(expected) == min(max_detections, len(reference(image, 0.05, 0.1, 1000, multi_label=False)))
        torch.testing.assert_close(found[0], torch.tensor([box for box, _, _ in expected]), rtol=1e-4, atol=1e-3)


def test_nothing_found() -> None:
    for class_agnostic in [False, True]:
        for multi_label in [False, True]:
            for predictions in (torch.zeros(2, 0, 8), torch.zeros(2, 5, 8)):
                found = non_max_suppression(predictions, 0.1, 0.5, 10, multi_label, class_agnostic)
                assert len(found) == 2
                for boxes, scores, labels in found:
                    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
                    assert labels.dtype == torch.int64
            assert non_max_suppression(torch.zeros(0, 5, 8), 0.1, 0.5, 10, multi_label) == []


OPTIONS = [
    {"multi_label": True},
    {"multi_label": False},
    {"multi_label": True, "class_agnostic": True},
    {"multi_label": False, "class_agnostic": True},
    {"multi_label": True, "classes": (2,)},
    {"multi_label": False, "classes": (0, 2)},
    {"multi_label": True, "max_detections": 7},
    {"multi_label": True, "score_threshold": 0.001, "iou_threshold": 0.9, "max_detections": 400},
    {"multi_label": False, "score_threshold": 0.6, "iou_threshold": 0.1},
]


@pytest.mark.parametrize(("seed", "has_objectness"), [(0, True), (1, True), (2, False)])
@pytest.mark.parametrize("options", OPTIONS)
def test_agrees_with_the_slow_way(options: dict[str, Any], seed: int, has_objectness: bool) -> None:
    """Without objectness every row has 1, so that the classes alone decide."""
    predictions = crowd(seed)
    if not has_objectness:
        predictions[..., 4] = 1
    threshold = 0.2 if has_objectness else 0.6
    options = {"score_threshold": threshold, "iou_threshold": 0.45, "max_detections": 300, **options}
    ((boxes, scores, labels),) = non_max_suppression(predictions, **options)
    expected = reference(predictions[0], **options)
    assert 3 < len(expected) < 400
    assert labels.tolist() == [label for _, _, label in expected]
    torch.testing.assert_close(scores, torch.tensor([score for _, score, _ in expected]))
    torch.testing.assert_close(boxes, torch.tensor([box for box, _, _ in expected]))
    assert all(a >= b for a, b in pairwise(scores.tolist()))


def test_a_class_that_is_no_number_leaves_the_others() -> None:
    box = (10, 10, 30, 30)
    predictions = predict((box, 1, (math.nan, 0.9)), (box, 1, (0.1, 0.1)))
    ((_, scores, labels),) = non_max_suppression(predictions, 0.5, 0.5, 10, multi_label=True)
    assert (scores.tolist(), labels.tolist()) == ([pytest.approx(0.9)], [1])
    ((_, scores, _),) = non_max_suppression(predictions, 0.5, 0.5, 10, multi_label=False)
    assert len(scores) == 0  # the largest is no number


@pytest.mark.parametrize("multi_label", [False, True])
def test_batched_equals_single(multi_label: bool) -> None:
    predictions = crowd(5, num_images=3)
    together = non_max_suppression(predictions, 0.2, 0.45, 50, multi_label)
    for image, found in zip(predictions, together, strict=True):
        (alone,) = non_max_suppression(image[None], 0.2, 0.45, 50, multi_label)
        assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_classes_do_not_suppress_one_another() -> None:
    box = (10, 10, 30, 30)
    predictions = predict((box, 1.0, (0.9, 0.0)), (box, 1.0, (0.0, 0.8)))
    ((_, _, labels),) = non_max_suppression(predictions, 0.1, 0.5, 10, False)
    assert labels.tolist() == [0, 1]
    ((_, _, labels),) = non_max_suppression(predictions, 0.1, 0.5, 10, False, class_agnostic=True)
    assert labels.tolist() == [0]


def test_classes_stay_apart_outside_the_image() -> None:
    """Predictions may reach over the image; a shift by the image's size would let classes meet."""
    predictions = predict(
        ((-500, -500, 0, 0), 1.0, (0.9, 0.0)),
        ((0, 0, 500, 500), 1.0, (0.8, 0.0)),
        ((-500, -500, 0, 0), 1.0, (0.0, 0.7)),
    )
    ((_, _, labels),) = non_max_suppression(predictions, 0.1, 0.1, 10, False)
    assert labels.tolist() == [0, 0, 1]


def test_one_label_or_all_of_them() -> None:
    predictions = predict(((0, 0, 10, 10), 0.5, (0.6, 0.2, 0.9)))
    ((_, scores, labels),) = non_max_suppression(predictions, 0.2, 0.5, 10, True)
    assert labels.tolist() == [2, 0]
    torch.testing.assert_close(scores, torch.tensor([0.45, 0.3]))
    ((_, scores, labels),) = non_max_suppression(predictions, 0.2, 0.5, 10, False)
    assert labels.tolist() == [2]


def test_best_of_the_wanted_classes() -> None:
    """A row whose best class is not wanted is still found as its best wanted class."""
    predictions = predict(((0, 0, 10, 10), 1.0, (0.6, 0.2, 0.9)))
    ((_, scores, labels),) = non_max_suppression(predictions, 0.1, 0.5, 10, False, classes=(0, 1))
    assert labels.tolist() == [0]
    assert scores.item() == pytest.approx(0.6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_thresholds_are_exclusive(multi_label: bool) -> None:
    """A score must be above its threshold, an overlap above its own to suppress. All values here are exact."""

    def number(predictions: torch.Tensor, score_threshold: float, iou_threshold: float) -> int:
        ((_, scores, _),) = non_max_suppression(predictions, score_threshold, iou_threshold, 10, multi_label)
        return len(scores)

    for objectness, probability in ((0.5, 0.5), (0.25, 1.0)):
        one = predict(((0, 0, 2, 1), objectness, (probability,)))
        assert [number(one, threshold, 0.5) for threshold in (0.25, 0.2499)] == [0, 1]
    halves = predict(((0, 0, 2, 1), 1.0, (0.9,)), ((0, 0, 1, 1), 1.0, (0.8,)))
    assert [number(halves, 0.1, threshold) for threshold in (0.5, 0.49)] == [2, 1]


def test_best_so_many_remain() -> None:
    rows = [((20 * i, 0, 20 * i + 10, 10), 1.0, (score,)) for i, score in enumerate((0.3, 0.9, 0.5, 0.7))]
    ((boxes, scores, _),) = non_max_suppression(predict(*rows), 0.1, 0.5, 2, True)
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.7]))
    assert boxes[:, 0].tolist() == [20, 60]


def test_candidates_are_capped_at_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap falls before the suppression: of five candidates the best three enter, one of which goes."""
    monkeypatch.setattr("detect.boxes.array_nms.MIN_CANDIDATES", 3)
    monkeypatch.setattr("detect.boxes.array_nms.CANDIDATES_PER_DETECTION", 0)
    rows = [((20 * i, 0, 20 * i + 10, 10), 1.0, (score,)) for i, score in enumerate((0.3, 0.9, 0.5, 0.7))]
    rows.append(((20, 0, 30, 10), 1.0, (0.8,)))  # falls to the box of 0.9
    ((_, scores, _),) = non_max_suppression(predict(*rows), 0.1, 0.5, 10, True)
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.7]))


def test_more_detections_than_candidates_of_a_few() -> None:
    """10,000 objects: all are found where so many are wanted."""
    rows = [((20 * i, 0, 20 * i + 10, 10), 1.0, (0.9,)) for i in range(10_000)]
    ((_, scores, _),) = non_max_suppression(predict(*rows), 0.1, 0.5, 12_000, True)
    assert len(scores) == 10_000


def test_half_precision_is_computed_in_float32() -> None:
    predictions = crowd(9).half()
    for half, full in zip(
        non_max_suppression(predictions, 0.2, 0.45, 50, True)[0],
        non_max_suppression(predictions.float(), 0.2, 0.45, 50, True)[0],
        strict=True,
    ):
        assert torch.equal(half, full)


def test_the_operator_is_torchvisions() -> None:
    boxes = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    scores = torch.rand(200, generator=torch.Generator().manual_seed(1))
    expected = torchvision.ops.nms(boxes, scores, 0.5)
    assert 1 < len(expected) < 200
    assert torch.equal(_operator()(boxes, scores, 0.5), expected)
