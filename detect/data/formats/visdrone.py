"""VisDrone's annotation format: for each image a text file with a line for each object.

``left,top,width,height,score,category,truncation,occlusion``, pixels of the image. Category 0 is a region to be
ignored, 1 to 10 are the classes, 11 is "others", which the benchmark evaluates in no class. A score of 0 says that the
object is not evaluated.

Source: https://github.com/VisDrone/VisDrone2018-DET-toolkit, README ("Annotation format").

Letters: N images, K classes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable, Problems, encode_paths
from detect.data.checks import check_distinct, find_folder, inspect_images
from detect.data.formats.label_files import ALL_CLASSES, BoxLines, read_lines, table_of_lines
from detect.data.formats.stems import find_image, read_annotation_files
from detect.data.walking import is_image_name
from detect.errors import InputError, did_you_mean

NAMES = ("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor")
"""The classes that the benchmark evaluates, categories 1 to 10."""

OTHERS = "others"
"""Category 11."""

BAD_FILE = "annotation files that are missing or damaged (their images are skipped)"
BAD_LINE = "lines that are not left,top,width,height,score,category,truncation,occlusion (skipped)"
UNKNOWN_CATEGORY = "objects of a category that VisDrone does not have (skipped)"
IN_NO_CLASS = "objects of category 11, others, which is evaluated in no class (skipped; names may list it)"
NO_FILE = "images without an annotation file (skipped)"


def read_visdrone(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split.

    Images are numbered 1..N in the order of the list file, or, without one, of the sorted annotation files. An ignored
    region (category 0) becomes a crowd region of every class, an object with a score of 0 one of its class. Damaged
    files, lines and images are skipped and counted in the table's ``problems``.

    Args:
        config: the data set. ``names`` chooses among VisDrone's ten classes and "others"; default, the ten.
        split: a key of ``config.splits``.

    Raises:
        InputError: the list or a folder is missing, a name leads out of its folder, or no image can be used.
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
    boxes = BoxLines()
    for row, source in enumerate(rows):
        for number, line in enumerate(files[stems[source]], start=1):
            _parse_line(line, row, f"{stems[source]}.txt:{number}", config.names is None, label_of, boxes, problems)
    category_ids = np.array([(*NAMES, OTHERS).index(name) + 1 for name in names], np.int64)
    skipped = [*unread, *(path for path, is_fine in zip(paths, is_good, strict=True) if not is_fine)]
    good = [paths[row] for row in rows]
    table = table_of_lines(good, sizes_hw[is_good], boxes, False, names, category_ids, problems)
    return dataclasses.replace(table, skipped_paths=encode_paths(skipped))


def _label_of_category(names: tuple[str, ...]) -> dict[int, int]:
    """Class index by category number."""
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
    line: str, row: int, place: str, by_default: bool, label_of: dict[int, int], boxes: BoxLines, problems: Problems
) -> None:
    """Put the object of a line to the others, or count why not.

    Args:
        line: of an annotation file; one without anything is passed over.
        row: of the image.
        place: file and line number.
        by_default: the classes were not chosen, so that category 11 is told.
        label_of: class index by category number.
        boxes: gets the object.
        problems: gets what is wrong.
    """
    if not line.strip():
        return
    fields = line.strip().rstrip(",").split(",")  # some published files end their lines with a comma
    try:
        left, top, width, height = (float(text) for text in fields[:4])
        score, category, truncation, occlusion = (int(text) for text in fields[4:])
    except ValueError:
        problems.add(BAD_LINE, f"{place}: {line[:80]!r}")
        return
    if score not in (0, 1) or max(abs(truncation), abs(occlusion)) > 127:
        problems.add(BAD_LINE, f"{place}: {line[:80]!r}")
    elif category == 0:
        boxes.add(row, ALL_CLASSES, (left, top, width, height), place)
    elif category in label_of:
        marks = (truncation, occlusion)
        boxes.add(row, label_of[category], (left, top, width, height), place, score == 0, marks)
    elif category == len(NAMES) + 1:
        if by_default:
            problems.add(IN_NO_CLASS, place)
    elif not 1 <= category <= len(NAMES):
        problems.add(UNKNOWN_CATEGORY, f"{place}: {category}")
