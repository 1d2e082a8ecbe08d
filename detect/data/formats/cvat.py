"""CVAT's own XML, "CVAT for images 1.1" and "CVAT for video 1.1": one file for all images.

``<image name width height>`` holds the shapes of an image, ``<track label>`` those of an object in the frames of a
video, by their number; CVAT exports these frames as ``frame_000000.PNG`` and so on. A box is ``xtl, ytl, xbr, ybr`` in
pixels, with a rotation in degrees, clockwise about its centre.

Source: https://docs.cvat.ai/docs/manual/advanced/xml_format/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.checks import find_annotations, find_file, find_folder
from detect.data.folders import is_image_name, walk_files
from detect.data.formats.annotation_files import number_of, side_of
from detect.data.formats.labelled_images import (
    BAD_ENTRY,
    BAD_SHAPE,
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
    box_of,
    is_usable,
    table_of_file,
    with_attributes,
)
from detect.data.formats.layouts import FoundSplits, ends_of, find_label_files, image_folder, sorted_splits, split_of
from detect.data.formats.voc import read_xml
from detect.data.formats.writing import plain_number
from detect.errors import InputError

MAX_FILE_BYTES = 256 * 2**20
"""A million boxes; a parsed file takes about ten times its size in memory."""

_FRAME = re.compile(r"frame_(\d{1,9})$")
_SUBSET = re.compile(rb'<image\s[^>]*?\bsubset="([^"<>&]{1,100})"')
_OUTLINES = ("polygon", "polyline", "ellipse", "cuboid", "mask")
_WITHOUT_BOX = ("points", "skeleton", "tag")
_CORNERS = [(f"x{corner}{number}", f"y{corner}{number}") for corner in ("tl", "tr", "bl", "br") for number in (1, 2)]


def read_cvat(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split; ``InputError`` if the file is missing or not CVAT's, or no image can be used.

    Classes are in the order of the task's labels. ``occluded`` and attributes called ``truncated`` and ``difficult``
    are kept. Frames of a video are the images of their numbers; those without a shape are background.
    ``splits.<split>.parts`` are subsets of the project, default all.
    """
    return table_of_file(config, split, _read_file)


def _read_file(config: DataConfig, problems: Problems, split: str) -> LabelFile:
    path = find_file(config, find_annotations(config, split))
    root = read_xml(path, MAX_FILE_BYTES)
    if root.tag != "annotations":
        raise InputError(f"{path}: is not CVAT's XML: its root is <{root.tag[:40]}>, not <annotations>")
    section = config.splits[split]
    folder = find_folder(config, section.images)
    images = [
        image
        for element in root.iterfind("image")
        if not section.parts or element.get("subset") in section.parts
        if (image := _image(element, folder, problems)) is not None
    ]
    if root.find("track") is not None or not images:
        images += _frames(root, folder, problems)
    labels = [label for label in root.iterfind("meta//labels/label") if not (label.findtext("parent") or "").strip()]
    names = [(label.findtext("name") or "").strip() for label in labels if label.findtext("type") not in _WITHOUT_BOX]
    return LabelFile(images, tuple(dict.fromkeys(filter(None, names))))


def _image(element: ElementTree.Element, folder: Path, problems: Problems) -> LabelledImage | None:
    name, subset = element.get("name") or "", element.get("subset") or ""
    if not name:
        problems.add(BAD_ENTRY, f"<image> {element.get('id')}")
        return None
    in_subset = Path(subset).name == subset != "" and (folder / subset / Path(name).name).is_file()
    height, width = (side_of(element.get(side)) for side in ("height", "width"))
    items = [_object(shape, shape.get("label"), name, problems) for shape in element]
    name = f"{subset}/{Path(name).name}" if in_subset else name
    return LabelledImage(name, tuple(item for item in items if item is not None), (height, width))


def _frames(root: ElementTree.Element, folder: Path, problems: Problems) -> list[LabelledImage]:
    """Return the frames that are in the folder or have a shape."""
    objects: dict[int, list[LabelledObject]] = {}
    names: dict[int, str] = {}
    for path in map(Path, walk_files(folder, folder, lambda _: None)):
        if (found := _FRAME.search(path.stem)) and is_image_name(path.name):
            names[int(found[1])] = path.relative_to(folder).as_posix()
    for track in root.iterfind("track"):
        for shape in track:
            number = number_of(shape.get("frame"))
            if not 0 <= number < 1e9:
                problems.add(BAD_SHAPE, f"track {track.get('id')}, frame {shape.get('frame')}")
            elif number_of(shape.get("outside")) != 1:
                name = names.setdefault(int(number), f"frame_{int(number):06d}.PNG")
                item = _object(shape, track.get("label"), name, problems)
                objects.setdefault(int(number), []).extend([item] if item else [])
    return [LabelledImage(names[number], tuple(objects.get(number, ()))) for number in sorted(names)]


def _object(shape: ElementTree.Element, label: str | None, image: str, problems: Problems) -> LabelledObject | None:
    """Return the object of a shape; None, counted, where it has no box."""
    name = (label or "").strip()
    place = f"{name or 'a shape'} in {image}"
    if shape.tag in _WITHOUT_BOX or shape.tag not in ("box", *_OUTLINES):
        problems.add(NO_BOX, f"<{shape.tag[:40]}> {place}")
        return None
    box = _box(shape)
    if not is_usable(name, box):
        problems.add(BAD_SHAPE, f"<{shape.tag}> {place}")
        return None
    if shape.tag in _OUTLINES:
        problems.add(OUTLINE, f"<{shape.tag}> {place}")
    elif number_of(shape.get("rotation", 0)) != 0:
        problems.add(ROTATED, place)
    attributes = {one.get("name", ""): one.text or "" for one in shape.iterfind("attribute")}
    attributes["occluded"] = shape.get("occluded", "0")
    return with_attributes(LabelledObject(name, box), attributes, place, problems)


def _box(shape: ElementTree.Element) -> Box:
    """Return the box around a shape, NaN where its numbers are missing."""
    turn = number_of(shape.get("rotation", 0))
    if shape.tag == "box":
        box = box_of([shape.get(side) for side in ("xtl", "ytl", "xbr", "ybr")])
        return around_rotated(box, turn) if turn else box
    if shape.tag == "ellipse":
        x, y, width, height = box_of([shape.get(side) for side in ("cx", "cy", "rx", "ry")])
        return around_ellipse((x, y), (width, height), turn)
    if shape.tag == "mask":
        left, top, width, height = box_of([shape.get(side) for side in ("left", "top", "width", "height")])
        return left, top, left + width, top + height
    if shape.tag == "cuboid":
        return around([(shape.get(x), shape.get(y)) for x, y in _CORNERS])
    return around([point.split(",") for point in (shape.get("points") or "").split(";") if point.strip()])


# ------------------------------------------------------------------------------------------------- writing


def cvat_xml(images: Iterable[LabelledImage], names: Sequence[str]) -> bytes:
    """Return a file that CVAT imports as "CVAT 1.1" into a task that has images of these names and these labels.

    A box with a score is marked as made by a model (``source="auto"``) and has the score as an attribute, which CVAT
    keeps if the label has a text attribute ``score``, and leaves out otherwise.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, image in enumerate(images):
        height, width = image.size_hw
        sizes = {"width": str(width), "height": str(height)}
        element = ElementTree.SubElement(root, "image", {"id": str(number), "name": image.name, **sizes})
        for item in image.objects:
            corners = zip(("xtl", "ytl", "xbr", "ybr"), (plain_number(float(side)) for side in item.box), strict=True)
            source = "manual" if item.score is None else "auto"
            about = {"label": item.name or "", "source": source, "occluded": "0", **dict(corners), "z_order": "0"}
            box = ElementTree.SubElement(element, "box", about)
            if item.score is not None:
                ElementTree.SubElement(box, "attribute", {"name": "score"}).text = plain_number(item.score)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


# -------------------------------------------------------------------------------------------------- layout


def is_cvat(path: Path) -> bool:
    """Tell whether an XML file is CVAT's; Pascal VOC's root is ``<annotation>``."""
    return re.search(rb"<annotations[\s>]", ends_of(path)) is not None


def find_cvat(folder: Path) -> FoundSplits:
    """Find CVAT's XML files; of one for a whole project, the subsets are splits."""
    found = find_label_files(folder, (".xml",), is_cvat, "CVAT")
    (section,) = found.splits.values() if len(found.splits) == 1 else (None,)
    subsets = _subsets(folder / (section.annotations or "")) if section else []
    if section is None or len(subsets) < 2:
        return found
    images = image_folder(folder, "", "") or section.images
    parts = {split_of(name) or name: SplitConfig(images, section.annotations, parts=(name,)) for name in subsets}
    return FoundSplits(sorted_splits(parts), found.left_out)


def _subsets(path: Path) -> list[str]:
    """Return the distinct subsets of a file's images, in order of first occurrence."""
    if path.stat().st_size > MAX_FILE_BYTES:
        return []
    return list(dict.fromkeys(name.decode("utf-8", "replace") for name in _SUBSET.findall(path.read_bytes())))
