"""Data sets with one annotation file per image of the same stem: image lists, text files and the table of the boxes.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from detect.boxes.convert import xywh_to_xyxy, xyxy_to_xywh
from detect.config.data import DataConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems, encode_paths, kept_marks, offsets_of
from detect.data.checks import check_boxes, find_annotations, find_file, find_folder, path_inside, report_repeated
from detect.data.folders import walk_files
from detect.data.formats.image_names import LEADS_OUT, is_file, path_forms, suffix_forms
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError, unreadable

MAX_LIST_BYTES = 2**30  # ten million long paths
MAX_LABEL_BYTES = 16 * 2**20  # a line has about 50 bytes

ALL_CLASSES = -1
"""Label of a region that is ignored for every class; the table has a crowd region of each class for it."""

REPEATED_STEM = "names that are listed already (skipped)"
NOT_IN_CLASS = "names with the flag -1, as in VOC's class lists: the class is not in the image (left out)"
UNKNOWN_NAME = "objects of a class that is not among the names (skipped)"
EXTENDED_NAME = "listed names with a suffix, a folder or a class list's flag (the name alone is taken)"

_FLAGS = ("-1", "0", "1")
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, (*IMAGE_SUFFIXES, '.xml', '.txt', '.json')))})$", re.IGNORECASE)

File = TypeVar("File")
Coordinates = Literal["xyxy px", "xywh px", "xywh shares"]
"""Box form in the files: corners or left, top, width, height; in pixels or as shares of the image's sides."""


# ---------------------------------------------------------------------------------------------- image lists


def list_files(config: DataConfig, split: str, folder: Path, suffix: str, problems: Problems) -> dict[str, Path]:
    """List the annotation files of a split by stem, in the order of its list; they need not exist.

    Without a list, these are all files of the folder and its subfolders, sorted.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        folder: absolute folder of the annotation files.
        suffix: of the annotation files, such as ``.xml``.
        problems: gets duplicates, names that lead out of the folder, and names left out by a class list.

    Raises:
        InputError: the list cannot be read or is empty.
    """
    list_file = config.splits[split].list
    if list_file is None:
        paths = [Path(path) for path in walk_files(folder, folder, lambda _: None) if path.lower().endswith(suffix)]
        return dict(sorted((path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths))
    path = find_file(config, list_file)
    files: dict[str, Path] = {}
    for line in read_list(path, problems, "image name without suffix"):
        found = _file_of_line(line, path, folder, suffix, problems)
        if found is not None and found[0] in files:
            problems.add(REPEATED_STEM, line)
        elif found is not None:
            files[found[0]] = found[1]
    if not files:
        raise InputError(f"{path}: names no image of this data set: {'; '.join(problems.summary())}")
    return files


def _file_of_line(line: str, path: Path, folder: Path, suffix: str, problems: Problems) -> tuple[str, Path] | None:
    """Find the stem and the annotation file of a line; None, with the problem counted, where it has none.

    A line may have the suffix of the image or of the annotation file, a folder, both paths side by side, or the flag
    of a class list: 1 (the class is in the image), 0 (only difficult objects of it) or -1 (it is not).
    """
    found = _with_suffix(folder, line, suffix)
    if found is None:
        name, flag = _without_flag(line)
        if flag == "-1":
            problems.add(NOT_IN_CLASS, name)
            return None
        stems = [_SUFFIX.sub("", form) for form in path_forms(_without_second_path(name))]
        try:
            found = next(filter(None, (_with_suffix(folder, stem, suffix) for stem in stems)), None)
            if is_file(folder / f"{stems[0]}{suffix}"):  # a file outside is not replaced by one of the same end inside
                found = path_inside(folder, f"{stems[0]}{suffix}", path.name)
            if found is not None:
                problems.add(EXTENDED_NAME, f"{line[:150]!r} is {found.name}")
            found = found or path_inside(folder, f"{stems[0]}{suffix}", path.name)
        except InputError as error:
            problems.add(LEADS_OUT, str(error))
            return None
    return found.relative_to(folder).as_posix()[: -len(suffix)], found


def _without_flag(line: str) -> tuple[str, str]:
    *name, last = line.rsplit(maxsplit=1)
    return (name[0], last) if name and last in _FLAGS else (line, "")


def _without_second_path(line: str) -> str:
    """Return the image's path of a line that also has the annotation file's."""
    paths = line.split()
    return paths[0] if len(paths) == 2 and all(map(_SUFFIX.search, paths)) else line


def _with_suffix(folder: Path, stem: str, suffix: str) -> Path | None:
    """Find an existing file inside the folder, with the suffix in lower or upper case."""
    paths = (os.path.normpath(folder / f"{stem}{form}") for form in suffix_forms((suffix,)))
    return next((Path(path) for path in paths if path.startswith(f"{folder}{os.sep}") and is_file(path)), None)


def read_list(path: Path, problems: Problems, content: str) -> list[str]:
    """Read the distinct, non-blank lines of a text file.

    Args:
        path: the file.
        problems: gets the repeated lines.
        content: of a line, for the message.

    Raises:
        InputError: it cannot be read or has no line.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path}: larger than {MAX_LIST_BYTES // 2**20} MiB, which no list of images is")
        lines = decode_text(path.read_bytes(), str(path)).splitlines()
    except OSError as error:
        raise unreadable(path, error) from None
    distinct: dict[str, None] = {}
    for line in filter(None, (line.strip() for line in lines)):
        if line in distinct:
            problems.add(REPEATED_STEM, line)
        distinct[line] = None
    if not distinct:
        raise InputError(f"{path}: lists no images; it must have one {content} per line")
    return list(distinct)


# ------------------------------------------------------------------------------------------------- files


def read_annotation_files(
    config: DataConfig, split: str, suffix: str, read: Callable[[Path, str], File], bad_file: str, problems: Problems
) -> tuple[dict[str, File], list[str]]:
    """Read the annotation files of a split.

    ``read`` reads the file of a path and a stem; an ``InputError`` of it is a problem of the kind ``bad_file``.
    ``suffix`` is ``.xml``, ``.txt`` or ``.json``.

    Returns:
        The files' contents by stem, in the order of the list; and the stems of unreadable files.

    Raises:
        InputError: the list or the folder is missing, or no file can be read.
    """
    folder = find_folder(config, find_annotations(config, split)).resolve()
    files, unread = {}, []
    for stem, path in list_files(config, split, folder, suffix, problems).items():
        try:
            files[stem] = read(path, stem)
        except InputError as error:
            problems.add(bad_file, str(error))
            unread.append(stem)
    if not files:
        kind = {".xml": "XML", ".txt": "txt", ".json": "JSON"}[suffix]
        found = "; ".join(problems.summary()) or "there is none at all"
        raise InputError(f"{folder}: has no {kind} file for split {split!r} that can be read: {found}")
    return files, unread


def read_annotation_bytes(path: Path, max_bytes: int) -> bytes:
    """Read an annotation file.

    Raises:
        InputError: it is too large, not a regular file, or cannot be read.
    """
    try:
        if not path.is_file() and path.exists():  # reading a pipe would never end
            raise InputError(f"{path.name}: is not a file")
        if path.stat().st_size > max_bytes:
            raise InputError(f"{path.name}: larger than {max_bytes // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path.name, error) from None


def read_lines(path: Path) -> list[str]:
    """Read the lines of a label file in UTF-8 or UTF-16; refuse one that is too large."""
    return decode_text(read_annotation_bytes(path, MAX_LABEL_BYTES), path.name).splitlines()


def decode_text(content: bytes, where: str) -> str:
    """Decode UTF-8, or UTF-16 with its byte order mark, as Windows writes it.

    Raises:
        InputError: it is neither.
    """
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{where}: is not UTF-8 text; save it as UTF-8") from None


def number_of(value: Any) -> float:
    """Return a number of a file, also one that is written as text; NaN for anything else."""
    try:
        return math.nan if value is None or isinstance(value, (bool, list, dict)) else float(value)
    except (ValueError, OverflowError):
        return math.nan


def side_of(value: Any) -> int:
    """Return the declared side of an image in pixels; 0 for one that is missing or cannot be."""
    side = number_of(value)
    return int(side) if 0 < side < 2**31 else 0


# ------------------------------------------------------------------------------------------------- table


class BoxLine(NamedTuple):
    """One box of an annotation file.

    Args:
        row: index of its image.
        label: class index, or ``ALL_CLASSES``.
        box: four numbers, see ``Coordinates``.
        place: file and line, for messages.
        is_crowd: a crowd region.
        marks: one for each of ``MARKS``.
        attributes: further ones, as a JSON object; empty for none.
    """

    row: int
    label: int
    box: tuple[float, float, float, float]
    place: str
    is_crowd: bool = False
    marks: tuple[int, ...] = (0,) * len(MARKS)
    attributes: str = ""


def table_of_boxes(
    paths: Sequence[Path],
    sizes_hw: np.ndarray,
    boxes: Sequence[BoxLine],
    coordinates: Coordinates,
    names: tuple[str, ...],
    category_ids: np.ndarray,
    problems: Problems,
) -> AnnotationTable:
    """Check the boxes and make the table; images are numbered 1..N.

    Args:
        paths: N image files.
        sizes_hw: (N, 2) height and width in pixels.
        boxes: all boxes, with rows of ``paths``.
        coordinates: their form and unit.
        names: K class names.
        category_ids: (K,) numbers of the classes in the files.
        problems: gets the problems of the boxes; becomes the table's.
    """
    rows, labels = (np.array([getattr(box, key) for box in boxes], np.int64) for key in ("row", "label"))
    xyxy, xywh = _both_forms(np.array([box.box for box in boxes], np.float64), coordinates, sizes_hw[rows])
    kept = np.flatnonzero(check_boxes(xywh, sizes_hw[rows], lambda index: boxes[index].place, problems))
    report_repeated(xywh[kept], rows[kept], labels[kept], lambda index: boxes[kept[index]].place, problems)

    copies = np.where(labels[kept] == ALL_CLASSES, len(names), 1)
    number = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)  # of each copy, from 0
    kept = np.repeat(kept, copies)
    order = np.argsort(rows[kept], kind="stable")
    kept, number = kept[order], number[order]
    is_for_all = labels[kept] == ALL_CLASSES
    marks = np.array([box.marks for box in boxes], np.int8).reshape(-1, len(MARKS))
    attributes = np.array([box.attributes for box in boxes], object)  # of any length
    return AnnotationTable(
        image_paths=encode_paths(paths),
        image_ids=np.arange(1, len(paths) + 1, dtype=np.int64),
        has_own_ids=False,
        sizes_hw=sizes_hw,
        box_offsets=offsets_of(np.bincount(rows[kept], minlength=len(paths))),
        boxes_xyxy_px=xyxy[kept],
        labels=np.where(is_for_all, number, labels[kept]),
        is_crowd=np.array([box.is_crowd for box in boxes], bool)[kept] | is_for_all,
        areas=xywh[kept, 2] * xywh[kept, 3],
        names=names,
        category_ids=category_ids,
        problems=problems,
        boxes_xywh_px=None if coordinates == "xyxy px" else xywh[kept],
        marks=kept_marks(marks[kept]),
        attributes=attributes[kept] if attributes.any() else None,
    )


def _both_forms(boxes: np.ndarray, coordinates: Coordinates, sizes_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes as xyxy and as xywh, (M, 4) each in pixels of images of ``sizes_hw`` (M, 2)."""
    boxes = boxes.reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):  # boxes that are not finite are skipped later
        if coordinates == "xyxy px":
            return boxes, xyxy_to_xywh(boxes)
        xywh = boxes * np.tile(sizes_hw[:, ::-1], 2) if coordinates == "xywh shares" else boxes
        return xywh_to_xyxy(xywh), xywh
