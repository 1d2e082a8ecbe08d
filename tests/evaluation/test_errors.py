from __future__ import annotations

import numpy as np
import pytest

from detect.evaluation.errors import (
    BOTH,
    CLASS,
    DUPLICATE,
    KINDS,
    NOTHING,
    PLACE,
    RIGHT,
    error_kinds,
    find_errors,
    gains,
)
from detect.evaluation.matches import ALL_AREAS, match_by_coco
from tests.evaluation.synthetic import make_found, make_table


@pytest.mark.parametrize(
    ("same", "other", "kind", "target"),
    [
        (0.0, 0.0, NOTHING, -1),
        (0.0, 0.09, NOTHING, -1),
        (0.0, 0.1, BOTH, -1),
        (0.09, 0.49, BOTH, -1),
        (0.0, 0.5, CLASS, 1),
        (0.1, 0.0, PLACE, 0),
        (0.49, 0.9, PLACE, 0),
        (0.5, 0.0, DUPLICATE, -1),
        (0.6, 0.6, CLASS, 1),
    ],
)
def test_kinds(same, other, kind, target):
    """One detection, an object of its class and one of another, by the definitions of the paper."""
    kinds, targets = error_kinds(np.array([[same, other]]), np.array([[True, False]]))
    assert (kinds.tolist(), targets.tolist()) == ([kind], [target])


def test_without_objects_everything_is_background():
    kinds, targets = error_kinds(np.zeros((2, 0)), np.zeros((2, 0), bool))
    assert (kinds.tolist(), targets.tolist()) == ([NOTHING, NOTHING], [-1, -1])


def errors_of(table, found):
    matches = match_by_coco(table, found, [ALL_AREAS])[0]
    return matches, find_errors(table, found, matches)


def test_errors_of_images():
    """Image 0: right, its duplicate, and one in a crowd region, which does not count. Image 1: wrong class, and a place
    with an IoU of 50 / 150; the third object has nothing near it."""
    table = make_table(
        [
            [(0, 0, 0, 100, 100), (0, 300, 300, 500, 500, True)],
            [(1, 0, 0, 100, 100), (0, 200, 0, 300, 100), (1, 400, 400, 450, 450)],
        ]
    )
    found = make_found(
        [
            (0, 0, 0, 0, 100, 100, 0.9),
            (0, 0, 0, 0, 100, 90, 0.8),
            (0, 0, 310, 310, 400, 400, 0.7),
            (1, 0, 0, 0, 100, 100, 0.9),
            (1, 0, 250, 0, 350, 100, 0.8),
        ]
    )
    matches, errors = errors_of(table, found)
    by_detection = dict(zip(matches.detections.tolist(), errors.kinds.tolist(), strict=True))
    assert by_detection == {0: RIGHT, 1: DUPLICATE, 2: RIGHT, 3: CLASS, 4: PLACE}
    targets = dict(zip(matches.detections.tolist(), errors.targets.tolist(), strict=True))
    assert targets == {0: -1, 1: -1, 2: -1, 3: 2, 4: 3}
    assert errors.is_free.tolist() == [False, False, True, True, True]
    assert errors.is_missed.tolist() == [False, False, False, False, True]


def test_gain_of_a_place():
    """One of two objects is found, the other with an IoU of 1/3 twice: AP50 51/101. With the better one moved, 1: the
    second is left out, not made a duplicate."""
    table = make_table([[(0, 0, 0, 100, 100)], [(0, 0, 0, 100, 100)]])
    found = make_found(
        [(0, 0, 0, 0, 100, 100, 0.9), (1, 0, 50, 0, 150, 100, 0.8), (1, 0, 0, 50, 100, 150, 0.7)],
    )
    added = dict(zip(KINDS, gains(table, *errors_of(table, found)), strict=True))
    assert added.pop("place") == pytest.approx(50 / 101)
    assert added == dict.fromkeys(added, 0)


def test_gain_of_a_class():
    """The object of b is found as a, with the highest score. AP50 of a: 1/2 (the wrong one is first), of b: 0. With the
    class mended, both 1."""
    table = make_table([[(0, 0, 0, 100, 100), (1, 200, 200, 300, 300)]])
    found = make_found([(0, 0, 200, 200, 300, 300, 0.9), (0, 0, 0, 0, 100, 100, 0.8)])
    added = dict(zip(KINDS, gains(table, *errors_of(table, found)), strict=True))
    assert added.pop("class") == pytest.approx(1 - 0.25)
    assert added == dict.fromkeys(added, 0)


def test_gain_of_background_and_missed():
    """Two objects; wrong, then right. AP50 = 1/2 for the 51 recalls up to 0.5. Without the wrong one 51/101; without
    the missed object 1/2 for all recalls."""
    table = make_table([[(0, 0, 0, 100, 100), (0, 300, 0, 400, 100)]])
    found = make_found([(0, 0, 0, 300, 100, 400, 0.9), (0, 0, 0, 0, 100, 100, 0.8)])
    added = dict(zip(KINDS, gains(table, *errors_of(table, found)), strict=True))
    assert added["background"] == pytest.approx(51 / 101 / 2)
    assert added["missed"] == pytest.approx(50 / 101 / 2)


def test_nothing_at_all():
    table, found = make_table([[]]), make_found([])
    matches, errors = errors_of(table, found)
    assert errors.kinds.size == errors.is_missed.size == 0
    assert gains(table, matches, errors) == [0] * 6
