"""What is odd about the boxes and class names of one split.

Letters: M boxes, K classes.
"""

from __future__ import annotations

import unicodedata

import numpy as np

from detect.boxes.convert import box_sizes
from detect.config.data import DataConfig
from detect.curation.check.severity import (
    BACKGROUND,
    BACKGROUND_DROPPED,
    CORNERS,
    CROWD,
    NORMALISED,
    NOTHING_TO_MEASURE,
    NOTHING_TO_TRAIN,
    PADDED_NAME,
    SIMILAR_NAME,
    UNDER_A_PIXEL,
    UNLABELLED,
    UNLABELLED_TEST,
    UNPRINTABLE_NAME,
)
from detect.data.annotations import AnnotationTable, Problems

MIN_CORNER_BOXES = 4
"""Fewer boxes can look like corners by chance."""

MIN_CORNER_SHARE = 0.99
"""Share of the boxes whose third and fourth number are larger than the first two and within the image. Of real widths
and heights about a third are larger than left and top; of right and bottom all, but for a slip."""

MIN_OUTSIDE_SHARE = 0.2
"""Share of the boxes that then reach out of their image. With corners read as sizes it is every box whose centre is in
the right or the lower half, about three quarters; in real data hardly one."""


def check_content(table: AnnotationTable, config: DataConfig, split: str, problems: Problems) -> None:
    """Report what is odd about a split's boxes and class names, by severities of ``detect.curation.check.severity``.

    Args:
        table: the split.
        config: its data set.
        split: its name.
        problems: gets what is found.
    """
    _check_names(table.names, problems)
    if not table.is_labelled:
        problems.add(UNLABELLED if split in ("train", "val") else UNLABELLED_TEST, split)
        return
    if table.is_crowd.all():
        problems.add(NOTHING_TO_TRAIN if split == "train" else NOTHING_TO_MEASURE, split)
    else:
        _note_background(table, config, split, problems)
    for index in np.flatnonzero(table.is_crowd).tolist():
        problems.add(CROWD, _describe(table, index))
    _check_units(table, problems)


def _note_background(table: AnnotationTable, config: DataConfig, split: str, problems: Problems) -> None:
    is_dropped = config.background == "drop" and split == "train"
    for row in np.flatnonzero(np.diff(table.box_offsets) == 0).tolist():
        problems.add(BACKGROUND_DROPPED if is_dropped else BACKGROUND, table.path(row).name)


def _check_units(table: AnnotationTable, problems: Problems) -> None:
    """Boxes in other units than pixels, or with corners where sizes belong."""
    boxes = table.boxes_xyxy_px
    sides = box_sizes(boxes)
    is_tiny = (sides < 1).any(axis=1)
    kind = UNDER_A_PIXEL
    if len(boxes) and (np.abs(boxes[:, :2]) <= 1).all() and (sides <= 1).all():
        is_tiny, kind = np.ones(len(boxes), bool), NORMALISED
    for index in np.flatnonzero(is_tiny).tolist():
        problems.add(kind, f"{_describe(table, index)}: {sides[index, 0]:.3g} x {sides[index, 1]:.3g} px")
    for index in np.flatnonzero(_reads_as_corners(table)).tolist():
        assert table.boxes_xywh_px is not None, "only such boxes can be mistaken"
        numbers = ", ".join(f"{value:.6g}" for value in table.boxes_xywh_px[index])
        problems.add(CORNERS, f"{_describe(table, index)}: [{numbers}]")


def _reads_as_corners(table: AnnotationTable) -> np.ndarray:
    """(M,) bool: the boxes, if the split as a whole gives [left, top, right, bottom] as [left, top, width, height]."""
    nothing = np.zeros(len(table.labels), bool)
    if table.boxes_xywh_px is None or len(table.labels) < MIN_CORNER_BOXES:
        return nothing
    left_top, other = table.boxes_xywh_px[:, :2], table.boxes_xywh_px[:, 2:]
    limits_wh = np.repeat(table.sizes_hw[:, ::-1], np.diff(table.box_offsets), axis=0) + 1
    are_corners = ((other > left_top) & (other <= limits_wh)).all(axis=1)
    reach_out = (left_top + other > limits_wh).any(axis=1)
    if are_corners.mean() < MIN_CORNER_SHARE or reach_out.mean() < MIN_OUTSIDE_SHARE:
        return nothing
    return np.asarray(are_corners)


def _check_names(names: tuple[str, ...], problems: Problems) -> None:
    first_of: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            problems.add(UNPRINTABLE_NAME, name)
        elif name != name.strip() or not name:
            problems.add(PADDED_NAME, repr(name))
        folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        other = first_of.setdefault(folded, name)
        if other != name:
            problems.add(SIMILAR_NAME, f"{other!r} and {name!r}")


def _describe(table: AnnotationTable, index: int) -> str:
    row = int(np.searchsorted(table.box_offsets, index, side="right")) - 1
    return f"{table.names[table.labels[index]]} in {table.path(row).name}"
