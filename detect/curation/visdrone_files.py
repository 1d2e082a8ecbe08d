"""Writing VisDrone txt: a file for each image, with the benchmark's ten classes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from detect.config.data import SplitConfig
from detect.curation.regions import of_every_class
from detect.curation.target import Target, annotation_file, write_lines
from detect.curation.voc_files import plain_number
from detect.data.annotations import MARKS, AnnotationTable
from detect.data.formats.visdrone import NAMES, OTHERS
from detect.errors import InputError

OTHER_CLASS = "boxes of classes that VisDrone does not have (written as category 11, others)"


def visdrone_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of the new data set: VisDrone's among ``names``, and "others" if there are more.

    Raises:
        InputError: VisDrone has none of them.
    """
    known = tuple(name for name in names if name in NAMES)
    if not known:
        shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        raise InputError(f"--to visdrone: its classes are {', '.join(NAMES)}; the data has none of them, but {shown}")
    return known if len(known) == len(names) else (*known, OTHERS)


def write_visdrone(target: Target, folder: Path) -> SplitConfig:
    """Write ``<split>/annotations/*.txt``; an image without boxes gets an empty file.

    A crowd region is an object with a score of 0, one that is there for every class an ignored region. Coordinates are
    written in full, not rounded to whole pixels.

    Args:
        target: the split.
        folder: of the new data set.

    Returns:
        The split's section of the new data config.
    """
    table = target.table
    annotations = f"{target.split}/annotations"
    is_ignored = of_every_class(table)
    for row, name in enumerate(target.image_names):
        write_lines(annotation_file(folder / annotations, name, ".txt"), _lines(table, row, is_ignored))
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


def _lines(table: AnnotationTable, row: int, is_ignored: np.ndarray) -> list[str]:
    """The lines of image ``row``; a region that ``is_ignored``, (M,) bool, for every class is one line."""
    lines: dict[str, None] = {}
    others = []
    for box in range(table.box_offsets[row], table.box_offsets[row + 1]):
        sides = ",".join(map(plain_number, table.exact_xywh_px[box].tolist()))
        if is_ignored[box]:
            lines[f"{sides},0,0,0,0"] = None
        else:
            marks = ",".join(str(table.marks[mark][box]) if mark in table.marks else "0" for mark in MARKS)
            others.append(f"{sides},{int(not table.is_crowd[box])},{_category(table, box)},{marks}")
    return [*lines, *others]


def _category(table: AnnotationTable, box: int) -> int:
    name = table.names[table.labels[box]]
    return NAMES.index(name) + 1 if name in NAMES else len(NAMES) + 1
