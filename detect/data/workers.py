"""Batches that worker processes make, and the images that they could not read."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sized
from typing import Any, NamedTuple, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from detect.errors import InputError
from detect.runtime.logs import LOGGER
from detect.runtime.memory import return_freed_memory
from detect.runtime.processes import num_processes
from detect.structures import Batch

Failure = tuple[int, str]
"""Row of an image that could not be read, and why."""


class Loaded(NamedTuple):
    """What a worker sends back.

    Args:
        batch: None if no image of it could be read.
        failures: the images that could not be read.
    """

    batch: Batch | None
    failures: tuple[Failure, ...]


def _as_it_is(loaded: Any) -> Any:
    return loaded


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # Ctrl-C and torchrun signal the whole group of a run's process, which still needs batches to end well. Without it
    # the workers end by themselves.
    os.setpgrp()
    gc.freeze()  # looking for garbage would write to, and so copy, all pages that the worker shares with its parent


class Consequence(NamedTuple):
    """What it means that an image cannot be read.

    Args:
        of_one: behind "the image".
        of_all: behind their count.
    """

    of_one: str
    of_all: str


MISSED = Consequence("has no detections, so its objects count as missed", "their objects count as missed")
"""In the evaluation of a detector."""


def check_shares(batch_size: int, num_images: int) -> None:
    """Refuse training batches of which some process would get nothing.

    Args:
        batch_size: images of a batch, over all processes.
        num_images: of the split.

    Raises:
        InputError: there are fewer images than processes.
    """
    if min(batch_size, num_images) < num_processes():
        raise InputError(
            f"batch_size: is that of all processes together; {batch_size} of {num_images} images cannot be shared out "
            f"to {num_processes()} processes"
        )


class Order(Protocol):
    """Which images make the batches of an epoch: something for the workers to make each batch of."""

    epoch: int
    """Counted from 0."""
    start: int
    """The first batch."""

    def __len__(self) -> int:
        """Batches of an epoch."""

    def __iter__(self) -> Iterator[Any]:
        """What the batches of ``epoch`` from ``start`` on are made of, in this process."""


class WorkerBatches:
    """Batches that worker processes make as a whole.

    An image that cannot be read is reported once; its row and the reason are in ``unreadable``. The count comes last.

    Args:
        samples: gives the batch of an element of ``batches``.
        batches: has an element for each batch.
        workers: processes; 0 makes the batches in this one.
        keep_workers: whether they stay between two iterations.
        num_images: of the split.
        consequence: for an image that cannot be read.
        strict: refuse such an image instead.
    """

    def __init__(
        self,
        samples: Dataset[Loaded],
        batches: Sized,
        workers: int,
        *,
        keep_workers: bool,
        num_images: int,
        consequence: Consequence,
        strict: bool,
    ) -> None:
        self.unreadable: dict[int, str] = {}
        """Row to reason, of the images that could not be read so far."""
        self._num_images = num_images
        self._consequence = consequence
        self._strict = strict
        self._batches = batches
        if workers:
            return_freed_memory()
        self._loader: DataLoader[Loaded] = DataLoader(
            samples,
            sampler=batches,  # type: ignore[arg-type]  # any sized iterable will do
            batch_size=None,  # each element is a whole batch already
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=keep_workers and workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # its own, so that loading leaves the global random state alone
        )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch, failures in self._loader:
            for row, reason in failures:
                if self._strict:
                    raise InputError(f"{reason}; refused, because --strict was asked for")
                if row not in self.unreadable:
                    self.unreadable[row] = reason
                    LOGGER.warning("%s; the image %s", reason, self._consequence.of_one)
            if batch is not None:
                yield batch
        if self.unreadable:
            count, consequence = len(self.unreadable), self._consequence.of_all
            LOGGER.warning("unreadable so far: %d of %d images (%s)", count, self._num_images, consequence)


class TrainingBatches(WorkerBatches):
    """Batches that follow an order, another one in each epoch; worker processes are kept between epochs.

    Args:
        samples: as for ``WorkerBatches``, whose images are grey if they cannot be read.
        order: of the batches.
        workers: as for ``WorkerBatches``.
        num_images: of the split.
        strict: as for ``WorkerBatches``.
    """

    def __init__(self, samples: Dataset[Loaded], order: Order, workers: int, *, num_images: int, strict: bool) -> None:
        consequence = Consequence("is replaced by grey in training", "grey in training")
        super().__init__(
            samples,
            order,
            workers,
            keep_workers=True,
            num_images=num_images,
            consequence=consequence,
            strict=strict,
        )
        self._order = order

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; a pure function of what the loader was made of, and ``number``.

        Args:
            number: counted from 0.
            start: of the first batch; those before it are not made.

        Raises:
            InputError: with ``strict``, an image cannot be read.
        """
        self._order.epoch, self._order.start = number, start
        yield from self
