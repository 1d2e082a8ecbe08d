"""Suppression and decoding of arrays give what those of tensors give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detect.boxes import array_nms, nms
from detect.boxes.array_coding import decode_level
from detect.boxes.coding import BoxCoding, decode_levels


def crowd(seed, count=400, num_classes=3):
    """(1, count, 5 + K): boxes of about 20 px in a square of 100 px, so that most of them overlap."""
    rows = np.random.default_rng(seed).random((1, count, 5 + num_classes), dtype=np.float32)
    rows[..., :2] *= 100
    rows[..., 2:4] = 10 + 20 * rows[..., 2:4]
    return rows


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("classes", [None, (0, 2)])
@pytest.mark.parametrize("max_detections", [5, 300])
def test_the_same_detections_bit_for_bit(multi_label, class_agnostic, classes, max_detections):
    for seed in range(5):
        options = (0.2, 0.45, max_detections, multi_label, class_agnostic, classes)
        (found,) = array_nms.non_max_suppression(crowd(seed), *options)
        (expected,) = nms.non_max_suppression(torch.from_numpy(crowd(seed)), *options)
        assert 5 <= len(found[0]) <= 300
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other.numpy(), strict=True)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_without_objectness_bit_for_bit(multi_label, value):
    """Every row has an objectness of 1; some have a class that is no number."""
    rows = crowd(0)
    rows[..., 4], rows[0, ::5, 6] = 1, value
    (found,) = array_nms.non_max_suppression(rows, 0.8, 0.45, 300, multi_label)
    (expected,) = nms.non_max_suppression(torch.from_numpy(rows), 0.8, 0.45, 300, multi_label)
    assert 5 <= len(found[0]) <= 300
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other.numpy(), strict=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value):
    rows = crowd(0, 20)
    rows[0, ::3, 4] = value
    rows[0, 1::3, 6] = value
    (found,) = array_nms.non_max_suppression(rows, 0.2, 0.45, 300, False)
    (expected,) = nms.non_max_suppression(torch.from_numpy(rows), 0.2, 0.45, 300, False)
    np.testing.assert_array_equal(found[1], expected[1].numpy())


def test_nothing_and_no_image():
    ((boxes, scores, labels),) = array_nms.non_max_suppression(np.zeros((1, 0, 8), np.float32), 0.1, 0.5, 10, False)
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
    assert array_nms.non_max_suppression(np.zeros((0, 5, 8), np.float32), 0.1, 0.5, 10, True) == []


def test_an_overlap_at_the_threshold_and_boxes_without_area():
    """Of 10 x 10 and 10 x 8 in it the IoU is 0.8, which is not above 0.8. Two points have no overlap."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [3, 3, 3, 3], [3, 3, 3, 3]], np.float32)
    given = (boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.zeros(4, np.int64))
    assert len(array_nms.suppress(*given, 0.8, 10, False)[0]) == 4
    assert array_nms.suppress(*given, 0.79, 10, False)[1].tolist() == np.float32([0.9, 0.7, 0.6]).tolist()


@pytest.mark.parametrize(
    ("sizes", "offsets"),
    [("distances", "distances"), *((sizes, way) for sizes in ("square", "exp") for way in ("sigmoid", "linear"))],
)
def test_the_same_boxes(sizes, offsets):
    raw = np.random.default_rng(0).normal(0, 3, (2, 2, 3, 4, 7)).astype(np.float32)
    raw[0, 0, 0, 0] = [200, -200, 200, -200, 200, -200, 0]
    anchors = np.array([[6, 4], [10, 12]], np.float32)
    found = decode_level(raw, anchors, (8.0, 10.0), 1.2, sizes, offsets)
    coding, tensors = BoxCoding(1.2, sizes, offsets), (torch.from_numpy(raw), torch.from_numpy(anchors))
    expected = decode_levels([tensors[0]], [coding], [tensors[1]], [(8.0, 10.0)]).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6, strict=True)
