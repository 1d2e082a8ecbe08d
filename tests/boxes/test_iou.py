from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import box_convert, complete_box_iou_loss

from detect.boxes.iou import complete_iou


def pairs(*rows: list[float]) -> torch.Tensor:
    """Boxes in float64."""
    return torch.tensor(rows, dtype=torch.float64)


def random_boxes(seed: int, number: int = 200) -> torch.Tensor:
    """Centres in [0, 10), sides in [1, 9)."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(number, 4, generator=generator, dtype=torch.float64)
    return uniform * torch.tensor([10.0, 10.0, 8.0, 8.0]) + torch.tensor([0.0, 0.0, 1.0, 1.0])


def test_no_boxes() -> None:
    assert complete_iou(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([3, 4, 2, 6], [3, 4, 2, 6], 1.0),
        # Two 2x2 boxes, centres 4 apart: no overlap; the enclosing 6x2 box has the squared diagonal 40; 0 - 16 / 40.
        ([0, 0, 2, 2], [4, 0, 2, 2], -0.4),
        # Sides touch: centres 2 apart, enclosing 4x2: 0 - 4 / 20.
        ([0, 0, 2, 2], [2, 0, 2, 2], -0.2),
        # Half of each 2x2 box overlaps: 2 / 6, centres 1 apart, enclosing 3x2: 1 / 3 - 1 / 13.
        ([0, 0, 2, 2], [1, 0, 2, 2], 1 / 3 - 1 / 13),
        # Nested, one centre, one shape: nothing but the IoU, 4 / 16.
        ([5, 5, 2, 2], [5, 5, 4, 4], 0.25),
        # Crossed 2x4 and 4x2: IoU 4 / 12. atan(2) - atan(1/2) = 0.643501, squared times 4 / pi^2 = 0.167826 = v;
        # v^2 / (1 - 1/3 + v) = 0.033752.
        ([0, 0, 2, 4], [0, 0, 4, 2], 1 / 3 - 0.033752),
        # A point in the middle of a square: IoU 0, v = 4 / pi^2 * (pi / 4)^2 = 1 / 4; 0 - v^2 / (1 + v) = -1 / 20.
        ([1, 1, 0, 0], [1, 1, 2, 2], -0.05),
        # The same point twice: no area, no distance, one shape.
        ([1, 1, 0, 0], [1, 1, 0, 0], 0.0),
    ],
)
def test_hand_derived(first: list[float], second: list[float], expected: float) -> None:
    assert complete_iou(pairs(first), pairs(second)).item() == pytest.approx(expected, abs=1e-6)
    assert complete_iou(pairs(second), pairs(first)).item() == pytest.approx(expected, abs=1e-6)


def test_worst_case() -> None:
    """A horizontal and a vertical line far apart: the limit is 0 - 1 - v^2 / (1 + v) at v = 1, that is -1.5."""
    value = complete_iou(pairs([0, 0, 1e3, 0]), pairs([1e9, 0, 0, 1e3])).item()
    assert -1.5 < value < -1.49


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_for_every_size(dtype: torch.dtype) -> None:
    sides = torch.tensor([0.0, 1e-6, 1.0, 1e4], dtype=dtype)
    sizes = torch.cartesian_prod(sides, sides, sides, sides)
    zeros = torch.zeros_like(sizes[:, :2])
    first = torch.cat([zeros, sizes[:, :2]], dim=1).requires_grad_()
    value = complete_iou(first, torch.cat([zeros, sizes[:, 2:]], dim=1))
    value.sum().backward()
    assert value.isfinite().all()
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_any_unit() -> None:
    first, second = random_boxes(1), random_boxes(2)
    torch.testing.assert_close(complete_iou(first * 32, second * 32), complete_iou(first, second), atol=1e-6, rtol=0)


def test_agrees_with_torchvision() -> None:
    """Values and gradients: torchvision holds the weight of the shape penalty constant too."""
    first, second = random_boxes(3).requires_grad_(), random_boxes(4)
    ours = complete_iou(first, second)
    (gradient,) = torch.autograd.grad(ours.sum(), first)
    theirs = 1 - complete_box_iou_loss(box_convert(first, "cxcywh", "xyxy"), box_convert(second, "cxcywh", "xyxy"))
    (expected,) = torch.autograd.grad(theirs.sum(), first)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


def test_gradient_is_the_derivative() -> None:
    """Only for pairs of one shape, where the weight that is held constant does not matter."""
    first = random_boxes(5, 20)
    second = random_boxes(6, 20)
    second[:, 2:] = first[:, 2:] * 1.3
    assert torch.autograd.gradcheck(lambda boxes: complete_iou(boxes, second), first.requires_grad_())


def test_distance_alone_has_a_gradient() -> None:
    """Disjoint boxes are pulled together, which the plain IoU cannot do."""
    first = pairs([0, 0, 2, 2]).requires_grad_()
    (gradient,) = torch.autograd.grad(complete_iou(first, pairs([9, 0, 2, 2])).sum(), first)
    assert gradient[0, 0] > 0
    assert math.isclose(gradient[0, 1].item(), 0, abs_tol=1e-12)
