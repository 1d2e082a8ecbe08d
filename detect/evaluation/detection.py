"""Evaluation of a detector on a split by the COCO metrics: used by ``detect val``, and by training after its epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from detect.data.annotations import AnnotationTable
from detect.data.detection.loading import EvaluationLoader, OriginalLoader
from detect.evaluation.coco import CocoMetrics, Engine, FoundBoxes, coco_metrics, collect, to_results
from detect.evaluation.forward import evaluation_mode, forward_of
from detect.evaluation.loop import Clock, Conditions, Step, match_classes, run_evaluation, shared_classes
from detect.evaluation.postprocess import COCO_SETTINGS, Forward, PredictSettings, postprocess, settings_for_limit
from detect.evaluation.tiling import TiledDetector, Tiling
from detect.models.model import DetectionModel
from detect.structures import Batch, Detections

PARTS = ("preprocess", "network", "postprocess")


@dataclass(frozen=True)
class DetectionOptions:
    """Settings of a detector's evaluation.

    Args:
        settings: score threshold and non-maximum suppression; with tiles, ``TILED_COCO_SETTINGS``.
        tiling: detect in tiles as well as in the whole image; None: in the whole image.
        engine: computes the COCO metrics.
        limit: detections of a class and image for a second set of metrics; as many are kept of each image.
    """

    settings: PredictSettings = COCO_SETTINGS
    tiling: Tiling | None = None
    engine: Engine = "pycocotools"
    limit: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """Detections of a split and their metrics.

    Args:
        metrics: COCO metrics of the detections that are kept by default; None for a split without annotations.
        found: all detections.
        table: the split.
        settings: score threshold and non-maximum suppression that were used.
        speed_ms: milliseconds per image: ``preprocess`` (reading, scaling and padding in one process; several share the
            work), ``network`` (with decoding) and ``postprocess`` (non-maximum suppression, boxes to image pixels).
        other_limit: metrics at ``DetectionOptions.limit``, of all detections.
        kept: detections of an image that ``metrics`` are of.
    """

    metrics: CocoMetrics | None
    found: FoundBoxes
    table: AnnotationTable
    settings: PredictSettings
    speed_ms: dict[str, float]
    other_limit: CocoMetrics | None = None
    kept: int = COCO_SETTINGS.max_detections

    @property
    def images(self) -> int:
        """Number of images of the split."""
        return len(self.table)

    @property
    def results(self) -> list[dict[str, Any]]:
        """Detections in the COCO results format. Made on each access: half a kilobyte per detection."""
        return to_results(self.table, self.found)


def evaluate(
    model: DetectionModel,
    table: AnnotationTable,
    conditions: Conditions,
    options: DetectionOptions = DetectionOptions(),
) -> Evaluation:
    """Evaluate a model, on the device of ``conditions``, on all images of a split; errors as ``evaluate_network``.
    Several processes share out the images; each returns all detections and the same metrics. Modules keep their modes.
    """
    network = forward_of(model, conditions.device, conditions.precision)
    with evaluation_mode(model):
        return evaluate_network(network, model.max_reduction, table, conditions, options)


def evaluate_network(
    network: Forward,
    multiple: int,
    table: AnnotationTable,
    conditions: Conditions,
    options: DetectionOptions = DetectionOptions(),
) -> Evaluation:
    """Evaluate any function from images to predictions, an exported file for example; see ``evaluate``.

    Args:
        network: images to predictions.
        multiple: divides height and width of its input.
        table: the split.
        conditions: image size, batch size, device, ...
        options: thresholds, tiles, COCO engine.

    Raises:
        InputError: no class in common with the table, a size or count outside its range, or, if ``strict``, an image
            that cannot be read.
    """
    conditions.check(multiple)

    def predict(images: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(network(images))  # whose suppression is faster at AP's low threshold

    names = conditions.names or table.names
    label_of = match_classes(names, table.names)
    settings = replace(options.settings, classes=shared_classes(label_of))
    kept = settings if options.limit is None else settings_for_limit(settings, options.limit, len(names))
    clock = Clock(conditions.device, PARTS)
    loader: EvaluationLoader | OriginalLoader
    step: Step[Detections]
    if options.tiling is None:
        loader = open_loader(table, conditions, multiple)
        step = partial(detect_batch, predict, kept, names, clock)
    else:
        loader = OriginalLoader(table, conditions.workers, strict=conditions.strict)
        sizes = (conditions.image_size, conditions.batch_size, multiple)
        step = partial(_detect_tiles, TiledDetector(predict, options.tiling, *sizes, kept, names, clock.lap))
    found = run_evaluation(loader, step, clock, progress=conditions.progress)
    boxes, speed_ms = collect(found, label_of).gathered(), clock.per_image_ms(len(found))
    if not table.is_labelled:
        return Evaluation(None, boxes, table, kept, speed_ms)
    metrics = coco_metrics(table, boxes.best(settings.max_detections), options.engine)
    other = None if options.limit is None else coco_metrics(table, boxes, options.engine, options.limit)
    return Evaluation(metrics, boxes, table, kept, speed_ms, other, settings.max_detections)


def open_loader(table: AnnotationTable, conditions: Conditions, multiple: int) -> EvaluationLoader:
    """Scaled and padded images of a split."""
    return EvaluationLoader(
        table,
        conditions.image_size,
        conditions.batch_size,
        conditions.workers,
        multiple=multiple,
        strict=conditions.strict,
    )


def detect_batch(
    network: Forward, settings: PredictSettings, names: tuple[str, ...], clock: Clock, batch: Batch
) -> list[Detections]:
    """Detections of each scaled image of a batch, in pixels of the original image."""
    predictions = network(batch.images.numpy())
    clock.lap("network")
    detections = postprocess(predictions, batch.letterboxes, settings, names)
    clock.lap("postprocess")
    return detections


def _detect_tiles(tiles: TiledDetector, batch: Batch) -> list[Detections]:
    """Detections of each original image of a batch."""
    return [tiles.detect(image.numpy()) for image in batch.images]
