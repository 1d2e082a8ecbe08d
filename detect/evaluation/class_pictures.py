"""What a classifier takes images for, in pictures.

Letters: N images of the split, B images of a batch, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from detect.data.classification.geometry import center_crop
from detect.data.images import ImageError, write_image
from detect.drawing.text import shorten
from detect.evaluation.classification import ClassEvaluation, most_confused
from detect.evaluation.pictures import MAX_NAME, draw_matrix
from detect.evaluation.sheets import GREEN, RED, Tile, heading, sheet_width, tile_sheet

MAX_PAIRS = 10
"""Mixed up pairs of classes that are shown."""

MAX_EXAMPLES = 8
"""Images of each pair that are shown."""


def draw_class_confusion(path: Path, evaluation: ClassEvaluation) -> None:
    """Draw the confusion matrix: counts, the colour says the share of the row's images.

    Args:
        path: the PNG file.
        evaluation: what was found.
    """
    labels = [shorten(name, MAX_NAME) for name in evaluation.table.names]
    title = "Classes that images were taken for\n(counts; colour: share of the row)"
    draw_matrix(path, evaluation.metrics.confusion, labels, title)


def draw_confused_pairs(path: Path, evaluation: ClassEvaluation) -> None:
    """Draw images of the classes that are mixed up most often: a row for each pair, the surest mistakes first.

    The caption of an image says how probable the wrong class was, and its own.

    Args:
        path: the image file; its suffix chooses the format.
        evaluation: what was found.
    """
    width = sheet_width(MAX_EXAMPLES)
    names, labels = evaluation.table.names, evaluation.table.labels
    parts = []
    for true, taken_for, count in most_confused(evaluation.metrics.confusion, MAX_PAIRS):
        total = int(evaluation.metrics.confusion[true].sum())
        text = f"{shorten(names[true], MAX_NAME)} taken for {shorten(names[taken_for], MAX_NAME)}: {count} of {total}"
        rows = np.flatnonzero((labels == true) & (evaluation.predicted == taken_for))
        surest = rows[np.argsort(-evaluation.probabilities[rows, taken_for], kind="stable")][:MAX_EXAMPLES]
        tiles = [
            Tile(image, _chances(evaluation, row, (taken_for, true)), RED) for row, image in seen(evaluation, surest)
        ]
        parts += [heading(text, width), tile_sheet(tiles, MAX_EXAMPLES)]
    if not parts:
        parts = [heading("No image was taken for another class.", width)]
    write_image(path, np.concatenate(parts))


def prediction_sheet(evaluation: ClassEvaluation, count: int) -> np.ndarray:
    """Images from all over the split with the class that they were taken for, right ones green and wrong ones red.

    Args:
        evaluation: what was found.
        count: most images.

    Returns:
        (H, W, 3) uint8.
    """
    names, labels, predicted = evaluation.table.names, evaluation.table.labels, evaluation.predicted
    tiles = []
    for row, image in seen(evaluation, spread(np.flatnonzero(evaluation.is_answered), count)):
        found = evaluation.classification(row)
        is_right = predicted[row] == labels[row]
        said = f"{found.name} {found.score:.2f}"
        lines = (said,) if is_right else (said, f"is {names[labels[row]]}")
        tiles.append(Tile(image, lines, GREEN if is_right else RED))
    return tile_sheet(tiles, _square_columns(len(tiles)))


def class_sheet(images_rgb: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """A batch of images with what they show.

    Args:
        images_rgb: (B, H, W, 3) uint8.
        captions: one for each image.

    Returns:
        (H, W, 3) uint8.
    """
    tiles = [Tile(image, caption) for image, caption in zip(images_rgb, captions, strict=True)]
    return tile_sheet(tiles, _square_columns(len(tiles)))


def seen(evaluation: ClassEvaluation, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Images of the split as the network saw them.

    Args:
        evaluation: of the split.
        rows: which ones; those that cannot be read any more are left out.

    Returns:
        Row and image, (S, S, 3) uint8 with S the side of the network input.
    """
    found = []
    for row in rows.tolist():
        with suppress(ImageError):
            image = evaluation.table.read(row)
            found.append((row, center_crop(image, evaluation.image_size, evaluation.center_crop)))
    return found


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of ``rows``, evenly spaced: a split is often sorted by class."""
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def _chances(evaluation: ClassEvaluation, row: int, labels: tuple[int, ...]) -> tuple[str, ...]:
    """A line ``name probability`` for each of some classes."""
    return tuple(f"{evaluation.table.names[label]} {evaluation.probabilities[row, label]:.2f}" for label in labels)


def _square_columns(num_tiles: int) -> int:
    return max(1, int(np.ceil(np.sqrt(num_tiles))))
