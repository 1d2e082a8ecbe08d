"""Pictures of a run: what it learns from and what it finds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from detect.data.images import ImageError, write_image
from detect.drawing.sheets import fitted
from detect.evaluation.class_pictures import class_sheet, prediction_sheet
from detect.evaluation.classification import ClassEvaluation
from detect.evaluation.detection import Evaluation
from detect.structures import Batch, ClassTargets, Detections, Targets
from detect.training.recorder import Recorder

MAX_TILES = 9
MAX_CLASS_TILES = 36
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
    targets, tiles = batch.targets, []
    assert isinstance(targets, Targets), "a detector learns from boxes"
    for i, image in enumerate(batch.images[:MAX_TILES].numpy()):
        mine = targets.image_index == i
        boxes, labels = targets.boxes_xyxy_px[mine].numpy(), targets.labels[mine].numpy()
        truth = Detections(boxes, np.ones(len(labels), np.float32), labels, image.shape[:2], names)
        tiles.append(truth.plot(image))
    picture = tile_images(tiles)
    write_image(folder / "train_batch.jpg", picture)
    recorder.picture("train/batch", picture, epoch + 1)


def record_class_batch(recorder: Recorder, folder: Path, batch: Batch, names: tuple[str, ...], epoch: int) -> None:
    """Draw a classifier's training batch with what its images show, as the network sees it: ``train_batch.jpg``.

    Args:
        recorder: shows it in TensorBoard.
        folder: the run's folder.
        batch: augmented images and targets.
        names: class names.
        epoch: counted from 0.
    """
    assert isinstance(batch.targets, ClassTargets), "a classifier learns from classes"
    picture = class_sheet(batch.images[:MAX_CLASS_TILES].numpy(), _captions(batch.targets, names))
    write_image(folder / "train_batch.jpg", picture)
    recorder.picture("train/batch", picture, epoch + 1)


def _captions(targets: ClassTargets, names: tuple[str, ...]) -> list[str]:
    """What each image shows: a class, or the two of a mixed image with their shares."""
    captions = []
    for shares in targets.shares[:MAX_CLASS_TILES]:
        parts = [(float(share), names[label]) for label, share in enumerate(shares.tolist()) if share > 0]
        best = sorted(parts, reverse=True)[:2]
        captions.append(best[0][1] if len(best) == 1 else " ".join(f"{name} {share:.2f}" for share, name in best))
    return captions


def record_classes(found: ClassEvaluation, recorder: Recorder, folder: Path, epoch: int) -> None:
    """Draw what the averaged weights take validation images for: ``val_predictions.jpg``.

    Args:
        found: an evaluation of the validation split.
        recorder: shows it in TensorBoard.
        folder: the run's folder.
        epoch: counted from 0.
    """
    picture = prediction_sheet(found, MAX_CLASS_TILES)
    write_image(folder / "val_predictions.jpg", picture)
    recorder.picture("val/predictions", picture, epoch + 1)


def record_predictions(found: Evaluation, recorder: Recorder, folder: Path, epoch: int) -> None:
    """Draw what the averaged weights find in the first validation images: ``val_predictions.jpg``.

    Args:
        found: an evaluation of the validation split.
        recorder: shows it in TensorBoard.
        folder: the run's folder.
        epoch: counted from 0.
    """
    tiles: list[np.ndarray] = []
    for row in range(len(found.table)):
        with suppress(ImageError):  # the evaluation has told about it
            image = found.table.read(row)
            tiles.append(_detections(found, row, image).plot(image))
        if len(tiles) == MAX_TILES:
            break
    if not tiles:
        return
    picture = tile_images(tiles)
    write_image(folder / "val_predictions.jpg", picture)
    recorder.picture("val/predictions", picture, epoch + 1)


def _detections(found: Evaluation, row: int, image: np.ndarray) -> Detections:
    """What was found in one image, as far as it is shown."""
    mine = (found.found.rows == row) & (found.found.scores > SHOWN_SCORE)
    boxes = found.found.boxes_xywh_px[mine].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    scores, labels = found.found.scores[mine].astype(np.float32), found.found.labels[mine]
    return Detections(boxes, scores, labels, image.shape[:2], found.table.names)


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
        tile = fitted(image, TILE_PX)
        top, left = i // columns * TILE_PX, i % columns * TILE_PX
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
