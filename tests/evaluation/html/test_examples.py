"""Examples of a report, chosen by hand-counted errors; the images themselves are not there."""

from __future__ import annotations

import pytest

from detect.evaluation.html.errors import find_errors
from detect.evaluation.html.examples import Shown, false_positives, misses, worst_images
from detect.evaluation.html.matches import ALL_AREAS, match_by_coco
from tests.evaluation.synthetic import make_found, make_table


@pytest.fixture
def shown() -> Shown:
    """Image 0: one wrong. Image 1: right, but for a crowd region. Image 2: two not found, one wrong."""
    table = make_table(
        [
            [(0, 0, 0, 100, 100)],
            [(0, 0, 0, 100, 100), (0, 300, 300, 500, 500, True)],
            [(1, 0, 0, 30, 30), (1, 200, 200, 240, 240)],
        ]
    )
    found = make_found(
        [
            (0, 0, 0, 0, 100, 100, 0.9),
            (0, 1, 0, 0, 100, 100, 0.6),
            (1, 0, 0, 0, 100, 100, 0.9),
            (2, 0, 300, 300, 400, 400, 0.8),
            (2, 1, 0, 0, 30, 30, 0.2),
        ]
    )
    matches = match_by_coco(table, found, [ALL_AREAS])[0].from_score(0.25)
    return Shown(table, found, matches, find_errors(table, found, matches))


def texts(examples):
    return [(example.name, example.text) for example in examples]


def test_worst_images(shown):
    expected = [("2.jpg", "1 wrong, 2 not found"), ("0.jpg", "1 wrong, 0 not found")]
    assert texts(worst_images(shown)) == expected


def test_false_positives_by_score(shown):
    assert texts(false_positives(shown)) == [("2.jpg", "a 0.80: background"), ("0.jpg", "b 0.60: class")]


def test_misses_by_size(shown):
    assert texts(misses(shown)) == [("2.jpg", "b, 40 px"), ("2.jpg", "b, 30 px")]
