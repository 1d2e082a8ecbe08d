"""Batches that worker processes make, and the images that they could not read."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from detect.errors import InputError
from detect.runtime.cpu import return_freed_memory
from detect.runtime.distributed import num_processes
from detect.runtime.interruption import LostContactError, lost_worker, requested_stop, timer_ticks
from detect.runtime.logs import LOGGER
from detect.structures import Batch

WARN_TICKS, END_TICKS, STOP_TICKS = 60, 600, 5
"""Seconds without a batch after which a warning is logged, after which the run fails, and after which it ends if a stop
was requested."""

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


@dataclass(frozen=True)
class _Piped:
    """What a worker sends back without shared memory.

    Args:
        loaded: with arrays instead of tensors, whose content goes through the pipe between the processes.
    """

    loaded: Loaded


class _Sender(Dataset[Any]):
    """Makes batches in a worker, and makes them ready to be sent; a worker never ends by what it meets in a file.

    Args:
        samples: makes them.
    """

    def __init__(self, samples: Dataset[Loaded]) -> None:
        self._samples = samples

    def __getitem__(self, element: Any) -> Loaded | _Piped | Exception:
        try:
            loaded = self._samples[element]
        except (InputError, OSError, MemoryError) as error:
            return error  # PyTorch would send a text with the whole traceback
        return loaded if get_worker_info() is None else _shared(loaded)


def _shared(loaded: Loaded) -> Loaded | _Piped:
    """The batch in shared memory, or, where ``/dev/shm`` has no room for it, without.

    Left to itself, PyTorch shares tensors in a thread of the worker, where the error is printed and the batch lost.
    """
    if loaded.batch is None:
        return loaded
    try:
        _changed(loaded.batch, Tensor, Tensor.share_memory_)
    except RuntimeError:
        return _Piped(loaded._replace(batch=_changed(loaded.batch, Tensor, Tensor.numpy)))
    return loaded


def _next(batches: Iterator[Any]) -> Any:
    """What a worker has sent; None after the last."""
    try:
        return next(batches, None)
    except (OSError, EOFError) as error:  # of the connection to it
        time.sleep(1)  # PyTorch's own error, which says how it ended, comes with its signal
        raise LostContactError(f"a worker process has ended: {error}; --workers 0 shows what it does") from None


def _unpacked(piped: _Piped) -> Loaded:
    _say_no_room()
    return piped.loaded._replace(batch=_changed(piped.loaded.batch, np.ndarray, torch.from_numpy))


@cache
def _say_no_room() -> None:
    """Warn once in a process."""
    LOGGER.warning("/dev/shm has no room for batches, so that they take a slower way; docker's --shm-size makes room")


def _changed(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The record with ``change`` of each field, of it or of its records, that is of a kind."""
    if isinstance(value, kind):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        new = {field.name: _changed(getattr(value, field.name), kind, change) for field in fields(value)}
        return replace(value, **new)
    return value


def _check_semaphores(workers: int) -> None:
    """Make as many semaphores, which lie in ``/dev/shm``, as the queues of the workers have.

    Raises:
        OSError: there is no room for them. PyTorch would tell it by a second error, too.
    """
    _ = [multiprocessing.Lock() for _ in range(4 * workers + 8 if workers else 0)]


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
        self._workers = workers
        self._loader: DataLoader[Any] = DataLoader(
            _Sender(samples),
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
        for batch, failures in self._received():
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

    def _received(self) -> Iterator[Loaded]:
        """What the workers send, in order.

        Raises:
            InputError: the workers cannot be started, or a file is not what it must be.
            LostContactError: a worker has ended, or none has sent anything for ``END_TICKS``.
            KeyboardInterrupt: none has sent anything for ``STOP_TICKS`` after a signal asked for the end.
        """
        try:
            _check_semaphores(self._workers)
            batches = self._wait(lambda: iter(self._loader))
        except OSError as error:
            raise InputError(
                f"workers: {self._workers} worker processes cannot be started: {error.strerror} (/dev/shm, memory, "
                "number of processes); --workers 0 needs none"
            ) from None
        try:
            while (received := self._wait(partial(_next, batches))) is not None:
                if isinstance(received, Exception):
                    raise received
                yield _unpacked(received) if isinstance(received, _Piped) else received
        finally:
            del batches  # the workers end now; left to the garbage collector, PyTorch waits for them

    def _wait(self, step: Callable[[], Any]) -> Any:
        """What a step of the loader gives, unless it is waited for too long."""
        patience = _Patience(self._workers)
        try:
            with timer_ticks(patience.tick):
                return step()
        except RuntimeError as error:
            raise lost_worker(error) or error from None


class _Patience:
    """The end of the patience with workers that send nothing.

    Args:
        workers: processes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ticks = self._ticks_after_stop = 0

    def tick(self) -> None:
        """Count a tick.

        Raises:
            LostContactError: that was the last one.
            KeyboardInterrupt: that was the last one after a signal asked for the end.
        """
        if not self._workers:
            return
        self._ticks += 1
        if stop := requested_stop():
            self._ticks_after_stop += 1
            if self._ticks_after_stop >= STOP_TICKS:
                raise stop
        cause = "they wait for something, such as a disk or a network folder that is gone; --workers 0 shows for what"
        if self._ticks == WARN_TICKS:
            LOGGER.warning("no batch from the worker processes for %d s: perhaps %s", WARN_TICKS, cause)
        if self._ticks >= END_TICKS:
            raise LostContactError(f"no batch from the worker processes for {END_TICKS} s: {cause}")


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
