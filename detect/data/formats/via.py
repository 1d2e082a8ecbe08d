"""VGG Image Annotator's annotations: a project or its annotations as JSON, or annotations as CSV, for all images.

Each image has ``regions`` of a shape in pixels (``shape_attributes``) and the user's own ``region_attributes``, one of
which is the class. VIA 1 has regions as a mapping, VIA 2 as a list.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/ (VIA 2.0.12), "Annotation format".
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import find_annotations, find_file
from detect.data.formats.annotation_files import decode_text, number_of, read_annotation_bytes
from detect.data.formats.labelled_images import (
    BAD_ENTRY,
    BAD_SHAPE,
    MAX_FILE_BYTES,
    NO_BOX,
    OUTLINE,
    ROTATED,
    Box,
    LabelFile,
    LabelledImage,
    LabelledObject,
    around,
    around_ellipse,
    around_rotated,
    is_usable,
    load_json,
    table_of_file,
    with_attributes,
)
from detect.data.formats.layouts import FoundSplits, ends_of, find_label_files, json_tool
from detect.errors import InputError

NO_CLASS = "object"
"""Class of all regions of a file in which no region has an attribute."""

COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
"""Columns of the CSV file that are used."""

CSV_MARK = b"region_shape_attributes"

_CLASS_KEYS = ("class", "label", "category", "class_name", "object", "name", "type")
_MAX_FIELD = 2**24  # characters of a CSV field: an outline

_Region = dict[str, Any]


def read_via(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split; ``InputError`` if the file is not VIA's, its class is unclear, or no image can be used.

    The class is the region attribute called class, label, category, object, name or type; else the only one. A check
    box counts by its only chosen option. Images without regions are background.
    """
    return table_of_file(config, split, _read_file)


def _read_file(config: DataConfig, problems: Problems, split: str) -> LabelFile:
    path = find_file(config, find_annotations(config, split))
    regions = _of_csv(path, problems) if path.suffix.lower() == ".csv" else _of_json(path, problems)
    key = _class_key([region for some in regions.values() for region in some], path)
    images = []
    for name, some in regions.items():
        items = [_object(region, key, name, problems) for region in some]
        images.append(LabelledImage(name, tuple(item for item in items if item is not None)))
    return LabelFile(images)


def _of_json(path: Path, problems: Problems) -> dict[str, list[_Region]]:
    """Return the regions by image."""
    content = load_json(path)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path}: is not VIA's JSON: must be a project or a mapping of images with their regions")
    regions: dict[str, list[_Region]] = {}
    for key, entry in entries.items():
        name = entry.get("filename") if isinstance(entry, dict) else None
        some = entry.get("regions") if isinstance(entry, dict) else None
        some = list(some.values()) if isinstance(some, dict) else some
        if isinstance(name, str) and name and isinstance(some, (list, type(None))):
            regions.setdefault(name, []).extend(one if isinstance(one, dict) else {} for one in some or ())
        else:
            problems.add(BAD_ENTRY, str(key)[:80])
    if not regions:
        raise InputError(f"{path}: is not VIA's JSON: no entry has a filename and regions: {problems.summary()[0]}")
    return regions


def _of_csv(path: Path, problems: Problems) -> dict[str, list[_Region]]:
    """Return the regions by image; an image without regions has a row with an empty shape."""
    regions: dict[str, list[_Region]] = {}
    for number, row in enumerate(_rows(path), start=2):
        name, shape, attributes = (row.get(column) or "" for column in COLUMNS)
        if not name:
            problems.add(BAD_ENTRY, f"line {number}")
            continue
        some = regions.setdefault(name, [])
        values = [_mapping(text) for text in (shape, attributes)]
        if values[0] != {}:
            some.append(dict(zip(("shape_attributes", "region_attributes"), values, strict=True)))
    if not regions:
        raise InputError(f"{path}: lists no images")
    return regions


def _rows(path: Path) -> Iterator[dict[str, str]]:
    text = decode_text(read_annotation_bytes(path, MAX_FILE_BYTES), str(path))
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip().lstrip("#") for name in next(reader, [])]
        if not set(COLUMNS) <= set(header):
            raise InputError(f"{path}: is not VIA's CSV: its first line must name {', '.join(COLUMNS)}")
        for row in reader:
            yield dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise InputError(f"{path}: is not CSV: {error}") from None


def _mapping(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None


# ----------------------------------------------------------------------------------------------- objects


def _class_key(regions: list[_Region], path: Path) -> str | None:
    """Return the region attribute that is the class; None if no region has any.

    Raises:
        InputError: several could be it.
    """
    counts: Counter[str] = Counter()
    for region in regions:
        attributes = region.get("region_attributes")
        if isinstance(attributes, dict):
            counts.update(key for key, value in attributes.items() if _text(value))
    by_name = {key.strip().lower(): key for key in counts}
    known = [by_name[key] for key in _CLASS_KEYS if key in by_name]
    if len(counts) > 1 and not known:
        listed = ", ".join(repr(key[:40]) for key in sorted(counts)[:5])
        raise InputError(f"{path}: its regions have the attributes {listed}; call the one that is the class 'class'")
    return next(iter([*known, *counts]), None)


def _text(value: Any) -> str:
    """Return an attribute as text: of a check box the only chosen option; empty for anything else."""
    if isinstance(value, dict):
        chosen = [str(key) for key, is_chosen in value.items() if is_chosen]
        return chosen[0] if len(chosen) == 1 else ""
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _object(region: _Region, key: str | None, image: str, problems: Problems) -> LabelledObject | None:
    """Return the object of a region; None, counted, where it has no box."""
    shape, attributes = region.get("shape_attributes"), region.get("region_attributes")
    shape, attributes = (value if isinstance(value, dict) else {} for value in (shape, attributes))
    name = NO_CLASS if key is None else _text(attributes.get(key))
    kind = str(shape.get("name"))[:40]
    place = f"{kind} {name[:60]} in {image}"
    if kind == "point":
        problems.add(NO_BOX, place)
        return None
    box = _box(shape, kind)
    if not is_usable(name, box):
        problems.add(BAD_SHAPE, place)
        return None
    if kind != "rect":
        problems.add(OUTLINE, place)
    elif _is_turned(shape):
        problems.add(ROTATED, place)
    others = {other: value for other, value in attributes.items() if other != key}
    return with_attributes(LabelledObject(name, box), others, place, problems)


def _box(shape: dict[str, Any], kind: str) -> Box:
    """Return the box around a shape; NaN where it is unknown or its numbers are missing."""
    turn = math.degrees(number_of(shape.get("theta", 0)))
    if kind == "rect":
        x, y, width, height = (number_of(shape.get(key)) for key in ("x", "y", "width", "height"))
        box = (x, y, x + width, y + height)
        return around_rotated(box, turn) if _is_turned(shape) else box
    x, y = (number_of(shape.get(key)) for key in ("cx", "cy"))
    if kind == "circle":
        radius = number_of(shape.get("r"))
        return x - radius, y - radius, x + radius, y + radius
    if kind == "ellipse":
        return around_ellipse((x, y), (number_of(shape.get("rx")), number_of(shape.get("ry"))), turn)
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        return (math.nan,) * 4
    return around(zip(xs, ys, strict=True))


def _is_turned(shape: dict[str, Any]) -> bool:
    return number_of(shape.get("theta", 0)) != 0


# -------------------------------------------------------------------------------------------------- layout


def find_via(folder: Path) -> FoundSplits:
    """Find VIA's JSON and CSV files by their content."""
    return find_label_files(folder, (".json", ".csv"), is_via, "VIA")


def is_via(path: Path) -> bool:
    if path.suffix.lower() == ".csv":
        return CSV_MARK in ends_of(path)
    return json_tool(path) == "via"
