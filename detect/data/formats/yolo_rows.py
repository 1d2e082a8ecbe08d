"""Rows of YOLO's label files: a class number, then a box, an outline, or a box with more numbers after it.

``class cx cy w h`` is a box. Longer rows are ambiguous: an outline ``x y x y ...``, the corners of a rotated box (an
outline of four points), or a box and key points, ``x y`` or ``x y v`` each. The rows of a split together decide.

Letters: R rows, V numbers after the class, P key points.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

LongRow = Literal["outline", "scored outline", "key points", "track"]
"""Meaning of rows with six or more numbers after the class."""

KEY_POINTS = "rows with key points (the box before them is taken, the points are not)"
OUTLINE = "outlines taken as boxes"
SCORED = "rows with a score or track number after the box, as predictions have them (not used; each box is taken)"
COMMAS = "rows with commas between their numbers or in them (read)"

Box = tuple[float, float, float, float]

_SAME_LENGTH = 0.95  # share of the rows; outlines differ in their number of points
_MIN_FITTING = 0.9  # share of the rows whose points lie in their box
_MIN_FILLED = 0.25  # of a side of a box, by its points
_TOLERANCE = 0.02  # of the image and of the box: points at the edge of the object, rounded
_MAX_ROWS = 2000
_DECIMAL_COMMA = re.compile(r"\d,\d")


class Row(NamedTuple):
    """One object.

    Args:
        class_number: as written; not always a whole number.
        box_xywh: left, top, width, height as shares of the image.
        kind: problem to report, None for a plain box.
    """

    class_number: float
    box_xywh: Box
    kind: str | None


def split_row(line: str) -> list[str]:
    """Split a row at spaces, tabs, commas or semicolons; a comma may be a decimal point."""
    if "," not in line and ";" not in line:
        return line.split()
    words = line.replace(";", " ").split()
    if len(words) > 1 and not any(word.endswith(",") for word in words) and _DECIMAL_COMMA.search(line):
        return [word.replace(",", ".") for word in words]
    return line.replace(";", " ").replace(",", " ").split()


def meaning_of_long_rows(files: Iterable[list[str] | None]) -> LongRow:
    """Decide what rows longer than a box mean, from all rows of a split."""
    found = (words for lines in files for line in lines or () if len(words := split_row(line)) > 6)
    rows = list(itertools.islice(found, _MAX_ROWS))
    if not rows:
        return "outline"
    ((length, count),) = Counter(map(len, rows)).most_common(1)
    if count >= _SAME_LENGTH * len(rows):
        same = (row[1:] for row in rows if len(row) == length)
        values = np.array([numbers for row in same if (numbers := _numbers(row)) is not None], np.float64)
        if len(values) and _are_tracks(values):
            return "track"
        if len(values) and any(_are_key_points(values, num_values) for num_values in (3, 2)):
            return "key points"
    is_odd = [len(row) % 2 == 0 for row in rows]
    return "scored outline" if sum(is_odd) >= _SAME_LENGTH * len(rows) else "outline"


def parse_row(words: list[str], long_row: LongRow) -> Row | None:
    """Return the object of a row of at least one word, or None if it has none."""
    numbers = _numbers(words)
    if numbers is None:
        return None
    number, *values = numbers
    if len(values) == 4:
        return Row(number, _box(values), None)
    if len(values) == 5 and (0 <= values[4] <= 1 or values[4].is_integer()):
        return Row(number, _box(values[:4]), SCORED)
    if len(values) < 6:
        return None
    if long_row == "key points":
        return Row(number, _box(values[:4]), KEY_POINTS)
    if long_row == "track" and len(values) == 6:
        return Row(number, _box(values[:4]), SCORED)
    if len(values) % 2 and long_row == "scored outline" and 0 <= values[-1] <= 1:
        return Row(number, _box_of_outline(values[:-1]), SCORED)
    return None if len(values) % 2 else Row(number, _box_of_outline(values), OUTLINE)


def _numbers(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words]
    except ValueError:
        return None


def _box(values: list[float]) -> Box:
    """Convert centre, width, height to left, top, width, height."""
    x, y, width, height = values
    return x - width / 2, y - height / 2, width, height


def _box_of_outline(values: list[float]) -> Box:
    """Return left, top, width, height of x y x y ...; NaN where any number is not finite."""
    if not all(math.isfinite(value) for value in values):
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


# ------------------------------------------------------------------------------------------------ evidence


def _are_tracks(values: np.ndarray) -> bool:
    """Tell whether rows (R, V) are a box, a score and a track number."""
    if values.shape[1] != 6:
        return False
    score, track = values[:, 4:].T
    return bool(((score >= 0) & (score <= 1) & (track == np.floor(track))).all() and track.max() > 1)


def _are_key_points(values: np.ndarray, num_values: int) -> bool:
    """Tell whether rows (R, V) are a box and points of ``num_values`` numbers.

    The points lie in the box, and the box in the image. A small outline, read so, has a box that is far larger than it:
    its second point would be width and height. Four corners of a rotated box are a parallelogram.
    """
    if (values.shape[1] - 4) % num_values or not np.isfinite(values).all():
        return False
    points = values[:, 4:].reshape(len(values), -1, num_values)  # (R, P, num_values)
    is_labelled = (points[..., :2] != 0).any(axis=2)
    if num_values == 3:
        visible = points[..., 2]
        if values.shape[1] % 2 == 0 and not np.isin(visible, (0, 1, 2)).all():
            return False
        is_labelled &= visible > 0
    if values.shape[1] == 8 and num_values == 2 and _are_parallelograms(values):
        return False
    is_fitting = _fit_their_box(values[:, :4], points[..., :2], is_labelled)
    return bool(is_fitting.mean() >= _MIN_FITTING)


def _fit_their_box(boxes: np.ndarray, points: np.ndarray, is_labelled: np.ndarray) -> np.ndarray:
    """Return (R,) bool: boxes (R, 4) cx cy w h that fit their labelled points (R, P, 2)."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    low, high = centre - size / 2, centre + size / 2  # (R, 2)
    in_image = ((low >= -_TOLERANCE) & (high <= 1 + _TOLERANCE) & (size > 0)).all(axis=1)
    slack = _TOLERANCE * (1 + size)[:, None]
    inside = ((points >= low[:, None] - slack) & (points <= high[:, None] + slack)).all(axis=2) | ~is_labelled
    # Points that are not labelled are put at the centre, where they do not widen the extent.
    known = np.where(is_labelled[..., None], points, centre[:, None])
    extent = np.maximum(known.max(axis=1), centre) - np.minimum(known.min(axis=1), centre)
    is_filled = (extent >= _MIN_FILLED * size).any(axis=1)
    # A single point is weak evidence: a triangle, read so, has a width and height near to its centre.
    is_single = is_labelled.sum(axis=1) < 2
    is_apart = (np.abs(size - centre) > 2 * extent).any(axis=1)
    return in_image & inside.all(axis=1) & np.where(is_single, is_apart, is_filled)


def _are_parallelograms(values: np.ndarray) -> bool:
    """Tell whether most rows (R, 8) are the corners of a parallelogram, in order."""
    corners = values.reshape(len(values), 4, 2)
    extent = (corners.max(axis=1) - corners.min(axis=1)).max(axis=1)
    gap = np.abs(corners[:, 0] + corners[:, 2] - corners[:, 1] - corners[:, 3]).max(axis=1)
    return bool((gap <= 1e-3 + _TOLERANCE * extent).mean() > 0.5)
