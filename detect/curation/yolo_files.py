"""Writing YOLO txt: a file for each image, with shares of its width and height."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detect.boxes.convert import xywh_to_cxcywh
from detect.config.base import dump_yaml
from detect.config.data import SplitConfig
from detect.curation.target import Target, annotation_file, write_lines
from detect.runtime.files import write_text

CROWD = "crowd regions (left out: a label has no place for them, and as boxes they would be trained on)"
MARK = "truncated or occluded boxes (the boxes are kept, the marks are not)"

DIGITS = 12
"""Significant digits of a share: 10,000 px times half of 1e-12, for centre and size, is below 1e-7 px."""


def write_yolo(target: Target, folder: Path) -> SplitConfig:
    """Write ``labels/<split>/*.txt``; an image without boxes gets an empty file.

    Args:
        target: the split.
        folder: of the new data set.

    Returns:
        The split's section of the new data config.
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
    """Write ``yolo.yaml``, the same as tools for YOLO read it.

    Args:
        folder: of the new data set.
        splits: of the new data config.
        names: K class names.
    """
    images = {split: section.images for split, section in splits.items()}
    write_text(folder / "yolo.yaml", dump_yaml({**images, "nc": len(names), "names": dict(enumerate(names))}))


def _shares(xywh_px: np.ndarray, sizes_hw: np.ndarray) -> np.ndarray:
    """(M, 4) centre x, centre y, width, height as shares of the image."""
    sizes_wh = sizes_hw[:, ::-1]
    return xywh_to_cxcywh(xywh_px) / np.tile(sizes_wh, 2)


def _line(label: int, shares: np.ndarray) -> str:
    return f"{label} " + " ".join(f"{share:.{DIGITS}g}" for share in shares.tolist())
