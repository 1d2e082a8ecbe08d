"""Worker processes in trouble: no shared memory, an error, a sudden end, no end at all."""

from __future__ import annotations

import logging
import os
import resource
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from detect.data import workers
from detect.data.workers import MISSED, Loaded, WorkerBatches
from detect.errors import InputError
from detect.runtime import interruption
from detect.runtime.interruption import LostContactError, Terminated, lost_worker, stop_requests
from detect.structures import Batch, ClassTargets, Letterbox, Targets


class Samples:
    """Batches of one image that is full of their number; ``act`` is called in the worker before each."""

    def __init__(self, act: Callable[[int], object] = lambda number: None) -> None:
        self._act = act

    def __getitem__(self, number: int) -> Loaded:
        self._act(number)
        image = torch.from_numpy(np.full((1, 64, 64, 3), number, np.uint8))
        boxes = Targets(torch.zeros(1, dtype=torch.int64), torch.tensor([7]), torch.ones(1, 4), (64, 64))
        targets = boxes if number % 2 else ClassTargets(torch.zeros(0, 3))
        return Loaded(Batch(image, targets, torch.tensor([number]), [Letterbox((1, 1), (64, 64))], 0.5), ())


def batches(act: Callable[[int], object] = lambda number: None, num_workers: int = 1, length: int = 4) -> WorkerBatches:
    return WorkerBatches(
        Samples(act),
        range(length),
        num_workers,
        keep_workers=False,
        num_images=length,
        policy=MISSED,
        strict=False,
    )


@pytest.fixture
def fast_clock(monkeypatch):
    """A second of waiting takes 20 ms."""
    monkeypatch.setattr(interruption, "TICK_S", 0.02)


def test_no_room_in_shared_memory(caplog):
    """A limit on the size of files holds for /dev/shm, too: 12,288 bytes of an image are too many, its row is not."""
    workers._warn_no_room.cache_clear()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        found = list(batches())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(found) == 4
    for batch, whole in zip(found, batches(num_workers=0), strict=True):
        assert not batch.images.is_shared()
        assert torch.equal(batch.images, whole.images)
        assert type(batch.targets) is type(whole.targets)
        if isinstance(whole.targets, Targets):
            assert torch.equal(batch.targets.boxes_xyxy_px, whole.targets.boxes_xyxy_px)
            assert batch.targets.image_hw == (64, 64)
        assert (batch.rows.tolist(), batch.letterboxes) == (whole.rows.tolist(), whole.letterboxes)
    assert [message for message in caplog.messages if "/dev/shm" in message] == [
        "/dev/shm has no room for batches, so that they take a slower way; docker's --shm-size makes room"
    ]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process has all cores on this system")
def test_more_workers_than_cores_are_no_warning():
    """PyTorch's would be an error of this test."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert len(list(batches(num_workers=2))) == 4
    finally:
        os.sched_setaffinity(0, before)


def raise_at_2(error: Exception) -> Callable[[int], None]:
    def act(number: int) -> None:
        if number == 2:
            raise error

    return act


@pytest.mark.parametrize(
    ("error", "num_workers"),
    [(InputError("a.png: is bad"), 0), (OSError(5, "disk gone", "a.png"), 1), (MemoryError(), 0)],
)
def test_an_error_in_a_worker_is_that_error(error, num_workers):
    """Not a text with the traceback of another process."""
    with pytest.raises(type(error)) as caught:
        list(batches(raise_at_2(error), num_workers, length=3))
    assert str(caught.value) == str(error)


def kill_at_2(number: int) -> None:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)


# The end of a worker may interrupt PyTorch while it opens a file, which then stays open until it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_the_system_kills():
    with pytest.raises(LostContactError, match=r"worker \(pid \d+\) is killed by signal: Killed: .*memory is used up"):
        list(batches(kill_at_2, num_workers=1))


def test_other_errors_are_none_of_workers():
    assert lost_worker(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    bus = RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error. It is possible that ...")
    assert "--shm-size" in str(lost_worker(bus))


def sleep_at_2(number: int) -> None:
    if number == 2:
        time.sleep(2)


@pytest.mark.usefixtures("fast_clock")
def test_a_worker_that_sends_nothing(monkeypatch, caplog):
    monkeypatch.setattr(workers, "WARN_TICKS", 5)
    monkeypatch.setattr(workers, "END_TICKS", 20)
    caplog.set_level(logging.WARNING)
    with pytest.raises(LostContactError, match="no batch from the worker processes for 20 s: they wait for something"):
        list(batches(sleep_at_2, num_workers=1))
    assert caplog.messages[-1].startswith("no batch from the worker processes for 5 s: perhaps they wait")
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


@pytest.mark.usefixtures("fast_clock")
def test_a_first_signal_ends_the_waiting():
    found = []
    with pytest.raises(Terminated), stop_requests():  # noqa: PT012
        for batch in batches(sleep_at_2, num_workers=1):
            found.append(int(batch.rows))
            if len(found) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert found == [0, 1]


def test_a_signal_leaves_time_for_a_batch_that_comes():
    found = []
    with pytest.raises(Terminated), stop_requests():  # noqa: PT012
        for batch in batches(num_workers=2):
            assert batch.images.is_shared()
            found.append(int(batch.rows))
            if not found[1:]:
                os.kill(os.getpid(), signal.SIGTERM)
    assert found == [0, 1, 2, 3]
