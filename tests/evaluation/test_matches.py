from __future__ import annotations

import numpy as np
import pytest

from detect.evaluation.coco import coco_metrics
from detect.evaluation.html.statistics import (
    OBJECT_SIDES,
    ScoreRange,
    area_ranges,
    by_image_size,
    by_object_size,
    calibration,
    calibration_error,
    spreads,
)
from detect.evaluation.matches import ALL_AREAS, averages, class_curves, match_by_coco
from tests.evaluation.synthetic import make_found, make_table, random_problem


def matches_of(table, found):
    return match_by_coco(table, found, [ALL_AREAS])[0]


def test_averages_are_those_of_pycocotools():
    table, found = random_problem(5)
    metrics = coco_metrics(table, found)
    numbers = averages(matches_of(table, found))
    expected = [metrics[name] for name in ("AP", "AP50", "AP75", "AR_100")]
    assert [numbers.ap, numbers.ap50, numbers.ap75, numbers.ar] == pytest.approx(expected, abs=1e-12)


def test_ranges_of_areas_are_those_of_pycocotools():
    table, found = random_problem(6)
    metrics = coco_metrics(table, found)
    of_sizes = match_by_coco(table, found, area_ranges((0, 32, 96)))
    assert [averages(matches).ap for matches in of_sizes] == pytest.approx(
        [metrics[name] for name in ("AP_S", "AP_M", "AP_L")], abs=1e-12
    )


def test_weights_select_images():
    table, found = random_problem(7)
    keep = np.arange(len(table)) % 3 == 0
    new_rows = np.cumsum(keep) - 1
    is_here = keep[found.rows]
    columns = (new_rows[found.rows], found.labels, found.boxes_xywh_px, found.scores)
    fewer = type(found)(*(column[is_here] for column in columns))
    expected = coco_metrics(table.select(keep), fewer)["AP"]
    assert averages(matches_of(table, found), keep.astype(float)).ap == pytest.approx(expected, abs=1e-12)


def test_a_curve_by_hand():
    """Right, wrong, right of two objects: precision 1 up to recall 0.5, then 2/3. The wrong one twice: then 2/4."""
    hits = np.array([[True, False, True]])
    precision, recall = class_curves(hits, np.ones((1, 3)), 2)
    assert precision[0, [0, 50, 51, 100]] == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert recall.tolist() == [1]
    precision, _ = class_curves(hits, np.array([[1, 2, 1]]), 2)
    assert precision[0, 100] == pytest.approx(0.5)


def test_object_sizes_by_hand():
    """An object of 8 x 8 belongs to the sizes from 8, one of 31 x 31 to those from 24; only the first is found."""
    table = make_table([[(0, 0, 0, 8, 8)], [(0, 0, 0, 31, 31)]])
    rows = by_object_size(match_by_coco(table, make_found([(0, 0, 0, 0, 8, 8, 0.9)]), area_ranges(OBJECT_SIDES)))
    assert [(row.low, row.high, row.objects, row.images) for row in rows] == [(8, 12, 1, 1), (24, 32, 1, 1)]
    assert [row.numbers.ap for row in rows] == pytest.approx([1, 0])


def test_image_sizes_by_hand():
    """Two images of 600 x 500; only the object of the first is found, which is the better half of recall."""
    table = make_table([[(0, 0, 0, 50, 50)], [(0, 0, 0, 50, 50)]])
    table.sizes_hw[1] = (100, 200)
    rows = by_image_size(table, matches_of(table, make_found([(0, 0, 0, 0, 50, 50, 0.9)])))
    assert [(row.low, row.high, row.images, row.numbers.ap) for row in rows] == [
        (128, 256, 1, pytest.approx(0)),
        (512, 640, 1, pytest.approx(1)),
    ]


def test_spreads():
    """Two of four images are found: AP is between 0 and 1 for almost every sample, and the same each time."""
    table = make_table([[(0, 0, 0, 50, 50)]] * 4)
    found = make_found([(row, 0, 0, 0, 50, 50, 0.9) for row in (0, 1)])
    matches = [matches_of(table, found)]
    resamples, (intervals,) = spreads(matches)
    assert resamples == 200
    low, high = intervals[1]
    assert 0 <= low < 0.5 < high <= 1
    assert spreads(matches) == (resamples, [intervals])
    assert spreads([matches_of(make_table([[]]), make_found([]))])[1] == [[None] * 4]


def test_calibration_by_hand():
    """Scores 0.3 and 0.35 share a row, one of them right; 1.0 is in the last row, 0.05 in the first."""
    table = make_table([[(0, 0, 0, 50, 50), (0, 100, 100, 150, 150)]])
    found = make_found(
        [
            (0, 0, 0, 0, 50, 50, 1.0),
            (0, 0, 100, 100, 150, 150, 0.35),
            (0, 0, 300, 300, 350, 350, 0.3),
            (0, 0, 400, 400, 450, 450, 0.05),
        ]
    )
    rows = calibration(matches_of(table, found))
    assert rows == [
        ScoreRange(0.0, 0.1, 1, 0.05, 0.0),
        ScoreRange(0.3, 0.4, 2, pytest.approx(0.325), 0.5),
        ScoreRange(0.9, 1.0, 1, 1.0, 1.0),
    ]
    assert calibration_error(rows) == pytest.approx((2 * 0.175 + 0) / 3)
    assert calibration_error([]) is None
