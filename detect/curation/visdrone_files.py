"""Writing VisDrone txt: a file for each image, with the benchmark's ten classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from detect.config.schema import SplitConfig
from detect.curation.target import Target
from detect.curation.voc_files import plain_number
from detect.data.annotations import MARKS, AnnotationTable
from detect.data.visdrone import NAMES, OTHERS
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
    for row, name in enumerate(target.image_names):
        path = folder / annotations / PurePosixPath(name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in _lines(target, row)), encoding="utf-8")
    image_of_box = table.image_of_box
    for box, label in enumerate(table.labels.tolist()):
        if table.names[label] not in (*NAMES, OTHERS):
            example = f"{table.names[label][:40]!r} in {target.image_names[image_of_box[box]]!r}"
            target.losses.add(OTHER_CLASS, example)
    if not target.stays:
        return SplitConfig(target.images, annotations)
    list_file = f"{target.split}/images.txt"
    stems = [str(PurePosixPath(name).with_suffix("")) for name in target.image_names]
    (folder / list_file).write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    return SplitConfig(target.images, annotations, list_file)


def _lines(target: Target, row: int) -> list[str]:
    table = target.table
    here = range(table.box_offsets[row], table.box_offsets[row + 1])
    boxes = {box: ",".join(map(plain_number, table.exact_xywh_px[box].tolist())) for box in here}
    regions = Counter(boxes[box] for box in here if table.is_crowd[box])
    everywhere = [text for text, count in regions.items() if count == len(table.names) > 1]
    lines = [f"{text},0,0,0,0" for text in everywhere]
    for box in here:
        if not (table.is_crowd[box] and boxes[box] in everywhere):
            marks = ",".join(str(table.marks[mark][box]) if mark in table.marks else "0" for mark in MARKS)
            lines.append(f"{boxes[box]},{int(not table.is_crowd[box])},{_category(table, box)},{marks}")
    return lines


def _category(table: AnnotationTable, box: int) -> int:
    name = table.names[table.labels[box]]
    return NAMES.index(name) + 1 if name in NAMES else len(NAMES) + 1
