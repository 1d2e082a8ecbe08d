from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detect.boxes.coding import cell_grid
from detect.config.recipe import LossConfig
from detect.errors import InputError
from detect.losses.dynamic import DynamicLoss
from detect.losses.simota import Assigned, candidates_of, match_simota
from detect.losses.terms import GAIN_FACTORS, LossTerms
from detect.models.heads import AnchorDetect, AnchorFreeDetect, AnchorFreeOptions
from detect.structures import Targets

LN2 = math.log(2)
GRIDS = [(4, 6), (2, 3)]
CELLS = [8, 16]
"""Of an image of 32 x 48 px: 24 + 6 = 30 predictions."""


def targets(*rows: tuple) -> Targets:
    """Targets from (centre x, centre y, width, height in px, label, image)."""
    cxcywh = torch.tensor([row[:4] for row in rows], dtype=torch.float32).view(-1, 4)
    boxes = torch.cat([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], dim=1)
    labels, images = (torch.tensor([row[i] for row in rows], dtype=torch.int64) for i in (4, 5))
    return Targets(images, labels, boxes)


def match(boxes: Tensor, logits: Tensor, given: Targets, num_anchors: int = 1) -> Assigned:
    return match_simota(boxes, logits, given, *candidates_of(given, GRIDS, CELLS, num_anchors))


def pairs(assigned: Assigned) -> set[tuple[int, int, int]]:
    """Image, prediction and target of each."""
    return set(zip(assigned.image.tolist(), assigned.prediction.tolist(), assigned.target.tolist(), strict=True))


# ------------------------------------------------------------------------------------------ candidates


def test_candidates_are_the_cells_around_the_centre() -> None:
    """(20, 12) px is in column 2, row 1 of 4 x 6 cells and in column 1, row 0 of 2 x 3 cells, behind the first 24."""
    found, inside = candidates_of(targets((20, 12, 4, 4, 0, 0)), GRIDS, CELLS, 1)
    fine = [row * 6 + column for row in (0, 1, 2) for column in (1, 2, 3)]
    coarse = [24 + row * 3 + column for row in (0, 1) for column in (0, 1, 2)]
    assert found[inside].tolist() == fine + coarse
    assert (tuple(found.shape), inside.sum().item()) == ((1, 18), 15)  # the row above the coarse map is no cell


def test_candidates_of_several_anchors() -> None:
    """Anchor by anchor, as predictions are; the last corner belongs to the last cell."""
    found, inside = candidates_of(targets((48, 32, 4, 4, 0, 0)), GRIDS[1:], CELLS[1:], 2)
    assert found[inside].tolist() == [1, 2, 4, 5, 7, 8, 10, 11]


def test_no_targets_have_no_candidates() -> None:
    empty = targets()
    found, inside = candidates_of(empty, GRIDS, CELLS, 1)
    assert found.shape == inside.shape == (0, 18)
    assert len(match(torch.ones(2, 30, 4), torch.zeros(2, 30, 4), empty).target) == 0


# ---------------------------------------------------------------------------------------------- matches


def test_as_many_predictions_as_their_overlap() -> None:
    """Predictions 7, 8 and 14 have IoUs of 1, 3/4 and 1/2 with the target, together 2: the best two are assigned.

    All classes are as likely, so that the cost is that of the IoU.
    """
    boxes = torch.full((1, 30, 4), 1.0)  # elsewhere: the corner
    boxes[0, 7] = torch.tensor([12.0, 12, 16, 16])
    boxes[0, 8] = torch.tensor([12.0, 12, 16, 12])
    boxes[0, 14] = torch.tensor([12.0, 12, 8, 16])
    found = match(boxes, torch.zeros(1, 30, 3), targets((12, 12, 16, 16, 0, 0)))
    assert pairs(found) == {(0, 7, 0), (0, 8, 0)}
    assert sorted(found.quality.tolist()) == pytest.approx([0.75, 1.0], abs=1e-6)


def test_one_prediction_at_least() -> None:
    """Nothing overlaps: the one that says the class most surely."""
    logits = torch.zeros(1, 30, 3)
    logits[0, 13] = torch.tensor([3.0, -3, 3])
    logits[0, 29] = torch.tensor([9.0, -9, 9])  # not near it
    found = match(torch.full((1, 30, 4), 0.1), logits, targets((12, 12, 8, 8, 1, 0)))
    assert pairs(found) == {(0, 13, 0)}


def test_a_prediction_has_one_target() -> None:
    """Both targets want prediction 7. Its box is nearer to the second one, which has it; the first one goes without."""
    boxes = torch.full((1, 30, 4), 0.1)
    boxes[0, 7] = torch.tensor([12.0, 12, 8, 8])
    given = targets((12, 12, 16, 16, 0, 0), (12, 12, 8, 10, 0, 0))
    assert pairs(match(boxes, torch.zeros(1, 30, 2), given)) == {(0, 7, 1)}
    same = targets((12, 12, 8, 8, 0, 0), (12, 12, 8, 8, 0, 0))
    assert pairs(match(boxes, torch.zeros(1, 30, 2), same)) == {(0, 7, 0)}


def slow_match(boxes: Tensor, logits: Tensor, given: Targets, num_anchors: int) -> set[tuple[int, int, int]]:
    """One target and one prediction at a time, by the definition."""
    taken: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for target, (image, label, box) in enumerate(
        zip(given.image_index.tolist(), given.labels.tolist(), given.boxes_xyxy_px.tolist(), strict=True)
    ):
        centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        found, start = [], 0
        for (height, width), cell in zip(GRIDS, CELLS, strict=True):
            for anchor in range(num_anchors):
                for row in range(height):
                    for column in range(width):
                        near = abs(row - centre_y // cell) <= 1 and abs(column - centre_x // cell) <= 1
                        if near:
                            p = start + (anchor * height + row) * width + column
                            found.append((p, slow_iou(boxes[image, p].tolist(), box)))
            start += num_anchors * height * width
        costs = [(slow_class_cost(logits[image, p].tolist(), label) - 3 * math.log(iou + 1e-8), p) for p, iou in found]
        count = max(int(sum(sorted((iou for _, iou in found), reverse=True)[:10])), 1)
        for cost, p in sorted(costs, key=lambda pair: pair[0])[:count]:
            taken.setdefault((image, p), []).append((cost, target))
    return {(image, p, min(wanting)[1]) for (image, p), wanting in taken.items()}


def slow_iou(cxcywh: list[float], xyxy: list[float]) -> float:
    x, y, w, h = cxcywh
    across = min(x + w / 2, xyxy[2]) - max(x - w / 2, xyxy[0])
    down = min(y + h / 2, xyxy[3]) - max(y - h / 2, xyxy[1])
    shared = max(across, 0) * max(down, 0)
    return shared / (w * h + (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1]) - shared)


def slow_class_cost(logits: list[float], label: int) -> float:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    scores = [math.sqrt(sigmoid(logits[0]) * sigmoid(x)) for x in logits[1:]]
    return -sum(math.log(s if k == label else 1 - s) for k, s in enumerate(scores))


@pytest.mark.parametrize("num_anchors", [1, 2])
def test_against_the_definition(num_anchors: int) -> None:
    """Crowded images, so that targets compete, with boxes near their cells."""
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        levels = []
        for (height, width), cell in zip(GRIDS, CELLS, strict=True):
            grid = cell_grid(height, width, torch.zeros(1)).expand(2, num_anchors, height, width, 2)
            centres = (grid + torch.rand(grid.shape, generator=random)) * cell
            levels.append(torch.cat([centres, 24 * torch.rand(grid.shape, generator=random) + 4], dim=-1).flatten(1, 3))
        boxes = torch.cat(levels, dim=1)
        logits = torch.randn(2, 30 * num_anchors, 4, generator=random)
        places = torch.rand(25, 6, generator=random) * torch.tensor([48.0, 32, 24, 24, 3, 2])
        given = targets(*((x, y, w + 4, h + 4, int(label), int(i)) for x, y, w, h, label, i in places.tolist()))
        found = match(boxes, logits, given, num_anchors)
        assert pairs(found) == slow_match(boxes, logits, given, num_anchors)
        assert len(found.target) > 15


# ------------------------------------------------------------------------------------------------- loss


def free_head(num_classes: int = 2) -> AnchorFreeDetect:
    return AnchorFreeDetect((8,), (8,), num_classes, AnchorFreeOptions(hidden_channels=8))


def parts(loss: DynamicLoss, terms: LossTerms) -> list[float]:
    """Box, objectness and classes, without their gains."""
    gains = (loss.box_gain, loss.objectness_gain, loss.class_gain)
    return [value / gain for value, gain in zip(terms.values().values(), gains, strict=True)]


def test_loss_of_one_box() -> None:
    """3 x 3 cells of 8 px. The middle one, raw (0.5, 0.5, ln 2, ln 2), is the target of 16 px at (12, 12): IoU 1.

    The other eight, raw 0, are boxes of 8 px around the first corners of their cells. Those at (16, 8), (8, 16) and
    (16, 16) lie in the target, with IoU 1/4: all together 7/4, one prediction.
    """
    raw = torch.zeros(1, 1, 3, 3, 7)
    raw[0, 0, 1, 1, :4] = torch.tensor([0.5, 0.5, LN2, LN2])
    loss = DynamicLoss(LossConfig(box_iou="iou"), free_head())
    box, objectness, classes = parts(loss, loss([raw], targets((12, 12, 16, 16, 1, 0))))
    assert box == pytest.approx(0, abs=1e-5)
    assert objectness == pytest.approx(9 * LN2, rel=1e-5)
    assert classes == pytest.approx(2 * LN2, rel=1e-5)  # 1 for the class of the target, 0 for the other one


def test_the_class_target_is_the_iou() -> None:
    """One cell: a box of 8 px at (8, 8), raw 0.5 and 0.5 more, in a target of 16 px: IoU 1/4.

    At logit ln 3 the cross-entropy with 1/4 is -1/4 ln(3/4) - 3/4 ln(1/4).
    """
    raw = torch.tensor([1.0, 1, 0, 0, 0, math.log(3), 0]).view(1, 1, 1, 1, 7)
    loss = DynamicLoss(LossConfig(box_iou="iou"), free_head())
    box, objectness, classes = parts(loss, loss([raw], targets((8, 8, 16, 16, 0, 0))))
    assert (box, objectness) == (pytest.approx(3 / 4, abs=1e-5), pytest.approx(LN2))
    assert classes == pytest.approx(-math.log(3 / 4) / 4 - 3 * math.log(1 / 4) / 4 + LN2, rel=1e-5)


def test_gains_are_those_of_the_source() -> None:
    """5, 1 and 1, of which an image has a 64th."""
    loss = DynamicLoss(LossConfig(), free_head())
    gains = (loss.box_gain, loss.objectness_gain, loss.class_gain)
    assert [64 * gain for gain in gains] == pytest.approx([5, 1, 1])
    assert GAIN_FACTORS["simota"].box == 100 / 64


def test_loss_without_targets() -> None:
    raw = torch.randn(2, 1, 3, 3, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    terms = DynamicLoss(LossConfig(), free_head())([raw], targets())
    assert (terms.box.item(), terms.classes.item(), terms.num_images) == (0, 0, 2)
    terms.total.backward()
    assert raw.grad is not None
    assert (raw.grad[..., 4] > 0).all()
    assert raw.grad[..., :4].abs().sum() == raw.grad[..., 5:].abs().sum() == 0


def test_a_batch_divided_has_the_same_terms() -> None:
    """Images do not change one another's assignment: with one assigned prediction each, a term is the mean of two."""
    raw = torch.full((2, 1, 3, 3, 7), -9.0)  # boxes of nearly no size
    raw[:, 0, 1, 1] = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    given = targets((12, 12, 6, 6, 1, 0), (12, 12, 7, 8, 0, 1))
    loss = DynamicLoss(LossConfig(), free_head())
    first, second = (loss([raw[i : i + 1]], given.of(torch.tensor([i]))).values() for i in range(2))
    for word, value in loss([raw], given).values().items():
        assert value == pytest.approx((first[word] + second[word]) / 2, rel=1e-5)


def test_heads_with_anchors_learn_by_it_too() -> None:
    """A gradient for the assigned predictions of any anchor, in half precision as well."""
    head = AnchorDetect((1, 1), (8, 16), 3, [[[10, 13], [16, 30]], [[30, 61], [62, 45]]])
    random = torch.Generator().manual_seed(0)
    shapes = [(2, 2, height, width, 8) for height, width in GRIDS]
    raw = [torch.randn(shape, generator=random).bfloat16().requires_grad_() for shape in shapes]
    terms = DynamicLoss(LossConfig(assignment="simota"), head)(
        raw, targets((20, 12, 20, 20, 2, 0), (30, 20, 30, 24, 0, 1))
    )
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    assert sum(int((y.grad[..., :4] != 0).any(dim=-1).sum()) for y in raw if y.grad is not None) >= 2
    assert all(y.grad is not None and y.grad.isfinite().all() for y in raw)


def test_squared_errors_are_for_anchors() -> None:
    message = r"^loss\.box_iou: mse is for assignments to anchors, the assignment is simota; take an IoU$"
    with pytest.raises(InputError, match=message):
        DynamicLoss(LossConfig(box_iou="mse"), free_head())
