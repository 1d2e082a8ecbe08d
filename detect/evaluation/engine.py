"""Evaluation of a model on a split: used by the tools, and by training after its epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from detect.class_names import match_names, some_names
from detect.data.annotations import AnnotationTable
from detect.data.detection.loading import EvaluationLoader, OriginalLoader
from detect.errors import InputError
from detect.evaluation.coco import CocoMetrics, Engine, FoundBoxes, coco_metrics, collect, to_results
from detect.evaluation.forward import (
    COCO_SETTINGS,
    PredictSettings,
    evaluation_mode,
    postprocess,
    run_network,
    settings_for_limit,
)
from detect.evaluation.tiling import Network, TiledPredictor, Tiling
from detect.models.model import DetectionModel
from detect.runtime.device import Precision
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar
from detect.structures import Batch, Detections


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation.

    Args:
        metrics: the COCO metrics, of the detections that are kept by default; None when the split has no annotations.
        found: all detections.
        table: the split.
        settings: score threshold and non-maximum suppression that were used.
        speed_ms: milliseconds per image, ``preprocess`` (reading, scaling and padding in one process; several share the
            work), ``network`` (with decoding) and ``postprocess`` (non-maximum suppression and the way back to image
            pixels).
        other_limit: the metrics with another limit of detections than COCO's, of all detections; None if not asked for.
    """

    metrics: CocoMetrics | None
    found: FoundBoxes
    table: AnnotationTable
    settings: PredictSettings
    speed_ms: dict[str, float]
    other_limit: CocoMetrics | None = None

    @property
    def images(self) -> int:
        """How many images were looked at."""
        return len(self.table)

    @property
    def results(self) -> list[dict[str, Any]]:
        """The detections in the COCO results format. Made on each access: half a kilobyte per detection."""
        return to_results(self.table, self.found)


def evaluate(
    model: DetectionModel,
    table: AnnotationTable,
    *,
    device: torch.device,
    precision: Precision = "fp32",
    **options: Any,
) -> Evaluation:
    """Detect the objects in all images of a split, and measure how well if it is labelled.

    Several processes share out the images; each gets all that was found, and the same metrics.

    Args:
        model: on ``device``; its modules are put into evaluation mode and back.
        table: the split.
        device: where to compute.
        precision: number format of the network.
        options: others of ``evaluate_network``, of which the image and batch size and the workers must be named.

    Raises:
        InputError: as ``evaluate_network``.
    """
    network: Network = partial(run_network, model, device=device, precision=precision)
    with evaluation_mode(model):
        return evaluate_network(network, model.max_reduction, table, device=device, **options)


@torch.inference_mode()
def evaluate_network(
    network: Network,
    multiple: int,
    table: AnnotationTable,
    *,
    image_size: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    settings: PredictSettings = COCO_SETTINGS,
    tiling: Tiling | None = None,
    engine: Engine = "pycocotools",
    limit: int | None = None,
    names: tuple[str, ...] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Evaluation:
    """``evaluate`` for anything that makes predictions of images, an exported file for example.

    Args:
        network: what looks at the images.
        multiple: height and width of its input are multiples of it.
        table: the split.
        image_size: long side of the network input in pixels.
        batch_size: images per batch.
        workers: processes that load images; 0 loads in this one.
        device: where the network computes.
        settings: score threshold and non-maximum suppression; with tiles, ``TILED_COCO_SETTINGS``.
        tiling: look at each image in tiles and as a whole; None is as a whole only.
        engine: what computes the COCO metrics.
        limit: measure with this limit of detections of a class and image as well; more detections are kept for it.
        names: the network's class names, if they may be others than the table's, or in another order. Only the table's
            classes are measured.
        strict: refuse an image that cannot be read. Otherwise its objects count as missed.
        progress: show a progress bar.

    Raises:
        InputError: none of ``names`` is a class of the table, a size or count is outside its range, or an image cannot
            be read and ``strict`` is set.
    """
    check_ranges(image_size, multiple, batch_size, workers)
    network_names = names or table.names
    label_of = match_classes(network_names, table.names)
    settings = replace(settings, classes=shared_classes(label_of))
    wider = settings if limit is None else settings_for_limit(settings, limit, len(network_names))
    clock = Clock(device, ("preprocess", "network", "postprocess"))
    loader: EvaluationLoader | OriginalLoader
    look: Callable[[Batch], list[Detections]]
    if tiling is None:
        loader = EvaluationLoader(table, image_size, batch_size, workers, multiple=multiple, strict=strict)
        look = partial(_look, network, wider, network_names, clock)
    else:
        loader = OriginalLoader(table, workers, strict=strict)
        tiles = TiledPredictor(network, tiling, image_size, batch_size, multiple, wider, network_names, clock.lap)
        look = partial(_look_in_tiles, tiles)
    found: dict[int, Detections] = {}
    for batch in progress_bar(loader, "evaluate", unit="batch", is_shown=progress):
        clock.start(batch.preprocess_seconds)
        found.update(zip(batch.rows.tolist(), look(batch), strict=True))
    boxes = collect(found, label_of).gathered()
    speed_ms = clock.per_image_ms(len(found))
    if not table.is_labelled:
        return Evaluation(None, boxes, table, wider, speed_ms)
    metrics = coco_metrics(table, boxes.best(settings.max_detections), engine)
    other = None if limit is None else coco_metrics(table, boxes, engine, limit)
    return Evaluation(metrics, boxes, table, wider, speed_ms, other)


def _look(
    network: Network, settings: PredictSettings, names: tuple[str, ...], clock: Clock, batch: Batch
) -> list[Detections]:
    """What is in each of the scaled images of a batch."""
    predictions = network(batch.images)
    clock.lap("network")
    detections = postprocess(predictions, batch.letterboxes, settings, names)
    clock.lap("postprocess")
    return detections


def _look_in_tiles(tiles: TiledPredictor, batch: Batch) -> list[Detections]:
    """What is in each of the original images of a batch."""
    return [tiles.predict(image.numpy()) for image in batch.images]


def match_classes(model_names: tuple[str, ...], data_names: tuple[str, ...]) -> np.ndarray:
    """Where the model's classes are among those of the data, by name.

    Args:
        model_names: class names of the checkpoint.
        data_names: class names of the data set.

    Returns:
        (K,) int64, the data's index of each of the model's classes; -1 for those that the data lacks.

    Raises:
        InputError: they have no class in common.
    """
    match = match_names(model_names, data_names)
    if not match.shared:
        raise InputError(
            f"classes: the checkpoint and the data have none in common; the checkpoint has {some_names(model_names)}, "
            f"the data {some_names(data_names)}"
        )
    return match.target_of


def tell_classes(model_names: tuple[str, ...], data_names: tuple[str, ...]) -> None:
    """Log what an evaluation leaves out where model and data have other classes.

    Raises:
        InputError: as ``match_classes``.
    """
    match_classes(model_names, data_names)
    match = match_names(model_names, data_names)
    lines = []
    if match.only_source:
        lines.append(f"the data lacks {some_names(match.only_source)}: not asked for, no error")
    if match.only_target:
        lines.append(f"the model lacks {some_names(match.only_target)}: their objects count as missed")
    if match.respelled:
        lines.append(f"case and blanks apart, {', '.join(match.respelled[:3])}")
    if lines:
        counts = f"{len(match.shared)} of the model's {len(model_names)} and the data's {len(data_names)} are the same"
        LOGGER.warning("classes: %s; %s", counts, "; ".join(lines))


def shared_classes(label_of: np.ndarray) -> tuple[int, ...] | None:
    """Indices of the model's classes that the data has, as ``PredictSettings.classes``; None for all.

    Detections of the others would be no errors of the data's classes, and would take their place among the best.

    Args:
        label_of: of ``match_classes``.
    """
    return None if (label_of >= 0).all() else tuple(np.flatnonzero(label_of >= 0).tolist())


def check_ranges(image_size: int, multiple: int, batch_size: int, workers: int) -> None:
    """Whether an evaluation can be carried out.

    Args:
        image_size: side of the network input in pixels.
        multiple: what it must be a multiple of.
        batch_size: images per batch.
        workers: processes that load images.

    Raises:
        InputError: a value is outside its range.
    """
    if image_size < multiple or image_size % multiple:
        raise InputError(f"image size: must be a multiple of {multiple}, found {image_size}")
    if batch_size < 1:
        raise InputError(f"batch size: must be at least 1, found {batch_size}")
    if workers < 0:
        raise InputError(f"workers: must be at least 0, found {workers}")


class Clock:
    """Adds up the parts of the batches' time.

    Args:
        device: where the network runs.
        parts: their names; the first is what ``start`` is told.
    """

    def __init__(self, device: torch.device, parts: tuple[str, ...]) -> None:
        self._device = device
        self._seconds = dict.fromkeys(parts, 0.0)
        self._first = parts[0]
        self._last = time.perf_counter()

    def start(self, preprocess_seconds: float) -> None:
        """A batch is here; making it took so long, perhaps in another process while this one was busy."""
        self._seconds[self._first] += preprocess_seconds
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Everything since the last call, of this or ``start``, belongs to ``part``."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def per_image_ms(self, images: int) -> dict[str, float]:
        """Milliseconds of each part, divided by the number of images."""
        return {part: 1000 * seconds / max(images, 1) for part, seconds in self._seconds.items()}
