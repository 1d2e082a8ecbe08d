"""Training of classifiers: data, model, loss, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from detect.config.data import DataConfig
from detect.config.recipe import ClassificationRecipe
from detect.data.classification.datasets import open_class_split
from detect.data.classification.loading import ClassTrainingLoader, channel_statistics
from detect.data.classification.table import ClassTable
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.class_pictures import prediction_sheet
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.loop import Conditions
from detect.losses.classification import ClassificationLoss
from detect.models.build import build_classifier
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint
from detect.models.model import ClassificationModel, Model
from detect.runtime.device import Precision
from detect.runtime.logs import LOGGER
from detect.structures import Batch
from detect.training.checks import OptionDependency, check_classes, check_splits, warn_of_ignored
from detect.training.recorder import MAX_CLASS_TILES, class_batch_picture
from detect.training.starts import copy_weights
from detect.training.task import Task, Validation


@dataclass(frozen=True)
class ClassificationData:
    """The splits of a classifier's training.

    Args:
        train: training split.
        val: validation split.
    """

    train: ClassTable
    val: ClassTable


def open_classification_data(data: DataConfig, strict: bool) -> ClassificationData:
    """Read and check the training and validation splits.

    Raises:
        InputError: a split is missing or has no usable images, or the two have no class in common.
    """
    check_splits(data)
    train = open_class_split(data, "train", strict)
    val = open_class_split(as_trained(data, train.read_settings.value_range), "val", strict)
    check_classes(data, train.names, val.names)
    counts = np.bincount(train.labels, minlength=len(train.names))
    LOGGER.info(
        "%d training and %d validation images of %d classes; of each %d to %d to train on",
        *(len(train), len(val), len(train.names), counts.min(), counts.max()),
    )
    return ClassificationData(train, val)


class ClassificationTask(Task):
    """Training of a classifier.

    Args:
        data: the splits.
        recipe: of the run.
        strict: refuse images that cannot be read instead of training on grey ones.
    """

    sums_images: ClassVar[bool] = False
    logged: ClassVar[tuple[str, ...]] = ("top1", "top5")
    recipe: ClassificationRecipe

    def __init__(self, data: ClassificationData, recipe: ClassificationRecipe, strict: bool) -> None:
        super().__init__(data.train, data.val, recipe, strict)
        self.data = data

    @property
    def checkpoint_fields(self) -> dict[str, Any]:
        return {
            "names": self.names,
            "category_ids": tuple(range(len(self.names))),
            "center_crop": self.recipe.center_crop,
            "value_range": self.data.train.read_settings.value_range,
        }

    @property
    def counts(self) -> dict[str, int]:
        return {"train_images": len(self.data.train)}

    def prepare_model(self, name: str | None, weights: Path | None) -> Model:
        """See ``Task``; images are normalised as for ``weights``, else by mean and deviation of the training images."""
        source = load_checkpoint(weights) if weights else None
        crop, size = self.recipe.center_crop, self.recipe.image_size
        if source is not None and source.center_crop != crop:
            LOGGER.warning("%s was made for center_crop %g, the recipe says %g", weights, source.center_crop, crop)
        definition = find_definition(name) if name else source.classifier.definition if source else None
        assert definition is not None, "a run has a model or weights"
        model = build_classifier(definition, len(self.names), self.recipe.initialisation)
        if size % model.max_reduction:
            multiple = model.max_reduction
            raise InputError(f"image_size: must be a multiple of {multiple} for {definition.name}, found {size}")
        if source is None:
            model.normalise_by(*channel_statistics(self.data.train, size, crop))
        else:
            copy_weights(model, source, self.names, str(weights))
        return model

    def loader(self, model: Model, folder: Path) -> ClassTrainingLoader:
        return ClassTrainingLoader(self.data.train, self.recipe, strict=self.strict)

    def criterion(self, model: Model) -> ClassificationLoss:
        crop = self.recipe.augment.crop
        crops = {"padding": "pad", "resize_px": "resize", "area": "area", "aspect": "area"}
        warn_of_ignored(
            self.recipe, [OptionDependency("augment", key, "crop", crop, wanted) for key, wanted in crops.items()]
        )
        return ClassificationLoss(self.recipe.label_smoothing)

    def validate(self, model: Model, device: torch.device, precision: Precision) -> Validation:
        """See ``Task``; by top-1 and top-5 accuracy."""
        assert isinstance(model, ClassificationModel), "the head decides the task"
        conditions = Conditions(
            self.recipe.image_size,
            self.recipe.batch_size,
            self.recipe.workers,
            device,
            precision,
            names=self.names,
            strict=self.strict,
        )
        found = evaluate_classifier(model, self.data.val, conditions, self.recipe.center_crop)
        return Validation(dict(found.metrics.values), partial(prediction_sheet, found, MAX_CLASS_TILES))

    def batch_picture(self, batch: Batch) -> np.ndarray:
        return class_batch_picture(batch, self.names)
