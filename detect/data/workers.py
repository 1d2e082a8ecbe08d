"""Batches that worker processes make, and the images that they could not read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from detect.errors import InputError
from detect.runtime.logs import LOGGER
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


def data_loader(samples: Dataset[Loaded], batches: object, workers: int, keep_workers: bool) -> DataLoader[Loaded]:
    """PyTorch's loader of batches that are made as a whole.

    Args:
        samples: gives the batch of an element of ``batches``.
        batches: any sized iterable, with an element for each batch.
        workers: processes; 0 loads in this one.
        keep_workers: whether they stay between two iterations.
    """
    return DataLoader(
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


def _as_it_is(loaded: Any) -> Any:
    return loaded


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism


class Consequence(NamedTuple):
    """What it means that an image cannot be read.

    Args:
        of_one: behind "the image".
        of_all: behind their count.
    """

    of_one: str
    of_all: str


def read_batches(
    loaded: Iterable[Loaded], reported: dict[int, str], num_images: int, consequence: Consequence, strict: bool
) -> Iterator[Batch]:
    """The batches that workers made. Tells about images that could not be read, about each once, and their count last.

    Args:
        loaded: what the workers send.
        reported: row to reason, of those that were told before; gets the others.
        num_images: of the split.
        consequence: for an image that cannot be read.
        strict: refuse instead.

    Raises:
        InputError: with ``strict``, an image cannot be read.
    """
    for batch, failures in loaded:
        for row, reason in failures:
            if strict:
                raise InputError(f"{reason}; refused, because --strict was asked for")
            if row not in reported:
                reported[row] = reason
                LOGGER.warning("%s; the image %s", reason, consequence.of_one)
        if batch is not None:
            yield batch
    if reported:
        LOGGER.warning("unreadable so far: %d of %d images (%s)", len(reported), num_images, consequence.of_all)
