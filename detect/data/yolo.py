"""The YOLO format: beside each image a text file with a line for each object.

``class cx cy w h``: the number of the class, the box's centre, width and height as shares of the image as it is shown
(EXIF orientation applied). ``class x1 y1 x2 y2 x3 y3 ...`` is an outline, whose box is taken.
``images/train/a.jpg`` has its lines in ``labels/train/a.txt``; an image without such a file shows nothing but
background.

Letters: N images, K classes.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np

from detect.config.schema import DataConfig
from detect.data.annotations import AnnotationTable, Problems, encode_paths
from detect.data.checks import check_distinct, find_file, find_folder, inspect_images
from detect.data.label_files import BoxLines, read_lines, table_of_lines
from detect.data.stems import read_list
from detect.data.walking import is_image_name, report_left_out, walk_files
from detect.errors import InputError
from detect.runtime.logs import LOGGER

MAX_CLASSES = 10_000
"""Larger class numbers are damage where nothing says how many classes there are."""

BAD_FILE = "label files that cannot be read (their images are skipped)"
BAD_LINE = "lines that are not a class number and cx cy w h, or an outline (skipped)"
UNKNOWN_CLASS = "objects whose class number is beyond the names (skipped)"
OUTLINE = "outlines taken as boxes"
NO_IMAGE = "label files without an image (skipped)"
UNREADABLE_FOLDER = "folders that cannot be read (skipped)"

CLASSES_FILE = "classes.txt"
"""A list of class names, one per line, as labelling tools write it beside the labels."""

_IMAGES, _LABELS = "images", "labels"


def read_yolo(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Images are numbered 1..N in the order of the list, or, without one, of their sorted paths below ``images``. If none
    of them has a label file, the split counts as published without annotations. Damaged files, lines and images are
    skipped and counted in the table's ``problems``.

    Args:
        config: the data set. ``names`` are those of the classes 0, 1, ...; default, the lines of ``classes.txt`` in the
            labels' folder, above it or in the root; else the numbers up to the largest of the split ``train`` (of this
            split if there is none).
        split: a key of ``config.splits``.

    Raises:
        InputError: the list or a folder is missing, a name leads out of the data set, or no image can be used.
    """
    problems = Problems()
    paths, labels = find_files(config, split, problems)
    if config.splits[split].list is None:
        _report_labels_without_image(labels, problems)
    files = [_read(path, problems) for path in labels]
    names = _names(config, split, labels, files)
    sizes_hw, is_good = inspect_images(
        paths, np.zeros((len(paths), 2), np.int64), problems, f"{config.name} {split}", config.max_pixels
    )
    is_good &= np.array([lines is not None for lines in files])
    if not is_good.any():
        raise InputError(f"{config.name} {split}: no image can be used: {'; '.join(problems.summary())}")
    rows = np.flatnonzero(is_good).tolist()
    boxes = BoxLines()
    for row, source in enumerate(rows):
        for number, line in enumerate(files[source] or (), start=1):
            _parse_line(line, row, f"{labels[source].name}:{number}", len(names), boxes, problems)
    is_labelled = any(path.is_file() for path in labels)
    if not is_labelled:
        LOGGER.warning("%s %s: no image has a label file; the first would be %s", config.name, split, labels[0])
    good, numbers = [paths[row] for row in rows], np.arange(len(names))
    table = table_of_lines(good, sizes_hw[is_good], boxes, True, names, numbers, problems)
    skipped = [path for path, good in zip(paths, is_good, strict=True) if not good]
    return dataclasses.replace(table, is_labelled=is_labelled, skipped_paths=encode_paths(skipped))


def label_file(image: Path, images: Path, labels: Path | None, root: Path) -> Path:
    """Where the lines of an image are.

    Args:
        image: its path.
        images: the folder of the split's images.
        labels: the folder of the label files, whose folders are those of ``images``. Without it, the last folder
            ``images`` of the path, below ``root``, is ``labels`` instead; where there is none, they lie together.
        root: of the data set.
    """
    if labels is not None:
        inside = image.relative_to(images) if image.is_relative_to(images) else Path(image.name)
        return (labels / inside).with_suffix(".txt")
    parts, start = list(image.parts), len(root.parts) if image.is_relative_to(root) else 0
    for index in reversed(range(start, len(parts) - 1)):
        if parts[index] == _IMAGES:
            parts[index] = _LABELS
            break
    return Path(*parts).with_suffix(".txt")


def find_files(config: DataConfig, split: str, problems: Problems) -> tuple[list[Path], list[Path]]:
    """The images of a split, sorted or as listed, and their label files, there or not.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        problems: gets folders that cannot be read, and lines that stand twice.

    Raises:
        InputError: a folder or the list is missing, has no images, or leads out of the data set.
    """
    section = config.splits[split]
    root, images = Path(config.root), Path(os.path.normpath(find_folder(config, section.images)))
    labels = None if section.annotations is None else Path(os.path.normpath(find_folder(config, section.annotations)))

    def report(error: OSError) -> None:
        problems.add(UNREADABLE_FOLDER, f"{error.filename}: {error.strerror}")

    if section.list is not None:
        paths = _listed(find_file(config, section.list), root, images, problems)
    else:
        found = list(walk_files(images, images, report))
        paths = [Path(path) for path in found if is_image_name(path)]
        report_left_out(found, problems)
    if not paths:
        raise InputError(f"{images}: has no images for split {split!r}")
    return paths, [label_file(path, images, labels, root) for path in paths]


def _listed(path: Path, root: Path, images: Path, problems: Problems) -> list[Path]:
    """The images of a list; a line is relative to the list's own folder, to the root or to the images' folder."""
    return [
        _image_of_line(line, path, (path.parent, root, images), problems) for line in read_list(path, problems, "image")
    ]


def _image_of_line(line: str, path: Path, folders: tuple[Path, ...], problems: Problems) -> Path:
    candidates = [Path(os.path.normpath(folder / line)) for folder in folders]
    allowed = [one for one in candidates if any(one.is_relative_to(folder) for folder in folders[1:])]
    if not allowed or "\0" in line:
        raise InputError(f"{path}: {line[:100]!r} leads out of the data set's root {folders[1]}; refused")
    return next((one for one in allowed if one.is_file()), allowed[-1])


def _report_labels_without_image(labels: list[Path], problems: Problems) -> None:
    """Count the label files that belong to no image, in the folders where there are others."""
    known = set(labels)
    for folder in sorted({path.parent for path in labels}):
        for path in sorted(folder.glob("*.txt")):
            if path not in known and path.name != CLASSES_FILE:
                problems.add(NO_IMAGE, repr(path.name))


def _read(path: Path, problems: Problems) -> list[str] | None:
    """The lines of a label file, none where there is no such file; None, counted, where it cannot be read."""
    try:
        return read_lines(path) if path.exists() else []
    except InputError as error:
        problems.add(BAD_FILE, str(error))
        return None


# ------------------------------------------------------------------------------------------------ classes


def _names(config: DataConfig, split: str, labels: list[Path], files: list[list[str] | None]) -> tuple[str, ...]:
    if config.names is not None:
        check_distinct(config.names)
        return config.names
    if split != "train" and "train" in config.splits:
        labels = find_files(config, "train", Problems())[1]
        files = [_read(path, Problems()) for path in labels]
    for folder in (labels[0].parent, *labels[0].parent.parents):
        if not folder.is_relative_to(config.root):
            break
        if (folder / CLASSES_FILE).is_file():
            names = read_list(folder / CLASSES_FILE, repeated := Problems(), "class")
            if repeated:
                raise InputError(f"{folder / CLASSES_FILE}: a class stands twice: {'; '.join(repeated.summary())}")
            return tuple(names)
    first_words = (line.split(None, 1)[0] for lines in files for line in lines or () if line.strip())
    numbers = [int(word) for word in set(first_words) if word.isascii() and word.isdigit() and len(word) < 6]
    largest = max((number for number in numbers if number < MAX_CLASSES), default=None)
    if largest is None:
        raise InputError(f"{config.name}: no label file names a class, so there are no classes; give names")
    LOGGER.info("%s: nothing names the classes; they are called 0 to %d. Give names", config.name, largest)
    return tuple(str(number) for number in range(largest + 1))


# -------------------------------------------------------------------------------------------------- lines


def _parse_line(line: str, row: int, place: str, num_classes: int, boxes: BoxLines, problems: Problems) -> None:
    """Put the object of a line to the others, or count why not."""
    words = line.split()
    if not words:
        return
    try:
        number, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        number, values = -1.0, []
    is_outline = len(values) >= 6 and len(values) % 2 == 0
    if not (len(values) == 4 or is_outline) or not number.is_integer() or number < 0:
        problems.add(BAD_LINE, f"{place}: {line[:80]!r}")
    elif number >= num_classes:
        problems.add(UNKNOWN_CLASS, f"{place}: {words[0][:20]} of {num_classes}")
    else:
        if is_outline:
            problems.add(OUTLINE, place)
        boxes.add(row, int(number), _box_of_outline(values) if is_outline else _box(values), place)


def _box(values: list[float]) -> tuple[float, float, float, float]:
    """Left, top, width, height of centre, width, height."""
    x, y, width, height = values
    return x - width / 2, y - height / 2, width, height


def _box_of_outline(values: list[float]) -> tuple[float, float, float, float]:
    """Left, top, width, height of x y x y ...; not finite where any of them is not."""
    if not all(math.isfinite(value) for value in values):
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
