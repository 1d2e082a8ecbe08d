"""labelme's annotation format: one JSON file per image, usually beside it.

``shapes`` has for each object ``label``, ``shape_type`` and ``points`` in pixels: two opposite corners of a rectangle,
in any order, the outline of a polygon, the centre of a circle and a point on it. The image in it is not used.

Source: https://github.com/wkentaro/labelme, README, and the files of its folder ``examples``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import find_folder
from detect.data.formats.annotation_files import number_of, read_annotation_files, side_of
from detect.data.formats.image_names import find_image
from detect.data.formats.labelled_images import (
    BAD_SHAPE,
    NO_BOX,
    OUTLINE,
    ROTATED,
    LabelFile,
    LabelledImage,
    LabelledObject,
    around,
    around_circle,
    is_usable,
    load_json,
    table_of_images,
    with_attributes,
)
from detect.data.formats.layouts import files_with_suffix, folders_beside, json_tool, side_by_side
from detect.errors import InputError

BAD_FILE = "annotation files that are missing, damaged or not labelme's (their images are skipped)"

_PAIRS = tuple(("images", name) for name in ("annotations", "labels", "jsons", "json", "labelme"))
_MORE = ("group_id", "description")
_IGNORED = "__ignore__"  # labelme's label of regions that are not looked at
_NUM_LOOKED_AT = 5  # files of a folder
_OUTLINES = ("polygon", "circle", "linestrip", "line", "mask")


def read_labelme(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split: the images of the JSON files of a folder and those below it, sorted.

    An image belongs to the file of its name, else to the one whose ``imagePath`` names it. Shapes labelled
    ``__ignore__`` become crowd regions of every class; flags ``truncated``, ``occluded`` and ``difficult`` are kept.

    Raises:
        InputError: the folder is missing, or no image can be used.
    """
    problems = Problems()
    files = _read_files(config, split, problems)
    folder = find_folder(config, config.splits[split].images).resolve()
    paths = [find_image(folder, stem, (image.name,)) for stem, image in files.items()]
    images = [image._replace(name=path.name) for image, path in zip(files.values(), paths, strict=True)]

    def read(other: str) -> LabelFile:
        return LabelFile([*_read_files(config, other, Problems()).values()])

    return table_of_images(config, split, LabelFile(images), paths, read, problems)


def _read_files(config: DataConfig, split: str, problems: Problems) -> dict[str, LabelledImage]:
    """Return the readable files of a split by stem; each image has the name that its file gives."""
    parse = partial(_parse, problems=problems)
    return read_annotation_files(config, split, ".json", parse, BAD_FILE, problems)[0]


def _parse(path: Path, stem: str, problems: Problems) -> LabelledImage:
    content = load_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise InputError(f"{path.name}: is not labelme's: it must be a mapping with shapes")
    items = [_object(shape, stem, problems) for shape in shapes]
    height, width = (side_of(content.get(side)) for side in ("imageHeight", "imageWidth"))
    name = content.get("imagePath")
    objects = tuple(item for item in items if item is not None)
    return LabelledImage(name if isinstance(name, str) else "", objects, (height, width))


def _object(shape: Any, stem: str, problems: Problems) -> LabelledObject | None:
    """Return the object of a shape; None, counted, where it has no box."""
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
        problems.add(BAD_SHAPE, f"{str(shape)[:80]} in {stem}")
        return None
    name, kind, points = shape.get("label"), shape.get("shape_type") or "polygon", shape["points"]
    place = f"{kind!s:.40} {name!s:.60} in {stem}"
    if kind not in ("rectangle", "oriented_rectangle", *_OUTLINES):
        problems.add(NO_BOX, place)
        return None
    box = around(points)
    if not is_usable(name, box) or (kind == "circle" and len(points) < 2):
        problems.add(BAD_SHAPE, place)
        return None
    if kind == "circle":
        box = around_circle(*([number_of(side) for side in point[:2]] for point in points[:2]))
    if kind != "rectangle":
        problems.add(ROTATED if kind == "oriented_rectangle" else OUTLINE, place)
    flags = shape.get("flags")
    values = {**(flags if isinstance(flags, dict) else {}), **{key: shape.get(key) for key in _MORE}}
    item = LabelledObject(None if name == _IGNORED else str(name).strip(), box)
    return with_attributes(item, values, place, problems)


# -------------------------------------------------------------------------------------------------- layout


def find_labelme(folder: Path) -> dict[str, SplitConfig]:
    """Find folders of images and labelme's JSON files, beside each other or in a folder of their own."""
    splits = side_by_side(folder, ".json") or folders_beside(folder, _PAIRS, ".json")
    return {split: section for split, section in splits.items() if _has_labelme(folder / (section.annotations or ""))}


def _has_labelme(folder: Path) -> bool:
    """Tell whether one of the first JSON files of a folder is labelme's."""
    files = list(files_with_suffix((".json",), folder))[:_NUM_LOOKED_AT]
    return any(json_tool(path) == "labelme" for path in files)
