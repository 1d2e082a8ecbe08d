"""Images with the objects that people drew in a labelling tool: common parts of the readers and writers of its files.

Tools have outlines, circles, lines and rotated boxes as well; each becomes the upright box around it, and is counted.

Letters: N images, M boxes, K classes, P points.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect.config.data import DataConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems, Understood, encode_paths
from detect.data.checks import check_distinct, find_folder, inspect_images
from detect.data.formats.annotation_files import (
    ALL_CLASSES,
    UNKNOWN_NAME,
    BoxLine,
    Coordinates,
    number_of,
    table_of_boxes,
)
from detect.data.formats.coco_json import read_json
from detect.data.formats.image_names import ImageFolder
from detect.errors import InputError, is_writable

MAX_FILE_BYTES = 512 * 2**20
"""Largest file for many images; a box has about 400 bytes in the most verbose form."""

OUTLINE = Understood("outlines, circles and lines taken as boxes")
ROTATED = Understood("rotated boxes taken as the upright boxes around them")
ATTRIBUTE = Understood("attributes and tags of boxes, which training does not use (COCO files keep them)")
NO_BOX = "points, brush strokes and other shapes without a box (left out)"
BAD_SHAPE = "shapes without a class name or with coordinates that are no numbers (skipped)"
BAD_ENTRY = "entries without the name of an image (skipped)"

_YES = ("1", "true", "yes", "on")
_NOTHING = ("", "0", "false", "no", "off", "none", "null", "undefined")
_CROWD = ("difficult", "iscrowd", "is_crowd")

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class LabelledObject(NamedTuple):
    """One object.

    Args:
        name: of its class; None: a region that is ignored for every class.
        box: four numbers, see ``Coordinates``; of a reader, NaN where the file has none.
        is_crowd: not trained on.
        marks: one for each of ``MARKS``.
        score: of a prediction.
        attributes: further ones by name, as a JSON object; empty for none.
    """

    name: str | None
    box: Box
    is_crowd: bool = False
    marks: tuple[int, ...] = (0,) * len(MARKS)
    score: float | None = None
    attributes: str = ""


class LabelledImage(NamedTuple):
    """One image with its objects.

    Args:
        name: as in the file; of a writer, with ``/`` between folders.
        objects: of the image.
        size_hw: height and width as the file says, 0 where it does not.
    """

    name: str
    objects: tuple[LabelledObject, ...]
    size_hw: tuple[int, int] = (0, 0)


class LabelFile(NamedTuple):
    """The images of a split.

    Args:
        images: N of them.
        names: classes that the file lists, in its order; others may occur.
    """

    images: list[LabelledImage]
    names: tuple[str, ...] = ()


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; ``InputError`` if it is too large, cannot be read or is not JSON."""
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB; export it in parts")
    return read_json(path)


# ------------------------------------------------------------------------------------------------- shapes


def box_of(values: Sequence[Any]) -> Box:
    """Return four numbers of a file as a box; NaN if one is no number."""
    left, top, right, bottom = map(number_of, values)
    return left, top, right, bottom


def around(points: Iterable[Any]) -> Box:
    """Return the box around P points, ``[x, y]`` each; NaN without points or if a coordinate is no number."""
    pairs = [
        (number_of(point[0]), number_of(point[1]))
        if isinstance(point, (list, tuple)) and len(point) >= 2
        else (math.nan, math.nan)
        for point in points
    ]
    if not pairs or any(math.isnan(side) for pair in pairs for side in pair):
        return (math.nan,) * 4
    xs, ys = zip(*pairs, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def around_rotated(box: Box, degrees: float, pivot: tuple[float, float] | None = None) -> Box:
    """Return the box around one that is turned clockwise about a point, its centre by default."""
    left, top, right, bottom = box
    x, y = pivot or ((left + right) / 2, (top + bottom) / 2)
    if not math.isfinite(degrees):
        return (math.nan,) * 4
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(u - x, v - y) for u in (left, right) for v in (top, bottom)]
    return around([(x + u * cos - v * sin, y + u * sin + v * cos) for u, v in corners])


def around_ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float) -> Box:
    """Return the box around an ellipse that is turned about its centre; ``radii`` are along its own axes."""
    if not math.isfinite(degrees):
        return (math.nan,) * 4
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    width, height = (math.hypot(radii[0] * a, radii[1] * b) for a, b in ((cos, sin), (sin, cos)))
    return centre[0] - width, centre[1] - height, centre[0] + width, centre[1] + height


def around_circle(centre: Sequence[float], edge: Sequence[float]) -> Box:
    """Return the box around a circle of which a centre and a point on it are given."""
    radius = math.hypot(edge[0] - centre[0], edge[1] - centre[1])
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius


def is_usable(name: Any, box: Box) -> bool:
    """Tell whether a shape has a class name that can be written and no missing coordinate."""
    is_name = isinstance(name, str) and bool(name.strip()) and is_writable(name)
    return is_name and not any(math.isnan(side) for side in box)


def with_attributes(item: LabelledObject, values: Mapping[str, Any], place: str, problems: Problems) -> LabelledObject:
    """Return an object with its attributes: whether it is a crowd region (``difficult``), its ``MARKS``, and others,
    which are counted.

    CVAT's own export to Pascal VOC takes attributes of these names in the same way.
    """
    texts = {str(key).strip().lower(): str(value).strip().lower() for key, value in values.items()}
    others = {}
    for key, value in values.items():
        name = str(key).strip()
        if name.lower() not in (*MARKS, *_CROWD) and texts[name.lower()] not in _NOTHING:
            problems.add(ATTRIBUTE, f"{name[:60]!r} of {place}")
            others[name] = value
    return item._replace(
        is_crowd=any(texts.get(key, "") in _YES for key in _CROWD),
        marks=tuple(int(texts.get(mark, "") in _YES) for mark in MARKS),
        attributes=json.dumps(others) if others else "",
    )


# -------------------------------------------------------------------------------------------------- table


def table_of_images(
    config: DataConfig,
    split: str,
    content: LabelFile,
    paths: Sequence[Path | None],
    read: Callable[[str], LabelFile],
    problems: Problems,
    coordinates: Coordinates = "xyxy px",
) -> AnnotationTable:
    """Make the table of a split; images are numbered 1..N, classes are those of ``class_names``.

    ``paths`` are the files of the images; None, counted already, for an unusable name. ``read`` reads another split,
    for its class names. A declared size is compared with the image's only if coordinates are pixels. ``InputError`` if
    no image can be used, or there is no class.
    """
    named = [(image, path) for image, path in zip(content.images, paths, strict=True) if path is not None]
    if not named:
        found = "; ".join(problems.summary()) or "the file lists none"
        raise InputError(f"{config.name} {split}: none of the {len(content.images)} images can be used: {found}")
    images, files = [image for image, _ in named], [path for _, path in named]
    names = class_names(config, split, content, read)
    return table_of_objects(config, split, images, files, names, problems, coordinates)


def table_of_objects(
    config: DataConfig,
    split: str,
    images: Sequence[LabelledImage],
    files: Sequence[Path],
    names: tuple[str, ...],
    problems: Problems,
    coordinates: Coordinates = "xyxy px",
) -> AnnotationTable:
    """Make the table of images with their files and of the K class names; the rest is as in ``table_of_images``."""
    is_px = coordinates != "xywh shares"
    declared_hw = np.array([image.size_hw if is_px else (0, 0) for image in images], np.int64).reshape(-1, 2)
    ends_xy_px = np.array([_end(image) for image in images], np.float64).reshape(-1, 2)
    title = f"{config.name} {split}"
    sizes_hw, is_good = inspect_images(
        files, declared_hw, problems, title, max_pixels=config.max_pixels, ends_xy_px=ends_xy_px
    )
    good = np.flatnonzero(is_good).tolist()
    boxes = _box_lines([images[row] for row in good], names, problems)
    numbers = np.arange(1, len(names) + 1, dtype=np.int64)
    good_files = [files[row] for row in good]
    table = table_of_boxes(good_files, sizes_hw[is_good], boxes, coordinates, names, numbers, problems)
    skipped = [path for path, is_fine in zip(files, is_good, strict=True) if not is_fine]
    return dataclasses.replace(table, skipped_paths=encode_paths(skipped))


def table_of_file(
    config: DataConfig, split: str, read: Callable[[DataConfig, Problems, str], LabelFile]
) -> AnnotationTable:
    """Make the table of a split whose images lie in a folder, and whose labels ``read`` finds in a file."""
    problems = Problems()
    content = read(config, problems, split)
    paths = find_images(config, split, content.images, problems)
    return table_of_images(config, split, content, paths, partial(read, config, Problems()), problems)


def find_images(
    config: DataConfig, split: str, images: Sequence[LabelledImage], problems: Problems
) -> list[Path | None]:
    """Return the file of each image in the split's folder; None, counted, for an unusable name."""
    folder = find_folder(config, config.splits[split].images)
    return ImageFolder(folder, Path(config.root)).find_all([image.name for image in images], problems)


def class_names(
    config: DataConfig, split: str, content: LabelFile, read: Callable[[str], LabelFile]
) -> tuple[str, ...]:
    """Return the data config's names; else those that the file of the split ``train`` lists, and others in it, sorted.

    Without a split ``train`` it is the split's own file.
    """
    if config.names is not None:
        check_distinct(config.names)
        return config.names
    if split != "train" and "train" in config.splits:
        content = read("train")
    found = {item.name for image in content.images for item in image.objects if item.name is not None}
    names = tuple(dict.fromkeys((*content.names, *sorted(found))))
    if not names:
        raise InputError(f"{config.name}: no shape has a class, so there are no classes; give names")
    return names


def _end(image: LabelledImage) -> tuple[float, float]:
    """Return the largest right and bottom of an image's boxes, 0 without boxes."""
    rights, bottoms = ([item.box[side] for item in image.objects] for side in (2, 3))
    return max(rights, default=0.0), max(bottoms, default=0.0)


def _box_lines(images: list[LabelledImage], names: tuple[str, ...], problems: Problems) -> list[BoxLine]:
    label_of: dict[str | None, int] = {name: label for label, name in enumerate(names)} | {None: ALL_CLASSES}
    lines = []
    for row, image in enumerate(images):
        for item in image.objects:
            place = f"{item.name or 'ignored region'} in {image.name}"
            if item.name in label_of:
                line = BoxLine(row, label_of[item.name], item.box, place, item.is_crowd, item.marks, item.attributes)
                lines.append(line)
            else:
                problems.add(UNKNOWN_NAME, f"{item.name!r} in {image.name}")
    return lines
