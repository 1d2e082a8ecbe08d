"""Pages of handwritten digits: the scans, the boxes, and that a page is the same on every machine."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from detect.data.digits import pages
from detect.data.digits.pages import DIGITS, MAX_SIDE_PX, MIN_CONTRAST, MIN_SIDE_PX, SCANS, draw_page, generate_digits


@pytest.fixture(scope="module")
def drawn():
    return [draw_page(160, "train", number) for number in range(1, 61)]


def test_ten_pages_are_the_same_everywhere():
    digest = hashlib.sha256()
    for number in range(1, 11):
        for part in draw_page(96, "val", number):
            digest.update(np.ascontiguousarray(part).tobytes())
    assert digest.hexdigest()[:16] == "4d914df25dddfc5b"


def test_the_scans():
    """1,797 scans from 0 to 16; the first three rows of the file are a 0, a 1 and a 2."""
    scans, digits = pages._scans()
    assert scans.shape == (1797, 8, 8)
    assert (scans.min(), scans.max()) == (0, 16)
    assert digits[:3].tolist() == [0, 1, 2]
    assert np.bincount(digits).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_splits_share_no_scan():
    bounds = [bound for rows in SCANS.values() for bound in rows]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1]) == (0, 1797)


def test_each_split_begins_with_a_writer():
    """Each of them wrote 0 to 9 three times first."""
    digits = pages._scans()[1].tolist()
    for first, _ in SCANS.values():
        assert digits[first : first + 30] == [*range(10)] * 3


def test_boxes(drawn):
    sides = []
    for image, boxes, labels, areas in drawn:
        assert (image.shape, image.dtype) == ((160, 160, 3), np.uint8)
        assert len(boxes) == len(labels) == len(areas)
        taken = np.zeros((160, 160), int)
        for left, top, width, height in boxes.tolist():
            assert 0 <= left <= 160 - width
            assert 0 <= top <= 160 - height
            taken[top : top + height, left : left + width] += 1
        assert taken.max(initial=0) <= 1  # no two boxes touch
        sides += boxes[:, 2:].max(axis=1).tolist()
    assert MIN_SIDE_PX - 2 <= min(sides) <= MIN_SIDE_PX + 1
    assert MAX_SIDE_PX - 2 <= max(sides) <= MAX_SIDE_PX
    assert {label for _, _, labels, _ in drawn for label in labels.tolist()} == set(range(10))


def test_a_digit_stands_out():
    """On grey, the ink of a scan differs from the page by the contrast, and nothing outside its box changes."""
    rng = np.random.default_rng(0)
    coverage = pages._enlarged(pages._scans()[0][0], 20)
    assert max(coverage.shape) in (19, 20)
    assert min(coverage[0].max(), coverage[-1].max(), coverage[:, 0].max(), coverage[:, -1].max()) > 127
    for grey in (0, 100, 255):
        window = np.full((*coverage.shape, 3), grey, np.uint8)
        pages._paint(window, coverage, rng)
        ink = window[coverage == 255].astype(int).mean(axis=1)
        assert np.abs(ink - grey).min() >= MIN_CONTRAST - 25  # less the tint
        assert (window[coverage == 0] == grey).all()


def test_the_data_set(tmp_path):
    generate_digits(tmp_path / "digits", 4, 2, 2, side=64)
    content = json.loads((tmp_path / "digits" / "annotations" / "train.json").read_text())
    assert [category["name"] for category in content["categories"]] == list(DIGITS)
    assert [image["width"] for image in content["images"]] == [64] * 4
    assert len(list((tmp_path / "digits" / "images").rglob("*.jpg"))) == 8
