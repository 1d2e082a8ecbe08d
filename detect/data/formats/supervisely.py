"""Supervisely's project format: ``meta.json`` with the classes, in each data set ``img/a.jpg`` and ``ann/a.jpg.json``.

Points are pixels; a rectangle has two corners. A bitmap is a compressed PNG, whose size and origin are its box.

Source: https://docs.supervisely.com/data-organization/00_ann_format_navi.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import zlib
from pathlib import Path
from typing import Any

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import find_annotations, find_folder
from detect.data.folders import walk_files
from detect.data.formats.annotation_files import number_of, side_of
from detect.data.formats.image_names import find_image
from detect.data.formats.labelled_images import (
    BAD_SHAPE,
    NO_BOX,
    OUTLINE,
    Box,
    LabelFile,
    LabelledImage,
    LabelledObject,
    around,
    is_usable,
    load_json,
    table_of_images,
    with_attributes,
)
from detect.data.formats.layouts import sorted_splits, split_of, subfolders
from detect.errors import InputError

META = "meta.json"
ANNOTATIONS, IMAGES = "ann", "img"
"""Folders of a data set."""

BAD_FILE = "annotation files that are damaged or not Supervisely's (their images are skipped)"

_WITHOUT_BOX = ("point", "graph", "cuboid", "cuboid_2d")
_HEADER = 24  # bytes of a PNG up to its height


def read_supervisely(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split: the data sets in its folder and below it.

    Classes are in the order of ``meta.json``. Tags ``truncated``, ``occluded`` and ``difficult`` are kept. The split's
    ``annotations`` is the folder of a data set, or of several.

    Raises:
        InputError: the folder is missing or has no annotation, or no image can be used.
    """
    problems = Problems()
    files = _read_files(config, split, problems)
    paths = [find_image(path.parent.parent / IMAGES, path.stem, (path.stem,)) for path in files]
    images = [image._replace(name=path.name) for image, path in zip(files.values(), paths, strict=True)]

    def read(other: str) -> LabelFile:
        return LabelFile([*_read_files(config, other, Problems()).values()], _names(config))

    return table_of_images(config, split, LabelFile(images, _names(config)), paths, read, problems)


def _read_files(config: DataConfig, split: str, problems: Problems) -> dict[Path, LabelledImage]:
    """Return the readable annotation files of a split, sorted."""
    folder = find_folder(config, find_annotations(config, split)).resolve()
    files: dict[Path, LabelledImage] = {}
    for path in map(Path, walk_files(folder, folder, lambda _: None)):
        if path.parent.name == ANNOTATIONS and path.suffix.lower() == ".json":
            try:
                files[path] = _parse(path, problems)
            except InputError as error:
                problems.add(BAD_FILE, str(error))
    if not files:
        found = "; ".join(problems.summary()) or f"there is no {ANNOTATIONS}/*.json at all"
        raise InputError(f"{folder}: has no annotation file for split {split!r} that can be read: {found}")
    return files


def _names(config: DataConfig) -> tuple[str, ...]:
    """Return the classes of ``meta.json`` that can have a box; none where the file is missing or damaged."""
    path = Path(config.root, META)
    try:
        content = load_json(path) if path.is_file() else {}
    except InputError:
        return ()
    classes = content.get("classes") if isinstance(content, dict) else None
    entries = [one for one in classes if isinstance(one, dict)] if isinstance(classes, list) else []
    names = [one.get("title") for one in entries if one.get("shape") not in _WITHOUT_BOX]
    return tuple(dict.fromkeys(name.strip() for name in names if isinstance(name, str) and is_usable(name, (0,) * 4)))


def _parse(path: Path, problems: Problems) -> LabelledImage:
    content = load_json(path)
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise InputError(f"{path.name}: is not Supervisely's: it must be a mapping with objects")
    items = [_object(one if isinstance(one, dict) else {}, path.stem, problems) for one in objects]
    size = content.get("size") if isinstance(content.get("size"), dict) else {}
    height, width = (side_of(size.get(side)) for side in ("height", "width"))
    return LabelledImage(path.stem, tuple(item for item in items if item is not None), (height, width))


def _object(item: dict[str, Any], image: str, problems: Problems) -> LabelledObject | None:
    """Return an object; None, counted, where it has no box."""
    name, kind = item.get("classTitle"), item.get("geometryType") or ("bitmap" if item.get("bitmap") else "polygon")
    place = f"{kind!s:.40} {name!s:.60} in {image}"
    if kind in _WITHOUT_BOX:
        problems.add(NO_BOX, place)
        return None
    box = _of_bitmap(item.get("bitmap")) if kind == "bitmap" else _of_points(item.get("points"))
    if not is_usable(name, box):
        problems.add(BAD_SHAPE, place)
        return None
    if kind != "rectangle":
        problems.add(OUTLINE, place)
    tags = (
        [tag for tag in item.get("tags") or () if isinstance(tag, dict)] if isinstance(item.get("tags"), list) else []
    )
    values = {str(tag.get("name")): "yes" if tag.get("value") is None else tag["value"] for tag in tags}
    return with_attributes(LabelledObject(str(name).strip(), box), values, place, problems)


def _of_points(points: Any) -> Box:
    exterior = points.get("exterior") if isinstance(points, dict) else None
    return around(exterior) if isinstance(exterior, list) else (math.nan,) * 4


def _of_bitmap(bitmap: Any) -> Box:
    """Return the box of a bitmap, of which only the header is unpacked; NaN if it is damaged."""
    nothing = (math.nan,) * 4
    data, origin = (bitmap.get("data"), bitmap.get("origin")) if isinstance(bitmap, dict) else (None, None)
    if not isinstance(data, str) or not isinstance(origin, list) or len(origin) != 2:
        return nothing
    try:
        header = zlib.decompressobj().decompress(base64.b64decode(data[: 4 * 1024]), _HEADER)
        width, height = struct.unpack(">II", header[16:_HEADER])
    except (ValueError, binascii.Error, zlib.error, struct.error):
        return nothing
    left, top = map(number_of, origin)
    return left, top, left + width, top + height


# -------------------------------------------------------------------------------------------------- layout


def find_supervisely(folder: Path) -> dict[str, SplitConfig]:
    """Find the data sets of a project; where none is named after a split, all of them are the split ``train``."""
    if not (folder / META).is_file():
        return {}
    names = [path.name for path in subfolders(folder) if _is_data_set(path)]
    if any(split_of(name) for name in names):
        return sorted_splits({split_of(name) or name: SplitConfig(name, name) for name in names})
    return {"train": SplitConfig(".", ".")} if names else {}


def _is_data_set(folder: Path) -> bool:
    return (folder / ANNOTATIONS).is_dir() and (folder / IMAGES).is_dir()
