"""Training of classifiers: data, model, loss, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from detect.class_names import match_names
from detect.config.data import DataConfig
from detect.config.recipe import ClassificationRecipe
from detect.data.classification.datasets import open_class_split
from detect.data.classification.loading import ClassTrainingLoader, channel_statistics
from detect.data.classification.table import ClassTable
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.loop import Conditions
from detect.losses.classification import ClassificationLoss
from detect.models.build import build_classifier
from detect.models.catalog import find_definition
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.classifier import ClassificationModel
from detect.models.model import Model
from detect.runtime.device import Precision
from detect.runtime.logs import LOGGER
from detect.structures import Batch
from detect.training.fingerprint import Fingerprint, fingerprint_of
from detect.training.pictures import record_class_batch, record_classes
from detect.training.preparation import Need, check_classes, check_splits, copy_weights, warn_of_ignored
from detect.training.recorder import Recorder
from detect.training.task import Task, Validation


@dataclass(frozen=True)
class ClassMaterial:
    """What a classifier is trained on.

    Args:
        train: training split.
        val: validation split.
    """

    train: ClassTable
    val: ClassTable


def open_classes(data: DataConfig, strict: bool) -> ClassMaterial:
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
    return ClassMaterial(train, val)


class ClassificationTask(Task):
    """Training of a classifier; see ``Task``.

    Args:
        material: what to train on.
        recipe: the recipe.
        strict: refuse images that cannot be read instead of training on grey ones.
    """

    sums_images: ClassVar[bool] = False
    shown: ClassVar[tuple[str, ...]] = ("top1", "top5")
    recipe: ClassificationRecipe

    def __init__(self, material: ClassMaterial, recipe: ClassificationRecipe, strict: bool) -> None:
        super().__init__(recipe, strict)
        self.train, self.val = material.train, material.val

    @property
    def names(self) -> tuple[str, ...]:
        """The K class names of the data."""
        return self.train.names

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, numbered from 0, what evaluation looks at, and the range of the images' values."""
        return {
            "names": self.names,
            "category_ids": tuple(range(len(self.names))),
            "center_crop": self.recipe.center_crop,
            "value_range": self.train.read_settings.value_range,
        }

    @property
    def counts(self) -> dict[str, int]:
        """Images of the training split."""
        return {"train_images": len(self.train)}

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See ``Task``."""
        return {"train": fingerprint_of(self.train), "val": fingerprint_of(self.val)}

    def prepare_model(self, name: str | None, weights: Path | None) -> Model:
        """See ``Task``; images are normalised by the training images' mean and deviation, or as ``weights`` say."""
        source = load_checkpoint(weights) if weights else None
        if source is not None:
            self._warn_of_crop(source, weights)
        definition = find_definition(name) if name else source.classifier.definition if source else None
        assert definition is not None, "a run has a model or weights"
        model = build_classifier(definition, len(self.names))
        size = self.recipe.image_size
        if size % model.max_reduction:
            multiple = model.max_reduction
            raise InputError(f"image_size: must be a multiple of {multiple} for {definition.name}, found {size}")
        if source is None:
            model.normalise_by(*channel_statistics(self.train, size, self.recipe.center_crop))
        else:
            classes = match_names(source.names, self.names)
            copy_weights(model, source.classifier, classes, str(weights))
        return model

    def loader(self, model: Model, folder: Path) -> ClassTrainingLoader:
        """See ``Task``."""
        return ClassTrainingLoader(self.train, self.recipe, strict=self.strict)

    def criterion(self, model: Model) -> ClassificationLoss:
        """See ``Task``."""
        crop = self.recipe.augment.crop
        wanted = {"padding": "pad", "resize_px": "resize", "area": "area", "aspect": "area"}
        warn_of_ignored(self.recipe, [Need("augment", key, "crop", crop, word) for key, word in wanted.items()])
        return ClassificationLoss(self.recipe.label_smoothing)

    def validate(self, model: Model, device: torch.device, precision: Precision) -> Validation:
        """See ``Task``; by the share of images whose class is the best, or among the five best."""
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
        found = evaluate_classifier(model, self.val, conditions, self.recipe.center_crop)
        return Validation(dict(found.metrics.values), partial(record_classes, found))

    def record_batch(self, recorder: Recorder, folder: Path, batch: Batch, epoch: int) -> None:
        """See ``Task``."""
        record_class_batch(recorder, folder, batch, self.names, epoch)

    def _warn_of_crop(self, source: Checkpoint, path: Path | None) -> None:
        if source.center_crop != self.recipe.center_crop:
            LOGGER.warning(
                "%s was made for center_crop %g, the recipe says %g",
                *(path, source.center_crop, self.recipe.center_crop),
            )
