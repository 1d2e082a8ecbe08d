from __future__ import annotations

import math

import pytest
import torch

from detect.boxes.coding import BoxCoding, cell_grid
from detect.boxes.iou import paired_iou

YOLOV5 = BoxCoding(2.0, "square")
YOLOV3 = BoxCoding(1.0, "exp")


def logit(probability: float) -> float:
    """The raw value whose sigmoid it is; +-40 for 0 and 1, where float32 has arrived."""
    if probability in (0.0, 1.0):
        return 80 * probability - 40
    return math.log(probability / (1 - probability))


def test_cell_grid_is_column_then_row() -> None:
    grid = cell_grid(2, 3, torch.zeros(1, dtype=torch.float64))
    assert grid.dtype == torch.float64
    assert grid.tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]


def test_nothing_to_decode() -> None:
    assert YOLOV3.decode(torch.zeros(0, 2, 3, 4, 4), torch.ones(2, 2), 8).shape == (0, 2, 3, 4, 4)
    assert YOLOV3.centres(torch.zeros(0, 2)).shape == YOLOV3.extents(torch.zeros(0, 2), torch.ones(0, 2)).shape


def test_decoded_boxes() -> None:
    """Every cell of every anchor, x in columns and y in rows."""
    for coding, probability, centre, size in [
        # YOLOv5: 2 s - 0.5 and (2 s)^2: at 0.5 the middle of the cell and the anchor itself; half a cell before and
        # behind; at 0.75 1.5 - 0.5 and 1.5^2.
        (YOLOV5, 0.5, 0.5, 1.0),
        (YOLOV5, 0.0, -0.5, 0.0),
        (YOLOV5, 1.0, 1.5, 4.0),
        (YOLOV5, 0.75, 1.0, 2.25),
        # YOLOv3: s, and exp(raw) = s / (1 - s): 1, and 3 at 0.75.
        (YOLOV3, 0.5, 0.5, 1.0),
        (YOLOV3, 0.75, 0.75, 3.0),
        (YOLOV3, 0.2, 0.2, 0.25),
        # YOLOX: the raw value itself, log(s / (1 - s)).
        (BoxCoding(1.0, "exp", "linear"), 0.5, 0.0, 1.0),
        (BoxCoding(1.0, "exp", "linear"), 0.75, math.log(3), 3.0),
        # YOLOv4 at 16 px per cell: 1.1 s - 0.05.
        (BoxCoding(1.1, "exp"), 0.5, 0.5, 1.0),
        (BoxCoding(1.1, "exp"), 0.75, 0.775, 3.0),
    ]:
        anchors_px = torch.tensor([[10.0, 20.0], [30.0, 5.0]])
        boxes = coding.decode(torch.full((1, 2, 3, 4, 4), logit(probability)), anchors_px, cell_px=8)
        assert boxes.shape == (1, 2, 3, 4, 4)
        for anchor in range(2):
            for row in range(3):
                for column in range(4):
                    expected = [(centre + column) * 8, (centre + row) * 8, *(anchors_px[anchor] * size).tolist()]
                    assert boxes[0, anchor, row, column].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("coding", "reach"), [(YOLOV5, 0.5), (YOLOV3, 0.0), (BoxCoding(1.2, "exp"), 0.1)])
def test_how_far_centres_reach(coding: BoxCoding, reach: float) -> None:
    """(xy_scale - 1) / 2 beyond each side of the cell, and not farther."""
    centres = coding.centres(torch.tensor([-1e3, 0.0, 1e3]))
    assert centres.tolist() == pytest.approx([-reach, 0.5, 1 + reach], abs=1e-6)


def test_largest_boxes() -> None:
    """Four anchors; 1000 anchors."""
    assert YOLOV5.extents(torch.tensor([1e3]), torch.tensor([8.0])).item() == 32
    assert YOLOV3.extents(torch.tensor([1e3]), torch.tensor([8.0])).item() == pytest.approx(8000, rel=1e-5)


def test_largest_boxes_have_a_loss() -> None:
    """Unbounded, exp(60) * 373 px has an area above float32's 3.4e38, and GIoU would be inf - inf."""
    for kind in ["iou", "giou", "diou", "ciou"]:
        raw = torch.full((1, 2), 60.0).requires_grad_()
        sizes = YOLOV3.extents(raw, torch.tensor([373.0, 326.0]))
        boxes = torch.cat([torch.full((1, 2), 200.0), sizes], dim=1)
        iou = paired_iou(boxes, torch.tensor([[200.0, 200, 10, 10]]), kind)
        iou.sum().backward()
        assert iou.isfinite().all()
        assert raw.grad is not None
        assert raw.grad.isfinite().all()


@pytest.mark.parametrize("coding", [YOLOV5, YOLOV3])
def test_gradient_is_the_derivative(coding: BoxCoding) -> None:
    raw = torch.randn(1, 1, 2, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    anchors_px = torch.tensor([[10.0, 20.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: coding.decode(values, anchors_px, 8), raw)
