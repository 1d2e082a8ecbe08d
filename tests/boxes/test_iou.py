from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import (
    box_convert,
    box_iou,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from detect.boxes.intersections import intersection_areas, iou_matrix
from detect.boxes.iou import IouKind, centred_iou, exceeds_iou, paired_iou

KINDS: tuple[IouKind, ...] = get_args(IouKind)
every_kind = pytest.mark.parametrize("kind", KINDS)


def pairs(*rows: list[float]) -> Tensor:
    """Boxes in float64."""
    return torch.tensor(rows, dtype=torch.float64)


def random_boxes(seed: int, number: int = 200) -> Tensor:
    """Centres in [0, 10), sides in [1, 9)."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(number, 4, generator=generator, dtype=torch.float64)
    return uniform * torch.tensor([10.0, 10.0, 8.0, 8.0]) + torch.tensor([0.0, 0.0, 1.0, 1.0])


@every_kind
def test_no_boxes(kind: IouKind) -> None:
    assert paired_iou(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)


def test_hand_derived() -> None:
    for first, second, iou, giou, diou, ciou in [
        ([3, 4, 2, 6], [3, 4, 2, 6], 1.0, 1.0, 1.0, 1.0),
        # Two 2x2 boxes, centres 4 apart: no overlap. The enclosing 6x2 box has 12, of which 4 are not covered, and the
        # squared diagonal 40: -4 / 12 and -16 / 40.
        ([0, 0, 2, 2], [4, 0, 2, 2], 0.0, -1 / 3, -0.4, -0.4),
        # Sides touch: centres 2 apart, the enclosing 4x2 is covered: 0 and -4 / 20.
        ([0, 0, 2, 2], [2, 0, 2, 2], 0.0, 0.0, -0.2, -0.2),
        # Corners touch: the enclosing 4x4 is half covered; centres 2 and 2 apart: -8 / 16 and -8 / 32.
        ([0, 0, 2, 2], [2, 2, 2, 2], 0.0, -0.5, -0.25, -0.25),
        # Half of each 2x2 box overlaps: 2 / 6, centres 1 apart, enclosing 3x2 covered: 1 / 3 - 1 / 13.
        ([0, 0, 2, 2], [1, 0, 2, 2], 1 / 3, 1 / 3, 1 / 3 - 1 / 13, 1 / 3 - 1 / 13),
        # Nested, one centre, one shape: nothing but the IoU, 4 / 16.
        ([5, 5, 2, 2], [5, 5, 4, 4], 0.25, 0.25, 0.25, 0.25),
        # Crossed 2x4 and 4x2: IoU 4 / 12; of the enclosing 4x4, 12 are covered. atan(2) - atan(1/2) = 0.643501, squared
        # times 4 / pi^2 = 0.167826 = v; v^2 / (1 - 1/3 + v) = 0.033752.
        ([0, 0, 2, 4], [0, 0, 4, 2], 1 / 3, 1 / 3 - 1 / 4, 1 / 3, 1 / 3 - 0.033752),
        # A point in the middle of a square: IoU 0, v = 4 / pi^2 * (pi / 4)^2 = 1 / 4; 0 - v^2 / (1 + v) = -1 / 20.
        ([1, 1, 0, 0], [1, 1, 2, 2], 0.0, 0.0, 0.0, -0.05),
        # The same point twice: no area, no distance, one shape.
        ([1, 1, 0, 0], [1, 1, 0, 0], 0.0, 0.0, 0.0, 0.0),
    ]:
        expected: dict[IouKind, float] = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}
        for kind, value in expected.items():
            assert paired_iou(pairs(first), pairs(second), kind).item() == pytest.approx(value, abs=1e-6), kind
            assert paired_iou(pairs(second), pairs(first), kind).item() == pytest.approx(value, abs=1e-6), kind


def test_worst_case() -> None:
    """A flat and an upright box far apart. The limit of CIoU is 0 - 1 - v^2 / (1 + v) at v = 1."""
    for kind, limit in [("iou", 0.0), ("giou", -1.0), ("diou", -1.0), ("ciou", -1.5)]:
        value = paired_iou(pairs([0, 0, 1e3, 1e-3]), pairs([1e9, 1e9, 1e-3, 1e3]), kind).item()
        assert limit <= value < limit + 0.01


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_for_every_size(kind: IouKind, dtype: torch.dtype) -> None:
    sides = torch.tensor([0.0, 1e-6, 1.0, 1e4], dtype=dtype)
    sizes = torch.cartesian_prod(sides, sides, sides, sides).repeat(2, 1)
    zeros = torch.zeros_like(sizes[:, :2])
    first = torch.cat([zeros, sizes[:, :2]], dim=1).requires_grad_()
    apart = zeros + torch.tensor([0.0, 3.0], dtype=dtype).repeat_interleave(256)[:, None]
    value = paired_iou(first, torch.cat([apart, sizes[:, 2:]], dim=1), kind)
    value.sum().backward()
    assert value.isfinite().all()
    assert first.grad is not None
    assert first.grad.isfinite().all()


@every_kind
def test_any_unit(kind: IouKind) -> None:
    first, second = random_boxes(1), random_boxes(2)
    found = paired_iou(first * 32, second * 32, kind)
    torch.testing.assert_close(found, paired_iou(first, second, kind), atol=1e-6, rtol=0)


def torchvision_iou(first: Tensor, second: Tensor, kind: IouKind) -> Tensor:
    """What torchvision has for each kind, of boxes cxcywh."""
    losses = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}
    first, second = box_convert(first, "cxcywh", "xyxy"), box_convert(second, "cxcywh", "xyxy")
    return box_iou(first, second).diagonal() if kind == "iou" else 1 - losses[kind](first, second)


@every_kind
def test_agrees_with_torchvision(kind: IouKind) -> None:
    """Values and gradients: torchvision holds the weight of CIoU's shape penalty constant too."""
    first, second = random_boxes(3).requires_grad_(), random_boxes(4)
    ours = paired_iou(first, second, kind)
    (gradient,) = torch.autograd.grad(ours.sum(), first)
    theirs = torchvision_iou(first, second, kind)
    (expected,) = torch.autograd.grad(theirs.sum(), first)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@every_kind
def test_gradient_is_the_derivative(kind: IouKind) -> None:
    """Only for pairs of one shape, where the weight that CIoU holds constant does not matter."""
    first = random_boxes(5, 4)
    second = random_boxes(6, 4)
    second[:, 2:] = first[:, 2:] * 1.3
    assert torch.autograd.gradcheck(lambda boxes: paired_iou(boxes, second, kind), first.requires_grad_())


def test_boxes_apart_are_pulled_together() -> None:
    """Which the plain IoU cannot do."""
    for kind, pulls in [("iou", False), ("giou", True), ("diou", True), ("ciou", True)]:
        first = pairs([0, 0, 2, 2]).requires_grad_()
        (gradient,) = torch.autograd.grad(paired_iou(first, pairs([9, 0, 2, 2]), kind).sum(), first)
        assert (gradient[0, 0].item() > 0) == pulls
        assert math.isclose(gradient[0, 1].item(), 0, abs_tol=1e-12)


def test_centred_iou() -> None:
    """2 x 4 and 4 x 2: 4 / 12; 2 x 4 in 4 x 4: 8 / 16; the same: 1; without area: 0."""
    sizes, anchors = torch.tensor([[2.0, 4.0], [0.0, 3.0]]), torch.tensor([[4.0, 2.0], [4.0, 4.0], [2.0, 4.0]])
    expected = torch.tensor([[1 / 3, 0.5, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(centred_iou(sizes, anchors), expected)
    np.testing.assert_allclose(centred_iou(sizes.numpy(), anchors.numpy()), expected.numpy())


def test_intersections_of_two_lists() -> None:
    first = np.array([[0, 0, 4, 4], [10, 10, 12, 12.0]])
    # 4 x 4 and a box from (2, 1) to (6, 3) share 2 x 2; touching boxes share nothing.
    second = np.array([[2, 1, 6, 3], [4, 0, 8, 4], [11, 0, 20, 20.0]])
    assert intersection_areas(first, second).tolist() == [[4, 0, 0], [0, 0, 2]]
    assert intersection_areas(first, np.zeros((0, 4))).shape == (2, 0)


def test_exceeding_an_iou_agrees_with_the_matrix_of_torchvision() -> None:
    boxes = box_convert(random_boxes(0, 40), "cxcywh", "xyxy")
    boxes[:3, 2:] = boxes[:3, :2]  # without area
    found = exceeds_iou(boxes.T[:, :, None], boxes.T[:, None], 0.3)
    assert torch.equal(found, box_iou(boxes, boxes).nan_to_num() > 0.3)


def test_iou_of_every_pair():
    """A square of 2 x 2: itself; its right half, of 2; a square beside it; a point."""
    boxes = np.array([[0, 0, 2, 2], [1, 0, 2, 2], [2, 0, 4, 2], [5, 5, 5, 5]], np.float64)
    assert iou_matrix(boxes[:1], boxes).tolist() == [[1, 0.5, 0, 0]]
    assert iou_matrix(boxes[3:], boxes).tolist() == [[0, 0, 0, 0]]
    assert iou_matrix(boxes[:0], boxes).shape == (0, 4)
