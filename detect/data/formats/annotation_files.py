"""Data sets with one annotation file for each image, called like it: lists of names, and the image of a name."""

from __future__ import annotations

import codecs
import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from detect.boxes.convert import xywh_to_xyxy
from detect.config.data import DataConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems, encode_paths, kept_marks, offsets_of
from detect.data.checks import check_boxes, find_annotations, find_file, find_folder, path_inside, report_repeated
from detect.data.folders import walk_files
from detect.data.formats.image_names import LEADS_OUT, is_file, path_forms, suffix_forms
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError

MAX_LIST_BYTES = 2**30
"""A list of ten million long paths; a larger one is refused."""

File = TypeVar("File")

REPEATED_STEM = "names that stand before in the list (skipped)"
NOT_IN_CLASS = "names with -1 behind them, as in VOC's class lists: the class is not in the image (left out)"
EXTENDED_NAME = "listed names with a suffix, a folder or a class list's flag (the name alone is taken)"

_FLAGS = ("-1", "0", "1")
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, (*IMAGE_SUFFIXES, '.xml', '.txt')))})$", re.IGNORECASE)


def list_files(config: DataConfig, split: str, folder: Path, suffix: str, problems: Problems) -> dict[str, Path]:
    """The split's annotation files by their name without suffix, in the order of its list, there or not.

    Without a list these are all files of the folder and of those below it, sorted.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        folder: of the annotation files, absolute.
        suffix: of the annotation files, such as ``.xml``.
        problems: gets duplicates, names that lead out of the folder, and names left out by a class list.

    Raises:
        InputError: the list cannot be read, or has no line.
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
    """Name and annotation file of a line; None, counted, where the line asks for none.

    A line may have the suffix of the image or of the annotation file, its folder, both paths side by side, or the flag
    of a class list behind it: 1 (the class is in the image), 0 (only difficult objects of it) or -1 (it is not).
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
            if is_file(folder / f"{stems[0]}{suffix}"):  # one elsewhere is not the one of the same end here
                found = path_inside(folder, f"{stems[0]}{suffix}", path.name)
            if found is not None:
                problems.add(EXTENDED_NAME, f"{line[:150]!r} is {found.name}")
            found = found or path_inside(folder, f"{stems[0]}{suffix}", path.name)
        except InputError as error:
            problems.add(LEADS_OUT, str(error))
            return None
    return found.relative_to(folder).as_posix()[: -len(suffix)], found


def _without_flag(line: str) -> tuple[str, str]:
    """A line without the flag of a class list, and the flag; empty where there is none."""
    *name, last = line.rsplit(maxsplit=1)
    return (name[0], last) if name and last in _FLAGS else (line, "")


def _without_second_path(line: str) -> str:
    """The image's path of a line that has the annotation file's behind it."""
    paths = line.split()
    return paths[0] if len(paths) == 2 and all(map(_SUFFIX.search, paths)) else line


def _with_suffix(folder: Path, stem: str, suffix: str) -> Path | None:
    """The file of this name and suffix, in lower or upper case, if it is there and in the folder."""
    paths = (os.path.normpath(folder / f"{stem}{form}") for form in suffix_forms((suffix,)))
    return next((Path(path) for path in paths if path.startswith(f"{folder}{os.sep}") and is_file(path)), None)


def read_list(path: Path, problems: Problems, content: str) -> list[str]:
    """The lines of a text file, without blank ones and repetitions.

    Args:
        path: the file.
        problems: gets the lines that stand twice.
        content: what a line should be, in the message.

    Raises:
        InputError: it cannot be read, or has no line.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputError(f"{path}: larger than {MAX_LIST_BYTES // 2**20} MiB, which no list of images is")
        lines = decode_text(path.read_bytes(), str(path)).splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    distinct: dict[str, None] = {}
    for line in filter(None, (line.strip() for line in lines)):
        if line in distinct:
            problems.add(REPEATED_STEM, line)
        distinct[line] = None
    if not distinct:
        raise InputError(f"{path}: lists no images; it must have one {content} per line")
    return list(distinct)


def decode_text(content: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 with its byte order mark, as Windows writes it.

    Raises:
        InputError: it is neither.
    """
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{where}: is not UTF-8 text; save it as UTF-8") from None


def read_annotation_files(
    config: DataConfig, split: str, suffix: str, read: Callable[[Path, str], File], bad_file: str, problems: Problems
) -> tuple[dict[str, File], list[str]]:
    """Read the annotation files of a split.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        suffix: of the files, such as ``.xml``.
        read: reads the file of a path and a stem, or raises an ``InputError``.
        bad_file: kind of problem that a file is which cannot be read.
        problems: gets what is wrong.

    Returns:
        What was read, by stem, in the order of the list; and the stems of the other files.

    Raises:
        InputError: the list or the folder is missing, a name leads out of it, or no file can be read.
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
        kind = {".xml": "XML", ".txt": "txt"}[suffix]
        found = "; ".join(problems.summary()) or "there is none at all"
        raise InputError(f"{folder}: has no {kind} file for split {split!r} that can be read: {found}")
    return files, unread


def read_annotation_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of an annotation file.

    Raises:
        InputError: it is larger than ``max_bytes``, no file, or cannot be read.
    """
    try:
        if not path.is_file() and path.exists():  # a pipe, which would never end
            raise InputError(f"{path.name}: is not a file")
        if path.stat().st_size > max_bytes:
            raise InputError(f"{path.name}: larger than {max_bytes // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read: {error.strerror or error}") from None


def find_image(folder: Path, stem: str, named: Sequence[str] = ()) -> Path:
    """The image that an annotation file belongs to: the one with its own name, else the one that it names.

    The own name comes first, because tools that rename files leave what is written in them as it was.

    Args:
        folder: of the images, absolute.
        stem: name of the annotation file without suffix, with ``/`` between folders.
        named: names and paths of the image as the annotation file gives them; they may be of another machine.

    Returns:
        The path, of the own name where there is no such image at all.
    """
    own = os.path.normpath(folder / stem)
    forms = [path_forms(text) for text in named if text]
    for *_, name in forms:
        if is_named(stem, name) and is_file(beside := Path(own).with_name(name)):
            return beside
    others = [os.path.normpath(folder / form) for form in (*itertools.chain(*forms), Path(stem).name)]
    for path in (own, *(path for path in others if path.startswith(f"{folder}{os.sep}"))):
        for suffix in suffix_forms(IMAGE_SUFFIXES) if path == own else ("", *suffix_forms(IMAGE_SUFFIXES)):
            if is_file(path + suffix):
                return Path(path + suffix)
    return Path(own + ".jpg")


def is_named(stem: str, name: str) -> bool:
    """Whether a file's name, with its suffix or without, is that of an annotation file."""
    own = PurePosixPath(stem).name
    return own in (name, PurePosixPath(name).stem)


# ------------------------------------------------------------------------------------------------ label_files


MAX_LABEL_BYTES = 16 * 2**20
"""Larger label files are refused unread; a line has about 50 bytes."""

ALL_CLASSES = -1
"""Label of a region that is to be ignored whatever the class: it becomes a crowd region of each of them."""


@dataclass
class BoxLines:
    """The boxes of all files of a split, as they are read.

    Args:
        rows: of each box's image.
        labels: class index, or ``ALL_CLASSES``.
        boxes_xywh: left, top, width, height.
        is_crowd: whether it is a crowd region.
        marks: one for each of ``MARKS``.
        places: file and line number, for messages.
    """

    rows: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    boxes_xywh: list[tuple[float, float, float, float]] = field(default_factory=list)
    is_crowd: list[bool] = field(default_factory=list)
    marks: list[tuple[int, ...]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(
        self,
        row: int,
        label: int,
        box_xywh: tuple[float, float, float, float],
        place: str,
        is_crowd: bool = False,
        marks: tuple[int, ...] = (0,) * len(MARKS),
    ) -> None:
        """Put a box behind the others."""
        self.rows.append(row)
        self.labels.append(label)
        self.boxes_xywh.append(box_xywh)
        self.is_crowd.append(is_crowd)
        self.marks.append(marks)
        self.places.append(place)


def read_lines(path: Path) -> list[str]:
    """The lines of a label file.

    Raises:
        InputError: it is too large, is no text in UTF-8 or UTF-16, or cannot be read.
    """
    return decode_text(read_annotation_bytes(path, MAX_LABEL_BYTES), path.name).splitlines()


def table_of_lines(
    paths: list[Path],
    sizes_hw: np.ndarray,
    boxes: BoxLines,
    in_shares: bool,
    names: tuple[str, ...],
    category_ids: np.ndarray,
    problems: Problems,
) -> AnnotationTable:
    """Check the boxes and put them into arrays.

    Args:
        paths: N image files.
        sizes_hw: (N, 2) height and width, pixels.
        boxes: their rows are those of ``paths``.
        in_shares: coordinates are shares of the image's width and height, not pixels.
        names: K class names.
        category_ids: (K,) the classes' numbers in the files.
        problems: gets what is wrong, and becomes the table's.
    """
    rows, labels = np.array(boxes.rows, np.int64), np.array(boxes.labels, np.int64)
    xywh = np.array(boxes.boxes_xywh, np.float64).reshape(-1, 4)
    if in_shares:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is skipped below
            xywh = xywh * np.tile(sizes_hw[rows][:, ::-1], 2)
    kept = np.flatnonzero(check_boxes(xywh, sizes_hw[rows], boxes.places.__getitem__, problems))
    report_repeated(xywh[kept], rows[kept], labels[kept], lambda index: boxes.places[kept[index]], problems)

    copies = np.where(labels[kept] == ALL_CLASSES, len(names), 1)
    number = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)  # of each copy, from 0
    kept = np.repeat(kept, copies)
    order = np.argsort(rows[kept], kind="stable")
    kept, number = kept[order], number[order]
    xywh, labels = xywh[kept], labels[kept]
    marks = np.array(boxes.marks, np.int8).reshape(-1, len(MARKS))
    return AnnotationTable(
        image_paths=encode_paths(paths),
        image_ids=np.arange(1, len(paths) + 1, dtype=np.int64),
        has_own_ids=False,
        sizes_hw=sizes_hw,
        box_offsets=offsets_of(np.bincount(rows[kept], minlength=len(paths))),
        boxes_xyxy_px=xywh_to_xyxy(xywh),
        labels=np.where(labels == ALL_CLASSES, number, labels),
        is_crowd=np.array(boxes.is_crowd, bool)[kept] | (labels == ALL_CLASSES),
        areas=xywh[:, 2] * xywh[:, 3],
        names=names,
        category_ids=category_ids,
        problems=problems,
        boxes_xywh_px=xywh,
        marks=kept_marks(marks[kept]),
    )
