"""Task-aligned assignment."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detect.config.recipe import LossConfig
from detect.losses.alignment import MIN_QUALITY, cell_centres, match_aligned
from detect.losses.simota import Assigned
from detect.structures import Targets
from tests.losses.test_simota import CELLS, GRIDS, pairs, slow_iou, targets

CONFIG = LossConfig(assignment="tal", top_k=2, nearest_cells=4, score_power=1.0, iou_power=1.0)
MIDDLE = (16, 16, 20, 20, 0, 0)
"""A target from 6 to 26 px: of cells of 8 px it holds the centres at 12 and 20 px, predictions 7, 8, 13 and 14."""


def match(boxes: Tensor, logits: Tensor, given: Targets, config: LossConfig = CONFIG, num_anchors: int = 1) -> Assigned:
    """Of the levels that fit the number of predictions: 24 cells, or 30 with those of 16 px."""
    count = 1 if boxes.shape[1] == 24 * num_anchors else 2
    return match_aligned(boxes, logits, given, cell_centres(GRIDS[:count], CELLS[:count], num_anchors, boxes), config)


def qualities(assigned: Assigned) -> dict[tuple[int, int], float]:
    """Quality by prediction and target."""
    keys = zip(assigned.prediction.tolist(), assigned.target.tolist(), strict=True)
    return dict(zip(keys, assigned.quality.tolist(), strict=True))


def test_centres_are_in_the_order_of_predictions() -> None:
    """Level, anchor, row, column; cells of an instance of SDPoint may be oblong."""
    found = cell_centres([(1, 2), (1, 1)], [8, (16.0, 12.0)], 2, torch.zeros(1))
    assert found.tolist() == [[4, 4], [12, 4], [4, 4], [12, 4], [8, 6], [8, 6]]


def test_the_best_aligned_of_the_cells_inside() -> None:
    """IoUs of 1, 1/2 and 1/4 of 7, 8 and 13 at one score: the best two. The quality is the IoU, as t / max t is.

    Prediction 9 would fit as well, but its cell's centre lies outside, at 28 px.
    """
    boxes = torch.full((1, 24, 4), 0.1)
    for prediction, height in ((7, 20), (8, 10), (13, 5), (9, 20)):
        boxes[0, prediction] = torch.tensor([16.0, 16, 20, height])
    found = match(boxes, torch.zeros(1, 24, 3), targets(MIDDLE))
    assert qualities(found) == {(7, 0): pytest.approx(1.0), (8, 0): pytest.approx(0.5)}


def test_score_and_place_make_the_alignment() -> None:
    """s^alpha * u^beta: 8 has half the IoU of 7 and twice its score, sigmoid(ln 3) / sigmoid(-ln 5/3) = 0.75 / 0.375.

    With beta 1 both have t = 0.375 and so the largest IoU as quality; with beta 2 that of 8 is half of it.
    """
    boxes = torch.full((1, 24, 4), 0.1)
    boxes[0, 7], boxes[0, 8] = torch.tensor([16.0, 16, 20, 20]), torch.tensor([16.0, 16, 20, 10])
    logits = torch.full((1, 24, 3), 30.0)  # objectness is certain
    logits[0, 7, 1], logits[0, 8, 1] = -math.log(5 / 3), math.log(3)
    for beta, quality in ((1.0, 1.0), (2.0, 0.5)):
        found = match(boxes, logits, targets(MIDDLE), replace(CONFIG, iou_power=beta))
        assert qualities(found) == {(7, 0): pytest.approx(1.0), (8, 0): pytest.approx(quality, rel=1e-5)}


def test_a_tiny_object_has_the_nearest_cells() -> None:
    """3 px at (17, 15.5) hold no centre: the four around it, although nothing overlaps, with the least quality."""
    found = match(torch.full((1, 24, 4), 0.1), torch.zeros(1, 24, 3), targets((17, 15.5, 3, 3, 0, 0)), LossConfig())
    assert qualities(found) == dict.fromkeys([(7, 0), (8, 0), (13, 0), (14, 0)], pytest.approx(MIN_QUALITY))
    one = match(
        torch.full((1, 24, 4), 0.1),
        torch.zeros(1, 24, 3),
        targets((17, 15.5, 3, 3, 0, 0)),
        replace(CONFIG, nearest_cells=1),
    )
    assert pairs(one) == {(0, 8, 0)}


def test_an_object_with_cells_has_no_least_quality() -> None:
    """Four cells inside are enough: where nothing overlaps, their quality is 0."""
    found = match(torch.full((1, 24, 4), 0.1), torch.zeros(1, 24, 3), targets(MIDDLE))
    assert list(qualities(found).values()) == pytest.approx([0, 0], abs=1e-3)


def test_neighbours_share_the_cells() -> None:
    """Two of 3 px want the same four, none overlaps: the left one has the left cells, the right one the right ones."""
    given = targets((17, 15.5, 3, 3, 0, 0), (14, 15.5, 3, 3, 0, 0))
    found = match(torch.full((1, 24, 4), -9.0), torch.zeros(1, 24, 3), given, LossConfig())
    assert pairs(found) == {(0, 8, 0), (0, 14, 0), (0, 7, 1), (0, 13, 1)}


def test_the_better_overlap_has_a_prediction() -> None:
    """Both hold 7; its box is the second target's. Equal targets: the first one has it."""
    boxes = torch.full((1, 24, 4), -9.0)
    boxes[0, 7] = torch.tensor([16.0, 16, 20, 18])
    config = replace(CONFIG, top_k=1)
    assert pairs(match(boxes, torch.zeros(1, 24, 2), targets(MIDDLE, (16, 16, 20, 18, 0, 0)), config)) == {(0, 7, 1)}
    assert pairs(match(boxes, torch.zeros(1, 24, 2), targets(MIDDLE, MIDDLE), config)) == {(0, 7, 0)}


def test_no_targets() -> None:
    found = match(torch.ones(2, 30, 4), torch.zeros(2, 30, 3), targets())
    assert [len(part) for part in found] == [0, 0, 0, 0]


def slow_match(
    boxes: Tensor, logits: Tensor, given: Targets, config: LossConfig, anchors: int
) -> dict[tuple[int, int, int], float]:
    """One target and one prediction at a time, by the definition: quality by image, prediction and target."""
    centres = [
        ((column + 0.5) * cell, (row + 0.5) * cell)
        for (height, width), cell in zip(GRIDS, CELLS, strict=True)
        for _ in range(anchors)
        for row in range(height)
        for column in range(width)
    ]
    wanted: dict[tuple[int, int], list[tuple[float, float, int, float, bool]]] = {}
    rows = zip(given.image_index.tolist(), given.labels.tolist(), given.boxes_xyxy_px.tolist(), strict=True)
    for target, (image, label, (left, top, right, bottom)) in enumerate(rows):
        away = [math.dist(centre, ((left + right) / 2, (top + bottom) / 2)) for centre in centres]
        candidates = {p for p, (x, y) in enumerate(centres) if left < x < right and top < y < bottom}
        is_few = len(candidates) < config.nearest_cells
        if is_few:
            candidates |= set(sorted(range(len(centres)), key=lambda p: away[p])[: config.nearest_cells])
        found = []
        for p in candidates:
            iou = slow_iou(boxes[image, p].tolist(), [left, top, right, bottom])
            objectness, score = (1 / (1 + math.exp(-logits[image, p, i].item())) for i in (0, 1 + label))
            found.append(((objectness * score) ** config.score_power * iou**config.iou_power, p, iou))
        for t, p, iou in sorted(found, reverse=True)[: config.top_k]:
            wanted.setdefault((image, p), []).append((-iou, away[p], target, t, is_few))
    winners = {place: min(claims) for place, claims in wanted.items()}
    quality = {}
    for (image, p), (_, _, target, t, is_few) in winners.items():
        same = [claim for claim in winners.values() if claim[2] == target]
        largest = max(claim[3] for claim in same)
        value = t / largest * max(-claim[0] for claim in same) if largest > 0 else 0.0
        quality[image, p, target] = max(value, MIN_QUALITY) if is_few else value
    return quality


@pytest.mark.parametrize("num_anchors", [1, 2])
def test_as_one_by_one(num_anchors: int) -> None:
    random = torch.Generator().manual_seed(num_anchors)
    count = 30 * num_anchors
    boxes = torch.rand(2, count, 4, generator=random) * torch.tensor([48.0, 32, 24, 24])
    logits = torch.randn(2, count, 4, generator=random)
    rows = torch.rand(12, 4, generator=random) * torch.tensor([40.0, 24, 20, 20]) + torch.tensor([4.1, 4.2, 1, 1])
    given = targets(*((*row, i % 3, i % 2) for i, row in enumerate(rows.tolist())))
    # Anchors of a cell are as near: whole cells, so that none is chosen among equals.
    config = LossConfig(top_k=5 * num_anchors, nearest_cells=3 * num_anchors, score_power=0.5, iou_power=3.0)
    found = match(boxes, logits, given, config, num_anchors)
    keys = zip(found.image.tolist(), found.prediction.tolist(), found.target.tolist(), strict=True)
    assert dict(zip(keys, found.quality.tolist(), strict=True)) == {
        place: pytest.approx(value, rel=1e-4, abs=1e-6)
        for place, value in slow_match(boxes, logits, given, config, num_anchors).items()
    }


@pytest.mark.parametrize("top_k", [2, 30])
def test_it_is_done_in_parts(monkeypatch: pytest.MonkeyPatch, top_k: int) -> None:
    """A target after the other is the same as all at once, also where it has fewer candidates than ``top_k``."""
    config = replace(CONFIG, top_k=top_k)
    boxes = torch.rand(1, 30, 4, generator=torch.Generator().manual_seed(0)) * 32
    given = targets(MIDDLE, (30, 20, 12, 9, 0, 0), (8, 8, 3, 3, 0, 0))
    whole = match(boxes, torch.zeros(1, 30, 3), given, config)
    monkeypatch.setattr("detect.losses.alignment.PAIRS_AT_ONCE", 1)
    assert all(a.equal(b) for a, b in zip(whole, match(boxes, torch.zeros(1, 30, 3), given, config), strict=True))
