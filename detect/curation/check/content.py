"""Checks of the boxes and class names of a split, and of splits against each other.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from detect.boxes.convert import box_sizes
from detect.config.data import DataConfig
from detect.curation.check.kinds import (
    BACKGROUND,
    BACKGROUND_DROPPED,
    CORNERS,
    CROWD,
    DUPLICATE,
    LEAK,
    NAMED_ALIKE,
    NEVER_TRAINED,
    NORMALISED,
    NOTHING_TO_MEASURE,
    NOTHING_TO_TRAIN,
    OTHER_NAMES,
    PADDED_NAME,
    SIMILAR_NAME,
    UNDER_A_PIXEL,
    UNLABELLED,
    UNLABELLED_TEST,
    UNLISTED,
    UNPRINTABLE_NAME,
)
from detect.data.annotations import AnnotationTable, Problems
from detect.data.detection.box_sizes import is_trained_on
from detect.data.folders import NOT_READ, find_unread, is_image_name
from detect.data.formats.coco_annotations import IGNORED
from detect.errors import visible

MIN_CORNER_BOXES = 4  # fewer boxes can look like corners by chance

MIN_CORNER_SHARE = 0.99
"""Share of the boxes whose third and fourth number are larger than the first two and within the image. Of real widths
and heights about a third are larger than left and top; of right and bottom all, but for rare mistakes."""

MIN_OUTSIDE_SHARE = 0.2
"""Share of the boxes that then reach out of their image. With corners read as sizes it is every box whose centre is in
the right or the lower half, about three quarters; in real data hardly one."""


_ROBOFLOW_COPY = re.compile(r"(.+)\.rf\.[0-9A-Za-z]{16,}\.\w+$")


def check_content(table: AnnotationTable, config: DataConfig, split: str, problems: Problems) -> None:
    """Report suspicious boxes and class names of a split to ``problems``."""
    _check_names(table.names, problems)
    if not table.is_labelled:
        problems.add(UNLABELLED if split in ("train", "val") else UNLABELLED_TEST, split)
        return
    if table.is_crowd.all():
        problems.add(NOTHING_TO_TRAIN if split == "train" else NOTHING_TO_MEASURE, split)
    else:
        _note_background(table, config, split, problems)
    num_ignored = problems.count(IGNORED)  # crowd regions with a finding of their own
    for index in np.flatnonzero(table.is_crowd).tolist()[num_ignored:]:
        problems.add(CROWD, _describe(table, index))
    _check_units(table, problems)


def _note_background(table: AnnotationTable, config: DataConfig, split: str, problems: Problems) -> None:
    is_dropped = config.background == "drop" and split == "train"
    for row in np.flatnonzero(np.diff(table.box_offsets) == 0).tolist():
        problems.add(BACKGROUND_DROPPED if is_dropped else BACKGROUND, table.path(row).name)


def _check_units(table: AnnotationTable, problems: Problems) -> None:
    """Report boxes in other units than pixels, or with corners instead of sizes."""
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
    """Return (M,) bool: the boxes, if the split as a whole gives [left, top, right, bottom] as [left, top, width,
    height].
    """
    nothing = np.zeros(len(table.labels), bool)
    if table.boxes_xywh_px is None or len(table.labels) < MIN_CORNER_BOXES:
        return nothing
    left_top, other = table.boxes_xywh_px[:, :2], table.boxes_xywh_px[:, 2:]
    limits_wh = table.sizes_hw[table.image_of_box, ::-1] + 1
    are_corners = ((other > left_top) & (other <= limits_wh)).all(axis=1)
    reach_out = (left_top + other > limits_wh).any(axis=1)
    if are_corners.mean() < MIN_CORNER_SHARE or reach_out.mean() < MIN_OUTSIDE_SHARE:
        return nothing
    return np.asarray(are_corners)


def _check_names(names: tuple[str, ...], problems: Problems) -> None:
    first_of: dict[str, str] = {}
    for name in names:
        if visible(name) != name:
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


# ------------------------------------------------------------------------------------------- between splits


def check_copies(
    tables: Mapping[str, AnnotationTable], digests: Mapping[str, list[bytes]], problems: Mapping[str, Problems]
) -> None:
    """Report images that a split has twice, or two splits share.

    Args:
        tables: the splits by name.
        digests: one per image, by split name; empty for unreadable images. For a missing split, images are compared by
            their paths.
        problems: by split name; the later of two splits that share an image gets the finding.
    """
    first_of: dict[bytes | str, tuple[str, Path]] = {}  # by digest, or by path
    for split, table in tables.items():
        own: dict[bytes | str, tuple[str, Path]] = {}
        for row, digest in enumerate(digests.get(split) or [b""] * len(table)):
            path = table.path(row)
            key = digest or str(path)
            if key in first_of:
                other_split, other = first_of[key]
                problems[split].add(LEAK, f"{path.name} is {other.name} of {other_split}")
            elif key in own and own[key][1] != path:  # the same path twice is reported by the readers
                problems[split].add(DUPLICATE, f"{path.name} is {own[key][1].name}")
            own.setdefault(key, (split, path))
        first_of = {**own, **first_of}


def check_copies_by_name(tables: Mapping[str, AnnotationTable], problems: Mapping[str, Problems]) -> None:
    """Report images that Roboflow made of one photograph, ``NAME_jpg.rf.HASH.jpg``, in two splits of the same name."""
    first_of: dict[str, tuple[str, str]] = {}
    for split, table in tables.items():
        for row in range(len(table)):
            name = table.path(row).name
            if found := _ROBOFLOW_COPY.match(name):
                other_split, other = first_of.setdefault(found[1], (split, name))
                if other_split != split:
                    problems[split].add(NAMED_ALIKE, f"{name} and {other} of {other_split}")


def check_classes(tables: Mapping[str, AnnotationTable], problems: Mapping[str, Problems]) -> None:
    """Report class names that not all splits have, and classes that training never sees; without ``train``, nothing."""
    train = tables.get("train")
    if train is None:
        return
    for split, table in tables.items():
        for name in sorted(set(table.names) ^ set(train.names)):
            problems[split].add(OTHER_NAMES, f"{name} (only in {'train' if name in train.names else split})")
    if not is_trained_on(train).any():
        return
    num_trained = _boxes_by_name(train)
    for name in (name for name, count in num_trained.items() if not count):
        others = {split: _boxes_by_name(table).get(name, 0) for split, table in tables.items() if split != "train"}
        seen = ", ".join(f"{count} boxes in {split}" for split, count in others.items() if count)
        problems["train"].add(NEVER_TRAINED, f"{name} ({seen})" if seen else name)


def _boxes_by_name(table: AnnotationTable) -> dict[str, int]:
    counts = np.bincount(table.labels[is_trained_on(table)], minlength=len(table.names))
    return dict(zip(table.names, counts.tolist(), strict=True))


def check_unlisted(config: DataConfig, tables: Mapping[str, AnnotationTable], problems: Mapping[str, Problems]) -> None:
    """Report image files that no split uses, and files in formats that are not read, by suffix.

    Args:
        config: the data set.
        tables: all its splits: an image of another split is used.
        problems: by split name; the first split of the folder gets the finding.
    """
    paths = {path for table in tables.values() for paths in (table.image_paths, table.skipped_paths) for path in paths}
    named = paths | {os.path.realpath(path) for path in paths}
    searched: set[Path] = set()
    for split in tables:
        folder = image_folder(config, split)
        if folder in searched:
            continue
        searched.add(folder)
        if not problems[split].count(NOT_READ):
            problems[split].merge(find_unread(files_in(folder)))
        for path in images_in(folder):
            if os.fsencode(path) not in named and os.path.realpath(os.fsencode(path)) not in named:
                problems[split].add(UNLISTED, str(path.relative_to(folder)))
                named.add(os.fsencode(path))


def image_folder(config: DataConfig, split: str) -> Path:
    """Return the folder of a split's images with links resolved, as by the readers."""
    return Path(config.root, config.splits[split].images).resolve()


def images_in(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and its subfolders, see ``files_in``."""
    return (path for path in files_in(folder) if is_image_name(path.name))


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, sorted, without hidden ones; linked folders are not entered."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)
