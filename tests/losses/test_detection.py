from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from detect.config.recipe import LossConfig
from detect.errors import InputError
from detect.losses.assignment import Matches
from detect.losses.detection import DetectionLoss, default_balance, detection_loss, objectness_targets
from detect.losses.dynamic import DynamicLoss
from detect.losses.terms import GAIN_FACTORS, LossTerms, choose_assignment
from detect.models.heads import AnchorDetect, AnchorFreeDetect, AnchorFreeOptions
from detect.structures import Targets

LN2 = math.log(2)
ONE_LEVEL = LossConfig(balance=(1.0,))
REDUCTIONS = (8, 16, 32)
ANCHORS = [[[10, 13], [16, 30]], [[30, 61], [62, 45]], [[116, 90], [156, 198]]]


def make_head(anchors: Any = ANCHORS, reductions: tuple[int, ...] = REDUCTIONS, num_classes: int = 3, **words: Any):
    """A head with maps of one channel; the loss reads what it is, not its weights."""
    return AnchorDetect((1,) * len(reductions), reductions, num_classes, anchors, **words)


def one_cell(config: LossConfig = ONE_LEVEL, num_classes: int = 2, **words: Any) -> DetectionLoss:
    """One level of reduction 32 with one anchor of 16 px: at 32 px a single cell, and gains times 3 / 1."""
    return DetectionLoss(config, make_head([[[16, 16]]], (32,), num_classes, **words), 640)


def one_target(size: float = 16, label: int = 0) -> Targets:
    """In the middle of the 32 px image 0."""
    box = [16 - size / 2, 16 - size / 2, 16 + size / 2, 16 + size / 2]
    return Targets(torch.tensor([0]), torch.tensor([label]), torch.tensor([box]))


def no_targets() -> Targets:
    return Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))


def three_levels(num_classes: int = 3, config: LossConfig | None = None) -> DetectionLoss:
    return DetectionLoss(config or LossConfig(), make_head(num_classes=num_classes), 640)


def random_raw(seed: int, batch: int = 2, num_classes: int = 3) -> list[torch.Tensor]:
    """For 64 x 96 px."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 2, 64 // r, 96 // r, 5 + num_classes, generator=generator) for r in REDUCTIONS]


def random_targets(seed: int, number: int = 12, batch: int = 2) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(number, 2, generator=generator) * torch.tensor([96.0, 64.0])
    sizes = torch.exp(torch.rand(number, 2, generator=generator) * 3 + 2)
    return Targets(
        torch.randint(0, batch, (number,), generator=generator),
        torch.randint(0, 3, (number,), generator=generator),
        torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1),
    )


def values(terms: LossTerms) -> list[float]:
    return [terms.box.item(), terms.objectness.item(), terms.classes.item()]


# ------------------------------------------------------------------------------------------- one cell


def test_perfect_box() -> None:
    """Raw zeros are the anchor in the middle of the cell: the target itself. All probabilities are 1/2.

    Box 1 - 1; objectness ln 2 at the goal 1; classes the mean of ln 2 and ln 2, times 2 / 80.
    The gains are 0.05, 1 and 0.5, times 3.
    """
    terms = one_cell()([torch.zeros(1, 1, 1, 1, 7)], one_target())
    assert values(terms) == pytest.approx([0, 3 * LN2, 0.5 * 2 / 80 * 3 * LN2], abs=1e-6)
    assert terms.total.item() == pytest.approx(sum(values(terms)))
    assert terms.values() == dict(zip(("box", "objectness", "classes"), values(terms), strict=True))


def test_imperfect_box() -> None:
    """A 32 px target with one centre and shape: the CIoU is the IoU 16^2 / 32^2 = 1/4, the goal of the objectness.

    Cross-entropies of a logit z and a goal g are ln(1 + e^z) - g z: for 1 and 1/4 1.313262 - 0.25; for the classes
    2 and 1 (the label) 2.126928 and -1 and 0 0.313262, in the mean (0.126928 + 0.313262) / 2.
    """
    raw = torch.tensor([0.0, 0, 0, 0, 1, -1, 2]).view(1, 1, 1, 1, 7)
    terms = one_cell()([raw], one_target(size=32, label=1))
    assert values(terms) == pytest.approx([0.05 * 3 * 0.75, 3 * 1.063262, 0.5 * 2 / 80 * 3 * 0.220095], abs=1e-5)


def test_prediction_that_misses() -> None:
    """Below 0 the CIoU is no goal for a probability: the objectness learns 0."""
    raw = torch.tensor([9.0, 9, -9, -9, 0, 0, 0]).view(1, 1, 1, 1, 7)  # a speck near (1.5, 1.5) cells
    terms = one_cell()([raw], one_target())
    assert terms.box.item() > 0.05 * 3
    assert terms.objectness.item() == pytest.approx(3 * LN2, abs=1e-6)
    assert one_cell()([raw], no_targets()).objectness.item() == pytest.approx(terms.objectness.item())


def test_the_goal_of_the_objectness_is_constant() -> None:
    """Boxes are not made worse to agree with the objectness."""
    raw = torch.tensor([0.0, 0, 0, 0, 1, 0, 0]).view(1, 1, 1, 1, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(one_cell()([raw], one_target(size=20)).objectness, raw)
    assert gradient.flatten().nonzero().flatten().tolist() == [4]


def test_tiny_box() -> None:
    """YOLOv3's assignment gives a stray label of 0.0003 px to some anchor: loss and gradients are finite."""
    for size in [0.0003, 1e-20, 0.0]:
        for words in [{}, {"coding": "yolov3"}, {"config": dataclasses.replace(ONE_LEVEL, box_iou="mse")}]:
            raw = torch.zeros(1, 1, 1, 1, 7, requires_grad=True)
            terms = one_cell(**words)([raw], one_target(size=size))
            terms.total.backward()
            assert all(math.isfinite(value) for value in values(terms))
            assert raw.grad is not None
            assert raw.grad.isfinite().all()


def test_unmatched_size() -> None:
    """64 px is 4 times the anchor: nothing is matched."""
    terms = one_cell()([torch.zeros(1, 1, 1, 1, 7)], one_target(size=64))
    assert values(terms) == pytest.approx([0, 3 * LN2, 0])


def test_no_targets_at_all() -> None:
    """Box and classes are zero, the objectness still learns, and only it."""
    raw = [y.requires_grad_() for y in random_raw(0)]
    terms = three_levels()(raw, no_targets())
    assert values(terms)[::2] == [0, 0]
    assert terms.total.isfinite()
    terms.total.backward()
    for y in raw:
        assert y.grad is not None
        assert (y.grad[..., 4] > 0).all()
        assert (y.grad[..., :4] == 0).all()
        assert (y.grad[..., 5:] == 0).all()


def test_the_only_class_is_certain() -> None:
    raw = torch.full((1, 1, 1, 1, 6), 3.0).requires_grad_()
    terms = one_cell(num_classes=1)([raw], one_target())
    assert terms.classes.item() == 0
    terms.total.backward()
    assert raw.grad is not None
    assert raw.grad[..., 5].item() == 0


# ----------------------------------------------------------------------------------------- assignments


def test_assignment() -> None:
    for asked, words, chosen in [
        ("auto", {}, "yolov5"),
        ("auto", {"coding": "yolov3"}, "yolov3"),
        ("auto", {"coding": "yolov3", "xy_scale": 2.0}, "yolov3"),
        ("yolov5", {"coding": "yolov3", "xy_scale": 2.0}, "yolov5"),
        ("yolov3", {}, "yolov3"),
        ("yolov3", {"coding": "yolov3", "xy_scale": [1.2, 1.1, 1.05]}, "yolov3"),
    ]:
        assert choose_assignment(LossConfig(assignment=asked), make_head(**words)) == chosen


def test_a_head_without_anchors() -> None:
    """It is trained by SimOTA, which heads with anchors may have as well."""
    head = AnchorFreeDetect((8, 8), (8, 16), 3, AnchorFreeOptions(hidden_channels=8))
    assert isinstance(detection_loss(LossConfig(), head, 640), DynamicLoss)
    assert isinstance(detection_loss(LossConfig(assignment="simota"), make_head(), 640), DynamicLoss)
    assert isinstance(detection_loss(LossConfig(), make_head(), 640), DetectionLoss)
    for asked in ("yolov5", "yolov3"):
        message = (
            rf"^loss\.assignment: {asked} chooses among anchors, which the head has not; take simota, tal or auto$"
        )
        with pytest.raises(InputError, match=message):
            detection_loss(LossConfig(assignment=asked), head, 640)


@pytest.mark.parametrize(("scale", "told"), [(1.0, "1"), ([2.0, 1.1, 1.05], "1.05")])
def test_neighbours_that_centres_cannot_reach(scale: Any, told: str) -> None:
    message = (
        r"^loss\.assignment: yolov5 assigns objects to neighbouring cells too, which the head's centres do not reach "
        rf"\(xy_scale {told}, must be 2 or more\); take yolov3 or auto$"
    )
    with pytest.raises(InputError, match=message):
        DetectionLoss(LossConfig(assignment="yolov5"), make_head(coding="yolov3", xy_scale=scale), 640)


def two_cells(raw: list[list[float]], targets: Targets, **changes: Any) -> list[float]:
    """Terms, without their gains, of YOLOv3's coding on 64 x 32 px: two cells, one anchor of 16 px, two classes."""
    loss = one_cell(dataclasses.replace(ONE_LEVEL, **changes), coding="yolov3")
    terms = loss([torch.tensor(raw).view(1, 1, 1, 2, 7)], targets)
    gains = (loss.box_gain, loss.objectness_gain, loss.class_gain)
    return [value / gain for value, gain in zip(values(terms), gains, strict=True)]


def test_yolov3_perfect_box() -> None:
    """Raw zeros in the first cell are the target. Objectness ln 2 there and ln(1 + e^-1) in the second, in the mean."""
    second = [0.0, 0, 0, 0, -1, 0, 0]
    assert two_cells([[0.0] * 7, second], one_target()) == pytest.approx([0, (LN2 + 0.313262) / 2, LN2], abs=1e-6)


def test_yolov3_sizes_are_exponential() -> None:
    """Sides of 16 px times 2 against 16 px: IoU 1/4. The goal of the objectness is 1 all the same."""
    raw = [[0.0, 0, LN2, LN2, 1, 0, 0], [0.0, 0, 0, 0, -50, 0, 0]]
    assert two_cells(raw, one_target()) == pytest.approx([3 / 4, 0.313262 / 2, LN2], abs=1e-5)


def test_yolov3_any_size_is_learnt() -> None:
    """64 px is 4 times the anchor, which YOLOv5's assignment leaves out."""
    box, _, classes = two_cells([[0.0] * 7] * 2, one_target(size=64))
    assert box == pytest.approx(1 - 16**2 / 64**2, abs=1e-5)
    assert classes == pytest.approx(LN2, abs=1e-5)


@pytest.mark.parametrize(("ignore_iou", "is_ignored"), [(0.55, True), (0.65, False), (1.0, False)])
def test_yolov3_predictions_on_an_object_are_left_alone(ignore_iou: float, is_ignored: bool) -> None:
    """The second cell predicts the first one's 16 px object at (28, 16), 4 px off: 12 x 16 of 20 x 16, IoU 0.6.

    Its centre is at 32 px, the cell's left border (raw -40). Of the two cells' objectness losses at raw 0, one counts.
    """
    target = one_target()
    shifted = Targets(target.image_index, target.labels, target.boxes_xyxy_px + torch.tensor([12.0, 0, 12, 0]))
    raw = [[0.0] * 7, [-40.0, 0, 0, 0, 0, 0, 0]]
    objectness = two_cells(raw, shifted, ignore_iou=ignore_iou)[1]
    assert objectness == pytest.approx(LN2 / 2 if is_ignored else LN2, abs=1e-6)


def test_yolov3_the_matched_prediction_is_never_left_alone() -> None:
    """It lies on its own object with IoU 1."""
    for ignore_iou in (0.0, 0.7):
        assert two_cells([[0.0] * 7] * 2, one_target(), ignore_iou=ignore_iou)[1] == pytest.approx(LN2, abs=1e-6)


def test_yolov3_trains_all_levels_together() -> None:
    """Each of many objects is learnt by one level: the gradient reaches boxes and classes where the matches are."""
    loss = DetectionLoss(LossConfig(), make_head(coding="yolov3"), 640)
    raw = [y.requires_grad_() for y in random_raw(11)]
    terms = loss(raw, random_targets(11, number=40))
    terms.total.backward()
    touched = sum(int((y.grad[..., :4].abs().sum(dim=-1) > 0).sum()) for y in raw if y.grad is not None)
    assert 20 < touched <= 40  # some share an anchor of a cell
    assert all(y.grad is not None and y.grad.isfinite().all() for y in raw)


def test_yolov3_without_targets() -> None:
    terms = DetectionLoss(LossConfig(), make_head(coding="yolov3"), 640)(random_raw(0), no_targets())
    assert values(terms)[::2] == [0, 0]
    assert terms.objectness.item() > 0


def test_gains_are_brought_to_the_assignment() -> None:
    """Factors found by training both ways on the same data."""
    plain = DetectionLoss(LossConfig(), make_head(num_classes=80), 640)
    loss = DetectionLoss(LossConfig(), make_head(num_classes=80, coding="yolov3"), 640)
    assert tuple(GAIN_FACTORS["yolov5"]) == (1, 1, 1)
    assert loss.box_gain == plain.box_gain * GAIN_FACTORS["yolov3"].box
    assert loss.objectness_gain == plain.objectness_gain * GAIN_FACTORS["yolov3"].objectness
    assert loss.class_gain == plain.class_gain * GAIN_FACTORS["yolov3"].classes


# --------------------------------------------------------------------------------------------- options


def test_box_iou() -> None:
    for kind, expected in [
        # The 16 px prediction in the middle of the cell, the target 16 px to the right: the sides touch. The enclosing
        # 32 x 16 px are covered; the centres are 16 px apart, its squared diagonal is 5 * 16^2.
        ("iou", 1.0),
        ("giou", 1.0),
        ("diou", 1 + 1 / 5),
        ("ciou", 1 + 1 / 5),
    ]:
        loss = one_cell(dataclasses.replace(ONE_LEVEL, box_iou=kind))
        target = one_target()
        shifted = Targets(target.image_index, target.labels, target.boxes_xyxy_px + torch.tensor([16.0, 0, 16, 0]))
        terms = loss([torch.zeros(1, 1, 1, 1, 7)], shifted)
        assert terms.box.item() == pytest.approx(0.05 * 3 * expected, abs=1e-6)


@pytest.mark.parametrize("coding", ["yolov3", "yolov5"])
def test_squared_errors(coding: str) -> None:
    """The 16 px prediction lies in the middle of the cell of 32 px. The target, 32 x 8 px, lies 8 px, a quarter of a
    cell, to the right: 1/16 + 2 (ln 2)^2, halved, times 2 - 32 * 8 / 32^2.
    """
    target = Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[8.0, 12, 40, 20]]))
    config = dataclasses.replace(ONE_LEVEL, box_iou="mse")
    raw = torch.zeros(1, 1, 1, 1, 7, requires_grad=True)
    loss = one_cell(config, coding=coding)
    terms = loss([raw], target)
    assert terms.box.item() == pytest.approx(loss.box_gain * (1 / 16 + 2 * LN2**2) / 2 * 1.75, rel=1e-5)
    terms.box.backward()
    assert raw.grad is not None
    gradient = raw.grad.flatten()[:4] / (loss.box_gain * 1.75)
    # YOLOv3's raw width is the logarithm itself: its gradient is the error, -ln 2; the centre's is -1/4 * s(1 - s).
    if coding == "yolov3":
        assert gradient.tolist() == pytest.approx([-1 / 16, 0, -LN2, LN2], abs=1e-5)


def test_the_objectness_learns_the_iou_of_squared_errors() -> None:
    """IoU 1/4 as in ``test_imperfect_box``, not 1 - the error."""
    raw = torch.tensor([0.0, 0, 0, 0, 1, -1, 2]).view(1, 1, 1, 1, 7)
    terms = one_cell(dataclasses.replace(ONE_LEVEL, box_iou="mse"))([raw], one_target(size=32, label=1))
    assert terms.objectness.item() == pytest.approx(3 * 1.063262, abs=1e-5)


def test_label_smoothing() -> None:
    """Goals 0.95 and 0.05 for the logits 2 and -1: 2.126928 - 1.9 and 0.313262 + 0.05."""
    raw = torch.tensor([0.0, 0, 0, 0, 0, 2, -1]).view(1, 1, 1, 1, 7)
    config = dataclasses.replace(ONE_LEVEL, label_smoothing=0.1)
    terms = one_cell(config)([raw], one_target())
    assert terms.classes.item() == pytest.approx(0.5 * 2 / 80 * 3 * (0.226928 + 0.363262) / 2, abs=1e-7)


def test_focal_loss() -> None:
    """At probability 1/2 and goal 1 the factor is (1/2)^gamma; gamma 0 is the plain cross-entropy."""
    raw = [torch.zeros(1, 1, 1, 1, 7)]
    plain = values(one_cell()(raw, one_target()))
    for gamma, factor in ((0.0, 1.0), (1.0, 0.5), (2.0, 0.25)):
        focal = values(one_cell(dataclasses.replace(ONE_LEVEL, focal_gamma=gamma))(raw, one_target()))
        assert focal == pytest.approx([plain[0], plain[1] * factor, plain[2] * factor], abs=1e-6)


def test_focal_loss_leaves_what_is_easy() -> None:
    config = LossConfig(focal_gamma=1.5)
    raw, targets = random_raw(1), random_targets(1)
    plain, focal = three_levels()(raw, targets), three_levels(config=config)(raw, targets)
    assert 0 < focal.objectness < plain.objectness
    assert 0 < focal.classes < plain.classes
    assert focal.box == plain.box


# ----------------------------------------------------------------------------------------------- gains


def test_gains() -> None:
    """Stated for 640 px, 80 classes and 3 levels."""
    loss = DetectionLoss(LossConfig(), make_head(num_classes=80), 640)
    assert (loss.box_gain, loss.objectness_gain, loss.class_gain) == (0.05, 1.0, 0.5)
    loss = DetectionLoss(LossConfig(), make_head(num_classes=20), 320)
    assert (loss.box_gain, loss.objectness_gain, loss.class_gain) == (0.05, 0.25, 0.125)
    loss = DetectionLoss(LossConfig(), make_head(ANCHORS[:2], REDUCTIONS[:2], 80), 1280)
    assert (loss.box_gain, loss.objectness_gain, loss.class_gain) == pytest.approx((0.075, 6.0, 0.75))


def test_gains_scale_their_terms() -> None:
    raw, targets = random_raw(2), random_targets(2)
    one = values(three_levels()(raw, targets))
    changed = LossConfig(box=0.1, objectness=3.0, classes=0.0)
    assert values(three_levels(config=changed)(raw, targets)) == pytest.approx([2 * one[0], 3 * one[1], 0])


def test_balance_weighs_the_levels() -> None:
    raw = random_raw(3)
    alone = [
        three_levels(config=LossConfig(balance=tuple(float(i == level) for i in range(3))))(
            raw, no_targets()
        ).objectness
        for level in range(3)
    ]
    together = three_levels(config=LossConfig(balance=(4.0, 1.0, 0.4)))(raw, no_targets()).objectness
    assert together.item() == pytest.approx((4 * alone[0] + alone[1] + 0.4 * alone[2]).item(), rel=1e-6)


def test_balance_that_is_left_empty() -> None:
    """4 on the finest level, a quarter of it on the next, 0.4 on all coarser ones."""
    assert three_levels().balance == default_balance(REDUCTIONS) == (4.0, 1.0, 0.4)
    for reductions, expected in (
        ((32,), (4.0,)),
        ((16, 32), (4.0, 1.0)),
        ((8, 32), (4.0, 0.4)),
        ((4, 8, 16, 32), (4.0, 1.0, 0.4, 0.4)),
        ((8, 16, 32, 64), (4.0, 1.0, 0.4, 0.4)),
    ):
        head = make_head([ANCHORS[0]] * len(reductions), reductions)
        assert DetectionLoss(LossConfig(), head, 640).balance == expected


@pytest.mark.parametrize(("reductions", "total"), [((4, 8, 16, 32), 4.35), (REDUCTIONS, 5.4), ((16, 32), 7.5)])
def test_objectness_weighs_about_the_same_with_any_levels(reductions: tuple[int, ...], total: float) -> None:
    """5.8 * 3 / 4, 5.4 and 5 * 3 / 2."""
    loss = DetectionLoss(LossConfig(), make_head([ANCHORS[0]] * len(reductions), reductions), 640)
    assert sum(loss.balance) * loss.objectness_gain == pytest.approx(total)


@pytest.mark.parametrize("balance", [(1.0,), (4.0, 1.0, 0.4, 0.1)])
def test_balance_of_another_length(balance: tuple[float, ...]) -> None:
    message = rf"^loss\.balance: must have a weight for each of the model's 3 levels, found {len(balance)}$"
    with pytest.raises(InputError, match=message):
        three_levels(config=LossConfig(balance=balance))


# ------------------------------------------------------------------------------------------- batches


def test_mean_over_matches_of_a_level_sum_over_levels() -> None:
    """Two levels of a 16 px image, one anchor each, two targets that match both.

    Raw zeros are 8 px boxes in the middle of their cells, and one 16 px box in the middle of the image. The targets
    are in the middle of the cells (0, 0) and (1, 1): 8 px, CIoU 1, and 16 px, IoU 64 / 256. The second level matches
    both too (ratios 2 and 1): its 16 px at (8, 8) against 8 px at (4, 4) and 16 px at (12, 12).
    """
    loss = DetectionLoss(LossConfig(balance=(1.0, 1.0)), make_head([[[8, 8]], [[16, 16]]], (8, 16), 2), 640)
    boxes = torch.tensor([[0.0, 0, 8, 8], [4, 4, 20, 20]])
    targets = Targets(torch.tensor([0, 0]), torch.tensor([0, 1]), boxes)
    terms = loss([torch.zeros(1, 1, 2, 2, 7), torch.zeros(1, 1, 1, 1, 7)], targets)
    # 8 px at (4, 4) in 16 px at (8, 8): IoU 1/4, centres 4 and 4 px apart, enclosing 16 px: 32 / 512.
    small = 1 / 4 - 32 / 512
    # 16 px at (12, 12) and at (8, 8): overlap 12 x 12 of 2 * 256 - 144, enclosing 20 px: 32 / 800.
    large = 144 / 368 - 32 / 800
    first, second = (0 + 3 / 4) / 2, (1 - small + 1 - large) / 2
    assert terms.box.item() == pytest.approx(0.05 * 1.5 * (first + second), abs=1e-6)


def test_a_batch_twice_is_the_batch() -> None:
    """Means, not sums: the learning rate does not depend on the batch size."""
    raw, targets = random_raw(4), random_targets(4)
    twice = Targets(
        torch.cat([targets.image_index, targets.image_index + 2]),
        targets.labels.repeat(2),
        targets.boxes_xyxy_px.repeat(2, 1),
    )
    expected = values(three_levels()(raw, targets))
    assert values(three_levels()([torch.cat([y, y]) for y in raw], twice)) == pytest.approx(expected, rel=1e-5)


def test_images_without_objects_count_as_background_only() -> None:
    raw, targets = random_raw(5), random_targets(5)
    background = random_raw(6)
    box, objectness, classes = values(three_levels()(raw, targets))
    alone = three_levels()(background, no_targets()).objectness.item()
    mixed = values(three_levels()([torch.cat(pair) for pair in zip(raw, background, strict=True)], targets))
    assert mixed == pytest.approx([box, (objectness + alone) / 2, classes], rel=1e-5)


def test_order_of_targets_does_not_matter() -> None:
    raw, targets = random_raw(7), random_targets(7, number=40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = Targets(targets.image_index[order], targets.labels[order], targets.boxes_xyxy_px[order])
    assert values(three_levels()(raw, shuffled)) == pytest.approx(values(three_levels()(raw, targets)), rel=1e-5)


# ------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    half = [y.to(dtype) for y in random_raw(8)]
    found, expected = (
        three_levels()(half, random_targets(8)),
        three_levels()([y.float() for y in half], random_targets(8)),
    )
    for name in ("box", "objectness", "classes", "total"):
        assert getattr(found, name).dtype == torch.float32
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_large_logits_stay_finite() -> None:
    raw = [(y * 1e4).requires_grad_() for y in random_raw(9)]
    total = three_levels()(raw, random_targets(9)).total
    total.backward()
    assert total.isfinite()
    assert all(y.grad is not None and y.grad.isfinite().all() for y in raw)


@pytest.mark.parametrize(("term", "columns"), [("box", range(4)), ("objectness", [4]), ("classes", [5, 6])])
def test_gradient_is_the_derivative(term: str, columns: list[int]) -> None:
    """Central differences in float32. Each term by its own values: the goal of the objectness is constant by design."""
    raw = (torch.randn(1, 1, 1, 1, 7, generator=torch.Generator().manual_seed(10)) * 0.5).requires_grad_()
    raw.data[..., 2:4] = (
        0.2  # one shape with the target, so that the constant weight of CIoU's shape penalty does not matter
    )
    loss, targets = one_cell(), one_target(size=20)

    def value(changed: torch.Tensor) -> torch.Tensor:
        return getattr(loss([changed], targets), term)

    (gradient,) = torch.autograd.grad(value(raw), raw)
    step = 1e-2
    for column in columns:
        change = torch.zeros_like(raw)
        change[..., column] = step
        with torch.no_grad():
            expected = (value(raw + change) - value(raw - change)) / (2 * step)
        assert gradient[..., column].item() == pytest.approx(expected.item(), rel=2e-2, abs=1e-5)
        assert abs(expected) > 1e-5


# ------------------------------------------------------------------------------------ objectness targets


def matches(*rows: tuple[int, int, int, int]) -> Matches:
    """From (image, anchor, row, column)."""
    image, anchor, row, column = torch.tensor(rows, dtype=torch.int64).view(-1, 4).unbind(1)
    return Matches(image, anchor, row, column, torch.zeros(len(rows), 4), torch.zeros(len(rows), dtype=torch.int64))


SHAPE = torch.Size((2, 3, 4, 5))


def test_objectness_without_matches() -> None:
    goal = objectness_targets(SHAPE, matches(), torch.zeros(0))
    assert goal.shape == SHAPE
    assert goal.dtype == torch.float32
    assert not goal.any()


def test_objectness_lies_where_the_matches_are() -> None:
    goal = objectness_targets(SHAPE, matches((1, 2, 3, 4), (0, 1, 0, 2), (1, 0, 2, 0)), torch.tensor([0.5, 0.25, -0.3]))
    assert goal[1, 2, 3, 4] == 0.5
    assert goal[0, 1, 0, 2] == 0.25
    assert goal[1, 0, 2, 0] == 0  # a CIoU below 0
    assert goal.sum() == 0.75


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_best_of_several_counts(order: tuple[int, ...]) -> None:
    iou = torch.tensor([0.25, 0.75, 0.5])[list(order)]
    goal = objectness_targets(SHAPE, matches(*[(0, 1, 2, 3)] * 3), iou)
    assert goal[0, 1, 2, 3] == 0.75
    assert goal.sum() == 0.75


@pytest.mark.parametrize("words", [{}, {"coding": "yolov3"}])
def test_levels_that_an_instance_has_shrunk(words: dict[str, Any]) -> None:
    """At 32 x 64 px a single cell is as large as the image: a target in its middle is learnt there without an error.

    Raw zeros are a box of the anchor's size in the middle of the cell: (16, 32) px in the 32 x 64 image with its cell,
    but (16, 16) px if the cell were taken for the nominal 32 px, where the target's centre is beyond the map.
    """
    loss = DetectionLoss(ONE_LEVEL, make_head([[[16, 16]]], (32,), 2, **words), 640)
    box = torch.tensor([[8.0, 24.0, 24.0, 40.0]])
    target = Targets(torch.tensor([0]), torch.tensor([0]), box, image_hw=(64, 32))
    raw = [torch.zeros(1, 1, 1, 1, 7)]
    assert float(loss(raw, target).box) == pytest.approx(0, abs=1e-6)
    assert float(loss(raw, dataclasses.replace(target, image_hw=None)).box) > 0.01
