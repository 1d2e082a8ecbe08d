"""Batches made by worker processes, and the images that cannot be read."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from detect.data.images import ImageError
from detect.errors import InputError
from detect.runtime.cpu import return_freed_memory
from detect.runtime.distributed import num_processes, shard
from detect.runtime.interruption import LostContactError, lost_worker, requested_stop, timer_ticks
from detect.runtime.logs import LOGGER
from detect.structures import Batch

WARN_TICKS, END_TICKS, STOP_TICKS = 60, 600, 5
"""Seconds without a batch after which a warning is logged, after which the run fails, and after which it ends if a stop
was requested."""

Failure = tuple[int, str]
"""Row of an image that could not be read, and why."""


class Loaded(NamedTuple):
    """A batch as a worker sends it.

    Args:
        batch: None if no image of it could be read.
        failures: images that could not be read.
    """

    batch: Batch | None
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Piped:
    """A batch without shared memory.

    Args:
        loaded: with arrays instead of tensors; their content goes through the pipe between the processes.
    """

    loaded: Loaded


def read_each(read: Callable[[int], np.ndarray], rows: Sequence[int]) -> tuple[dict[int, np.ndarray], list[Failure]]:
    """Read images: row to image of those that can be read, and the failures."""
    images: dict[int, np.ndarray] = {}
    failures: list[Failure] = []
    for row in rows:
        try:
            images[row] = read(row)
        except ImageError as error:
            failures.append((row, str(error)))
    return images, failures


class _Sender(Dataset[Any]):
    """Dataset that makes batches in a worker and returns errors instead of raising them."""

    def __init__(self, samples: Dataset[Loaded]) -> None:
        self._samples = samples

    def __getitem__(self, element: Any) -> Loaded | _Piped | Exception:
        try:
            loaded = self._samples[element]
        except (InputError, OSError, MemoryError) as error:
            return error  # PyTorch would send a text with the whole traceback
        return loaded if get_worker_info() is None else _shared(loaded)


def _shared(loaded: Loaded) -> Loaded | _Piped:
    """Move the batch to shared memory, or, if ``/dev/shm`` has no room for it, prepare it for the pipe.

    PyTorch itself shares tensors in a thread of the worker, where the error is printed and the batch lost.
    """
    if loaded.batch is None:
        return loaded
    try:
        _mapped(loaded.batch, Tensor, Tensor.share_memory_)
    except RuntimeError:
        return _Piped(loaded._replace(batch=_mapped(loaded.batch, Tensor, Tensor.numpy)))
    return loaded


def _next(batches: Iterator[Any]) -> Any:
    """Return the next element, None after the last."""
    try:
        return next(batches, None)
    except (OSError, EOFError) as error:  # of the connection to it
        time.sleep(1)  # PyTorch's own error, with the cause, comes with its signal
        raise LostContactError(f"a worker process has ended: {error}; --workers 0 shows what it does") from None


def _unpacked(piped: _Piped) -> Loaded:
    _warn_no_room()
    return piped.loaded._replace(batch=_mapped(piped.loaded.batch, np.ndarray, torch.from_numpy))


@cache
def _warn_no_room() -> None:
    """Warn once per process."""
    LOGGER.warning("/dev/shm has no room for batches, so that they take a slower way; docker's --shm-size makes room")


def _mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to each field of type ``kind`` of a record, nested records included."""
    if isinstance(value, kind):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        new = {field.name: _mapped(getattr(value, field.name), kind, change) for field in fields(value)}
        return replace(value, **new)
    return value


def _check_semaphores(workers: int) -> None:
    # They lie in /dev/shm. PyTorch would report a lack of room with a second error.
    _ = [multiprocessing.Lock() for _ in range(4 * workers + 8 if workers else 0)]


class _Loader(DataLoader[Any]):
    def check_worker_number_rationality(self) -> None:
        """Suppress PyTorch's warning: two workers are the default, and a container may have one core."""


def _unchanged(loaded: Any) -> Any:
    return loaded


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # Ctrl-C and torchrun signal the whole group of a run's process, which still needs batches to end well. Without it
    # the workers end by themselves.
    os.setpgrp()
    gc.freeze()  # looking for garbage would write to, and so copy, all pages that the worker shares with its parent


class UnreadablePolicy(NamedTuple):
    """Treatment of images that cannot be read, as words of a message.

    Args:
        of_one: after "the image".
        of_all: after the number of images.
    """

    of_one: str
    of_all: str


MISSED = UnreadablePolicy("has no detections, so its objects count as missed", "their objects count as missed")
"""Policy of a detector's evaluation."""
REPLACED = UnreadablePolicy("is replaced by grey in training", "grey in training")


def check_shares(batch_size: int, num_images: int) -> None:
    """Raise InputError for training batches of which some process would get nothing."""
    if min(batch_size, num_images) < num_processes():
        raise InputError(
            f"batch_size: is that of all processes together; {batch_size} of {num_images} images cannot be shared out "
            f"to {num_processes()} processes"
        )


class Order(ABC):
    """Batches of an epoch, as a ``sampler`` of PyTorch's ``DataLoader`` whose elements are whole batches.

    A last batch with fewer images is dropped, because batch normalisation suffers from tiny batches; every epoch drops
    others.

    Args:
        num_images: of the split, at least 1.
        batch_size: over all processes; fewer images are one batch.
        seed: of the run.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images = num_images
        self.batch_size = min(batch_size, num_images)
        self.seed = seed
        self.epoch = 0
        self.start = 0
        """First batch of the next iteration."""

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yield this process's elements of the batches of ``epoch`` from ``start`` on."""


class WorkerBatches:
    """Batches made as a whole by worker processes.

    An image that cannot be read is logged once; its row and the reason are in ``unreadable``. Their number is logged at
    the end.

    Args:
        samples: returns the batch of an element of ``batches``.
        batches: one element per batch.
        workers: processes; 0 makes the batches in this one.
        keep_workers: keep them between two iterations.
        num_images: of the split.
        policy: treatment of images that cannot be read.
        strict: refuse these instead.
    """

    def __init__(
        self,
        samples: Dataset[Loaded],
        batches: Sized,
        workers: int,
        *,
        keep_workers: bool,
        num_images: int,
        policy: UnreadablePolicy,
        strict: bool,
    ) -> None:
        self.unreadable: dict[int, str] = {}
        """Row to reason, of the images that could not be read so far."""
        self._num_images = num_images
        self._policy = policy
        self._strict = strict
        self._batches = batches
        if workers:
            return_freed_memory()
        self._workers = workers
        self._loader = _Loader(
            _Sender(samples),
            sampler=batches,  # type: ignore[arg-type]  # any sized iterable will do
            batch_size=None,  # each element is a whole batch already
            collate_fn=_unchanged,
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
                    is_new = reason not in self.unreadable.values()  # the windows of an image have one reason
                    self.unreadable[row] = reason
                    if is_new:
                        LOGGER.warning("%s; the image %s", reason, self._policy.of_one)
            if batch is not None:
                yield batch
        if self.unreadable:
            count = len(self.unreadable)
            LOGGER.warning("unreadable so far: %d of %d images (%s)", count, self._num_images, self._policy.of_all)

    def _received(self) -> Iterator[Loaded]:
        """Yield the batches in order.

        Raises:
            InputError: the workers cannot be started, or a file is not what it must be.
            LostContactError: a worker has ended, or none has sent anything for ``END_TICKS``.
            KeyboardInterrupt: none has sent anything for ``STOP_TICKS`` after a stop request.
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
        """Run a step of the loader, with a timeout."""
        timeout = _Timeout(self._workers)
        try:
            with timer_ticks(timeout.tick):
                return step()
        except RuntimeError as error:
            raise lost_worker(error) or error from None


class _Timeout:
    """Limit of the time without a batch."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ticks = self._ticks_after_stop = 0

    def tick(self) -> None:
        """Count a tick.

        Raises:
            LostContactError: the time is up.
            KeyboardInterrupt: the time after a stop request is up.
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


class EvaluationBatches(WorkerBatches):
    """Batches of a split, each image once; those that cannot be read are in no batch.

    Args:
        samples: as for ``WorkerBatches``.
        batches: elements of all processes, which share them out.
        workers: as for ``WorkerBatches``.
        num_images: of the split.
        policy: as for ``WorkerBatches``.
        strict: as for ``WorkerBatches``.
    """

    def __init__(
        self,
        samples: Dataset[Loaded],
        batches: Sequence[Any],
        workers: int,
        *,
        num_images: int,
        policy: UnreadablePolicy,
        strict: bool,
    ) -> None:
        super().__init__(
            samples, shard(batches), workers, keep_workers=False, num_images=num_images, policy=policy, strict=strict
        )


class TrainingBatches(WorkerBatches):
    """Batches in an order that differs by epoch; worker processes are kept between epochs.

    Args:
        samples: as for ``WorkerBatches``; images that cannot be read are grey.
        order: of the batches.
        workers: as for ``WorkerBatches``.
        num_images: of the split.
        strict: as for ``WorkerBatches``.
    """

    def __init__(self, samples: Dataset[Loaded], order: Order, workers: int, *, num_images: int, strict: bool) -> None:
        super().__init__(
            samples, order, workers, keep_workers=True, num_images=num_images, policy=REPLACED, strict=strict
        )
        self._order = order

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch ``number`` from ``start`` on, a pure function of the constructor's arguments."""
        self._order.epoch, self._order.start = number, start
        yield from self
