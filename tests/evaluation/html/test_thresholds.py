"""Precision and recall at scores."""

from __future__ import annotations

import pytest

from detect.evaluation.html.thresholds import THRESHOLDS, at_thresholds
from detect.evaluation.matches import ALL_AREAS, match_by_coco
from tests.evaluation.synthetic import make_found, make_table

BOX = (0, 0, 10, 10)


def test_rows_by_hand():
    table = make_table([[(0, *BOX)], [(0, *BOX)]])
    found = make_found([(0, 0, *BOX, 0.9), (0, 0, 30, 30, 50, 50, 0.45), (1, 0, *BOX, 0.15)])
    rows = {row.score: row[1:] for row in at_thresholds(match_by_coco(table, found, [ALL_AREAS])[0])}
    assert tuple(rows) == THRESHOLDS
    assert rows[0.1] == pytest.approx((2 / 3, 1, 2 * 2 / (3 + 2), 1 / 2))  # two right of three, one wrong in two images
    assert rows[0.2] == pytest.approx((1 / 2, 1 / 2, 2 * 1 / (2 + 2), 1 / 2))
    assert rows[0.9] == pytest.approx((1, 1 / 2, 2 * 1 / (1 + 2), 0))  # a score of 0.9 is at least 0.9


def test_thresholds_above_all_scores_have_no_row():
    found = make_found([(0, 0, *BOX, 0.25)])
    rows = at_thresholds(match_by_coco(make_table([[(0, *BOX)]]), found, [ALL_AREAS])[0])
    assert [row.score for row in rows] == [0.05, 0.1, 0.2]


def test_crowd_regions_count_neither_way():
    table = make_table([[(0, *BOX), (0, 50, 50, 90, 90, True)]])
    found = make_found([(0, 0, *BOX, 0.9), (0, 0, 50, 50, 90, 90, 0.9)])
    rows = at_thresholds(match_by_coco(table, found, [ALL_AREAS])[0])
    assert rows[-1] == pytest.approx((0.9, 1, 1, 1, 0))


def test_nothing_to_find():
    assert at_thresholds(match_by_coco(make_table([[]]), make_found([(0, 0, *BOX, 0.9)]), [ALL_AREAS])[0]) == []
