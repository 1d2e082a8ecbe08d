"""Training of detectors: data, anchors, model, loss, metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from detect.boxes.anchors import MIN_ANCHOR_PX, best_possible_recall, close_recall, fit_anchors, fittable_sizes
from detect.class_names import match_names
from detect.config.data import DataConfig
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.detection.box_sizes import MANY_SMALL, SMALL_PX, share_under, training_sizes_px
from detect.data.detection.loading import TrainingLoader
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.coco import warn_of_nothing_to_measure
from detect.evaluation.crowding import warn_of_crowding
from detect.evaluation.detection import evaluate
from detect.evaluation.loop import Conditions
from detect.losses.detection import Assignment, DetectionLoss, choose_assignment
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint
from detect.models.definition import ModelDefinition, with_args
from detect.models.detector import DetectionModel
from detect.models.model import Model
from detect.runtime.device import Precision
from detect.runtime.logs import LOGGER
from detect.structures import Batch
from detect.training.fingerprint import Fingerprint, fingerprint_of
from detect.training.pictures import record_predictions, record_training_batch
from detect.training.preparation import Need, check_classes, check_splits, copy_weights, warn_of_ignored
from detect.training.recorder import Recorder
from detect.training.task import Task, Validation

CLOSE_IOU = 0.25
"""An anchor serves YOLOv3's assignment from this IoU on: as with half its width and half its height."""


@dataclass(frozen=True)
class Material:
    """What a detector is trained on.

    Args:
        train: training split, without background images if the data config drops them.
        val: validation split.
    """

    train: AnnotationTable
    val: AnnotationTable


def open_material(data: DataConfig, strict: bool) -> Material:
    """Read and check the training and validation splits.

    Raises:
        InputError: a split is missing, unlabelled or empty, or the two have no class in common.
    """
    check_splits(data)
    train = open_split(data, "train", strict=strict)
    val = open_split(as_trained(data, train.read_settings.value_range), "val", strict=strict)
    if not train.is_labelled or not val.is_labelled:
        raise InputError(f"data {data.name}: train and val must have annotations")
    check_classes(data, train.names, val.names)
    background = int((np.diff(train.box_offsets) == 0).sum())
    if background:
        kept = "are kept as background" if data.background == "keep" else "are dropped (background: drop)"
        LOGGER.info("%d of %d training images have no boxes; they %s", background, len(train), kept)
    if data.background == "drop":
        train = train.without_background()
    if train.is_crowd.all():
        raise InputError(f"data {data.name}: the training split has no usable boxes")
    warn_of_nothing_to_measure(f"data {data.name}: val", val)
    warn_of_crowding(f"data {data.name}: val", val)
    return Material(train, val)


def report_small_objects(table: AnnotationTable, image_size: int) -> None:
    """Say how many boxes are tiny for the network, and what helps."""
    sizes = training_sizes_px(table, image_size)
    small = share_under(sizes, SMALL_PX)
    hint = "; a larger --image-size would help them (python tools/data.py stats)" if small > MANY_SMALL else ""
    LOGGER.info(
        "%.1f %% of %d training boxes are under %d px at %d px%s", 100 * small, len(sizes), SMALL_PX, image_size, hint
    )


def prepare_model(
    name: str | None, weights: Path | None, material: Material, recipe: DetectionRecipe
) -> DetectionModel:
    """The model to train: built for the data's classes, with suitable anchors and, if asked, with given weights.

    Args:
        name: model name or file; None takes the model of ``weights``.
        weights: a checkpoint to start from; what fits is copied, classes by name.
        material: the data.
        recipe: the recipe.
    """
    checkpoint = load_checkpoint(weights) if weights else None
    source = checkpoint.detector if checkpoint else None
    if name is None:
        assert source is not None, "a run has a model or weights"
        definition = source.definition
    else:
        definition = find_definition(name)
        if source is not None and len(source.head.anchors_px) == len(definition.rows[-1].inputs):
            definition = with_args(definition, "AnchorDetect", anchors_px=source.head.anchors_px.tolist())
    definition = suit_anchors(definition, material.train, recipe)
    names = material.train.names
    model = build_model(definition, len(names))
    if checkpoint is not None:
        copy_weights(model, checkpoint.detector, match_names(checkpoint.names, names), str(weights))
    return model


def suit_anchors(definition: ModelDefinition, table: AnnotationTable, recipe: DetectionRecipe) -> ModelDefinition:
    """The definition with anchors that suit the training boxes, fitted if need be (said aloud)."""
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
    fitted = fit_anchors(sizes, given.shape[0] * given.shape[1], recipe.seed)
    new_recall = recall_of(sizes, fitted)
    if recipe.anchors.fit == "auto" and new_recall <= recall:
        LOGGER.warning("anchors: %s %.4f; fitting did not raise it, so they are kept", measure, recall)
        return definition
    shown = ", ".join(f"{w:.0f}x{h:.0f}" for w, h in fitted)
    LOGGER.info("anchors: %s %.4f, fitted to the data: %.4f with %s", measure, recall, new_recall, shown)
    return with_args(definition, definition.rows[-1].module, anchors_px=fitted.reshape(given.shape).round(2).tolist())


def _sizes_to_fit(table: AnnotationTable, image_size: int) -> np.ndarray:
    """(m, 2) network-input pixels of the boxes that are large enough for anchors; logs how many are not."""
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
    """How well anchors (A, 2) serve boxes (M, 2), as the assignment of this model and recipe sees it, and its name."""
    with torch.device("meta"):  # no memory, and no random numbers that the real model would miss
        head = DetectionModel(definition, num_classes=1).head
    if choose_assignment(recipe.loss, head) == "yolov3":
        return f"close recall (IoU {CLOSE_IOU})", partial(close_recall, min_iou=CLOSE_IOU)
    return "best possible recall", partial(best_possible_recall, max_ratio=recipe.loss.anchor_ratio)


def assignment_needs(assignment: Assignment) -> list[Need]:
    """The keys of a recipe that need one assignment or the other, where ``assignment`` is what was chosen."""
    return [
        Need("loss", "anchor_ratio", "assignment", assignment, "yolov5"),
        Need("loss", "ignore_iou", "assignment", assignment, "yolov3"),
    ]


class DetectionTask(Task):
    """Training of a detector; see ``Task``.

    Args:
        material: what to train on.
        recipe: the recipe.
        strict: refuse images that cannot be read instead of training without them.
    """

    sums_images: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
    recipe: DetectionRecipe

    def __init__(self, material: Material, recipe: DetectionRecipe, strict: bool) -> None:
        super().__init__(recipe, strict)
        self.material = material

    @property
    def names(self) -> tuple[str, ...]:
        """The K class names of the data."""
        return self.material.train.names

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, the ids of the annotation file, and the range of the images' values."""
        return {
            "names": self.names,
            "category_ids": tuple(int(i) for i in self.material.train.category_ids),
            "value_range": self.material.train.read_settings.value_range,
        }

    @property
    def counts(self) -> dict[str, int]:
        """Images and boxes of the training split."""
        return {"train_images": len(self.material.train), "train_boxes": len(self.material.train.labels)}

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See ``Task``."""
        return {"train": fingerprint_of(self.material.train), "val": fingerprint_of(self.material.val)}

    def prepare_model(self, name: str | None, weights: Path | None) -> Model:
        """See ``Task``; the anchors suit the data."""
        return prepare_model(name, weights, self.material, self.recipe)

    def loader(self, model: Model, folder: Path) -> TrainingLoader:
        """See ``Task``."""
        return TrainingLoader(
            self.material.train, self.recipe, cache_folder=folder, multiple=model.max_reduction, strict=self.strict
        )

    def criterion(self, model: Model) -> DetectionLoss:
        """See ``Task``."""
        assert isinstance(model, DetectionModel), "the head decides the task"
        loss = DetectionLoss(self.recipe.loss, model.head, self.recipe.image_size)
        warn_of_ignored(self.recipe, assignment_needs(loss.assignment))
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
        found = evaluate(model, self.material.val, conditions)
        assert found.metrics is not None, "the validation split has annotations"
        return Validation(dict(found.metrics.values), partial(record_predictions, found))

    def record_batch(self, recorder: Recorder, folder: Path, batch: Batch, epoch: int) -> None:
        """See ``Task``."""
        record_training_batch(recorder, folder, batch, self.names, epoch)
