"""Pascal VOC's annotation format: one XML file for each image, and lists of image names.

A box is ``xmin, ymin, xmax, ymax``. VOC's own files count pixels from 1 and include the last one; most other files in
this format do not. The numbers are taken as they are, without a shift: left = xmin, top = ymin, width = xmax - xmin,
height = ymax - ymin. The difference is at most a pixel.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from detect.config.schema import DataConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems, encode_paths, kept_marks, offsets_of
from detect.data.checks import (
    check_boxes,
    check_distinct,
    find_folder,
    inspect_images,
    report_repeated,
)
from detect.data.stems import find_image, read_annotation_bytes, read_annotation_files
from detect.errors import InputError

MAX_XML_BYTES = 16 * 2**20
BAD_XML = "annotation files that are missing or damaged (their images are skipped)"
BAD_OBJECT = "objects without a name or four numbers as bndbox (skipped)"
UNKNOWN_NAME = "objects of a class that is not among the names (skipped)"


class _Object(NamedTuple):
    name: str
    box_xyxy_px: tuple[float, float, float, float]
    is_difficult: bool
    marks: tuple[int, ...]


class _File(NamedTuple):
    """One XML file: its image, the size it declares (0 where it does not) and its objects."""

    stem: str
    image_name: str
    declared_hw: tuple[int, int]
    objects: tuple[_Object, ...]


def read_voc(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Images are numbered 1..N in the order of the list file, or, without one, of the sorted XML files. Objects marked
    ``difficult`` become crowd regions: not trained on, and ignored in evaluation, as VOC's own evaluation does. Damaged
    files, images and boxes are skipped and counted in the table's ``problems``.

    Args:
        config: the data set. Without ``names`` the classes are all names in the XML files of the split ``train`` (of
            this split if there is none), sorted.
        split: a key of ``config.splits``.

    Raises:
        InputError: the list or a folder is missing, a name leads out of its folder, or no image can be used.
    """
    problems = Problems()
    files, unread_stems = _read_files(config, split, problems)
    names = _names(config, split, files)
    folder = find_folder(config, config.splits[split].images).resolve()
    unread = [find_image(folder, stem, f"{stem}.jpg", f"{stem}.xml") for stem in unread_stems]
    paths = [find_image(folder, file.stem, file.image_name or f"{file.stem}.jpg", f"{file.stem}.xml") for file in files]
    declared_hw = np.array([file.declared_hw for file in files], np.int64)
    sizes_hw, is_good = inspect_images(paths, declared_hw, problems, f"{config.name} {split}", config.max_pixels)

    objects = [(row, item) for row, file in enumerate(files) if is_good[row] for item in file.objects]
    for row, item in objects:
        if item.name not in names:
            problems.add(UNKNOWN_NAME, f"{item.name!r} in {files[row].stem}")
    objects = [(row, item) for row, item in objects if item.name in names]

    def describe(index: int) -> str:
        return f"{objects[index][1].name} in {files[objects[index][0]].stem}"

    rows = np.array([row for row, _ in objects], np.int64)
    labels = np.array([names.index(item.name) for _, item in objects], np.int64)
    xyxy = np.array([item.box_xyxy_px for _, item in objects], np.float64).reshape(-1, 4)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    keep = check_boxes(xywh, sizes_hw[rows], describe, problems)
    kept = np.flatnonzero(keep)
    report_repeated(xywh[keep], rows[keep], labels[keep], lambda index: describe(kept[index]), problems)
    return AnnotationTable(
        image_paths=encode_paths([path for path, good in zip(paths, is_good, strict=True) if good]),
        image_ids=np.arange(1, is_good.sum() + 1, dtype=np.int64),
        has_own_ids=False,
        sizes_hw=sizes_hw[is_good],
        box_offsets=offsets_of(np.bincount(rows[keep], minlength=len(files))[is_good]),
        boxes_xyxy_px=xyxy[keep],
        labels=labels[keep],
        is_crowd=np.array([item.is_difficult for _, item in objects], bool)[keep],
        areas=xywh[keep, 2] * xywh[keep, 3],
        names=names,
        category_ids=np.arange(1, len(names) + 1, dtype=np.int64),
        problems=problems,
        marks=kept_marks(np.array([item.marks for _, item in objects], np.int8).reshape(-1, len(MARKS))[keep]),
        skipped_paths=encode_paths([*unread, *(path for path, good in zip(paths, is_good, strict=True) if not good)]),
    )


def _read_files(config: DataConfig, split: str, problems: Problems) -> tuple[list[_File], list[str]]:
    """All XML files of a split that can be read, in the order of its list, and the stems of the others."""
    files, unread = read_annotation_files(config, split, ".xml", partial(_parse, problems=problems), BAD_XML, problems)
    return list(files.values()), unread


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an annotation file.

    Raises:
        InputError: it is too large, cannot be read, is not XML, or has what annotations do not need.
    """
    content = read_annotation_bytes(path, MAX_XML_BYTES)
    # Entities can grow without limit or name other files. A NUL means UTF-16, which could hide the words looked for.
    if any(word in content for word in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        raise InputError(f"{path.name}: has a document type, entities or UTF-16 text; annotations need none")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path.name}: is not XML: {error}") from None


def _parse(path: Path, stem: str, problems: Problems) -> _File:
    root = read_xml(path)
    objects = []
    for element in root.iterfind("object"):
        item = _parse_object(element)
        if item is None:
            problems.add(BAD_OBJECT, f"{element.findtext('name')!r} in {path.name}")
        else:
            objects.append(item)
    image_name = (root.findtext("filename") or "").strip()
    declared = [_number(root.findtext(f"size/{side}")) for side in ("height", "width")]
    height, width = (int(side) if 0 < side < 2**31 else 0 for side in declared)
    return _File(stem, image_name, (height, width), tuple(objects))


def _parse_object(element: ElementTree.Element) -> _Object | None:
    name = (element.findtext("name") or "").strip()
    sides = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = (_number(side) for side in sides)
    if not name or any(math.isnan(side) for side in (left, top, right, bottom)):
        return None
    marks = tuple(int(_number(element.findtext(mark)) == 1) for mark in MARKS)
    return _Object(name, (left, top, right, bottom), _number(element.findtext("difficult")) == 1, marks)


def _number(text: str | None) -> float:
    """The number in an XML element, NaN when there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _names(config: DataConfig, split: str, files: list[_File]) -> tuple[str, ...]:
    if config.names is not None:
        check_distinct(config.names)
        return config.names
    if split != "train" and "train" in config.splits:
        files, _ = _read_files(config, "train", Problems())
    names = tuple(sorted({item.name for file in files for item in file.objects}))
    if not names:
        raise InputError(f"{config.name}: no object in the XML files has a name, so there are no classes; give names")
    return names
