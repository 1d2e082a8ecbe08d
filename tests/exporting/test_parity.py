"""The comparison of tensors: it sees what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch import nn

from detect.exporting.comparison_inputs import comparison_shapes
from detect.exporting.parity import TOLERANCES, Difference, ExportError, compare_outputs, largest
from detect.models.model import ClassificationModel, DetectionModel


class Detector(DetectionModel):
    """Any detector: of a model only its kind matters here."""

    def __init__(self):
        nn.Module.__init__(self)


class Classifier(ClassificationModel):
    """Any classifier."""

    def __init__(self):
        nn.Module.__init__(self)


@pytest.mark.parametrize(
    ("expected", "found", "good"),
    [
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, 0.5), True),
        ((8, 8, 2, 2, 0.5, 0.5), (8.009, 8, 2, 2, 0.5, 0.5), True),
        ((8, 8, 2, 2, 0.5, 0.5), (8.011, 8, 2, 2, 0.5, 0.5), False),
        ((8, 8, 2, 2, 0.5, 0.5), (8, 8, 2, 1.989, 0.5, 0.5), False),
        # A thousandth of the larger side, 500 px, is 0.5 px, for its centre and its smaller side too.
        ((8, 8, 10, 500, 0.5, 0.5), (8.4, 8, 10.4, 499.6, 0.5, 0.5), True),
        ((8, 8, 10, 500, 0.5, 0.5), (8.6, 8, 10, 500, 0.5, 0.5), False),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.50009, 0.49991), True),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5002, 0.5), False),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, 0.4998), False),
        ((8, 8, 10, 10, 0.5, 0.5), (math.nan, 8, 10, 10, 0.5, 0.5), False),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, math.nan), False),
        ((math.nan, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, 0.5), False),
    ],
)
def test_tolerances(expected, found, good):
    expected, found = np.array([[expected]], np.float32), np.array([[found]], np.float32)
    difference = compare_outputs(Detector(), expected, found, TOLERANCES["fp32"])
    assert difference.good is good
    far = np.abs(expected - found)[0, 0]
    np.testing.assert_allclose([difference.box_px, difference.score], [far[:4].max(), far[4:].max()])


@pytest.mark.parametrize(
    ("precision", "score", "far_px", "count", "good"),
    [
        ("fp16", 0.0, 2, 2, True),  # 2 of 20,000 are a ten-thousandth
        ("fp16", 0.0, 2, 3, False),
        ("fp16", 0.5, 2, 1, False),
        ("fp16", 0.0, math.nan, 1, False),
        ("fp32", 0.0, 2, 1, False),
    ],
)
def test_few_boxes_without_a_score_may_differ_in_half_precision(precision, score, far_px, count, good):
    """Boxes of 10 px, of which ``far_px`` is more than three hundredths and half a pixel."""
    expected = np.tile(np.array([8, 8, 10, 10, 1, score], np.float32), (1, 20_000, 1))
    found = expected.copy()
    found[0, :count, 0] += far_px
    difference = compare_outputs(Detector(), expected, found, TOLERANCES[precision])
    assert difference.good is good
    assert (difference.unlikely, difference.box_px) == ((count, 0) if good else (0, pytest.approx(far_px, nan_ok=True)))


@pytest.mark.parametrize(
    ("expected", "found", "good"),
    [
        ((0.8, 0.2), (0.8, 0.2), True),
        # A ten-thousandth of the largest, 0.8, is 0.00008, for the others too.
        ((0.8, 0.2), (0.80007, 0.19993), True),
        ((0.8, 0.2), (0.80009, 0.2), False),
        ((0.8, 0.2), (0.8, 0.19991), False),
        # Of four equal ones it is 0.000025.
        ((0.25, 0.25, 0.25, 0.25), (0.25002, 0.25, 0.24998, 0.25), True),
        ((0.25, 0.25, 0.25, 0.25), (0.25003, 0.25, 0.25, 0.25), False),
        ((0.8, 0.2), (0.8, math.nan), False),
    ],
)
def test_tolerances_of_classes(expected, found, good):
    expected, found = np.array([expected], np.float32), np.array([found], np.float32)
    difference = compare_outputs(Classifier(), expected, found, TOLERANCES["fp32"])
    assert difference.good is good
    assert difference.box_px is None
    np.testing.assert_allclose(difference.score, np.abs(expected - found).max())


def test_each_image_has_its_own_tolerance():
    """0.00005 is within a ten-thousandth of the first image's 0.8, and not of the second's 0.25."""
    expected = np.array([[0.8, 0.1, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25]], np.float32)
    for row, good in ((0, True), (1, False)):
        found = expected.copy()
        found[row] += np.array([0.00005, -0.00005, 0, 0], np.float32)
        assert compare_outputs(Classifier(), expected, found, TOLERANCES["fp32"]).good is good


def test_another_shape():
    with pytest.raises(ExportError, match=r"gives \(1, 63, 8\), must be \(1, 63, 9\)"):
        compare_outputs(Detector(), np.zeros((1, 63, 9)), np.zeros((1, 63, 8)), TOLERANCES["fp32"])


def test_the_worst_of_several():
    several = [Difference(0.1, 0.3, good=True, unlikely=1), Difference(0.2, 0.1, good=True, unlikely=2)]
    assert largest(several) == Difference(0.2, 0.3, good=True, unlikely=3)
    assert not largest([*several, Difference(0.0, 0.0, good=False)]).good
    assert math.isnan(largest([*several, Difference(math.nan, 0.0, good=False)]).box_px)
    assert largest([Difference(None, 0.3, good=True)]).box_px is None


@pytest.mark.parametrize(("multiple", "image_size"), [(32, 640), (64, 96)])
def test_comparison_shapes(multiple, image_size):
    shapes = comparison_shapes(multiple, image_size)
    assert len(set(shapes)) == len(shapes) >= 4
    assert all(height % multiple == width % multiple == 0 for _, height, width in shapes)
    assert (2, 2 * multiple, 3 * multiple) not in shapes  # the export's own example
    # 640 is a multiple of 32; 96 is rounded up to 2 * 64.
    assert shapes[-1] == ((1, 640, 640) if multiple == 32 else (1, 128, 128))
