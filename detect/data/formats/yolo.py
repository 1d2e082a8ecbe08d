"""The YOLO format: one text file per image with a line for each object.

``class cx cy w h``: the class number, the box's centre, width and height as shares of the image with its EXIF
orientation applied. ``class x1 y1 x2 y2 x3 y3 ...`` is an outline, whose box is taken. ``images/train/a.jpg`` has its
lines in ``labels/train/a.txt``; an image without a label file is background.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np

from detect.boxes.convert import xywh_to_cxcywh
from detect.config.data import DataConfig, SplitConfig
from detect.config.yaml_files import dump_yaml
from detect.data.annotations import AnnotationTable, Problems, encode_paths
from detect.data.checks import check_distinct, find_file, find_folder, inspect_images
from detect.data.folders import find_unread, is_image_name, walk_files
from detect.data.formats.annotation_files import REPEATED_STEM, BoxLine, read_lines, read_list, table_of_boxes
from detect.data.formats.image_names import ImageList, is_file
from detect.data.formats.layouts import has_suffix, side_by_side, sorted_splits, split_of, subfolders
from detect.data.formats.writing import Target, annotation_file, write_lines
from detect.data.formats.yolo_rows import COMMAS, LongRow, Row, meaning_of_long_rows, parse_row, split_row
from detect.errors import InputError
from detect.runtime.files import write_text
from detect.runtime.logs import LOGGER

MAX_CLASSES = 10_000
"""Larger class numbers are damage where the number of classes is unknown."""

BAD_FILE = "label files that cannot be read (their images are skipped)"
BAD_LINE = "lines that are not a class number and cx cy w h, or an outline (skipped)"
UNKNOWN_CLASS = "objects whose class number is beyond the names (skipped)"
SHARED_LABELS = "label files that several images share (kept: each image has these objects)"
NO_IMAGE = "label files without an image (skipped)"
UNREADABLE_FOLDER = "folders that cannot be read (skipped)"
CROWD = "crowd regions (left out: a label has no place for them, and as boxes they would be trained on)"
MARK = "truncated or occluded boxes (the boxes are kept, the marks are not)"

DIGITS = 12
"""Significant digits of a written share: 10,000 px times half of 1e-12, for centre and size, is below 1e-7 px."""

CLASSES_FILES = ("classes.txt", "obj.names", "_darknet.labels")
"""Lists of class names, one per line, as labelling tools write them beside the labels."""

LIST_SUFFIX = ".txt"  # of a file that lists images
_LABELS = {"images": "labels", "Images": "Labels", "JPEGImages": "labels"}  # folder of images to that of their labels


def read_yolo(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Images are numbered 1..N in the order of the list, or, without one, of their sorted paths below ``images``. If no
    image has a label file, the split counts as published without annotations. Damaged files, lines and images are
    skipped and counted in the table's ``problems``.

    Args:
        config: the data set. ``names`` are those of the classes 0, 1, ...; default, the lines of ``classes.txt`` in the
            labels' folder, above it or in the root; else the numbers up to the largest of the split ``train`` (of this
            split if there is none).
        split: a key of ``config.splits``.

    Raises:
        InputError: the list or a folder is missing, or no image can be used.
    """
    problems = Problems()
    paths, labels = find_files(config, split, problems)
    section = config.splits[split]
    if section.list is None and not any(part.lower().endswith(LIST_SUFFIX) for part in section.parts):
        _report_labels_without_image(labels, problems)
    _report_shared_labels(labels, problems)
    files = [_read(path, problems) for path in labels]
    names = _names(config, split, labels, files)
    declared_hw = np.zeros((len(paths), 2), np.int64)
    sizes_hw, is_good = inspect_images(
        paths, declared_hw, problems, f"{config.name} {split}", max_pixels=config.max_pixels
    )
    is_good &= np.array([lines is not None for lines in files])
    if not is_good.any():
        raise InputError(f"{config.name} {split}: no image can be used: {'; '.join(problems.summary())}")
    rows = np.flatnonzero(is_good).tolist()
    boxes, long_row = [], meaning_of_long_rows(files)
    for row, source in enumerate(rows):
        for number, line in enumerate(files[source] or (), start=1):
            place = f"{labels[source].name}:{number}"
            found = _parse_line(line, long_row, place, len(names), problems)
            boxes += [BoxLine(row, int(found.class_number), found.box_xywh, place)] if found else []
    is_labelled = any(path.is_file() for path in labels)
    if not is_labelled:
        LOGGER.warning("%s %s: no image has a label file; the first would be %s", config.name, split, labels[0])
    good, numbers = [paths[row] for row in rows], np.arange(len(names))
    table = table_of_boxes(good, sizes_hw[is_good], boxes, "xywh shares", names, numbers, problems)
    skipped = [path for path, good in zip(paths, is_good, strict=True) if not good]
    return dataclasses.replace(table, is_labelled=is_labelled, skipped_paths=encode_paths(skipped))


def label_file(image: Path, images: Path, labels: Path | None, root: Path) -> Path:
    """Return the path of an image's label file.

    ``labels`` is the folder of the label files, with the subfolders of ``images``, the folder of the split's images.
    None: the last folder ``images`` or ``JPEGImages`` of the path, below the data set's ``root``, is replaced by
    ``labels``; without such a folder, the label file is beside the image.
    """
    if labels is not None:
        inside = image.relative_to(images) if image.is_relative_to(images) else Path(image.name)
        return (labels / inside).with_suffix(".txt")
    parts, start = list(image.parts), len(root.parts) if image.is_relative_to(root) else 0
    for index in reversed(range(start, len(parts) - 1)):
        if parts[index] in _LABELS:
            parts[index] = _LABELS[parts[index]]
            break
    return Path(*parts).with_suffix(".txt")


def find_files(config: DataConfig, split: str, problems: Problems) -> tuple[list[Path], list[Path]]:
    """Find the images of a split, sorted or in the order of its list, and their label files, which need not exist.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        problems: gets unreadable folders and lines that are repeated, not as written or lead out.

    Raises:
        InputError: a folder or a list is missing, or has no images of the data set.
    """
    section = config.splits[split]
    root, images = Path(config.root), Path(os.path.normpath(find_folder(config, section.images)))
    labels = None if section.annotations is None else Path(os.path.normpath(find_folder(config, section.annotations)))
    parts = section.parts or (section.list or section.images,)
    found = []
    for part in parts:
        is_list = part == section.list or part.lower().endswith(LIST_SUFFIX)
        found += _listed(config, part, images, problems) if is_list else _images_below(config, part, problems)
    paths = _distinct(found, problems)
    if not paths:
        why = f": {'; '.join(problems.summary())}" if problems else ""
        raise InputError(f"{images}: has no images for split {split!r}{why}")
    return paths, _label_files(paths, images, labels, root)


def _listed(config: DataConfig, file: str, images: Path, problems: Problems) -> list[Path]:
    """Return the images of a list, whose lines are relative to its own folder, to the root or to the images' folder."""
    path, root = find_file(config, file), Path(config.root)
    finder = ImageList((path.parent, root, images), (root, images), problems)
    return [image for line in read_list(path, problems, "image") if (image := finder.find(line)) is not None]


def _images_below(config: DataConfig, part: str, problems: Problems) -> list[Path]:
    folder = Path(os.path.normpath(find_folder(config, part)))

    def report(error: OSError) -> None:
        problems.add(UNREADABLE_FOLDER, f"{error.filename}: {error.strerror}")

    found = list(walk_files(folder, folder, report))
    problems.merge(find_unread(found))
    return [Path(path) for path in found if is_image_name(path)]


def _distinct(paths: list[Path], problems: Problems) -> list[Path]:
    """Return each path once: lines that are written differently, or two parts of a split, may name one image."""
    distinct: dict[Path, None] = {}
    for path in paths:
        if path in distinct:
            problems.add(REPEATED_STEM, path.name)
        distinct[path] = None
    return list(distinct)


def _label_files(paths: list[Path], images: Path, labels: Path | None, root: Path) -> list[Path]:
    """Return the label file of each image; beside it, where there is no folder for labels and one lies there."""
    files = [label_file(path, images, labels, root) for path in paths]
    is_there = {folder: folder.is_dir() for folder in {file.parent for file in files}}
    return [
        _in_its_case(file if labels is not None or is_there[file.parent] else _beside(path, file))
        for path, file in zip(paths, files, strict=True)
    ]


def _beside(image: Path, otherwise: Path) -> Path:
    file = image.with_suffix(".txt")
    return file if is_file(_in_its_case(file)) else otherwise


def _in_its_case(file: Path) -> Path:
    capital = file.with_suffix(".TXT")
    return capital if not is_file(file) and is_file(capital) else file


def _report_labels_without_image(labels: list[Path], problems: Problems) -> None:
    """Count the label files without an image, in the folders that hold label files of images."""
    known = set(labels)
    for folder in sorted({path.parent for path in labels}):
        for path in sorted(folder.glob("*.txt")):
            if path not in known and path.name not in CLASSES_FILES and not path.name.startswith(("README", ".")):
                problems.add(NO_IMAGE, repr(path.name))


def _report_shared_labels(labels: list[Path], problems: Problems) -> None:
    """Count the images that share a label file, such as a.jpg and a.png."""
    for path, count in Counter(labels).items():
        if count > 1 and path.is_file():
            problems.add(SHARED_LABELS, f"{path.name}, of {count} images")


def _read(path: Path, problems: Problems) -> list[str] | None:
    """Return the lines of a label file, none for a missing file; None, counted, where it cannot be read."""
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
        path = next((folder / name for name in CLASSES_FILES if (folder / name).is_file()), None)
        if path is not None:
            return read_names(path)
    first_words = (words[0] for lines in files for line in lines or () if (words := split_row(line)))
    numbers = [int(word) for word in set(first_words) if word.isascii() and word.isdigit() and len(word) < 6]
    largest = max((number for number in numbers if number < MAX_CLASSES), default=None)
    if largest is None:
        raise InputError(f"{config.name}: no label file names a class, so there are no classes; give names")
    LOGGER.info(
        "%s: nothing names the classes; they are called 0 to %d. A classes.txt in the folder names them, a line each",
        config.name,
        largest,
    )
    return tuple(str(number) for number in range(largest + 1))


def read_names(path: Path) -> tuple[str, ...]:
    """Read distinct class names from a text file, one per line."""
    names = read_list(path, repeated := Problems(), "class")
    if repeated:
        raise InputError(f"{path}: duplicate class: {'; '.join(repeated.summary())}")
    return tuple(names)


# ------------------------------------------------------------------------------------------------- objects


def _parse_line(line: str, long_row: LongRow, place: str, num_classes: int, problems: Problems) -> Row | None:
    """Return the object of a line; None where it is blank or, counted, where it has none."""
    words = split_row(line)
    if not words:
        return None
    found = parse_row(words, long_row)
    if found is None or not found.class_number.is_integer() or found.class_number < 0:
        problems.add(BAD_LINE, f"{place}: {line[:80]!r}")
        return None
    if found.class_number >= num_classes:
        problems.add(UNKNOWN_CLASS, f"{place}: {words[0][:20]} of {num_classes}")
        return None
    if found.kind is not None:
        problems.add(found.kind, place)
    if "," in line:
        problems.add(COMMAS, place)
    return found


# ------------------------------------------------------------------------------------------------- writing


def write_yolo(target: Target, folder: Path) -> SplitConfig:
    """Write ``labels/<split>/*.txt``, and return the split's section of the data config.

    An image without boxes has an empty file.
    """
    table = target.table
    labels = f"labels/{target.split}"
    shares = _shares(table.exact_xywh_px, table.sizes_hw[table.image_of_box])
    for row, name in enumerate(target.image_names):
        here = range(table.box_offsets[row], table.box_offsets[row + 1])
        lines = [_line(table.labels[box], shares[box]) for box in here if not table.is_crowd[box]]
        write_lines(annotation_file(folder / labels, name, ".txt"), lines)
    image_of_box = table.image_of_box
    for box in np.flatnonzero(table.is_crowd).tolist():
        target.losses.add(CROWD, repr(target.image_names[image_of_box[box]]))
    marked = np.any([values != 0 for values in table.marks.values()], axis=0) if table.marks else np.zeros(0, bool)
    for box in np.flatnonzero(marked).tolist():
        target.losses.add(MARK, repr(target.image_names[image_of_box[box]]))
    if not target.stays:
        return SplitConfig(target.images, labels)
    list_file = f"{target.split}.txt"
    write_lines(folder / list_file, target.image_names)
    return SplitConfig(target.images, labels, list_file)


def write_yolo_yaml(folder: Path, splits: dict[str, SplitConfig], names: tuple[str, ...]) -> None:
    """Write ``yolo.yaml``, the data config in the form of tools for YOLO."""
    images = {split: section.images for split, section in splits.items()}
    write_text(folder / "yolo.yaml", dump_yaml({**images, "nc": len(names), "names": dict(enumerate(names))}))


def _shares(xywh_px: np.ndarray, sizes_hw: np.ndarray) -> np.ndarray:
    """Return (M, 4) centre x, centre y, width, height as shares of the image."""
    sizes_wh = sizes_hw[:, ::-1]
    return xywh_to_cxcywh(xywh_px) / np.tile(sizes_wh, 2)


def _line(label: int, shares: np.ndarray) -> str:
    return f"{label} " + " ".join(f"{share:.{DIGITS}g}" for share in shares.tolist())


# -------------------------------------------------------------------------------------------------- layout


def find_yolo(folder: Path) -> dict[str, SplitConfig]:
    """Find the splits of a folder in a layout of YOLO."""
    splits: dict[str, SplitConfig] = {}
    for path in subfolders(folder):
        if (path / "images").is_dir() and (path / "labels").is_dir():
            splits[split_of(path.name) or path.name] = SplitConfig(f"{path.name}/images", f"{path.name}/labels")
    is_other = has_suffix(folder / "labels", ".json") and not has_suffix(folder / "labels", ".txt")
    if is_other or not ((folder / "images").is_dir() and (folder / "labels").is_dir()):
        return sorted_splits(splits or side_by_side(folder, ".txt"))
    for path in subfolders(folder / "images"):
        if (folder / "labels" / path.name).is_dir():
            splits[split_of(path.name) or path.name] = SplitConfig(f"images/{path.name}", f"labels/{path.name}")
    if not splits:
        lists = {split: path for path in sorted(folder.glob("*.txt")) if (split := split_of(path.stem)) is not None}
        splits = {split: SplitConfig("images", "labels", path.name) for split, path in lists.items()}
        splits = splits or {"train": SplitConfig("images", "labels")}
    return sorted_splits(splits)
