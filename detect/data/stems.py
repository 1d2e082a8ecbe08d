"""Data sets with one annotation file for each image, called like it: lists of names, and the image of a name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from detect.config.schema import DataConfig
from detect.data.annotations import Problems
from detect.data.checks import find_annotations, find_file, find_folder, path_inside
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError

MAX_LIST_BYTES = 2**30
"""A list of ten million long paths; a larger one is refused."""

File = TypeVar("File")

REPEATED_STEM = "names that stand before in the list (skipped)"


def list_stems(config: DataConfig, split: str, folder: Path, suffix: str, problems: Problems) -> list[str]:
    """Names of the split's images without suffix: the lines of its list, or all annotation files of the folder, sorted.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        folder: of the annotation files.
        suffix: of the annotation files, such as ``.xml``.
        problems: gets the names that stand twice.

    Raises:
        InputError: the list cannot be read, or has no line.
    """
    list_file = config.splits[split].list
    if list_file is None:
        return sorted(path.stem for path in folder.glob(f"*{suffix}"))
    return read_list(find_file(config, list_file), problems, "image name without suffix")


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
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: cannot be read: it is not UTF-8 text") from None
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
    for stem in list_stems(config, split, folder, suffix, problems):
        path = path_inside(folder, f"{stem}{suffix}", f"{config.name} {split}")
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


def find_image(folder: Path, stem: str, name: str, where: str) -> Path:
    """The image of a name; if it is not there, the one of the same stem with any usual suffix.

    Args:
        folder: of the images, absolute.
        stem: of the annotation file.
        name: of the image, which is tried first.
        where: what error messages call the origin.

    Returns:
        The path, of ``name`` where there is no such image at all.

    Raises:
        InputError: the name leads out of the folder.
    """
    named = path_inside(folder, name, where)
    if os.path.isfile(named):  # noqa: PTH113 (False for a name that is too long, where Path has an error)
        return named
    for suffix in IMAGE_SUFFIXES:
        for other in (stem + suffix, stem + suffix.upper()):
            if os.path.isfile(folder / other):  # noqa: PTH113
                return folder / other
    return named
