"""Entries of a COCO file's ``annotations``: their ids and areas, and all of them as columns.

Letters: M annotations, N ids, K classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from detect.data.annotations import MARKS, Problems, Understood
from detect.data.formats.coco_json import MIN_SHARE, Outline, is_box

MAX_ID_LENGTH = 1000  # characters

MIN_FACTOR = 0.3
"""Without outlines areas are usually width * height, or of outlines that are not in the file. These fill their boxes
differently; a circle 0.79, a triangle 0.5. The same smaller share for all is a scale: 0.25 where images grew by 2."""

MIN_SAME = 4  # equal areas, or equal shares of boxes, that are no coincidence

IMPOSSIBLE_AREA = (
    "annotations whose area cannot be that of their box or outline (AP_S, AP_M and AP_L follow it nevertheless; "
    "detect val --areas boxes takes width * height)"
)
OTHER_TYPE_ID = (
    "annotations whose image_id or category_id is text where its list has a number, or a number for text (matched)"
)
BAD_ANNOTATION = "annotations with neither a bbox of four numbers nor an outline (skipped)"
FROM_OUTLINE = Understood("annotations without a bbox (the box of their outline taken)")
UNKNOWN_IMAGE = "annotations of an image_id that is not listed (skipped)"
UNKNOWN_CATEGORY = "annotations of a category_id that is not listed (skipped)"
ZERO_ID = "annotations with id 0, which pycocotools counts as missed (renumbered)"
REPEATED_ID = "annotations with a duplicate id (renumbered)"
BAD_CROWD = "annotations whose iscrowd is neither 0 nor 1 (0 taken)"
IGNORED = Understood(
    "annotations with ignore: 1 (taken as crowd regions: not trained on, neither right nor wrong in evaluation)"
)
BAD_AREA = "annotations whose area is not a number of at least 0 (width * height taken)"

_LARGEST = 1e300  # whole numbers in JSON can be beyond the floats

Key = int | str
"""An id: a whole number, also one written as 7.0 or beyond 64 bits, or text."""


# ------------------------------------------------------------------------------------------------------- ids


def id_key(value: Any) -> Key | None:
    """Return the id of a JSON value; None for anything else, true and false included."""
    if type(value) is int:
        return value
    if type(value) is float:
        return int(value) if value.is_integer() else None
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH else None


def number_ids(keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (N,) int64 numbers of distinct ids, and (N,) bytes of the ids as JSON if any differs from its number.

    The numbers are the ids themselves, ``"7"`` as 7, where all are distinct 64-bit numbers; else 1..N.
    """
    numbers = [_as_number(key) for key in keys]
    fits = [number for number in numbers if isinstance(number, int) and abs(number) < 2**63]
    if len(set(fits)) < len(keys):
        numbers = list(range(1, len(keys) + 1))
    as_json = None if numbers == list(keys) else np.array([json.dumps(key).encode() for key in keys], np.bytes_)
    return np.array(numbers, np.int64), as_json


def positions_of(values: Iterable[Any], keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray]:
    """Return (M,) int64 positions of JSON values in N distinct ids, -1 where absent, and (M,) bool matches of another
    type.

    Such a match has the same digits: ``"7"`` where the list has 7, or the other way round.
    """
    position_of = {key: position for position, key in enumerate(keys)}
    positions, is_other_type = [], []
    for value in values:
        key = id_key(value)
        position = -1 if key is None else position_of.get(key, -1)
        twin = -1 if position >= 0 or key is None else position_of.get(_twin(key), -1)
        positions.append(max(position, twin))
        is_other_type.append(twin >= 0)
    return np.array(positions, np.int64), np.array(is_other_type, bool)


def format_id(value: Any) -> str:
    """Return an id as the file has it, for a message; text in quotes."""
    if isinstance(value, str):
        return json.dumps(value[:60])
    return (
        str(value)[:60]
        if isinstance(value, (int, float))
        else {type(None): "null"}.get(type(value), "a list or mapping")
    )


def is_whole(value: Any) -> TypeGuard[int]:
    """Tell whether a JSON value is a whole number that fits int64; 7.0, as pandas writes 7, is one."""
    return type(value) in (int, float) and abs(value) < 2**63 and int(value) == value


def _as_number(key: Key) -> Key:
    is_digits = isinstance(key, str) and len(key) < 20 and key.isascii() and key.isdigit() and str(int(key)) == key
    return int(key) if is_digits else key


def _twin(key: Key) -> Key:
    """Return the same id as the other type: 7 as ``"7"`` and the other way round."""
    return str(key) if isinstance(key, int) else _as_number(key)


# ----------------------------------------------------------------------------------------------------- areas


def impossible_areas(
    areas_px: np.ndarray, boxes_xywh_px: np.ndarray, outline_areas_px: np.ndarray, has_outline: np.ndarray
) -> np.ndarray:
    """Find impossible areas, (M,) bool: placeholders such as 0 or 1, shares of the image, areas of another scale.

    pycocotools sorts objects into small, medium and large by the file's ``area``: such areas falsify AP_S, AP_M and
    AP_L.

    Args:
        areas_px: (M,) of the file; NaN where it has none.
        boxes_xywh_px: (M, 4) left, top, width, height, finite and positive.
        outline_areas_px: (M,) of the outlines where ``is_far_smaller``; else NaN.
        has_outline: (M,) bool.
    """
    width, height = boxes_xywh_px[:, 2], boxes_xywh_px[:, 3]
    is_known = np.isfinite(areas_px)
    with np.errstate(invalid="ignore"):  # comparisons with NaN are False, as wanted
        is_too_large = areas_px > (width + 2) * (height + 2)  # a mask has whole pixels on every side
        is_no_outlines = np.where(has_outline, ~(areas_px >= outline_areas_px / 2), areas_px <= 1)
        is_too_small = (areas_px < MIN_SHARE * width * height) & is_no_outlines
    is_wrong = is_too_large | is_too_small
    known, boxes = areas_px[is_known], (width * height)[is_known]
    if len(known) >= MIN_SAME and (
        _is_placeholder(known, boxes) or (not has_outline.any() and _is_scaled(known, boxes))
    ):
        is_wrong |= is_known
    return is_wrong


def _is_placeholder(areas_px: np.ndarray, boxes_px: np.ndarray) -> bool:
    """Tell whether the area is the same for all boxes, which differ."""
    return bool(np.ptp(areas_px) == 0 and boxes_px.max() > 1.5 * boxes_px.min())


def _is_scaled(areas_px: np.ndarray, boxes_px: np.ndarray) -> bool:
    """Tell whether the area is the same share of each box, and not one that a shape has."""
    shares = areas_px / boxes_px
    return bool(shares.max() <= 1.02 * shares.min() and not MIN_FACTOR <= shares.min() <= 1.02)


# --------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class AnnotationColumns:
    """The ``annotations`` list as columns.

    Args:
        entries: the whole list.
        positions: (M,) int64, index of each annotation in the list.
        boxes_xywh_px: (M, 4) float64.
        areas: (M,) float64, pixels; NaN where the file has none.
        outline_areas: (M,) float64, pixels; NaN where there is none, or it is not needed.
        has_outline: (M,) bool.
        is_crowd: (M,) bool.
        marks: (M, number of ``MARKS``) int8.
    """

    entries: list[Any]
    positions: np.ndarray
    boxes_xywh_px: np.ndarray
    areas: np.ndarray
    outline_areas: np.ndarray
    has_outline: np.ndarray
    is_crowd: np.ndarray
    marks: np.ndarray

    def select(self, keep: np.ndarray) -> AnnotationColumns:
        """Return the annotations where ``keep`` (M,) bool is True."""
        columns = {f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self) if f.name != "entries"}
        return AnnotationColumns(self.entries, **columns)

    def entry(self, index: int) -> dict[str, Any]:
        """Return annotation ``index`` as the file has it."""
        found = self.entries[self.positions[index]]
        assert isinstance(found, dict), "others are skipped"
        return found

    def describe(self, index: int) -> str:
        entry = self.entry(index)
        return f"annotation {format_id(entry.get('id'))} of image {format_id(entry.get('image_id'))}"

    def rows_and_labels(
        self, image_keys: Sequence[Key], wanted: Sequence[Key], ignored: Sequence[Key], problems: Problems
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the annotations' images and classes.

        Args:
            image_keys: ids of the images.
            wanted: K ids of the classes.
            ignored: ids of unwanted categories.
            problems: gets the ids that are not listed.

        Returns:
            (M,) index of each annotation's image, and (M,) class index; -1 where there is none.
        """
        entries = [self.entry(index) for index in range(len(self.positions))]
        rows, is_other_image = positions_of((entry.get("image_id") for entry in entries), image_keys)
        categories = (entry.get("category_id") for entry in entries)
        labels, is_other_class = positions_of(categories, [*wanted, *ignored])
        for index in np.flatnonzero(rows < 0).tolist():
            problems.add(UNKNOWN_IMAGE, self.describe(index))
        for index in np.flatnonzero(labels < 0).tolist():
            problems.add(UNKNOWN_CATEGORY, f"{self.describe(index)}: {format_id(entries[index].get('category_id'))}")
        for index in np.flatnonzero(is_other_image | is_other_class).tolist():
            problems.add(
                OTHER_TYPE_ID, f"{self.describe(index)}: category {format_id(entries[index].get('category_id'))}"
            )
        return rows, np.where(labels < len(wanted), labels, -1)

    def report_areas(self, problems: Problems) -> None:
        """Count the impossible areas; the boxes must be valid."""
        is_wrong = impossible_areas(self.areas, self.boxes_xywh_px, self.outline_areas, self.has_outline)
        for index in np.flatnonzero(is_wrong).tolist():
            _, _, width, height = self.boxes_xywh_px[index].tolist()
            problems.add(
                IMPOSSIBLE_AREA, f"{self.describe(index)}: {self.areas[index]:.6g}, box {width:.6g} x {height:.6g}"
            )


def read_annotations(entries: list[Any], problems: Problems) -> AnnotationColumns:
    """Return the columns of all entries with a bbox of four numbers or an outline; the others are counted."""
    good: list[dict[str, Any]] = []
    positions: list[int] = []
    boxes: list[Sequence[float]] = []
    for position, entry in enumerate(entries):
        box = _box_of(entry) if isinstance(entry, dict) else None
        if box is None:
            problems.add(BAD_ANNOTATION, str(entry)[:80])
        else:
            good.append(entry)
            positions.append(position)
            boxes.append(box)
    outlines = [entry.get("segmentation") for entry in good]
    table = AnnotationColumns(
        entries=entries,
        positions=np.array(positions, np.int64),
        boxes_xywh_px=np.array([floats(box) for box in boxes], np.float64).reshape(-1, 4),
        areas=np.array([_area(entry.get("area")) for entry in good], np.float64),
        outline_areas=np.array([one.area_px if isinstance(one, Outline) else math.nan for one in outlines], np.float64),
        has_outline=np.array([bool(one) for one in outlines], bool),
        is_crowd=np.array([entry.get("iscrowd") == 1 or entry.get("ignore") == 1 for entry in good], bool),
        marks=np.array([[_degree(entry.get(mark)) for mark in MARKS] for entry in good], np.int8).reshape(
            -1, len(MARKS)
        ),
    )
    for index, entry in enumerate(good):
        for kind, value in _oddities(entry):
            problems.add(kind, f"{table.describe(index)}{value}")
    _report_ids(table, problems)
    return table


def _box_of(entry: dict[str, Any]) -> Sequence[float] | None:
    box, outline = entry.get("bbox"), entry.get("segmentation")
    if is_box(box):
        return box
    return outline.box_xywh_px if isinstance(outline, Outline) else None


def _oddities(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the kinds of problems of an annotation with a box, each with the end of its example."""
    if not is_box(entry.get("bbox")):
        yield FROM_OUTLINE, ""
    if entry.get("area") is not None and math.isnan(_area(entry["area"])):
        yield BAD_AREA, f": {str(entry['area'])[:40]}"
    if entry.get("iscrowd") not in (None, 0, 1):
        yield BAD_CROWD, f": {str(entry['iscrowd'])[:40]}"
    if entry.get("ignore") == 1 and entry.get("iscrowd") != 1:
        yield IGNORED, ""


def _report_ids(table: AnnotationColumns, problems: Problems) -> None:
    seen = set()
    for index in range(len(table.positions)):
        number = table.entry(index).get("id")
        if type(number) is int and number == 0:
            problems.add(ZERO_ID, table.describe(index))
        if isinstance(number, (int, str)):
            if number in seen:
                problems.add(REPEATED_ID, table.describe(index))
            seen.add(number)


def _area(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value < _LARGEST else math.nan


def _degree(value: Any) -> int:
    """Return a mark that is a small whole number, true or false; else 0."""
    return int(value) if isinstance(value, int) and abs(value) < 128 else 0


def floats(values: Sequence[float]) -> list[float]:
    """Convert to floats; whole numbers beyond the range of float become infinite."""
    try:
        return [float(value) for value in values]
    except OverflowError:
        return [float("inf")] * len(values)
