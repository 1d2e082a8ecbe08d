"""COCO's annotation format (https://cocodataset.org/#format-data), read with distrust.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from detect.config.schema import DataConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems, encode_paths, kept_marks, offsets_of
from detect.data.checks import (
    absent_classes,
    check_boxes,
    check_distinct,
    find_annotations,
    find_file,
    find_folder,
    inspect_images,
    path_inside,
    report_repeated,
)
from detect.errors import InputError, is_writable

MAX_FILE_BYTES = 2 * 10**9
"""Larger annotation files are refused; COCO's largest, with all its polygons, has 0.5 GB."""

SHARED_NAME = "category names that several category ids have (kept as separate classes)"
BAD_IMAGE_ENTRY = "images entries without a whole-number id or a file_name (skipped)"
BAD_ANNOTATION = "annotations whose bbox is not a list of four numbers (skipped)"
UNKNOWN_IMAGE = "annotations of an image_id that is not listed (skipped)"
UNKNOWN_CATEGORY = "annotations of a category_id that is not listed (skipped)"
ZERO_ID = "annotations with id 0, which pycocotools counts as missed (renumbered)"
REPEATED_ID = "annotations whose id stands before (renumbered)"
BAD_CROWD = "annotations whose iscrowd is neither 0 nor 1 (0 taken)"
BAD_AREA = "annotations whose area is not a number of at least 0 (width * height taken)"

_LARGEST = 1e300  # whole numbers in JSON can be beyond the floats


def read_coco(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Boxes are ``[left, top, width, height]`` in pixels, with (0, 0) the corner of the image, not the centre of a pixel.
    Classes are ordered by category id, or are those of ``config.names`` in that order. A missing ``iscrowd`` is 0, a
    missing ``area`` is width * height, a missing image size is the file's. Damaged images and annotations are skipped
    and counted in the table's ``problems``.

    Args:
        config: the data set.
        split: a key of ``config.splits``.

    Raises:
        InputError: the annotation file is missing, not JSON or not COCO's format, image ids stand twice, a file name
            leads out of the images' folder, or no image can be used.
    """
    path = find_file(config, find_annotations(config, split))
    folder = find_folder(config, config.splits[split].images).resolve()
    content = load_coco(path)
    problems = Problems()
    classes = read_categories(content, config.names, path, problems)
    image_ids, paths, declared_hw = _images(content["images"], folder, path, problems)
    sizes_hw, is_good = inspect_images(paths, declared_hw, problems, f"{config.name} {split}")
    return coco_table(content, classes, ListedImages(image_ids, paths, sizes_hw, is_good), problems)


class Classes(NamedTuple):
    """The categories of a data set.

    Args:
        names: K class names, in index order.
        category_ids: (K,) int64.
        ignored_ids: int64 ids of the categories that are not wanted.
    """

    names: tuple[str, ...]
    category_ids: np.ndarray
    ignored_ids: np.ndarray


class ListedImages(NamedTuple):
    """The images of a split.

    Args:
        ids: (N,) int64, distinct.
        paths: N files.
        sizes_hw: (N, 2) int32 height and width.
        is_good: (N,) bool, those that can be used.
    """

    ids: np.ndarray
    paths: list[Path]
    sizes_hw: np.ndarray
    is_good: np.ndarray


def coco_table(content: dict[str, Any], classes: Classes, images: ListedImages, problems: Problems) -> AnnotationTable:
    """The table of the images that can be used.

    Args:
        content: with COCO's ``annotations``, or without any.
        classes: what the annotations may show.
        images: what they may belong to.
        problems: gets what is wrong with them; becomes the table's.
    """
    names, category_ids, ignored_ids = classes
    image_ids, paths, sizes_hw, is_good = images
    columns = _annotations(content.get("annotations", []), problems)
    rows = columns.rows(image_ids, problems)
    labels = columns.labels(category_ids, ignored_ids, problems)
    keep = (rows >= 0) & (labels >= 0)
    keep[keep] = is_good[rows[keep]]  # what belongs to a skipped image goes with it
    columns, rows, labels = columns.select(keep), rows[keep], labels[keep]

    keep = check_boxes(columns.boxes_xywh_px, sizes_hw[rows], columns.describe, problems)
    columns, rows, labels = columns.select(keep), rows[keep], labels[keep]
    report_repeated(columns.boxes_xywh_px, rows, labels, columns.describe, problems)
    areas = np.where(np.isnan(columns.areas), columns.boxes_xywh_px[:, 2:].prod(axis=1), columns.areas)

    order = np.argsort(rows, kind="stable")
    xywh = columns.boxes_xywh_px[order]
    return AnnotationTable(
        image_paths=encode_paths([p for p, good in zip(paths, is_good, strict=True) if good]),
        image_ids=image_ids[is_good],
        has_own_ids=True,
        sizes_hw=sizes_hw[is_good],
        box_offsets=offsets_of(np.bincount(rows, minlength=len(paths))[is_good]),
        boxes_xyxy_px=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        labels=labels[order],
        is_crowd=columns.is_crowd[order],
        areas=areas[order],
        names=names,
        category_ids=category_ids,
        is_labelled="annotations" in content,
        problems=problems,
        boxes_xywh_px=xywh,
        marks=kept_marks(columns.marks[order]),
        positions=columns.positions[order],
        skipped_paths=encode_paths([p for p, good in zip(paths, is_good, strict=True) if not good]),
    )


def load_coco(path: Path, hook: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> dict[str, Any]:
    """The content of an annotation file, which has non-empty ``images``, ``categories`` and perhaps ``annotations``.

    Args:
        path: the file.
        hook: gets every mapping while it is parsed and gives what is to be kept of it; default, all but outlines.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: has {size / 1e9:.1f} GB; at most {MAX_FILE_BYTES / 1e9:.0f} GB is read: split it")
    try:
        content = json.loads(path.read_bytes(), object_hook=hook or _without_segmentation)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply to be a COCO annotation file") from None
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from None
    if isinstance(content, list):
        raise InputError(f"{path}: is a list, as detection results are; an annotation file has images and categories")
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a COCO annotation file: must be a mapping with images and categories")
    for key in ("images", "categories", "annotations"):
        if key not in content and key != "annotations":
            found = ", ".join(sorted(content)[:10]) or "nothing"
            raise InputError(f"{path}: is not a COCO annotation file: {key!r} is missing, found {found}")
        if not isinstance(content.get(key, []), list):
            raise InputError(f"{path}: is not a COCO annotation file: {key!r} must be a list")
    if not content["images"]:
        raise InputError(f"{path}: lists no images")
    return content


def _without_segmentation(item: dict[str, Any]) -> dict[str, Any]:
    """Outlines are most of a COCO file and not needed: dropped while parsing, they never fill the memory."""
    item.pop("segmentation", None)
    return item


def read_categories(content: dict[str, Any], wanted: tuple[str, ...] | None, path: Path, problems: Problems) -> Classes:
    """COCO's ``categories``.

    Args:
        content: has them.
        wanted: class names in index order, of which some may have no category here; None: all, ordered by id.
        path: the file, for messages.
        problems: gets what is wrong with them.

    Raises:
        InputError: they are not COCO's, none is wanted, or a wanted one seems to be misspelled.
    """
    by_id: dict[int, str] = {}
    for entry in content["categories"]:
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if number is None or not is_whole(number) or not isinstance(name, str):
            raise InputError(f"{path}: categories: {str(entry)[:80]!r} has no whole-number id or no name")
        if not is_writable(name):
            raise InputError(f"{path}: categories: the name {name[:80]!r} has half a character (a lone surrogate)")
        if number in by_id:
            raise InputError(f"{path}: categories: id {number} stands twice ({by_id[number]!r} and {name!r})")
        by_id[number] = name
    if not by_id:
        raise InputError(f"{path}: categories: is empty")
    names = [by_id[number] for number in sorted(by_id)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    for name in repeated:
        problems.add(SHARED_NAME, name)
    if wanted is None:
        return Classes(tuple(names), np.array(sorted(by_id), np.int64), np.zeros(0, np.int64))
    by_name = {name: number for number, name in by_id.items()}
    absent = absent_classes(wanted, by_name, lambda name: f"{name} is no category of {path}")
    ambiguous = set(wanted) & set(repeated)
    if ambiguous:
        raise InputError(f"names: {min(ambiguous)!r} is the name of several categories of {path}; rename one")
    check_distinct(wanted)
    by_name |= {name: max(by_id) + number for number, name in enumerate(absent, start=1)}  # ids that nothing has
    ignored = [number for number, name in by_id.items() if name not in wanted]
    return Classes(wanted, np.array([by_name[name] for name in wanted], np.int64), np.array(ignored, np.int64))


def _images(
    entries: list[Any], folder: Path, where: Path, problems: Problems
) -> tuple[np.ndarray, list[Path], np.ndarray]:
    """Image ids (N,) int64, files, and declared height and width (N, 2) int64 (0 where there is none)."""
    ids, paths, sizes = [], [], []
    for entry in entries:
        is_usable = isinstance(entry, dict) and is_whole(entry.get("id")) and isinstance(entry.get("file_name"), str)
        if not is_usable:
            problems.add(BAD_IMAGE_ENTRY, str(entry)[:80])
            continue
        ids.append(int(entry["id"]))
        paths.append(path_inside(folder, entry["file_name"], str(where)))
        sizes.append([int(v) if is_whole(v) else 0 for v in (entry.get("height"), entry.get("width"))])
    if not ids:
        raise InputError(f"{where}: no entry of 'images' has a whole-number id and a file_name: {str(entries[0])[:80]}")
    id_counts = Counter(ids)
    if len(id_counts) < len(ids):
        repeated = [number for number, count in id_counts.items() if count > 1]
        raise InputError(f"{where}: {len(repeated)} image ids stand twice, such as {repeated[0]}")
    return np.array(ids, np.int64), paths, np.array(sizes, np.int64)


@dataclass(frozen=True)
class _Annotations:
    """The ``annotations`` list as columns.

    Args:
        ids: the ids of all entries of the list, whatever they are.
        positions: (M,) int64, each annotation's place in the list.
        image_ids: (M,) int64.
        category_ids: (M,) int64.
        boxes_xywh_px: (M, 4) float64.
        areas: (M,) float64, pixels; NaN where the file has none.
        is_crowd: (M,) bool.
        marks: (M, number of ``MARKS``) int8.
    """

    ids: list[Any]
    positions: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes_xywh_px: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray
    marks: np.ndarray

    def select(self, keep: np.ndarray) -> _Annotations:
        """The annotations where ``keep`` (M,) bool is True."""
        columns = {f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self) if f.name != "ids"}
        return _Annotations(self.ids, **columns)

    def describe(self, index: int) -> str:
        """Annotation ``index`` in words, for a message."""
        return f"annotation {str(self.ids[self.positions[index]])[:40]} of image {self.image_ids[index]}"

    def rows(self, image_ids: np.ndarray, problems: Problems) -> np.ndarray:
        """(M,) index of each annotation's image in ``image_ids``, -1 where it is not listed."""
        rows = _index_of(self.image_ids, image_ids)
        for index in np.flatnonzero(rows < 0).tolist():
            problems.add(UNKNOWN_IMAGE, self.describe(index))
        return rows

    def labels(self, category_ids: np.ndarray, ignored_ids: np.ndarray, problems: Problems) -> np.ndarray:
        """(M,) class index; -1 where the category is not wanted (``ignored_ids``) or, counted, not listed."""
        labels = _index_of(self.category_ids, category_ids)
        for index in np.flatnonzero((labels < 0) & ~np.isin(self.category_ids, ignored_ids)).tolist():
            problems.add(UNKNOWN_CATEGORY, f"{self.describe(index)}: {self.category_ids[index]}")
        return labels


def _annotations(entries: list[Any], problems: Problems) -> _Annotations:
    """The columns of all entries that have a bbox of four numbers; the others are counted."""
    good, positions = [], []
    for position, entry in enumerate(entries):
        box = entry.get("bbox") if isinstance(entry, dict) else None
        if isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box):
            good.append(entry)
            positions.append(position)
        else:
            problems.add(BAD_ANNOTATION, str(entry)[:80])
    table = _Annotations(
        ids=[entry.get("id") if isinstance(entry, dict) else None for entry in entries],
        positions=np.array(positions, np.int64),
        image_ids=_whole_numbers([entry.get("image_id") for entry in good]),
        category_ids=_whole_numbers([entry.get("category_id") for entry in good]),
        boxes_xywh_px=np.array([_floats(entry["bbox"]) for entry in good], np.float64).reshape(-1, 4),
        areas=np.array([_area(entry.get("area")) for entry in good], np.float64),
        is_crowd=np.array([entry.get("iscrowd") == 1 for entry in good], bool),
        marks=np.array([[_degree(entry.get(mark)) for mark in MARKS] for entry in good], np.int8).reshape(
            -1, len(MARKS)
        ),
    )
    for index in np.flatnonzero(np.isnan(table.areas)).tolist():
        if good[index].get("area") is not None:
            problems.add(BAD_AREA, f"{table.describe(index)}: {str(good[index]['area'])[:40]}")
    for index, entry in enumerate(good):
        if entry.get("iscrowd") not in (None, 0, 1):
            problems.add(BAD_CROWD, f"{table.describe(index)}: {str(entry['iscrowd'])[:40]}")
    _report_ids(table, problems)
    return table


def _report_ids(table: _Annotations, problems: Problems) -> None:
    seen = set()
    for index, position in enumerate(table.positions.tolist()):
        number = table.ids[position]
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


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number that fits int64; pandas writes 7 as 7.0, which is one too."""
    return type(value) in (int, float) and abs(value) < 2**63 and int(value) == value


def _whole_numbers(values: list[Any]) -> np.ndarray:
    """(M,) int64; the smallest int64 stands for what is not a whole number (``is_whole`` excludes it)."""
    nothing = np.iinfo(np.int64).min
    return np.array([int(value) if is_whole(value) else nothing for value in values], np.int64)


def _floats(values: list[int | float]) -> list[float]:
    """The numbers as floats; whole numbers beyond the range of float become infinite."""
    try:
        return [float(value) for value in values]
    except OverflowError:
        return [float("inf")] * len(values)


def _index_of(values: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """(M,) int64 position of each value in ``allowed`` (distinct, any order), -1 where it is not there."""
    order = np.argsort(allowed)
    positions = np.minimum(np.searchsorted(allowed[order], values), len(allowed) - 1)
    candidates = order[positions]
    return np.where(allowed[candidates] == values, candidates, -1)
