"""The task of a run, which the model's head decides: data, model, loss, metrics and pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from detect.config.recipe import Recipe
from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.models.model import Model
from detect.runtime.device import Precision
from detect.structures import Batch
from detect.training.checks import Fingerprint, fingerprint_of


class BatchLoss(Protocol):
    """Terms of the loss of a batch, as means over its ``num_images`` images of all processes; ``total`` is their sum.

    Each of several processes has its share of every term; the shares add up to the terms of the whole batch. A name in
    ``values`` with a slash is a TensorBoard tag of something that is not a loss.
    """

    @property
    def num_images(self) -> int: ...

    @property
    def total(self) -> Tensor: ...

    def values(self) -> dict[str, float]: ...


class Criterion(Protocol):
    """Compares the raw outputs of a model with the targets of a batch."""

    def __call__(self, raw: Any, targets: Any, /) -> BatchLoss: ...


class Loader(Protocol):
    """Training batches; ``len`` is their number in an epoch.

    ``epoch`` yields this process's shares of the batches of an epoch, counted from 0, without the first ``start``.
    """

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Args:
        metrics: by name; higher is better for all that a recipe can watch.
        picture: draws predictions, (H, W, 3) uint8; None where there is nothing to draw.
    """

    metrics: dict[str, float]
    picture: Callable[[], np.ndarray | None]


class Task(ABC):
    """The parts of a training that differ between detection and classification.

    Args:
        train: training split.
        val: validation split.
        recipe: of the run.
        strict: refuse damaged data instead of skipping it.
    """

    sums_images: ClassVar[bool]
    """True where recipes state rates for a loss summed over the images of an update, False for their mean."""
    logged: ClassVar[tuple[str, ...]]
    """Metrics that are logged after each epoch."""

    def __init__(
        self, train: AnnotationTable | ClassTable, val: AnnotationTable | ClassTable, recipe: Recipe, strict: bool
    ) -> None:
        self.recipe, self.strict = recipe, strict
        self._splits = {"train": train, "val": val}
        self.names: tuple[str, ...] = train.names
        """The K class names."""

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Fingerprints of the training and validation splits."""
        return {split: fingerprint_of(table) for split, table in self._splits.items()}

    @property
    @abstractmethod
    def checkpoint_fields(self) -> dict[str, Any]:
        """Fields of a checkpoint about the data, as keywords of ``save_checkpoint``."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Amount of training data, for the provenance."""

    @abstractmethod
    def prepare_model(self, name: str | None, weights: Path | None) -> Model:
        """Build the model for the data's classes and copy given weights.

        Args:
            name: model name or file; None takes the model of ``weights``.
            weights: a checkpoint to start from; what fits is copied.
        """

    @abstractmethod
    def loader(self, model: Model, folder: Path) -> Loader:
        """Open the training batches.

        Args:
            model: takes them as input.
            folder: of the run, for a cache on disk.
        """

    @abstractmethod
    def criterion(self, model: Model) -> Criterion:
        """Build the loss; warn of recipe settings that have no effect."""

    @abstractmethod
    def validate(self, model: Model, device: torch.device, precision: Precision) -> Validation:
        """Measure a model on the validation split."""

    @abstractmethod
    def batch_picture(self, batch: Batch) -> np.ndarray:
        """Draw a training batch as the network sees it, (H, W, 3) uint8."""
