"""Examples, chosen by hand-counted errors; most of the images themselves are not there."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from detect.data.annotations import encode_paths
from detect.data.images import write_image
from detect.evaluation.errors import find_errors
from detect.evaluation.examples import Shown, draw_example_sheets, false_positives, misses, some_images, worst_images
from detect.evaluation.matches import ALL_AREAS, match_by_coco
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
    return [(example.name, f"{example.class_name}{example.text}") for example in examples]


def test_worst_images(shown):
    expected = [("2.jpg", "1 wrong, 2 not found"), ("0.jpg", "1 wrong, 0 not found")]
    assert texts(worst_images(shown)) == expected


def test_false_positives_by_score(shown):
    assert texts(false_positives(shown)) == [("2.jpg", "a 0.80: background"), ("0.jpg", "b 0.60: class")]


def test_misses_by_size(shown):
    assert texts(misses(shown)) == [("2.jpg", "b, 40 px"), ("2.jpg", "b, 30 px")]


def test_some_images_are_spread_over_the_split():
    table = make_table([[] for _ in range(30)])
    shown = Shown(table, make_found([]), *_matched(table, make_found([])))
    # 30 images, 12 places: every 2.5th image, rounded down.
    rows = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]
    assert texts(some_images(shown)) == [(f"{row}.jpg", "0 wrong, 0 not found") for row in rows]


def _matched(table, found):
    matches = match_by_coco(table, found, [ALL_AREAS])[0].from_score(0.25)
    return matches, find_errors(table, found, matches)


def test_sheets(tmp_path):
    """Of two grey images, one with an object that is not found: pairs side by side, and a crop of the miss."""
    for name in ("0.jpg", "1.jpg"):
        write_image(tmp_path / name, np.full((100, 200, 3), 128, np.uint8))
    paths = encode_paths([tmp_path / name for name in ("0.jpg", "1.jpg")])
    table = replace(make_table([[(0, 20, 20, 60, 60)], []], size_hw=(100, 200)), image_paths=paths)
    found = make_found([])
    draw_example_sheets(tmp_path / "out", Shown(table, found, *_matched(table, found)))
    sheets = {path.stem: cv2.imread(str(path)) for path in (tmp_path / "out").iterdir()}
    assert sorted(sheets) == ["examples", "false_positives", "misses", "worst"]
    # Two pairs of 640 px with gaps of 8 px, 320 px high above two lines of 18 px.
    assert sheets["examples"].shape == sheets["worst"].shape == (8 + 320 + 36 + 8, 8 + 2 * 648, 3)
    # A pair of 2:1 images is fitted to 640 px, 160 px high, at the bottom of its place. Both images are among the
    # examples, but only the first is among the worst.
    middle = 8 + 320 - 80
    assert abs(int(sheets["examples"][middle, 8 + 648 + 200, 0]) - 128) < 3
    assert sheets["worst"][middle, 8 + 648 + 200, 0] == 255
    assert (sheets["misses"] < 250).any()
    assert (sheets["false_positives"] == 255).all()
