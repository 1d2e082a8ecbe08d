"""Threads and memory of a process that computes on a CPU, which other programs use as well.

PyTorch's threads spin while they wait for each other, which is fastest while each has a core of its own. When another
program takes a core, one thread waits for it and all others spin for that thread: the same work takes several times as
long. So the number of threads follows the free cores and the measured speed.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import torch

from detect.runtime.logs import LOGGER
from detect.runtime.threads import are_fixed, chosen_threads

_CHECK_S = 1.0
"""Seconds between two measurements of the load."""
_TOLERANCE = 0.3
"""Share of a core that others may use before it counts as taken."""
_GAIN = 0.95
"""Half the threads are chosen if they need less than this share of the time."""
_FIRST_PAUSE_S = 2.0
"""Seconds until the search starts again where fewer threads than free cores were the fastest."""
_TRIALS = 5
"""Runs of each number of threads; the first one warms up and does not count."""


class LoadMeter:
    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._read()

    def free_cores(self) -> float:
        """Return the mean number of cores since the last call that were idle or used by this process and workers."""
        (idle, own, now), before = self._read(), self._before
        self._before = (idle, own, now)
        return (idle - before[0] + own - before[1]) / max(now - before[2], 1e-9)

    def _read(self) -> tuple[float, float, float]:
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        own = sum(self._process.cpu_times()[:4])  # with ended children
        for worker in multiprocessing.active_children():
            with suppress(psutil.Error):
                own += sum(psutil.Process(worker.pid).cpu_times()[:2])
        return idle, own, time.monotonic()


class ThreadTuner:
    """Search for the fastest number of threads while the work goes on.

    All threads are tried first, then half of them as long as fewer are faster. Afterwards the load is measured each
    second: threads are given up for cores that other programs take; when cores become free, the search starts again.
    Where fewer threads than cores were faster, it starts again after 2, 4, 8, ... seconds: worker processes that fill
    their queues use the other cores at first.
    """

    def __init__(self, meter: LoadMeter, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter, self._clock = meter, clock
        self._checked = clock()
        self._limit = 0
        self._room = 0  # free cores at the last decision
        self._had_room = False  # more free cores than that at the last measurement
        self._trial: _Trial | None = None
        self._count = 0
        self._pause_s = _FIRST_PAUSE_S  # to the next search without a reason
        self._search_at = math.inf

    @property
    def is_settled(self) -> bool:
        return self._trial is None and self._count > 0

    def count(self, limit: int) -> int:
        """Return the number of threads for the next piece of work, at most ``limit``."""
        if limit != self._limit:
            self._limit = limit
            self._try_from(limit)
        elif self._clock() - self._checked >= _CHECK_S:
            self._checked = self._clock()
            self._follow_load(min(max(int(self._meter.free_cores() + _TOLERANCE), 1), limit))
            if self._clock() >= self._search_at:
                self._try_from(self._room)
        return self._trial.count if self._trial else self._count

    def record(self, seconds: float) -> None:
        """Record the time of the piece of work, divided by its size."""
        if self._trial is not None and self._trial.record(seconds):
            self._count, self._trial = self._trial.best, None
            if self._count < self._room:
                self._search_at = self._clock() + self._pause_s
                self._pause_s *= 2

    def keep(self) -> None:
        """Change the number for the sake of the load only."""
        self._pause_s = self._search_at = math.inf

    def _try_from(self, most: int) -> None:
        self._room, self._had_room, self._search_at = most, False, math.inf
        self._trial, self._count = (_Trial(most), 0) if most > 1 else (None, 1)

    def _follow_load(self, room: int) -> None:
        current = self._trial.count if self._trial else self._count
        if room < current:
            _log_load(room, self._limit)
            self._trial, self._count, self._room, self._search_at = None, room, room, math.inf
        elif room > self._room and self._had_room:
            self._try_from(room)
        self._had_room = room > self._room


class _Trial:
    """Measured times of ``count`` threads, which is halved after ``_TRIALS`` of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.best, self._best_seconds = count, float("inf")
        self._seconds: list[float] = []

    def record(self, seconds: float) -> bool:
        """Record a time; return true if the search is over."""
        self._seconds.append(seconds)
        if len(self._seconds) < _TRIALS:
            return False
        measured = min(self._seconds[1:])
        if measured > _GAIN * self._best_seconds:
            return True
        self.best, self._best_seconds = self.count, measured
        self.count, self._seconds = self.count // 2, []
        return self.count == 0


@dataclass
class _Process:
    """State of this process: PyTorch has one number of threads in each."""

    is_timing: bool = False
    has_logged: bool = False
    tuner: ThreadTuner | None = None


_PROCESS = _Process()

if chosen_threads():  # before PyTorch was imported
    torch.set_num_threads(chosen_threads())


@contextmanager
def tuned_threads(device: torch.device, size: float = 1.0) -> Iterator[None]:
    """Run the block with the fastest number of threads, at most ``torch.get_num_threads()``.

    Nothing changes on other devices than the CPU, in a nested block, and where ``OMP_NUM_THREADS`` is set.

    Args:
        device: of the work.
        size: of the work, in any unit proportional to its time.
    """
    if _PROCESS.is_timing or not _is_tuned(device):
        yield
        return
    limit = torch.get_num_threads()
    tuner = _PROCESS.tuner = _PROCESS.tuner or ThreadTuner(LoadMeter())
    torch.set_num_threads(tuner.count(limit))
    start, _PROCESS.is_timing = time.perf_counter(), True
    try:
        yield
        tuner.record((time.perf_counter() - start) / size)
    finally:
        _PROCESS.is_timing = False
        torch.set_num_threads(limit)


def tune_threads(run: Callable[[], object], device: torch.device) -> None:
    """Search for the fastest number of threads with runs whose results are discarded, and stay with it."""
    while _is_tuned(device) and not (_PROCESS.tuner and _PROCESS.tuner.is_settled):
        with tuned_threads(device):
            run()
    if _PROCESS.tuner:
        _PROCESS.tuner.keep()


def _is_tuned(device: torch.device) -> bool:
    return not are_fixed() and device.type == "cpu" and torch.get_num_threads() > 1


def _log_load(room: int, limit: int) -> None:
    """Log once that other programs use the processor, with a hint for programs other than the commands."""
    if _PROCESS.has_logged:
        return
    _PROCESS.has_logged = True
    hint = ""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        hint = "; in a program of your own, set OMP_WAIT_POLICY=PASSIVE or OMP_NUM_THREADS before torch is imported"
    LOGGER.info("other programs use the processor: computing with %d of %d threads while they do%s", room, limit, hint)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and values of <malloc.h>
_KEEP_BYTES = 2**30
_MOST_IN_OLD_VERSIONS = 2**25


def keep_freed_memory() -> None:
    """Keep freed memory in the process instead of returning it to the system.

    A training step on a CPU frees all its activations and allocates them again in the next. By default glibc returns
    such blocks at once, and the system hands them out page by page, zeroed: thousands of page faults a step, about 4 %
    of the processor's time. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        if not mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES):
            mallopt(_M_MMAP_THRESHOLD, _MOST_IN_OLD_VERSIONS)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def return_freed_memory() -> None:
    """Return freed memory to the system, before worker processes are forked.

    A worker shares all pages of its parent until one of them writes. Free blocks are written first: after a large
    annotation file has been read, they would be copied page by page for many epochs.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
