"""Writing Pascal VOC XML: a file for each image, and lists of their names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from detect.config.data import SplitConfig
from detect.curation.target import Target, annotation_file, write_lines
from detect.data.annotations import MARKS

DEGREE = "degrees of truncation or occlusion (written as yes or no)"


def write_voc(target: Target, folder: Path, own_folder: bool) -> SplitConfig:
    """Write ``Annotations/*.xml`` and ``ImageSets/Main/<split>.txt``.

    A crowd region is an object with ``difficult`` 1; an image without boxes has a file without objects. Coordinates are
    written in full, not rounded to whole pixels.

    Args:
        target: the split.
        folder: of the new data set.
        own_folder: the split's files go into a folder of their own, because another split has the same names.

    Returns:
        The split's section of the new data config.
    """
    annotations = f"Annotations/{target.split}" if own_folder else "Annotations"
    stems = [str(PurePosixPath(name).with_suffix("")) for name in target.image_names]
    for row, name in enumerate(target.image_names):
        tree = ElementTree.ElementTree(_element(target, row))
        ElementTree.indent(tree)
        tree.write(annotation_file(folder / annotations, name, ".xml"), encoding="utf-8")
    for values in target.table.marks.values():
        for box in np.flatnonzero((values != 0) & (values != 1)).tolist():
            target.losses.add(DEGREE, repr(target.image_names[target.table.image_of_box[box]]))
    list_file = f"ImageSets/Main/{target.split}.txt"
    write_lines(folder / list_file, stems)
    return SplitConfig(target.images, annotations, list_file)


def _element(target: Target, row: int) -> ElementTree.Element:
    """The XML of an image."""
    table = target.table
    root = ElementTree.Element("annotation")
    _add(root, "filename", target.image_names[row])
    size = ElementTree.SubElement(root, "size")
    height, width = table.sizes_hw[row].tolist()
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, name, str(value))
    for box in range(table.box_offsets[row], table.box_offsets[row + 1]):
        item = ElementTree.SubElement(root, "object")
        _add(item, "name", target.names[table.labels[box]])
        for mark in MARKS:
            if mark in table.marks:
                _add(item, mark, str(int(table.marks[mark][box] > 0)))
        _add(item, "difficult", str(int(table.is_crowd[box])))
        corners = ElementTree.SubElement(item, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), table.boxes_xyxy_px[box].tolist(), strict=True):
            _add(corners, name, plain_number(value))
    return root


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text


def plain_number(value: float) -> str:
    """A number with all its digits, a whole one without a point."""
    return str(int(value)) if value.is_integer() else repr(value)
