"""What the head of a model decides about a run: its data, its loss, its metrics, its pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from detect.config.recipe import Recipe
from detect.models.model import Model
from detect.runtime.device import Precision
from detect.structures import Batch
from detect.training.fingerprint import Fingerprint
from detect.training.recorder import Recorder


class LossTerms(Protocol):
    """The terms of a loss, as means over the images of a batch.

    Of a batch that several processes share out, each has its share of the terms: the shares add up to them.
    """

    @property
    def num_images(self) -> int:
        """Images of the batch, over all processes."""

    @property
    def total(self) -> Tensor:
        """Their sum, a scalar."""

    def values(self) -> dict[str, float]:
        """Plain numbers by name, for logs."""


class Criterion(Protocol):
    """Compares what the model gives with the targets of a batch."""

    def __call__(self, raw: Any, targets: Any, /) -> LossTerms:
        """The loss of a batch."""


class Loader(Protocol):
    """Training batches."""

    def __len__(self) -> int:
        """Batches of an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """This process's share of the batches of an epoch, counted from 0, without the first ``start`` of them."""


@dataclass(frozen=True)
class Validation:
    """What came out of a validation.

    Args:
        metrics: by name; more is better in all that a recipe can watch.
        record: draws what was found; is given the recorder, the run's folder and the epoch, counted from 0.
    """

    metrics: dict[str, float]
    record: Callable[[Recorder, Path, int], None]


class Task(ABC):
    """What the loop (``detect.training.loop``) asks of detection and of classification.

    Args:
        recipe: the run's.
        strict: refuse damaged data instead of skipping it.
    """

    sums_images: ClassVar[bool]
    """Whether the rates of recipes are for a loss that is the sum over the images of an update, or their mean."""
    shown: ClassVar[tuple[str, ...]]
    """Metrics that are told after each epoch."""

    def __init__(self, recipe: Recipe, strict: bool) -> None:
        self.recipe = recipe
        self.strict = strict

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The K class names of the data."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a checkpoint says about the data, as keywords of ``save_checkpoint``."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, int]:
        """How much there is to train on, for the provenance."""

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Of the training and validation splits."""

    @abstractmethod
    def prepare_model(self, name: str | None, weights: Path | None) -> Model:
        """The model to train: built for the data's classes and, if asked, with given weights.

        Args:
            name: model name or file; None takes the model of ``weights``.
            weights: a checkpoint to start from; what fits is copied.
        """

    @abstractmethod
    def loader(self, model: Model, folder: Path) -> Loader:
        """The training batches.

        Args:
            model: whose input they are.
            folder: the run's, for a cache on disk.
        """

    @abstractmethod
    def criterion(self, model: Model) -> Criterion:
        """The loss; warns of settings of the recipe that have no effect."""

    @abstractmethod
    def validate(self, model: Model, device: torch.device, precision: Precision) -> Validation:
        """Measure a model on the validation split."""

    @abstractmethod
    def record_batch(self, recorder: Recorder, folder: Path, batch: Batch, epoch: int) -> None:
        """Draw a training batch as the network sees it: ``train_batch.jpg``."""
