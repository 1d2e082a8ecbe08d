"""What the formats with one text file of boxes for each image have in common.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detect.boxes.convert import xywh_to_xyxy
from detect.data.annotations import MARKS, AnnotationTable, Problems, encode_paths, kept_marks, offsets_of
from detect.data.checks import check_boxes, report_repeated
from detect.data.formats.stems import decode_text, read_annotation_bytes

MAX_LABEL_BYTES = 16 * 2**20
"""Larger label files are refused unread; a line has about 50 bytes."""

ALL_CLASSES = -1
"""Label of a region that is to be ignored whatever the class: it becomes a crowd region of each of them."""


@dataclass
class BoxLines:
    """The boxes of all files of a split, as they are read.

    Args:
        rows: of each box's image.
        labels: class index, or ``ALL_CLASSES``.
        boxes_xywh: left, top, width, height.
        is_crowd: whether it is a crowd region.
        marks: one for each of ``MARKS``.
        places: file and line number, for messages.
    """

    rows: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    boxes_xywh: list[tuple[float, float, float, float]] = field(default_factory=list)
    is_crowd: list[bool] = field(default_factory=list)
    marks: list[tuple[int, ...]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(
        self,
        row: int,
        label: int,
        box_xywh: tuple[float, float, float, float],
        place: str,
        is_crowd: bool = False,
        marks: tuple[int, ...] = (0,) * len(MARKS),
    ) -> None:
        """Put a box behind the others."""
        self.rows.append(row)
        self.labels.append(label)
        self.boxes_xywh.append(box_xywh)
        self.is_crowd.append(is_crowd)
        self.marks.append(marks)
        self.places.append(place)


def read_lines(path: Path) -> list[str]:
    """The lines of a label file.

    Raises:
        InputError: it is too large, is no text in UTF-8 or UTF-16, or cannot be read.
    """
    return decode_text(read_annotation_bytes(path, MAX_LABEL_BYTES), path.name).splitlines()


def table_of_lines(
    paths: list[Path],
    sizes_hw: np.ndarray,
    boxes: BoxLines,
    in_shares: bool,
    names: tuple[str, ...],
    category_ids: np.ndarray,
    problems: Problems,
) -> AnnotationTable:
    """Check the boxes and put them into arrays.

    Args:
        paths: N image files.
        sizes_hw: (N, 2) height and width, pixels.
        boxes: their rows are those of ``paths``.
        in_shares: coordinates are shares of the image's width and height, not pixels.
        names: K class names.
        category_ids: (K,) the classes' numbers in the files.
        problems: gets what is wrong, and becomes the table's.
    """
    rows, labels = np.array(boxes.rows, np.int64), np.array(boxes.labels, np.int64)
    xywh = np.array(boxes.boxes_xywh, np.float64).reshape(-1, 4)
    if in_shares:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is skipped below
            xywh = xywh * np.tile(sizes_hw[rows][:, ::-1], 2)
    kept = np.flatnonzero(check_boxes(xywh, sizes_hw[rows], boxes.places.__getitem__, problems))
    report_repeated(xywh[kept], rows[kept], labels[kept], lambda index: boxes.places[kept[index]], problems)

    copies = np.where(labels[kept] == ALL_CLASSES, len(names), 1)
    number = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)  # of each copy, from 0
    kept = np.repeat(kept, copies)
    order = np.argsort(rows[kept], kind="stable")
    kept, number = kept[order], number[order]
    xywh, labels = xywh[kept], labels[kept]
    marks = np.array(boxes.marks, np.int8).reshape(-1, len(MARKS))
    return AnnotationTable(
        image_paths=encode_paths(paths),
        image_ids=np.arange(1, len(paths) + 1, dtype=np.int64),
        has_own_ids=False,
        sizes_hw=sizes_hw,
        box_offsets=offsets_of(np.bincount(rows[kept], minlength=len(paths))),
        boxes_xyxy_px=xywh_to_xyxy(xywh),
        labels=np.where(labels == ALL_CLASSES, number, labels),
        is_crowd=np.array(boxes.is_crowd, bool)[kept] | (labels == ALL_CLASSES),
        areas=xywh[:, 2] * xywh[:, 3],
        names=names,
        category_ids=category_ids,
        problems=problems,
        boxes_xywh_px=xywh,
        marks=kept_marks(marks[kept]),
    )
