"""Records of a run: ``results.csv``, what its loggers get, pictures, multiply-adds, the resolved ``config.yaml``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from detect.analysis.profile import MacCounter
from detect.config.yaml_files import dump_yaml
from detect.data.images import ImageError, write_image
from detect.drawing.sheets import fitted
from detect.errors import InputError
from detect.evaluation.class_pictures import class_sheet
from detect.evaluation.detection import Evaluation
from detect.models.graph import NO_TRANSFORM, Graph, GraphTransform
from detect.runtime.distributed import is_main_process
from detect.runtime.files import write_text
from detect.structures import Batch, ClassTargets, Detections, Targets
from detect.training.loggers import LoggedRun, Loggers

MAX_TILES = 9
MAX_CLASS_TILES = 36
TILE_PX = 320
MIN_SCORE = 0.25
"""Predictions with lower scores are not drawn."""


class Recorder:
    """Writes the values and pictures of each epoch; of several processes the main one does.

    As a context it closes the loggers at its end.

    Args:
        run: the training; of a resumed one the rows up to the last epoch stay.
        loggers: names of those that get the records too (``detect.training.loggers``).

    Raises:
        InputError: the ``results.csv`` of a resumed run is damaged.
    """

    def __init__(self, run: LoggedRun, loggers: Sequence[str] = ()) -> None:
        self.path = run.folder / "results.csv"
        self.rows: list[dict[str, Any]] = []
        if run.resumed_after is not None and self.path.is_file():
            self.rows = _read_rows(self.path, run.resumed_after)
        self._loggers = Loggers(loggers, run)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._loggers.close(is_finished=kind is None)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Record the values of an epoch.

        Args:
            number: counted from 1.
            values: by tag, such as ``loss/box`` or ``val/AP_S``.
        """
        self.rows.append({"epoch": number, **{tag: f"{value:.6g}" for tag, value in values.items()}})
        if not is_main_process():
            return
        columns = list(dict.fromkeys(tag for row in self.rows for tag in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.path, text.getvalue())
        self._loggers.log_values(values, number)

    def picture(self, tag: str, image_rgb: np.ndarray | None, epoch: int) -> None:
        """Record an (H, W, 3) uint8 picture, ``train/batch`` also as ``train_batch.jpg``; nothing if it is None."""
        if is_main_process() and image_rgb is not None:
            path = self.path.parent / f"{tag.replace('/', '_')}.jpg"
            write_image(path, image_rgb)
            height, width = image_rgb.shape[:2]
            self._loggers.log_picture(tag, path, (height, width), epoch)


def _read_rows(path: Path, last_epoch: int) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file, strict=True) if int(row["epoch"]) <= last_epoch]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise InputError(f"{path}: is damaged; move it away to resume with a new one") from None


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the resolved settings of a run as ``config.yaml``, which resuming reads."""
    if is_main_process():
        write_text(folder / "config.yaml", dump_yaml(settings))


class ComputeMeter:
    """Adds up the multiply-adds of the forward passes of an epoch, whose mean as trained is mFLOPs of the TRD paper.

    Args:
        graph: of the trained model; a copy without values is kept.
        num_classes: K of it.
    """

    def __init__(self, graph: Graph, num_classes: int) -> None:
        self._costs = MacCounter(graph, num_classes)
        self.start_epoch()

    def start_epoch(self) -> None:
        self._images, self._spent, self._full = 0, 0, 0

    def state_dict(self) -> list[int]:
        return [self._images, self._spent, self._full]

    def load_state_dict(self, state: list[int]) -> None:
        self._images, self._spent, self._full = state

    def add_pass(self, images: int, image_hw: tuple[int, int], transform: GraphTransform) -> None:
        """Count a forward pass of ``images`` images of ``image_hw``."""
        self._spent += images * self._costs.macs(transform, image_hw)

    def add_images(self, images: int, full_hw: tuple[int, int]) -> None:
        """Count training images, which had ``full_hw`` before any strategy."""
        self._images += images
        self._full += images * self._costs.macs(NO_TRANSFORM, full_hw)

    def values(self) -> dict[str, float]:
        """Return 1e9 multiply-adds of an image by TensorBoard tag: as trained, and at full size without transform."""
        images = max(self._images, 1)
        return {"compute/gmacs": self._spent / images / 1e9, "compute/full_gmacs": self._full / images / 1e9}


def compute_line(rows: Sequence[dict[str, Any]]) -> str:
    """Format the mean multiply-adds over the epochs.

    Args:
        rows: of ``results.csv``; those without ``ComputeMeter.values`` do not count.
    """
    counted = [row for row in rows if "compute/gmacs" in row]
    spent, full = (
        sum(float(row[tag]) for row in counted) / max(len(counted), 1)
        for tag in ("compute/gmacs", "compute/full_gmacs")
    )
    return (
        f"training cost {spent:.4g} G multiply-adds an image in forward passes (mFLOPs, as counted), "
        f"{spent / full if full else 0:.1%} of the {full:.4g} G at full size"
    )


def detection_batch_picture(batch: Batch, names: tuple[str, ...]) -> np.ndarray:
    """Draw the first images of a training batch with their ground truth, as the network sees them."""
    targets, tiles = batch.targets, []
    assert isinstance(targets, Targets), "a detector learns from boxes"
    for i, image in enumerate(batch.images[:MAX_TILES].numpy()):
        mine = targets.image_index == i
        boxes, labels = targets.boxes_xyxy_px[mine].numpy(), targets.labels[mine].numpy()
        truth = Detections(boxes, np.ones(len(labels), np.float32), labels, image.shape[:2], names)
        tiles.append(truth.plot(image))
    return tile_images(tiles)


def class_batch_picture(batch: Batch, names: tuple[str, ...]) -> np.ndarray:
    """Draw the first images of a classifier's training batch with their classes, as the network sees them."""
    assert isinstance(batch.targets, ClassTargets), "a classifier learns from classes"
    return class_sheet(batch.images[:MAX_CLASS_TILES].numpy(), _captions(batch.targets, names))


def detections_picture(evaluation: Evaluation) -> np.ndarray | None:
    """Draw the detections in the first readable images of a validation; None if no image is readable."""
    tiles: list[np.ndarray] = []
    for row in range(len(evaluation.table)):
        with suppress(ImageError):  # the evaluation has logged it
            image = evaluation.table.read(row)
            tiles.append(_detections(evaluation, row, image).plot(image))
        if len(tiles) == MAX_TILES:
            break
    return tile_images(tiles) if tiles else None


def tile_images(images_rgb: list[np.ndarray]) -> np.ndarray:
    """Arrange images of any sizes in a square grid of ``TILE_PX`` tiles.

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


def _captions(targets: ClassTargets, names: tuple[str, ...]) -> list[str]:
    """The class of each image, or the two classes of a mixed image with their shares."""
    captions = []
    for shares in targets.shares[:MAX_CLASS_TILES]:
        parts = [(float(share), names[label]) for label, share in enumerate(shares.tolist()) if share > 0]
        best = sorted(parts, reverse=True)[:2]
        captions.append(best[0][1] if len(best) == 1 else " ".join(f"{name} {share:.2f}" for share, name in best))
    return captions


def _detections(evaluation: Evaluation, row: int, image: np.ndarray) -> Detections:
    found = evaluation.found
    mine = (found.rows == row) & (found.scores > MIN_SCORE)
    boxes = found.boxes_xywh_px[mine].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    scores, labels = found.scores[mine].astype(np.float32), found.labels[mine]
    return Detections(boxes, scores, labels, image.shape[:2], evaluation.table.names)
