"""Pascal VOC's annotation format: one XML file per image, and lists of image names.

A box is ``xmin, ymin, xmax, ymax``. VOC's own files count pixels from 1 and include the last one; most other files in
this format do not. The numbers are taken without a shift: left = xmin, top = ymin, width = xmax - xmin, height =
ymax - ymin. The difference is at most a pixel.

Letters: N images, K classes.
"""

from __future__ import annotations

import codecs
import dataclasses
import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems, encode_paths
from detect.data.checks import (
    check_distinct,
    find_folder,
)
from detect.data.formats.annotation_files import (
    number_of,
    read_annotation_bytes,
    read_annotation_files,
    side_of,
)
from detect.data.formats.image_names import find_image, is_file, is_named, path_forms
from detect.data.formats.labelled_images import LabelledImage, LabelledObject, table_of_objects
from detect.data.formats.layouts import folders_beside, side_by_side
from detect.data.formats.writing import Target, annotation_file, plain_number, write_lines
from detect.errors import InputError

MAX_XML_BYTES = 16 * 2**20
BAD_XML = "annotation files that are missing or damaged (their images are skipped)"
OTHER_NAME = (
    "annotation files whose <filename> is not their own name, as after renaming (the image of their own is taken)"
)
BORROWED = "annotation files without an image, whose <filename> is the image of another one (skipped)"
BAD_OBJECT = "objects without a name or four numbers as bndbox (skipped)"
UNREADABLE_TEXT = "annotation files with bytes that are not of their encoding, outside of class names (read)"
DEGREE = "degrees of truncation or occlusion (written as yes or no)"
_PAIRS = (("images", "annotations"), ("Images", "Annotations"), ("images", "Annotations"), ("images", "xmls"))
_SPLITS: tuple[str, ...] = ("train", "val", "trainval", "test")
_DECLARATION = re.compile(rb"""(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)["']""")
_MAX_DECLARATION = 200  # bytes
_UNREADABLE = "\ufffd"
_BEFORE_XML = "\ufeff \t\r\n"
_STARTS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949", "big5": "cp950"}
"""Supersets that tools write under the name of an encoding."""
_NO_CHARACTER_SETS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7")


class _File(NamedTuple):
    """An XML file; ``declared_hw`` is 0 where the file gives no size."""

    stem: str
    image_names: tuple[str, ...]
    declared_hw: tuple[int, int]
    objects: tuple[LabelledObject, ...]


def read_voc(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split; ``InputError`` if the list or a folder is missing, or no image can be used.

    Images are numbered 1..N in the order of the list file, or, without one, of the sorted XML files. Objects marked
    ``difficult`` become crowd regions: not trained on, and ignored in evaluation, as VOC's own evaluation does. Damaged
    files, images and boxes are skipped and counted in the table's ``problems``. Without ``names`` in the data config
    the classes are all names in the XML files of the split ``train``, of this split if there is none, sorted.
    """
    problems = Problems()
    files, unread_stems = _read_files(config, split, problems)
    names = _names(config, split, files)
    folder = find_folder(config, config.splits[split].images).resolve()
    unread = [find_image(folder, stem) for stem in unread_stems]
    files, paths = _with_images(files, folder, problems)
    images = [LabelledImage(file.stem, file.objects, file.declared_hw) for file in files]
    table = table_of_objects(config, split, images, paths, names, problems)
    return dataclasses.replace(table, skipped_paths=np.concatenate([encode_paths(unread), table.skipped_paths]))


def _read_files(config: DataConfig, split: str, problems: Problems) -> tuple[list[_File], list[str]]:
    """Return the readable XML files of a split, in the order of its list, and the stems of the others."""
    files, unread = read_annotation_files(config, split, ".xml", partial(_parse, problems=problems), BAD_XML, problems)
    return list(files.values()), unread


def _with_images(files: list[_File], folder: Path, problems: Problems) -> tuple[list[_File], list[Path]]:
    """Return the files with their images, without those whose image belongs to another file."""
    kept, paths = [], []
    stems = {file.stem for file in files}
    for file in files:
        path = find_image(folder, file.stem, file.image_names)
        if file.image_names and not is_named(file.stem, path_forms(file.image_names[0])[-1]):
            found = f"{file.stem}.xml says {file.image_names[0][:100]!r}"
            if not is_named(file.stem, path.name) and path.stem in stems:
                problems.add(BORROWED, found)
                continue
            if is_named(file.stem, path.name) and is_file(path):
                problems.add(OTHER_NAME, f"{found}, {path.name} is taken")
        kept.append(file)
        paths.append(path)
    if not kept:
        raise InputError(f"{folder}: has no image of an annotation file's own name: {'; '.join(problems.summary())}")
    return kept, paths


def read_xml(path: Path, max_bytes: int = MAX_XML_BYTES) -> ElementTree.Element:
    """Return the root of an annotation file of at most ``max_bytes``, with tags without namespaces.

    Raises:
        InputError: it is too large, cannot be read, is not XML, or has a document type or entities.
    """
    text = _decode(read_annotation_bytes(path, max_bytes), path.name)
    # Entities can grow without limit or name other files. They are looked for in the text that the parser gets.
    if any(word in text for word in ("<!DOCTYPE", "<!ENTITY", "\0")):
        raise InputError(f"{path.name}: has a document type, entities or zero bytes; annotations need none")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path.name}: is not XML: {error}") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _decode(content: bytes, where: str) -> str:
    """Decode an XML file by the encoding that it declares; undecodable bytes become U+FFFD.

    The parser gets text, so it does not look at the declaration.

    Raises:
        InputError: Python has no such encoding.
    """
    declaration = _DECLARATION.match(content.replace(b"\0", b"")[:_MAX_DECLARATION])
    declared = declaration[1].decode("ascii").lower() if declaration else "utf-8"
    encoding = _encoding_of(content, declared)
    if encoding is None:
        raise InputError(f"{where}: is not XML: declares the unknown encoding {declared[:40]!r}")
    for one in dict.fromkeys((encoding, "utf_8")):  # files that were saved anew keep their old declaration
        try:
            return content.decode(one).lstrip(_BEFORE_XML)
        except UnicodeError:
            continue
    return content.decode(encoding, "replace").lstrip(_BEFORE_XML)


def _encoding_of(content: bytes, declared: str) -> str | None:
    """Return Python's name of the encoding, None if it has none.

    A byte order mark, or zeros around the first character, overrule the declaration.
    """
    for start, encoding in _STARTS.items():
        if content.startswith(start):
            return encoding
    try:
        name = codecs.lookup(_WIDER.get(declared, declared)).name.replace("-", "_")
        if name in _NO_CHARACTER_SETS:
            return None
        b" ".decode(name)  # has a LookupError for what is not of text, such as base64
    except LookupError:
        return None
    except UnicodeError:  # UTF-16 and UTF-32, whose files begin as in _STARTS
        return "utf-8"
    return name


def _parse(path: Path, stem: str, problems: Problems) -> _File:
    root = read_xml(path)
    if root.tag.lower() != "annotation":
        hint = "; CVAT's own XML is read if annotations names the file itself" if root.tag == "annotations" else ""
        raise InputError(f"{path.name}: is not Pascal VOC: its root is <{root.tag[:40]}>, not <annotation>{hint}")
    objects = []
    for element in root.iterfind("object"):
        item = _parse_object(element)
        if item is None:
            problems.add(BAD_OBJECT, f"{element.findtext('name')!r} in {path.name}")
        else:
            objects.append(item)
    if any(_UNREADABLE in (item.name or "") for item in objects):
        raise InputError(
            f"{path.name}: a class name is not in the encoding of the file; declare the right one, or UTF-8"
        )
    if any(_UNREADABLE in text for text in root.itertext()):
        problems.add(UNREADABLE_TEXT, path.name)
    folder, filename, place = ((root.findtext(tag) or "").strip() for tag in ("folder", "filename", "path"))
    image_names = tuple(filter(None, (filename, f"{folder}/{filename}" if folder and filename else "", place)))
    height, width = (side_of(root.findtext(f"size/{side}")) for side in ("height", "width"))
    return _File(stem, image_names, (height, width), tuple(objects))


def _parse_object(element: ElementTree.Element) -> LabelledObject | None:
    name = (element.findtext("name") or "").strip()
    sides = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = (number_of(side) for side in sides)
    if not name or any(math.isnan(side) for side in (left, top, right, bottom)):
        return None
    marks = tuple(int(number_of(element.findtext(mark)) == 1) for mark in MARKS)
    return LabelledObject(name, (left, top, right, bottom), number_of(element.findtext("difficult")) == 1, marks)


def _names(config: DataConfig, split: str, files: list[_File]) -> tuple[str, ...]:
    if config.names is not None:
        check_distinct(config.names)
        return config.names
    if split != "train" and "train" in config.splits:
        files, _ = _read_files(config, "train", Problems())
    names = tuple(sorted({item.name for file in files for item in file.objects if item.name is not None}))
    if not names:
        raise InputError(f"{config.name}: no object in the XML files has a name, so there are no classes; give names")
    return names


# ------------------------------------------------------------------------------------------------- writing


def write_voc(target: Target, folder: Path, own_folder: bool) -> SplitConfig:
    """Write ``Annotations/*.xml`` and ``ImageSets/Main/<split>.txt``; return the split's section of the data config.

    A crowd region is an object with ``difficult`` 1; an image without boxes has a file without objects. Coordinates are
    not rounded. With ``own_folder``, the files go into a folder of the split, because another split has the same names.
    """
    annotations = f"Annotations/{target.split}" if own_folder else "Annotations"
    stems = [str(PurePosixPath(name).with_suffix("")) for name in target.image_names]
    for row, name in enumerate(target.image_names):
        tree = ElementTree.ElementTree(voc_element(_labelled_image(target, row), list(target.table.marks)))
        ElementTree.indent(tree)
        tree.write(annotation_file(folder / annotations, name, ".xml"), encoding="utf-8")
    for values in target.table.marks.values():
        for box in np.flatnonzero((values != 0) & (values != 1)).tolist():
            target.losses.add(DEGREE, repr(target.image_names[target.table.image_of_box[box]]))
    list_file = f"ImageSets/Main/{target.split}.txt"
    write_lines(folder / list_file, stems)
    return SplitConfig(target.images, annotations, list_file)


def _labelled_image(target: Target, row: int) -> LabelledImage:
    table, objects = target.table, []
    for box in range(table.box_offsets[row], table.box_offsets[row + 1]):
        marks = tuple(int(table.marks[mark][box] > 0) if mark in table.marks else 0 for mark in MARKS)
        left, top, right, bottom = table.boxes_xyxy_px[box].tolist()
        name, is_crowd = target.names[table.labels[box]], bool(table.is_crowd[box])
        objects.append(LabelledObject(name, (left, top, right, bottom), is_crowd, marks))
    height, width = table.sizes_hw[row].tolist()
    return LabelledImage(target.image_names[row], tuple(objects), (height, width))


def voc_element(image: LabelledImage, marks: Sequence[str]) -> ElementTree.Element:
    """Return the root of an image's annotation file; objects have those of ``MARKS`` that are among ``marks``."""
    root = ElementTree.Element("annotation")
    _add(root, "filename", image.name)
    size = ElementTree.SubElement(root, "size")
    for name, value in zip(("width", "height", "depth"), (*image.size_hw[::-1], 3), strict=True):
        _add(size, name, str(value))
    for one in image.objects:
        item = ElementTree.SubElement(root, "object")
        _add(item, "name", one.name or "")
        for mark, value in zip(MARKS, one.marks, strict=True):
            if mark in marks:
                _add(item, mark, str(value))
        _add(item, "difficult", str(int(one.is_crowd)))
        corners = ElementTree.SubElement(item, "bndbox")
        for name, side in zip(("xmin", "ymin", "xmax", "ymax"), one.box, strict=True):
            _add(corners, name, plain_number(side))
    return root


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text


# -------------------------------------------------------------------------------------------------- layout


def find_voc(folder: Path) -> dict[str, SplitConfig]:
    """Find the splits of a folder in a layout of VOC."""
    images, annotations, lists = "JPEGImages", "Annotations", "ImageSets/Main"
    if not ((folder / images).is_dir() and (folder / annotations).is_dir()):
        return folders_beside(folder, _PAIRS, ".xml") or side_by_side(folder, ".xml")
    splits: dict[str, SplitConfig] = {}
    for path in sorted((folder / lists).glob("*.txt")):
        split = _split_of_list(path.stem)
        if split is not None:
            splits.setdefault(split, SplitConfig(images, annotations, f"{lists}/{path.name}"))
    splits = {split: splits[split] for split in _SPLITS if split in splits}
    return splits or {"train": SplitConfig(images, annotations)}


def _split_of_list(name: str) -> str | None:
    """Return the split of a list in ``ImageSets/Main``; CVAT calls it ``Train``, ``Validation`` or ``default``."""
    split = {"validation": "val", "valid": "val", "default": "train"}.get(name.lower(), name.lower())
    return split if split in _SPLITS else None
