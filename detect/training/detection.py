"""Training of detectors: data, anchors, model, loss, metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from detect.boxes.anchors import (
    MIN_ANCHOR_PX,
    AnchorFit,
    best_possible_recall,
    close_recall,
    fit_anchors,
    fittable_sizes,
)
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable
from detect.data.detection.box_sizes import training_sizes_px
from detect.data.detection.loading import TrainingLoader
from detect.data.scenes.loading import SceneLoader
from detect.data.scenes.table import SceneTable
from detect.evaluation.detection import DetectionOptions, evaluate
from detect.evaluation.loop import Conditions
from detect.evaluation.tiling import TILED_COCO_SETTINGS, Tiling
from detect.losses.detection import DetectionLoss, detection_loss
from detect.losses.dynamic import DynamicLoss
from detect.losses.terms import Assignment, choose_assignment
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint
from detect.models.definition import ModelDefinition, with_args
from detect.models.heads import DetectionHead
from detect.models.levels import inherit_anchors
from detect.models.model import DetectionModel, Model
from detect.runtime.device import Precision
from detect.runtime.logs import LOGGER
from detect.structures import Batch
from detect.training.checks import OptionDependency, warn_of_ignored
from detect.training.detection_data import DetectionData
from detect.training.recorder import detection_batch_picture, detections_picture
from detect.training.starts import copy_weights, normalised_as
from detect.training.task import Task, Validation

CLOSE_IOU = 0.25
"""Lowest IoU of box and anchor that YOLOv3's assignment learns well: of a box half as wide and half as high."""


def suit_anchors(definition: ModelDefinition, table: AnnotationTable, recipe: DetectionRecipe) -> ModelDefinition:
    """Return the definition with anchors for the training boxes: its own, or fitted ones if their recall is too low."""
    given = np.array(definition.rows[-1].args.get("anchors_px", []), dtype=float)
    if recipe.anchors.fit == "never" or given.ndim != 3:
        return definition
    sizes = _sizes_to_fit(table, recipe.image_size)
    if not len(sizes):
        LOGGER.warning("anchors: kept; no training box is large enough to fit others; take a larger --image-size")
        return definition
    measure, recall_of = _recall_measure(definition, recipe)
    recall = recall_of(sizes, given.reshape(-1, 2))
    if recipe.anchors.fit == "auto" and recall >= recipe.anchors.min_recall:
        LOGGER.info("anchors: %s %.4f, kept", measure, recall)
        return definition
    fit = AnchorFit(given.shape[0] * given.shape[1], recipe.anchors.method, recipe.loss.anchor_ratio)
    fitted = fit_anchors(sizes, fit, recipe.seed)
    new_recall = recall_of(sizes, fitted)
    if recipe.anchors.fit == "auto" and new_recall <= recall:
        LOGGER.warning("anchors: %s %.4f; fitting did not raise it, so they are kept", measure, recall)
        return definition
    shown = ", ".join(f"{w:.0f}x{h:.0f}" for w, h in fitted)
    LOGGER.info("anchors: %s %.4f, fitted to the data: %.4f with %s", measure, recall, new_recall, shown)
    return with_args(definition, definition.rows[-1].module, anchors_px=fitted.reshape(given.shape).round(2).tolist())


def _sizes_to_fit(table: AnnotationTable, image_size: int) -> np.ndarray:
    """(m, 2) network input pixels of the boxes that are large enough for anchors; warns of the others."""
    sizes = training_sizes_px(table, image_size)
    usable = fittable_sizes(sizes)
    if len(usable) < len(sizes):
        LOGGER.warning(
            "anchors: %d of %d training boxes are under %g px at %d px and are left out",
            len(sizes) - len(usable),
            len(sizes),
            MIN_ANCHOR_PX,
            image_size,
        )
    return usable


def _recall_measure(
    definition: ModelDefinition, recipe: DetectionRecipe
) -> tuple[str, Callable[[np.ndarray, np.ndarray], float]]:
    """Name of the recall that fits the assignment of this model and recipe, and its function of boxes (M, 2) and
    anchors (A, 2).
    """
    with torch.device("meta"):  # no memory, and no random numbers that the real model would miss
        head = DetectionModel(definition, num_classes=1).head
    if choose_assignment(recipe.loss, head) == "yolov3":
        return f"close recall (IoU {CLOSE_IOU})", partial(close_recall, min_iou=CLOSE_IOU)
    return "best possible recall", partial(best_possible_recall, max_ratio=recipe.loss.anchor_ratio)


def head_dependencies(head: DetectionHead) -> list[OptionDependency]:
    """List the recipe keys that have an effect only on a head with anchors, or with objectness."""
    found = "with anchors" if head.fitted_args else "without"
    objectness = "with objectness" if head.has_objectness else "without"
    keys = ("fit", "min_recall", "method")
    return [
        *(OptionDependency("anchors", key, "the head", found, "with anchors") for key in keys),
        OptionDependency("loss", "objectness", "the head", objectness, "with objectness"),
    ]


def assignment_dependencies(assignment: Assignment) -> list[OptionDependency]:
    """List the recipe keys that have an effect only with another assignment than the chosen one."""
    by_anchors = assignment if assignment in ("yolov5", "yolov3") else "yolov5 or yolov3"
    of_tal = ("top_k", "nearest_cells", "score_power", "iou_power")
    return [
        *(OptionDependency("loss", key, "assignment", assignment, "tal") for key in of_tal),
        OptionDependency("loss", "anchor_ratio", "assignment", assignment, "yolov5"),
        OptionDependency("loss", "ignore_iou", "assignment", assignment, "yolov3"),
        OptionDependency("loss", "label_smoothing", "assignment", assignment, by_anchors),
        OptionDependency("loss", "balance", "assignment", assignment, by_anchors),
    ]


def _options_of(recipe: DetectionRecipe) -> DetectionOptions:
    """Detection in the tiles of the training, if it has some."""
    if not recipe.tiles.is_on:
        return DetectionOptions()
    return DetectionOptions(TILED_COCO_SETTINGS, Tiling(recipe.tiles.size_px, recipe.tiles.overlap))


class DetectionTask(Task):
    """Training of a detector.

    Args:
        data: the splits.
        recipe: of the run.
        strict: refuse images that cannot be read instead of training without them.
    """

    sums_images: ClassVar[bool] = True
    logged: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
    recipe: DetectionRecipe

    def __init__(self, data: DetectionData, recipe: DetectionRecipe, strict: bool) -> None:
        super().__init__(data.train, data.val, recipe, strict)
        self.data = data

    @property
    def checkpoint_fields(self) -> dict[str, Any]:
        train = self.data.train
        return {
            "names": self.names,
            "category_ids": tuple(int(i) for i in train.category_ids),  # of the annotation file
            "value_range": train.read_settings.value_range,
        }

    @property
    def counts(self) -> dict[str, int]:
        return {"train_images": len(self.data.train), "train_boxes": len(self.data.train.labels)}

    def prepare_model(self, name: str | None, weights: Path | None) -> Model:
        """See ``Task``; the anchors are those of ``weights`` or of the model, or fitted to the data."""
        checkpoint = load_checkpoint(weights) if weights else None
        source = checkpoint.model if checkpoint else None
        if name is None:
            assert source is not None, "a run has a model or weights"
            definition = source.definition
        else:
            definition = find_definition(name)
            if source is not None:
                definition = normalised_as(definition, source)
            if isinstance(source, DetectionModel) and source.head.fitted_args:
                definition = inherit_anchors(definition, source.definition, source.head.anchors_px.tolist())
        fitted = suit_anchors(definition, self.data.train, self.recipe)
        model = build_model(fitted, len(self.names), self.recipe.initialisation)
        if checkpoint is not None:
            copy_weights(model, checkpoint, self.names, str(weights))
        return model

    def loader(self, model: Model, folder: Path) -> TrainingLoader | SceneLoader:
        if isinstance(self.data.train, SceneTable):
            return SceneLoader(self.data.train, self.recipe)
        return TrainingLoader(
            self.data.train, self.recipe, cache_folder=folder, multiple=model.max_reduction, strict=self.strict
        )

    def criterion(self, model: Model) -> DetectionLoss | DynamicLoss:
        assert isinstance(model, DetectionModel), "the head decides the task"
        loss = detection_loss(self.recipe.loss, model.head, self.recipe.image_size)
        dependencies = [*head_dependencies(model.head), *assignment_dependencies(loss.assignment)]
        warn_of_ignored(self.recipe, dependencies)
        return loss

    def validate(self, model: Model, device: torch.device, precision: Precision) -> Validation:
        """See ``Task``; by the COCO metrics."""
        assert isinstance(model, DetectionModel), "the head decides the task"
        conditions = Conditions(
            self.recipe.image_size,
            self.recipe.batch_size,
            self.recipe.workers,
            device,
            precision,
            names=self.names,
            strict=self.strict,
        )
        found = evaluate(model, self.data.val, conditions, _options_of(self.recipe))
        assert found.metrics is not None, "the validation split has annotations"
        return Validation(dict(found.metrics.values), partial(detections_picture, found))

    def batch_picture(self, batch: Batch) -> np.ndarray:
        return detection_batch_picture(batch, self.names)
