"""Pascal VOC's annotation format: one XML file for each image, and lists of image names.

A box is ``xmin, ymin, xmax, ymax``. VOC's own files count pixels from 1 and include the last one; most other files in
this format do not. The numbers are taken as they are, without a shift: left = xmin, top = ymin, width = xmax - xmin,
height = ymax - ymin. The difference is at most a pixel.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from detect.config.schema import DataConfig
from detect.data.annotations import AnnotationTable, Problems, encode_paths, offsets_of
from detect.data.checks import (
    check_boxes,
    find_annotations,
    find_file,
    find_folder,
    inspect_images,
    path_inside,
    report_repeated,
)
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError

MAX_XML_BYTES = 16 * 2**20
BAD_XML = "annotation files that are missing or damaged (their images are skipped)"
BAD_OBJECT = "objects without a name or four numbers as bndbox (skipped)"
UNKNOWN_NAME = "objects of a class that is not among the names (skipped)"
REPEATED_STEM = "names that stand before in the list (skipped)"


class _Object(NamedTuple):
    name: str
    box_xyxy_px: tuple[float, float, float, float]
    is_difficult: bool


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
    files = _read_files(config, split, problems)
    names = _names(config, split, files)
    folder = find_folder(config, config.splits[split].images).resolve()
    paths = [_image_path(folder, file) for file in files]
    declared_hw = np.array([file.declared_hw for file in files], np.int64)
    sizes_hw, is_good = inspect_images(paths, declared_hw, problems, f"{config.name} {split}")

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
    )


def _read_files(config: DataConfig, split: str, problems: Problems) -> list[_File]:
    """All XML files of a split that can be read, in the order of its list."""
    folder = find_folder(config, find_annotations(config, split)).resolve()
    files = []
    for stem in _stems(config, split, folder, problems):
        path = path_inside(folder, f"{stem}.xml", f"{config.name} {split}")
        try:
            files.append(_parse(path, stem, problems))
        except InputError as error:
            problems.add(BAD_XML, str(error))
    if not files:
        found = "; ".join(problems.summary()) or "there is none at all"
        raise InputError(f"{folder}: has no XML file for split {split!r} that can be read: {found}")
    return files


def _stems(config: DataConfig, split: str, folder: Path, problems: Problems) -> list[str]:
    list_file = config.splits[split].list
    if list_file is None:
        return sorted(path.stem for path in folder.glob("*.xml"))
    path = find_file(config, list_file)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    stems: dict[str, None] = {}
    for stem in filter(None, (line.strip() for line in lines)):
        if stem in stems:
            problems.add(REPEATED_STEM, stem)
        stems[stem] = None
    if not stems:
        raise InputError(f"{path}: lists no images; it must have one image name without suffix per line")
    return list(stems)


def _parse(path: Path, stem: str, problems: Problems) -> _File:
    try:
        if not path.is_file() and path.exists():  # a pipe, which would never end
            raise InputError(f"{path.name}: is not a file")
        if path.stat().st_size > MAX_XML_BYTES:
            raise InputError(f"{path.name}: larger than {MAX_XML_BYTES // 2**20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from None
    # Entities can grow without limit or name other files. A NUL means UTF-16, which could hide the words looked for.
    if any(word in content for word in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        raise InputError(f"{path.name}: has a document type, entities or UTF-16 text; annotations need none")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path.name}: is not XML: {error}") from None
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
    return _Object(name, (left, top, right, bottom), _number(element.findtext("difficult")) == 1)


def _number(text: str | None) -> float:
    """The number in an XML element, NaN when there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _names(config: DataConfig, split: str, files: list[_File]) -> tuple[str, ...]:
    if config.names is not None:
        if len(set(config.names)) < len(config.names):
            raise InputError(f"names: a class stands twice in {', '.join(config.names)}")
        return config.names
    if split != "train" and "train" in config.splits:
        files = _read_files(config, "train", Problems())
    names = tuple(sorted({item.name for file in files for item in file.objects}))
    if not names:
        raise InputError(f"{config.name}: no object in the XML files has a name, so there are no classes; give names")
    return names


def _image_path(folder: Path, file: _File) -> Path:
    """The image named in the XML file; if it is missing, the one of the same stem with any usual suffix."""
    named = path_inside(folder, file.image_name or f"{file.stem}.jpg", f"{file.stem}.xml")
    if os.path.isfile(named):  # noqa: PTH113 (False for a name that is too long, where Path has an error)
        return named
    for suffix in IMAGE_SUFFIXES:
        for name in (file.stem + suffix, file.stem + suffix.upper()):
            if os.path.isfile(folder / name):  # noqa: PTH113
                return folder / name
    return named
