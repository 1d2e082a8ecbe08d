"""Losses of dynamic assignments; those with SimOTA are in ``test_simota``."""

from __future__ import annotations

import math

import pytest
import torch

from detect.config.recipe import LossConfig
from detect.errors import InputError
from detect.losses.detection import detection_loss
from detect.losses.dynamic import DynamicLoss, distribution_loss, rows_of, varifocal
from detect.losses.simota import Assigned
from detect.losses.terms import choose_assignment
from detect.models.heads import CERTAIN, AnchorDetect, AnchorFreeDetect, AnchorFreeOptions
from tests.losses.test_simota import free_head, parts, targets

LN2 = math.log(2)


def aligned_head(num_classes: int = 2, bins: int | None = None) -> AnchorFreeDetect:
    return AnchorFreeDetect(
        (8,), (8,), num_classes, AnchorFreeOptions(hidden_channels=8, coding="distances", objectness=False, bins=bins)
    )


def test_varifocal() -> None:
    """At probability 1/2: a positive of quality 0.6 has 0.6 ln 2, a negative 0.75 / 4 ln 2."""
    found = varifocal(torch.zeros(2), torch.tensor([0.6, 0.0]))
    assert found.tolist() == pytest.approx([0.6 * LN2, 0.1875 * LN2])


def test_distribution_loss() -> None:
    """Bins with probabilities 1/2, 1/4, 1/4: costs ln 2, ln 4, ln 4. At 0.25: 3/4 ln 2 + 1/4 ln 4 = 5/4 ln 2."""
    logits = torch.tensor([LN2, 0, 0]).expand(1, 4, 3)
    found = distribution_loss(logits, torch.tensor([[0.25, -1.0, 2.0, 5.0]]))
    assert found[0].tolist() == pytest.approx([1.25 * LN2, LN2, 2 * LN2, 2 * LN2])


def test_loss_of_one_distribution() -> None:
    """One cell of 8 px, its centre (4, 4); the target, 0 to 12 and 2 to 10 px, has sides at 1/2, 1/4, 1 and 3/4 cells.

    Of each side's bins -1, 0 and 1 the last two have probabilities 1/4 and 3/4 (nearly), so each side is 6 px from the
    centre: the box, -2 to 10 px, shares 80 of 160 pixels with the target. The mean cost of the distributions is that
    of the targets' mean distance, 5/8: 3/8 ln 4 + 5/8 ln(4/3), an eighth of the box's. The quality is 1/2.
    """
    raw = torch.zeros(1, 1, 1, 1, 5 + 2 + 12)
    raw[..., :4] = math.log(1.75)
    raw[..., 4] = CERTAIN
    raw[..., 7:] = torch.tensor([-30, 0, math.log(3)]).repeat(4)
    config = LossConfig(box_iou="iou", nearest_cells=1)
    loss = DynamicLoss(config, aligned_head(bins=3))
    terms = loss([raw], targets((6, 6, 12, 8, 1, 0)))
    assert loss.assignment == "tal"
    expected = (1 / 2 + (3 / 8 * math.log(4) + 5 / 8 * math.log(4 / 3)) / 8) / 2
    assert (terms.box / loss.box_gain).item() == pytest.approx(expected, rel=1e-4)
    assert (terms.classes / loss.class_gain).item() == pytest.approx(2 * LN2, rel=1e-4)  # of 1 and of 0, at 1/2
    assert terms.objectness.item() == 0


def test_rows_are_in_the_order_of_the_assigned_predictions() -> None:
    """Two images; levels of 1 x 2 and 1 x 1 cells, so prediction 2 is the coarse one; values 10 image + prediction."""
    fine, coarse = torch.tensor([[0.0, 1.0], [10.0, 11.0]]), torch.tensor([[2.0], [12.0]])
    levels = [fine.view(2, 1, 1, 2, 1), coarse.view(2, 1, 1, 1, 1)]
    image, prediction = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 2, 1])
    found = rows_of(levels, Assigned(image, prediction, torch.zeros(4, dtype=torch.int64), torch.ones(4)))
    assert found.tolist() == [[2], [10], [12], [1]]


def test_a_prediction_weighs_its_quality() -> None:
    """Two cells of 8 px, each of half the target, 0 to 16 and 0 to 8 px, so that box losses and qualities are 1/2.

    The losses of the boxes are 1/2 * 1/2 each, the sum of the qualities 1: 1/2. Classes: cross-entropy ln 2 of four.
    """
    raw = torch.zeros(1, 1, 1, 2, 7)
    raw[..., :4] = math.log(1.5)
    raw[..., 4] = CERTAIN
    loss = DynamicLoss(LossConfig(box_iou="iou", nearest_cells=1), aligned_head())
    terms = loss([raw], targets((8, 4, 16, 8, 0, 0)))
    assert (terms.box / loss.box_gain).item() == pytest.approx(0.5, rel=1e-4)
    assert (terms.classes / loss.class_gain).item() == pytest.approx(4 * LN2, rel=1e-4)


def test_without_objectness_every_cell_has_a_class_loss() -> None:
    """Nothing to find: ln 2 for each of 9 cells and 2 classes; varifocal 0.1875 of it. No box, no objectness."""
    raw = torch.zeros(1, 1, 3, 3, 7)
    for kind, share in (("bce", 1), ("varifocal", 0.1875)):
        loss = DynamicLoss(LossConfig(class_loss=kind), aligned_head())
        terms = loss([raw], targets())
        assert (terms.box.item(), terms.objectness.item()) == (0, 0)
        assert (terms.classes / loss.class_gain).item() == pytest.approx(18 * LN2 * share, rel=1e-5)


def test_task_aligned_with_objectness() -> None:
    """YOLOX's head: one cell, its box the target's, so a quality of 1. Objectness and two classes at 1/2."""
    raw = torch.zeros(1, 1, 1, 1, 7)
    raw[..., :2] = 0.5
    loss = DynamicLoss(LossConfig(box_iou="iou", assignment="tal", nearest_cells=1), free_head())
    assert parts(loss, loss([raw], targets((4, 4, 8, 8, 1, 0)))) == pytest.approx([0, LN2, 2 * LN2], abs=1e-4)


def test_gains_are_those_of_the_source() -> None:
    """2 and 1, of which an image has a 64th."""
    loss = DynamicLoss(LossConfig(), aligned_head())
    assert [64 * loss.box_gain, 64 * loss.class_gain] == pytest.approx([2, 1])


@pytest.mark.parametrize("kind", ["bce", "varifocal"])
def test_raw_values_learn_their_targets(kind: str) -> None:
    """Values alone, by gradient descent: the boxes of two objects, one of 3 px, and their classes are found."""
    torch.manual_seed(0)
    head = aligned_head(bins=None)
    raw = torch.zeros(1, 1, 4, 6, 7)
    raw[..., 5:] = -4
    raw = raw.requires_grad_()
    given = targets((17, 15.5, 3, 3, 1, 0), (36, 16, 20, 20, 0, 0))
    loss = DynamicLoss(LossConfig(class_loss=kind), head)
    optimizer = torch.optim.Adam([raw], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        certain = torch.cat([raw[..., :4], torch.full_like(raw[..., :1], CERTAIN), raw[..., 5:]], dim=-1)
        loss([certain], given).total.backward()
        optimizer.step()
    decoded = head.decode([certain.detach()])[0]
    for (x, y, width, height, label, _), tolerance in (((17, 15.5, 3, 3, 1, 0), 0.6), ((36, 16, 20, 20, 0, 0), 1.5)):
        best = decoded[decoded[:, 5 + label].argmax()]
        assert best[5 + label] > 0.5
        assert best[:4].tolist() == pytest.approx([x, y, width, height], abs=tolerance)


@pytest.mark.parametrize(
    ("config", "head", "message"),
    [
        ({"class_loss": "varifocal"}, free_head(), "varifocal is for heads without objectness"),
        (
            {"class_loss": "varifocal"},
            AnchorDetect((1,), (8,), 2, [[[8, 8]]]),
            r"^loss\.class_loss: varifocal is for heads without objectness \(\+task-aligned, objectness: false\)$",
        ),
        ({"class_loss": "varifocal", "focal_gamma": 2.0}, aligned_head(), r"loss\.focal_gamma must be 0$"),
        (
            {"assignment": "yolov3"},
            aligned_head(),
            "chooses among anchors, which the head has not; take simota, tal or",
        ),
    ],
)
def test_what_does_not_fit_is_refused(config: dict, head: AnchorFreeDetect, message: str) -> None:
    with pytest.raises(InputError, match=message):
        detection_loss(LossConfig(**config), head, 640)


def test_the_assignment_by_the_head() -> None:
    auto = LossConfig()
    assert choose_assignment(auto, aligned_head()) == "tal"
    assert choose_assignment(auto, free_head()) == "simota"
    assert choose_assignment(LossConfig(assignment="simota"), aligned_head()) == "simota"
    assert choose_assignment(LossConfig(assignment="tal"), AnchorDetect((1,), (8,), 2, [[[8, 8]]])) == "tal"
