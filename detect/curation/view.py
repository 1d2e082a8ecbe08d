"""Draw ground truth: a picture per image, and a contact sheet.

Letters: H W pixels of an image, m boxes of it, N images of the split, M boxes of the split, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from detect.boxes.convert import box_areas, box_sizes
from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.datasets import open_split
from detect.data.formats.writing import ignored_in_all_classes, relative_names, safe_names
from detect.data.images import ImageError, write_image
from detect.drawing.boxes import draw_boxes, draw_frames
from detect.drawing.sheets import PANEL_PX, Panel, fitted, panel_sheet
from detect.errors import InputError, did_you_mean
from detect.runtime.logs import LOGGER
from detect.runtime.reproducibility import generator

SHEET = "sheet.jpg"
"""Contact sheet of all pictures."""

MIN_LONG_SIDE_PX = 640
"""Smaller images are enlarged to it, to have room for lines and labels."""

MIN_FRAME_PX = 8
"""Side of the smallest frame in a picture of ``MIN_LONG_SIDE_PX``, and in proportion. It is drawn around the centre of
a smaller box, so that the object stays visible."""

MIN_FRAME_ON_SHEET_PX = 4  # the same in a tile of the sheet
MAX_ON_SHEET = 240  # images

_COLUMNS = 6
_STREAM = 72  # of the random numbers


@dataclass(frozen=True)
class Truth:
    """The boxes of one image.

    Args:
        boxes_xyxy_px: (m, 4), pixels of the image that they are drawn into.
        labels: (m,) class index.
        is_crowd: (m,) bool.
        is_ignored: (m,) bool, crowd regions of every class.
    """

    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    is_ignored: np.ndarray

    def summary(self) -> str:
        crowds = f", {self.is_crowd.sum()} crowd" if self.is_crowd.any() else ""
        return f"{(~self.is_crowd).sum()} boxes{crowds}"


def view_data(
    config: DataConfig, split: str, folder: Path, count: int, wanted: Sequence[str] = (), seed: int = 0
) -> list[str]:
    """Draw the boxes of images of a split, with class names, and return the lines of the report; crowd regions are
    dashed.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        folder: of the pictures.
        count: number of random images, if none is ``wanted``.
        wanted: names of images as in the annotations, with or without suffix or folders.
        seed: selects the images.

    Raises:
        InputError: the split cannot be read, or there is no such image.
    """
    table = open_split(config, split)
    is_ignored = ignored_in_all_classes(table)
    names = relative_names(table, Path(config.root, config.splits[split].images))
    if wanted:
        rows = list(dict.fromkeys(row for name in wanted for row in _find(name, names, split)))
    else:
        chosen = generator(seed, _STREAM).permutation(len(table))[:count]
        rows = sorted(chosen.tolist())
    files = safe_names([SHEET, *(names[row] for row in rows)], True, Problems())[1:]
    tiles: list[Panel] = []
    lines = []
    for row, file in zip(rows, files, strict=True):
        try:
            image = table.read(row)
        except ImageError as error:
            LOGGER.warning("%s", error)
            continue
        truth = _truth(table, row, is_ignored)
        target = folder / f"{PurePosixPath(file).stem}.jpg"
        write_image(target, draw_truth(image, truth, table.names))
        if len(tiles) < MAX_ON_SHEET:
            tiles.append(Panel(_small(image, truth), (names[row], truth.summary())))
        lines.append(f"{names[row]!r}: {truth.summary()} -> {target}")
    if not lines:
        raise InputError(f"{config.name} {split}: none of the {len(rows)} images could be read")
    write_image(folder / SHEET, panel_sheet(tiles, min(_COLUMNS, len(tiles))))
    return [*lines, f"{len(tiles)} of them on one sheet: {folder / SHEET}"]


def draw_truth(image_rgb: np.ndarray, truth: Truth, names: Sequence[str]) -> np.ndarray:
    """Draw the boxes into an image (H, W, 3) uint8 RGB, the small ones on top; a small image is enlarged."""
    side = max(*image_rgb.shape[:2], MIN_LONG_SIDE_PX)
    picture, shown = _scaled(image_rgb, truth, side, MIN_FRAME_PX * side / MIN_LONG_SIDE_PX)
    captions = [_caption(shown, index, names) for index in range(len(shown.labels))]
    return draw_boxes(picture, shown.boxes_xyxy_px, shown.labels, captions, shown.is_crowd)


def _truth(table: AnnotationTable, row: int, is_ignored: np.ndarray) -> Truth:
    """Return the boxes of image ``row``; ``is_ignored`` (M,) bool marks regions of every class, which are kept once."""
    boxes, labels, is_crowd = table.boxes(row)
    ignored = is_ignored[table.box_offsets[row] : table.box_offsets[row + 1]]
    keep = ~ignored | (labels == 0)
    return Truth(boxes[keep], labels[keep], is_crowd[keep], ignored[keep])


def _caption(truth: Truth, index: int, names: Sequence[str]) -> str:
    if truth.is_ignored[index]:
        return "(ignored)"
    return names[truth.labels[index]] + " (crowd)" * bool(truth.is_crowd[index])


def _small(image_rgb: np.ndarray, truth: Truth) -> np.ndarray:
    picture, shown = _scaled(image_rgb, truth, PANEL_PX, MIN_FRAME_ON_SHEET_PX)
    return draw_frames(picture, shown.boxes_xyxy_px, shown.labels, shown.is_crowd)


def _scaled(image_rgb: np.ndarray, truth: Truth, side: int, least_px: float) -> tuple[np.ndarray, Truth]:
    """Scale an image to a long side of ``side`` pixels and its boxes, smallest first, enlarged to at least
    ``least_px``.
    """
    picture = image_rgb if max(image_rgb.shape[:2]) == side else fitted(image_rgb, side)
    size_wh = np.array(picture.shape[1::-1])
    boxes = truth.boxes_xyxy_px * np.tile(size_wh / np.array(image_rgb.shape[1::-1]), 2)
    missing = np.maximum(least_px - box_sizes(boxes), 0) / 2
    boxes = np.concatenate([boxes[:, :2] - missing, boxes[:, 2:] + missing], axis=1)
    order = np.argsort(box_areas(boxes), kind="stable")
    clipped = np.clip(boxes[order], 0, np.tile(size_wh, 2))
    return picture, Truth(clipped, truth.labels[order], truth.is_crowd[order], truth.is_ignored[order])


def _find(name: str, names: Sequence[str], split: str) -> list[int]:
    found = [row for row, other in enumerate(names) if name in _spellings(other)]
    if not found:
        hint = did_you_mean(name, names if len(names) < 10_000 else names[:100])
        raise InputError(f"--images {name!r}: split {split!r} has no such image{hint if len(hint) < 200 else ''}")
    return found


def _spellings(name: str) -> set[str]:
    path = PurePosixPath(name)
    return {name, str(path.with_suffix("")), path.name, path.stem}
