"""Pictures of an evaluation: images with truth and prediction side by side, and crops around single errors.

Letters: H W pixels, n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detect.boxes.convert import xywh_to_xyxy
from detect.data.annotations import AnnotationTable
from detect.data.images import ImageError, write_image
from detect.drawing.boxes import draw_boxes, draw_frames
from detect.drawing.sheets import Panel, fitted, panel_sheet
from detect.drawing.text import shorten
from detect.evaluation.coco import FoundBoxes
from detect.evaluation.confusion import SCORE
from detect.evaluation.detection import Evaluation
from detect.evaluation.errors import KINDS, RIGHT, Errors, find_errors
from detect.evaluation.matches import ALL_AREAS, Matches, match_by_coco

NUM_WORST, NUM_CROPS = 40, 24
"""Maximum number of images, and of crops of a kind."""

SIDE_PX, CROP_PX, GAP_PX = 420, 180, 6
"""Long side of an image, side of a crop, gap between truth and prediction."""

CONTEXT, MIN_CONTEXT_PX = 3.0, 32
"""Side of a crop as a multiple of the box's, and its least value in pixels."""

NUM_ON_SHEET, PAIR_COLUMNS, PAIR_HW, CROP_COLUMNS = 12, 2, (320, 640), 6
"""Images of a sheet of truth and prediction, its columns and the pixels of a pair; columns of a sheet of crops."""

MAX_CAPTION_NAME = 30
"""Characters of a class name in front of a score, which a label must not lose."""

ENCODINGS = ((1.0, 80), (1.0, 65), (0.8, 60), (0.6, 55), (0.4, 50), (0.2, 40))
"""Scale and JPEG quality of pictures, best first."""


@dataclass(frozen=True)
class Example:
    """A picture and the text below it.

    Args:
        image_rgb: (H, W, 3) uint8; None for an image that cannot be read.
        name: of the file.
        class_name: of the object that it shows; empty for a whole image.
        text: about the picture, to follow the class name.
    """

    image_rgb: np.ndarray | None
    name: str
    class_name: str
    text: str


@dataclass(frozen=True)
class Shown:
    """Detections that pictures show, and their errors.

    Args:
        table: the split.
        found: all detections.
        matches: of the detections above a score, by default that of ``confusion.SCORE``.
        errors: of ``matches``.
    """

    table: AnnotationTable
    found: FoundBoxes
    matches: Matches
    errors: Errors


def show(table: AnnotationTable, found: FoundBoxes, matches: Matches, min_score: float = SCORE) -> Shown:
    """Select the matched detections from a score on, and find their errors."""
    matches = matches.from_score(min_score)
    return Shown(table, found, matches, find_errors(table, found, matches))


def match_and_show(evaluation: Evaluation, min_score: float = SCORE) -> Shown:
    """Return what pictures of an evaluation of a labelled split show."""
    table, found = evaluation.table, evaluation.found.best(evaluation.kept)
    return show(table, found, match_by_coco(table, found, [ALL_AREAS])[0], min_score)


def draw_example_sheets(folder: Path, shown: Shown) -> None:
    """Write ``examples.jpg`` (images evenly spaced over the split) and ``worst.jpg``, left the truth and right the
    prediction, dashed where one has no match in the other; ``false_positives.jpg`` and ``misses.jpg``, crops.
    """
    sheets = {"examples": some_images(shown), "worst": worst_images(shown)[:NUM_ON_SHEET]}
    for name, examples in sheets.items():
        write_image(folder / f"{name}.jpg", panel_sheet(_panels(examples), PAIR_COLUMNS, PAIR_HW))
    for name, examples in {"false_positives": false_positives(shown), "misses": misses(shown)}.items():
        write_image(folder / f"{name}.jpg", panel_sheet(_panels(examples), CROP_COLUMNS))


def _panels(examples: Sequence[Example]) -> list[Panel]:
    return [Panel(e.image_rgb, (e.name, f"{e.class_name}{e.text}")) for e in examples if e.image_rgb is not None]


def some_images(shown: Shown) -> list[Example]:
    """Images evenly spaced over the split."""
    wrong, missing = _errors_by_image(shown)
    count = min(NUM_ON_SHEET, len(shown.table))
    rows = np.arange(count) * len(shown.table) // max(count, 1)
    return [_truth_and_prediction(shown, row, wrong[row], missing[row]) for row in rows.tolist()]


def worst_images(shown: Shown) -> list[Example]:
    """Images with the most errors: wrong detections and objects without a right one."""
    wrong, missing = _errors_by_image(shown)
    order = np.argsort(-(wrong + missing), kind="stable")[:NUM_WORST]
    return [_truth_and_prediction(shown, row, wrong[row], missing[row]) for row in order if wrong[row] + missing[row]]


def _errors_by_image(shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    num_images = len(shown.table)
    wrong = np.bincount(shown.matches.rows[shown.errors.kinds != RIGHT], minlength=num_images)
    missing = np.bincount(shown.table.image_of_box[shown.errors.is_free], minlength=num_images)
    return wrong, missing


def _truth_and_prediction(shown: Shown, row: int, wrong: int, missing: int) -> Example:
    table, matches = shown.table, shown.matches
    text = f"{wrong} wrong, {missing} not found"
    image = _read(table, row)
    if image is None:
        return Example(None, table.path(row).name, "", text)
    small = fitted(image, SIDE_PX)
    factor = small.shape[1] / image.shape[1]
    boxes, labels, is_crowd = table.boxes(row)
    is_free = shown.errors.is_free[table.box_offsets[row] : table.box_offsets[row + 1]]
    captions = ["crowd" if crowd else table.names[k] for k, crowd in zip(labels, is_crowd, strict=True)]
    left = draw_boxes(small, boxes * factor, labels, captions, is_free)
    here = np.flatnonzero(matches.rows == row)
    here = here[np.argsort(-matches.scores[here], kind="stable")]
    corners = xywh_to_xyxy(shown.found.boxes_xywh_px[matches.detections[here]])
    pairs = zip(matches.labels[here], matches.scores[here], strict=True)
    captions = [f"{shorten(table.names[label], MAX_CAPTION_NAME)} {score:.2f}" for label, score in pairs]
    is_wrong = shown.errors.kinds[here] != RIGHT
    right = draw_boxes(small, corners * factor, matches.labels[here], captions, is_wrong)
    gap = np.full((len(small), GAP_PX, 3), 255, np.uint8)
    return Example(np.concatenate([left, gap, right], axis=1), table.path(row).name, "", text)


def false_positives(shown: Shown) -> list[Example]:
    """Crops around the wrong detections of the highest scores."""
    matches = shown.matches
    wrong = np.flatnonzero(shown.errors.kinds != RIGHT)
    wrong = wrong[np.argsort(-matches.scores[wrong], kind="stable")][:NUM_CROPS]
    corners = xywh_to_xyxy(shown.found.boxes_xywh_px[matches.detections[wrong]])
    kinds = list(KINDS)
    texts = [f" {matches.scores[n]:.2f}: {kinds[shown.errors.kinds[n]]}" for n in wrong]
    return _crops(shown.table, matches.rows[wrong], corners, matches.labels[wrong], texts)


def misses(shown: Shown) -> list[Example]:
    """Crops around the largest objects without a right detection."""
    table = shown.table
    free = np.flatnonzero(shown.errors.is_free)
    free = free[np.argsort(-table.areas[free], kind="stable")][:NUM_CROPS]
    texts = [f", {side:.0f} px" for side in np.sqrt(table.areas[free])]
    return _crops(table, table.image_of_box[free], table.boxes_xyxy_px[free], table.labels[free], texts)


def _crops(
    table: AnnotationTable, rows: np.ndarray, corners: np.ndarray, labels: np.ndarray, texts: Sequence[str]
) -> list[Example]:
    examples = []
    for row, box, label, text in zip(rows.tolist(), corners, labels.tolist(), texts, strict=True):
        image = _read(table, row)
        picture = None if image is None else crop(image, box, label)
        examples.append(Example(picture, table.path(row).name, shorten(table.names[label], MAX_CAPTION_NAME), text))
    return examples


def crop(image_rgb: np.ndarray, box_xyxy_px: np.ndarray, label: int) -> np.ndarray:
    """Cut out a square around a box, black beyond the image, and draw the box: (CROP_PX, CROP_PX, 3) uint8."""
    size = float((box_xyxy_px[2:] - box_xyxy_px[:2]).max())
    # Never larger than the image: a box of a damaged file may have any size.
    side = min(int(max(CONTEXT * size, MIN_CONTEXT_PX)), 2 * max(image_rgb.shape[:2]))
    height, width = image_rgb.shape[:2]
    centre = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2
    left, top = np.round(np.clip(centre, 0, (width, height)) - side / 2).astype(int).tolist()
    x, y = max(left, 0), max(top, 0)
    inside = image_rgb[y : max(top + side, 0), x : max(left + side, 0)]
    factor = CROP_PX / side
    square = np.zeros((CROP_PX, CROP_PX, 3), np.uint8)
    if inside.size:
        part = fitted(inside, max(round(max(inside.shape[:2]) * factor), 1))
        place = square[round((y - top) * factor) :, round((x - left) * factor) :][: part.shape[0], : part.shape[1]]
        place[:] = part[: place.shape[0], : place.shape[1]]
    moved = (box_xyxy_px - [left, top, left, top]) * factor
    return draw_frames(square, moved[None], np.array([label]))


def _read(table: AnnotationTable, row: int) -> np.ndarray | None:
    try:
        return table.read(row)
    except ImageError:
        return None


def encode(examples: Sequence[Example], max_bytes: int) -> list[bytes | None]:
    """Encode pictures as JPEG, in the best of ``ENCODINGS`` in which all of them take at most ``max_bytes``."""
    for scale, quality in ENCODINGS:
        encoded = [None if e.image_rgb is None else _jpeg(e.image_rgb, scale, quality) for e in examples]
        if sum(len(data) for data in encoded if data is not None) <= max_bytes:
            return encoded
    return [None] * len(examples)


def _jpeg(image_rgb: np.ndarray, scale: float, quality: int) -> bytes:
    smaller = image_rgb if scale == 1 else fitted(image_rgb, max(round(scale * max(image_rgb.shape[:2])), 1))
    return bytes(cv2.imencode(".jpg", smaller[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
