"""Batches that worker processes make, and the images that they could not read."""

from __future__ import annotations

from collections.abc import Sequence
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


def report_unreadable(failures: Sequence[Failure], reported: dict[int, str], consequence: str, strict: bool) -> None:
    """Tell about images that could not be read, about each once.

    Args:
        failures: of a batch.
        reported: row to reason, of those that were told before; gets the others.
        consequence: what that means for the image.
        strict: refuse instead.

    Raises:
        InputError: with ``strict``, there is a failure.
    """
    for row, reason in failures:
        if strict:
            raise InputError(f"{reason}; refused, because --strict was asked for")
        if row not in reported:
            reported[row] = reason
            LOGGER.warning("%s; the image %s", reason, consequence)


def report_unreadable_total(reported: dict[int, str], num_images: int, consequence: str) -> None:
    """Tell how many images could not be read, if any.

    Args:
        reported: row to reason, so far.
        num_images: of the split.
        consequence: what that means for them.
    """
    if reported:
        LOGGER.warning("unreadable so far: %d of %d images (%s)", len(reported), num_images, consequence)
