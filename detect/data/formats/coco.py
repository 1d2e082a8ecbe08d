"""COCO's annotation format (https://cocodataset.org/#format-data) in the dialects of many tools, from untrusted files.

COCO itself and CVAT name a file after its split, ``annotations/instances_Train.json``; Roboflow puts
``_annotations.coco.json`` beside the images of each split; Label Studio (``result.json``), FiftyOne (``labels.json``)
and others write one file for all images.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect.boxes.convert import xywh_to_xyxy
from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable, Problems, Understood, encode_paths, kept_marks, offsets_of
from detect.data.checks import (
    absent_classes,
    check_boxes,
    check_distinct,
    find_annotations,
    find_file,
    find_folder,
    inspect_images,
    report_repeated,
)
from detect.data.formats.coco_annotations import (
    Key,
    floats,
    format_id,
    id_key,
    is_whole,
    number_ids,
    positions_of,
    read_annotations,
)
from detect.data.formats.coco_json import is_box, load_coco
from detect.data.formats.image_names import ImageFolder
from detect.data.formats.layouts import (
    FoundSplits,
    ends_of,
    files_with_suffix,
    find_label_files,
    image_folder,
    json_tool,
    split_of,
    subfolders,
)
from detect.errors import InputError, is_writable

SHARED_NAME = "category names that several category ids have (kept as separate classes)"
GROUPING = Understood("categories that only group others and have no annotation, as Roboflow writes them (left out)")
TEXT_ID = Understood("ids of images or categories that are text or beyond 64 bits (results have them as they are)")
BAD_IMAGE_ENTRY = "images entries without a file_name or an id, a whole number or text (skipped)"
REPEATED_IMAGE = "images that are listed twice with the same id and file_name (the first taken)"

ROBOFLOW_FILE = "_annotations.coco.json"

_COCO_FILE = re.compile(r"(?:(instances|image_info)_)?(.+)", re.IGNORECASE)
_WHOLE = "default"  # CVAT's name of the subset where there are none


def read_coco(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Boxes are ``[left, top, width, height]`` in pixels, with (0, 0) the corner of the image, not the centre of a pixel.
    Classes are ordered by category id, or are those of ``config.names`` in that order. A missing ``bbox`` is that of
    the outline, a missing ``iscrowd`` is 0, a missing ``area`` is width * height, a missing image size is the file's.
    Damaged images and annotations are skipped and counted in the table's ``problems``.

    Args:
        config: the data set.
        split: a key of ``config.splits``.

    Raises:
        InputError: the annotation file is missing, not JSON or not COCO's format, several images have the same id, or
            no image can be used.
    """
    path = find_file(config, find_annotations(config, split))
    folder = ImageFolder(find_folder(config, config.splits[split].images), Path(config.root))
    content = load_coco(path)
    problems = Problems()
    classes = read_categories(content, config.names, path, problems)
    keys, names, declared_hw = _images(content["images"], path, problems)
    paths = folder.find_all(names, problems)
    is_found = np.array([found is not None for found in paths])
    if not is_found.any():
        raise InputError(f"{path}: none of the {len(paths)} images can be used: {'; '.join(problems.summary())}")
    sizes_hw, is_good = np.zeros((len(paths), 2), np.int32), np.zeros(len(paths), bool)
    sizes_hw[is_found], is_good[is_found] = inspect_images(
        [found for found in paths if found is not None],
        declared_hw[is_found],
        problems,
        f"{config.name} {split}",
        max_pixels=config.max_pixels,
        ends_xy_px=_box_ends(content.get("annotations", []), keys)[is_found],
    )
    return coco_table(content, classes, ListedImages(keys, paths, sizes_hw, is_good), problems)


class Classes(NamedTuple):
    """The categories of a data set.

    Args:
        names: K class names, in index order.
        keys: K ids in the file.
        ignored: ids of unwanted categories.
    """

    names: tuple[str, ...]
    keys: tuple[Key, ...]
    ignored: tuple[Key, ...]


class ListedImages(NamedTuple):
    """The images of a split.

    Args:
        keys: N distinct ids.
        paths: N files; None for an unusable name.
        sizes_hw: (N, 2) int32 height and width.
        is_good: (N,) bool, usable images.
    """

    keys: Sequence[Key]
    paths: Sequence[Path | None]
    sizes_hw: np.ndarray
    is_good: np.ndarray


def coco_table(content: dict[str, Any], classes: Classes, images: ListedImages, problems: Problems) -> AnnotationTable:
    """Make the table of the usable images.

    Args:
        content: a mapping with COCO's ``annotations``, or without any.
        classes: of the annotations.
        images: of the annotations.
        problems: gets the problems; becomes the table's.
    """
    image_keys, paths, sizes_hw, is_good = images
    columns = read_annotations(content.get("annotations", []), problems)
    rows, labels = columns.rows_and_labels(image_keys, classes.keys, classes.ignored, problems)
    keep = (rows >= 0) & (labels >= 0)
    keep[keep] = is_good[rows[keep]]  # what belongs to a skipped image goes with it
    columns, rows, labels = columns.select(keep), rows[keep], labels[keep]

    keep = check_boxes(columns.boxes_xywh_px, sizes_hw[rows], columns.describe, problems)
    columns, rows, labels = columns.select(keep), rows[keep], labels[keep]
    report_repeated(columns.boxes_xywh_px, rows, labels, columns.describe, problems)
    columns.report_areas(problems)
    areas = np.where(np.isnan(columns.areas), columns.boxes_xywh_px[:, 2:].prod(axis=1), columns.areas)

    order = np.argsort(rows, kind="stable")
    xywh = columns.boxes_xywh_px[order]
    image_ids, image_ids_json = number_ids(image_keys)
    category_ids, category_ids_json = number_ids(classes.keys)
    _report_text_ids(image_ids, image_ids_json, problems)
    _report_text_ids(category_ids, category_ids_json, problems)
    return AnnotationTable(
        image_paths=encode_paths([p for p, good in zip(paths, is_good, strict=True) if good and p is not None]),
        image_ids=image_ids[is_good],
        has_own_ids=True,
        sizes_hw=sizes_hw[is_good],
        box_offsets=offsets_of(np.bincount(rows, minlength=len(paths))[is_good]),
        boxes_xyxy_px=xywh_to_xyxy(xywh),
        labels=labels[order],
        is_crowd=columns.is_crowd[order],
        areas=areas[order],
        names=classes.names,
        category_ids=category_ids,
        is_labelled="annotations" in content,
        problems=problems,
        boxes_xywh_px=xywh,
        marks=kept_marks(columns.marks[order]),
        positions=columns.positions[order],
        skipped_paths=encode_paths([p for p, good in zip(paths, is_good, strict=True) if not good and p is not None]),
        image_ids_json=None if image_ids_json is None else image_ids_json[is_good],
        category_ids_json=category_ids_json,
    )


def _report_text_ids(numbers: np.ndarray, ids_json: np.ndarray | None, problems: Problems) -> None:
    for number, text in zip(numbers.tolist(), ids_json if ids_json is not None else (), strict=False):
        if json.loads(text) != number:
            problems.add(TEXT_ID, text.decode())


# ------------------------------------------------------------------------------------------------ categories


def read_categories(content: dict[str, Any], wanted: tuple[str, ...] | None, path: Path, problems: Problems) -> Classes:
    """Read COCO's ``categories``, without those that only group others.

    Args:
        content: has them, and perhaps ``annotations``.
        wanted: class names in index order, which may lack a category here; None: all, ordered by id.
        path: the file, for messages.
        problems: gets the problems.

    Raises:
        InputError: they are invalid, none is wanted, or a wanted name seems to be misspelled.
    """
    name_of: dict[Key, str] = {}
    for entry in content["categories"]:
        key, name = _category(entry, path)
        if name_of.get(key, name) != name:
            raise InputError(f"{path}: categories: duplicate id {format_id(key)} ({name_of[key]!r} and {name!r})")
        name_of[key] = name
    if wanted is None:
        for key in _grouping(content):
            problems.add(GROUPING, f"{name_of[key]!r} (id {format_id(key)})")
            del name_of[key]
    if not name_of:
        raise InputError(f"{path}: categories: is empty; it must name each category_id of the annotations")
    keys = list(name_of)
    keys = [keys[index] for index in np.argsort(number_ids(keys)[0], kind="stable").tolist()]
    names = [name_of[key] for key in keys]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    for name in repeated:
        problems.add(SHARED_NAME, name)
    if wanted is None:
        return Classes(tuple(names), tuple(keys), ())
    key_of = {name: key for key, name in name_of.items()}
    absent = absent_classes(wanted, key_of, lambda name: f"{name} is no category of {path}")
    ambiguous = set(wanted) & set(repeated)
    if ambiguous:
        raise InputError(f"names: {min(ambiguous)!r} is the name of several categories of {path}; rename one")
    check_distinct(wanted)
    largest = max((key for key in keys if isinstance(key, int)), default=0)
    key_of |= {name: largest + number for number, name in enumerate(absent, start=1)}  # ids that nothing has
    ignored = tuple(key for key, name in name_of.items() if name not in wanted)
    return Classes(wanted, tuple(key_of[name] for name in wanted), ignored)


def _category(entry: Any, path: Path) -> tuple[Key, str]:
    key, name = (id_key(entry.get("id")), entry.get("name")) if isinstance(entry, dict) else (None, None)
    if key is None or not isinstance(name, str):
        raise InputError(f"{path}: categories: {str(entry)[:80]!r} has no id (a whole number or text) or no name")
    if not is_writable(name):
        raise InputError(f"{path}: categories: the name {name[:80]!r} has a lone surrogate")
    return key, name


def _grouping(content: dict[str, Any]) -> list[Key]:
    """Return ids of categories that only group others: id 0, no supercategory, that of another one, no annotation."""
    entries = content["categories"]
    groups = {entry.get("supercategory") for entry in entries if isinstance(entry.get("supercategory"), str)}
    found = [
        key
        for entry in entries
        if (key := id_key(entry["id"])) in (0, "0")
        and str(entry.get("supercategory")).lower() in ("none", "")
        and entry["name"] in groups
    ]
    if not found:
        return []
    annotations = content.get("annotations", [])
    used, _ = positions_of((one.get("category_id") for one in annotations if isinstance(one, dict)), found)
    return [] if (used >= 0).any() else found


# ---------------------------------------------------------------------------------------------------- images


def _images(entries: list[Any], where: Path, problems: Problems) -> tuple[list[Key], list[str], np.ndarray]:
    """Return N ids, N file names, and declared height and width (N, 2) int64, 0 where there is none."""
    name_of: dict[Key, str] = {}
    sizes, repeated = [], []
    for entry in entries:
        key, name = (id_key(entry.get("id")), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if key is None or not isinstance(name, str):
            problems.add(BAD_IMAGE_ENTRY, str(entry)[:80])
        elif name_of.get(key) == name:
            problems.add(REPEATED_IMAGE, f"{format_id(key)}: {name!r}")
        elif key in name_of:
            repeated.append(key)
        else:
            name_of[key] = name
            sizes.append([int(v) if is_whole(v) else 0 for v in (entry.get("height"), entry.get("width"))])
    if not name_of:
        raise InputError(f"{where}: no entry of 'images' has an id and a file_name: {str(entries[0])[:80]}")
    if repeated:
        raise InputError(
            f"{where}: {len(repeated)} duplicate image ids, such as {format_id(repeated[0])}, of different files; "
            "renumber the images of merged files, and the image_id of their annotations with them"
        )
    return list(name_of), list(name_of.values()), np.array(sizes, np.int64)


def _box_ends(annotations: list[Any], keys: Sequence[Key]) -> np.ndarray:
    """Return (N, 2) the largest right and bottom of each image's boxes in pixels, 0 without boxes."""
    boxed = [one for one in annotations if isinstance(one, dict) and is_box(one.get("bbox"))]
    rows, _ = positions_of((one.get("image_id") for one in boxed), keys)
    boxes = np.array([floats(one["bbox"]) for one in boxed]).reshape(-1, 4)
    ends_xy_px = np.zeros((len(keys), 2))
    is_known = rows >= 0
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite lies inside of no image
        np.maximum.at(ends_xy_px, rows[is_known], boxes[is_known, :2] + boxes[is_known, 2:])
    return ends_xy_px


# ---------------------------------------------------------------------------------------------------- layout


def find_coco(folder: Path) -> FoundSplits:
    """Find COCO files that are named after their splits, and Roboflow's."""
    found = FoundSplits({}, [])
    for path in files_with_suffix((".json",), folder / "annotations", folder):
        match = _COCO_FILE.fullmatch(path.stem)
        name = match[2] if match else ""
        split = split_of(name) or ("train" if name.lower() == _WHOLE else name if match and match[1] else None)
        if split is not None and path.name != ROBOFLOW_FILE and not json_tool(path):
            found.add(folder, split, path, image_folder(folder, name, split))
    if not found.splits:
        for path in subfolders(folder):
            if (path / ROBOFLOW_FILE).is_file():
                found.add(folder, split_of(path.name) or path.name, path / ROBOFLOW_FILE, path.name)
    return found


def find_unnamed_coco(folder: Path) -> FoundSplits:
    """Find the only COCO file of each split's folder or of the folder itself, by its content."""
    return find_label_files(folder, (".json",), _looks_like_coco, "COCO")


def _looks_like_coco(path: Path) -> bool:
    content = ends_of(path)
    has_images = b'"images"' in content or b'"file_name"' in content
    keys = (b'"categories"', b'"category_id"', b'"annotations"')
    return has_images and any(key in content for key in keys) and not json_tool(path)
