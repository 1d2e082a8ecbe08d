"""Pictures of a run: what it learns from and what it finds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from detect.data.images import ImageError, read_image, write_image
from detect.evaluation.engine import Evaluation
from detect.inference.drawing import draw_detections
from detect.structures import Batch, Detections
from detect.training.recorder import Recorder

MAX_TILES = 9
TILE_PX = 320
SHOWN_SCORE = 0.25
"""Predictions below this score are not drawn."""


def record_training_batch(recorder: Recorder, folder: Path, batch: Batch, names: tuple[str, ...], epoch: int) -> None:
    """Draw a training batch with its ground truth, as the network sees it: ``train_batch.jpg``.

    Args:
        recorder: shows it in TensorBoard.
        folder: the run's folder.
        batch: augmented images and targets.
        names: class names.
        epoch: counted from 0.
    """
    tiles = []
    for i, image in enumerate(batch.images[:MAX_TILES].numpy()):
        mine = batch.targets.image_index == i
        boxes, labels = batch.targets.boxes_xyxy_px[mine].numpy(), batch.targets.labels[mine].numpy()
        truth = Detections(boxes, np.ones(len(labels), np.float32), labels, image.shape[:2], names)
        tiles.append(draw_detections(image, truth))
    picture = tile_images(tiles)
    write_image(folder / "train_batch.jpg", picture)
    recorder.picture("train/batch", picture, epoch + 1)


def record_predictions(recorder: Recorder, folder: Path, found: Evaluation, epoch: int) -> None:
    """Draw what the averaged weights find in the first validation images: ``val_predictions.jpg``.

    Args:
        recorder: shows it in TensorBoard.
        folder: the run's folder.
        found: an evaluation of the validation split.
        epoch: counted from 0.
    """
    tiles: list[np.ndarray] = []
    for row in range(len(found.table)):
        with suppress(ImageError):  # the evaluation has told about it
            tiles.append(draw_detections(read_image(found.table.path(row)), _detections(found, row)))
        if len(tiles) == MAX_TILES:
            break
    if not tiles:
        return
    picture = tile_images(tiles)
    write_image(folder / "val_predictions.jpg", picture)
    recorder.picture("val/predictions", picture, epoch + 1)


def _detections(found: Evaluation, row: int) -> Detections:
    """What was found in one image, as far as it is shown."""
    mine = (found.found.rows == row) & (found.found.scores > SHOWN_SCORE)
    boxes = found.found.boxes_xywh_px[mine].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    height, width = found.table.sizes_hw[row].tolist()
    return Detections(
        boxes, found.found.scores[mine].astype(np.float32), found.found.labels[mine], (height, width), found.table.names
    )


def tile_images(images_rgb: list[np.ndarray]) -> np.ndarray:
    """Images of any sizes side by side in a square grid of ``TILE_PX`` tiles.

    Args:
        images_rgb: (H, W, 3) uint8 each, at least one.

    Returns:
        (rows * TILE_PX, columns * TILE_PX, 3) uint8.
    """
    columns = int(np.ceil(np.sqrt(len(images_rgb))))
    rows = -(-len(images_rgb) // columns)
    sheet = np.full((rows * TILE_PX, columns * TILE_PX, 3), 255, np.uint8)
    for i, image in enumerate(images_rgb):
        factor = TILE_PX / max(image.shape[:2])
        size_wh = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
        small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        top, left = i // columns * TILE_PX, i % columns * TILE_PX
        sheet[top : top + size_wh[1], left : left + size_wh[0]] = small
    return sheet
