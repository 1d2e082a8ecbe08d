"""The ``annotations`` of a COCO file as columns.

Letters: M annotations, K classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from detect.data.annotations import MARKS, Problems, Understood
from detect.data.formats.coco_areas import IMPOSSIBLE_AREA, impossible_areas
from detect.data.formats.coco_ids import Key, positions_of, shown_id
from detect.data.formats.coco_outlines import Outline

OTHER_TYPE_ID = (
    "annotations whose image_id or category_id is text where its list has a number, or a number for text (matched)"
)
BAD_ANNOTATION = "annotations with neither a bbox of four numbers nor an outline (skipped)"
FROM_OUTLINE = Understood("annotations without a bbox (the box of their outline taken)")
UNKNOWN_IMAGE = "annotations of an image_id that is not listed (skipped)"
UNKNOWN_CATEGORY = "annotations of a category_id that is not listed (skipped)"
ZERO_ID = "annotations with id 0, which pycocotools counts as missed (renumbered)"
REPEATED_ID = "annotations whose id stands before (renumbered)"
BAD_CROWD = "annotations whose iscrowd is neither 0 nor 1 (0 taken)"
IGNORED = Understood(
    "annotations with ignore: 1 (taken as crowd regions: not trained on, neither right nor wrong in evaluation)"
)
BAD_AREA = "annotations whose area is not a number of at least 0 (width * height taken)"

_LARGEST = 1e300  # whole numbers in JSON can be beyond the floats


@dataclass(frozen=True)
class AnnotationColumns:
    """The ``annotations`` list as columns.

    Args:
        entries: the whole list.
        positions: (M,) int64, each annotation's place in the list.
        boxes_xywh_px: (M, 4) float64.
        areas: (M,) float64, pixels; NaN where the file has none.
        outline_areas: (M,) float64, pixels; NaN where it is not needed, or there is none.
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
        """The annotations where ``keep`` (M,) bool is True."""
        columns = {f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self) if f.name != "entries"}
        return AnnotationColumns(self.entries, **columns)

    def entry(self, index: int) -> dict[str, Any]:
        """Annotation ``index`` as the file has it."""
        found = self.entries[self.positions[index]]
        assert isinstance(found, dict), "others are skipped"
        return found

    def describe(self, index: int) -> str:
        """Annotation ``index`` in words, for a message."""
        entry = self.entry(index)
        return f"annotation {shown_id(entry.get('id'))} of image {shown_id(entry.get('image_id'))}"

    def rows_and_labels(
        self, image_keys: Sequence[Key], wanted: Sequence[Key], ignored: Sequence[Key], problems: Problems
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the annotations' images and classes.

        Args:
            image_keys: ids of the images.
            wanted: K ids of the classes.
            ignored: ids of the categories that are not wanted.
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
            problems.add(UNKNOWN_CATEGORY, f"{self.describe(index)}: {shown_id(entries[index].get('category_id'))}")
        for index in np.flatnonzero(is_other_image | is_other_class).tolist():
            problems.add(
                OTHER_TYPE_ID, f"{self.describe(index)}: category {shown_id(entries[index].get('category_id'))}"
            )
        return rows, np.where(labels < len(wanted), labels, -1)

    def report_areas(self, problems: Problems) -> None:
        """Count the areas that cannot be; boxes are sound by now."""
        is_wrong = impossible_areas(self.areas, self.boxes_xywh_px, self.outline_areas, self.has_outline)
        for index in np.flatnonzero(is_wrong).tolist():
            _, _, width, height = self.boxes_xywh_px[index].tolist()
            problems.add(
                IMPOSSIBLE_AREA, f"{self.describe(index)}: {self.areas[index]:.6g}, box {width:.6g} x {height:.6g}"
            )


def read_annotations(entries: list[Any], problems: Problems) -> AnnotationColumns:
    """The columns of all entries that have a bbox of four numbers or an outline; the others are counted."""
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
    """The bbox, or that of the outline."""
    box, outline = entry.get("bbox"), entry.get("segmentation")
    if is_box(box):
        return box
    return outline.box_xywh_px if isinstance(outline, Outline) else None


def _oddities(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kinds of problems of an annotation with a box, each with the end of its example."""
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
    """The area if it is a number of at least 0, else NaN."""
    return float(value) if type(value) in (int, float) and 0 <= value < _LARGEST else math.nan


def _degree(value: Any) -> int:
    """A mark that is a small whole number, true or false; else 0."""
    return int(value) if isinstance(value, int) and abs(value) < 128 else 0


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a JSON value is a bbox; four zeros are none."""
    is_numbers = isinstance(value, list) and len(value) == 4 and all(type(one) in (int, float) for one in value)
    return is_numbers and any(value)


def floats(values: Sequence[float]) -> list[float]:
    """The numbers as floats; whole numbers beyond the range of float become infinite."""
    try:
        return [float(value) for value in values]
    except OverflowError:
        return [float("inf")] * len(values)
