"""VisDrone's annotation format: one text file per image with a line for each object.

``left,top,width,height,score,category,truncation,occlusion``, in pixels of the image. Category 0 is an ignored region,
1 to 10 are the classes, 11 is "others", which the benchmark evaluates in no class. An object with a score of 0 is not
evaluated.

Source: https://github.com/VisDrone/VisDrone2018-DET-toolkit, README ("Annotation format").

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath

import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems, encode_paths
from detect.data.checks import check_distinct, find_folder, inspect_images
from detect.data.folders import (
    is_image_name,
    sorted_splits,
    split_of,
    subfolders,
)
from detect.data.formats.annotation_files import ALL_CLASSES, BoxLine, read_annotation_files, read_lines, table_of_boxes
from detect.data.formats.image_names import find_image
from detect.data.formats.writing import Target, annotation_file, ignored_in_all_classes, plain_number, write_lines
from detect.errors import InputError, did_you_mean

NAMES = ("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor")
"""The classes that the benchmark evaluates, categories 1 to 10."""

OTHERS = "others"  # category 11

BAD_FILE = "annotation files that are missing or damaged (their images are skipped)"
BAD_LINE = "lines that are not left,top,width,height,score,category,truncation,occlusion (skipped)"
UNKNOWN_CATEGORY = "objects of a category that VisDrone does not have (skipped)"
IN_NO_CLASS = "objects of category 11, others, which is evaluated in no class (skipped; names may list it)"
NO_FILE = "images without an annotation file (skipped)"
OTHER_CLASS = "boxes of classes that VisDrone does not have (written as category 11, others)"

_FOLDER = re.compile(r"(?:VisDrone\d*-DET-)?(.+)")


def read_visdrone(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Images are numbered 1..N in the order of the list file, or, without one, of the sorted annotation files. An ignored
    region (category 0) becomes a crowd region of every class, an object with a score of 0 one of its class. Damaged
    files, lines and images are skipped and counted in the table's ``problems``.

    Args:
        config: the data set. ``names`` selects among VisDrone's ten classes and "others"; default, the ten.
        split: a key of ``config.splits``.

    Raises:
        InputError: the list or a folder is missing, or no image can be used.
    """
    problems = Problems()
    names = config.names or NAMES
    label_of = _label_of_category(names)
    files, unread_stems = read_annotation_files(
        config, split, ".txt", lambda path, _: read_lines(path), BAD_FILE, problems
    )
    stems = list(files)
    folder = find_folder(config, config.splits[split].images).resolve()
    paths, unread = ([find_image(folder, stem) for stem in some] for some in (stems, unread_stems))
    if config.splits[split].list is None:
        _report_images_without_file(folder, {*paths, *unread}, problems)
    sizes_hw, is_good = inspect_images(
        paths, np.zeros((len(paths), 2), np.int64), problems, f"{config.name} {split}", max_pixels=config.max_pixels
    )
    rows = np.flatnonzero(is_good).tolist()
    boxes = []
    for row, source in enumerate(rows):
        for number, line in enumerate(files[stems[source]], start=1):
            place = f"{stems[source]}.txt:{number}"
            box = _parse_line(line, row, place, label_of, config.names is None, problems) if line.strip() else None
            boxes += [box] if box else []
    category_ids = np.array([(*NAMES, OTHERS).index(name) + 1 for name in names], np.int64)
    skipped = [*unread, *(path for path, is_fine in zip(paths, is_good, strict=True) if not is_fine)]
    good = [paths[row] for row in rows]
    table = table_of_boxes(good, sizes_hw[is_good], boxes, "xywh px", names, category_ids, problems)
    return dataclasses.replace(table, skipped_paths=encode_paths(skipped))


def _label_of_category(names: tuple[str, ...]) -> dict[int, int]:
    """Return the class index by category number."""
    known = (*NAMES, OTHERS)
    for name in names:
        if name not in known:
            raise InputError(f"names: {name!r} is no class of VisDrone{did_you_mean(name, known)}")
    check_distinct(names)
    return {known.index(name) + 1: label for label, name in enumerate(names)}


def _report_images_without_file(folder: Path, known: set[Path], problems: Problems) -> None:
    for path in sorted(folder.iterdir()):
        if is_image_name(path.name) and path not in known:
            problems.add(NO_FILE, repr(path.name))


def _parse_line(
    line: str, row: int, place: str, label_of: dict[int, int], report_others: bool, problems: Problems
) -> BoxLine | None:
    """Return the object of a line, or None, counted unless it is of a class that is not wanted.

    Args:
        line: of an annotation file.
        row: of the image.
        place: file and line number.
        label_of: class index by category number.
        report_others: count objects of category 11.
        problems: gets the problem.
    """
    fields = line.strip().rstrip(",").split(",")  # some published files end their lines with a comma
    try:
        left, top, width, height = (float(text) for text in fields[:4])
        score, category, truncation, occlusion = (int(text) for text in fields[4:])
    except ValueError:
        problems.add(BAD_LINE, f"{place}: {line[:80]!r}")
        return None
    box, marks = (left, top, width, height), (truncation, occlusion)
    if score not in (0, 1) or max(map(abs, marks)) > 127:
        problems.add(BAD_LINE, f"{place}: {line[:80]!r}")
        return None
    if category == 0:
        return BoxLine(row, ALL_CLASSES, box, place)
    if category in label_of:
        return BoxLine(row, label_of[category], box, place, score == 0, marks)
    if category == len(NAMES) + 1 and report_others:
        problems.add(IN_NO_CLASS, place)
    elif not 1 <= category <= len(NAMES) + 1:
        problems.add(UNKNOWN_CATEGORY, f"{place}: {category}")
    return None


# ------------------------------------------------------------------------------------------------- writing


def visdrone_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes of the new data set: VisDrone's among ``names``, and "others" if there are more.

    Raises:
        InputError: ``names`` has no class of VisDrone.
    """
    known = tuple(name for name in names if name in NAMES)
    if not known:
        shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        raise InputError(f"--to visdrone: its classes are {', '.join(NAMES)}; the data has none of them, but {shown}")
    return known if len(known) == len(names) else (*known, OTHERS)


def write_visdrone(target: Target, folder: Path) -> SplitConfig:
    """Write ``<split>/annotations/*.txt``, and return the split's section of the data config.

    A crowd region is an object with a score of 0, one of every class an ignored region; an image without boxes has an
    empty file. Coordinates are not rounded.
    """
    table = target.table
    annotations = f"{target.split}/annotations"
    is_ignored = ignored_in_all_classes(table)
    xywh_px = table.exact_xywh_px
    for row, name in enumerate(target.image_names):
        write_lines(annotation_file(folder / annotations, name, ".txt"), _lines(table, row, xywh_px, is_ignored))
    image_of_box = table.image_of_box
    for box, label in enumerate(table.labels.tolist()):
        if table.names[label] not in (*NAMES, OTHERS) and not is_ignored[box]:
            example = f"{table.names[label][:40]!r} in {target.image_names[image_of_box[box]]!r}"
            target.losses.add(OTHER_CLASS, example)
    if not target.stays:
        return SplitConfig(target.images, annotations)
    list_file = f"{target.split}/images.txt"
    stems = [str(PurePosixPath(name).with_suffix("")) for name in target.image_names]
    write_lines(folder / list_file, stems)
    return SplitConfig(target.images, annotations, list_file)


def _lines(table: AnnotationTable, row: int, xywh_px: np.ndarray, is_ignored: np.ndarray) -> list[str]:
    """Return the lines of image ``row``; ``is_ignored`` (M,) bool marks regions of every class, which are one line."""
    lines: dict[str, None] = {}
    others = []
    for box in range(table.box_offsets[row], table.box_offsets[row + 1]):
        sides = ",".join(map(plain_number, xywh_px[box].tolist()))
        if is_ignored[box]:
            lines[f"{sides},0,0,0,0"] = None
        else:
            marks = ",".join(str(table.marks[mark][box]) if mark in table.marks else "0" for mark in MARKS)
            others.append(f"{sides},{int(not table.is_crowd[box])},{_category(table, box)},{marks}")
    return [*lines, *others]


def _category(table: AnnotationTable, box: int) -> int:
    name = table.names[table.labels[box]]
    return NAMES.index(name) + 1 if name in NAMES else len(NAMES) + 1


# -------------------------------------------------------------------------------------------------- layout


def find_visdrone(folder: Path) -> dict[str, SplitConfig]:
    """Find the splits of a folder in VisDrone's layout."""
    splits: dict[str, SplitConfig] = {}
    for path in (folder, *subfolders(folder)):
        if (path / "images").is_dir() and any((path / "annotations").glob("*.txt")):
            found = _FOLDER.fullmatch(path.resolve().name)
            split = (split_of(found[1]) if found else None) or ("train" if path == folder else path.name)
            inside = "" if path == folder else f"{path.name}/"
            splits[split] = SplitConfig(f"{inside}images", f"{inside}annotations")
    return sorted_splits(splits)
