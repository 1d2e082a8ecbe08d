"""Computing threads of PyTorch on a processor that other programs use as well.

PyTorch's threads spin while they wait for each other. As long as each has a core of its own, that is the fastest way.
As soon as another program takes a core, one thread waits for it and all others spin for that thread: the same work
takes several times as long. So the number of threads follows the cores that are free, and the measured speed.
"""

from __future__ import annotations

import ctypes
import gc
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

_CHECK_S = 1.0
"""Seconds between two looks at the load of the machine."""
_TOLERANCE = 0.3
"""Share of a core that others may use before it counts as taken."""
_GAIN = 0.95
"""Half the threads are taken if they need less than this share of the time."""
_TRIALS = 3
"""Runs of each number of threads; the first one prepares and does not count."""


class LoadMeter:
    """Cores that are idle or used by this process and its workers, since the last look."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._read()

    def free_cores(self) -> float:
        """Mean number of cores since the last call that this process and its workers had or could have had."""
        (idle, own, now), before = self._read(), self._before
        self._before = (idle, own, now)
        return (idle - before[0] + own - before[1]) / max(now - before[2], 1e-9)

    def _read(self) -> tuple[float, float, float]:
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        own = sum(self._process.cpu_times()[:4])  # with the children that have ended
        for worker in multiprocessing.active_children():
            with suppress(psutil.Error):
                own += sum(psutil.Process(worker.pid).cpu_times()[:2])
        return idle, own, time.monotonic()


class ThreadTuner:
    """The number of threads that is fastest, found while the work goes on.

    Numbers are tried from all downwards by halves as long as fewer are faster. Afterwards the load of the machine is
    looked at each second: where others take cores, as many threads are left out; where cores become free, the numbers
    are tried anew.

    Args:
        meter: of the machine's load.
        clock: seconds.
    """

    def __init__(self, meter: LoadMeter, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter, self._clock = meter, clock
        self._checked = clock()
        self._limit = 0
        self._room = 0  # threads that the cores had room for at the last decision
        self._had_room = False  # for more, at the last look
        self._trial: _Trial | None = None
        self._count = 0

    @property
    def is_settled(self) -> bool:
        """All numbers that are worth it have been tried."""
        return self._trial is None and self._count > 0

    def count(self, limit: int) -> int:
        """Threads for the next piece of work, at most ``limit``."""
        if limit != self._limit:
            self._limit = limit
            self._try_from(limit)
        elif self._clock() - self._checked >= _CHECK_S:
            self._checked = self._clock()
            self._follow_load(min(max(int(self._meter.free_cores() + _TOLERANCE), 1), limit))
        return self._trial.count if self._trial else self._count

    def note(self, seconds: float) -> None:
        """Take notice of the time that the piece of work took, divided by its size."""
        if self._trial is not None and self._trial.note(seconds):
            self._count, self._trial = self._trial.best, None

    def _try_from(self, most: int) -> None:
        self._room, self._had_room = most, False
        self._trial, self._count = (_Trial(most), 0) if most > 1 else (None, 1)

    def _follow_load(self, room: int) -> None:
        current = self._trial.count if self._trial else self._count
        if room < current:
            _tell_of_load(room, self._limit)
            self._trial, self._count, self._room = None, room, room
        elif room > self._room and self._had_room:
            self._try_from(room)
        self._had_room = room > self._room


class _Trial:
    """Times of numbers of threads, from ``count`` downwards by halves."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.best, self._best_seconds = count, float("inf")
        self._seconds: list[float] = []

    def note(self, seconds: float) -> bool:
        """Take notice of a time; true if this was the last one needed."""
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
    """The choice of this process, as PyTorch's number of threads is one of the process.

    Args:
        is_fixed: the number stays as it is.
        is_at_work: a piece of work is being timed.
        has_told: of the load.
        tuner: made when it is needed.
    """

    is_fixed: bool
    is_at_work: bool = False
    has_told: bool = False
    tuner: ThreadTuner | None = None


_PROCESS = _Process(is_fixed="OMP_NUM_THREADS" in os.environ)


def use_threads(count: int) -> None:
    """Compute with a fixed number of threads from now on; 0 leaves the choice to ``tuned_threads``.

    With a fixed number, results are equal to the last bit whatever else the machine does.
    """
    if count:
        torch.set_num_threads(count)
    _PROCESS.is_fixed = count > 0 or "OMP_NUM_THREADS" in os.environ


@contextmanager
def tuned_threads(device: torch.device, size: float = 1.0) -> Iterator[None]:
    """Run a piece of work with the number of threads that is fastest now; afterwards it is what it was before.

    ``torch.get_num_threads()`` is the most that are used, and all that are where ``OMP_NUM_THREADS`` is set.

    Args:
        device: of the work; on others than the CPU nothing is done.
        size: of the work, in any unit that its time grows with.
    """
    if _PROCESS.is_at_work or not _is_tuned(device):
        yield
        return
    limit = torch.get_num_threads()
    tuner = _PROCESS.tuner = _PROCESS.tuner or ThreadTuner(LoadMeter())
    torch.set_num_threads(tuner.count(limit))
    start, _PROCESS.is_at_work = time.perf_counter(), True
    try:
        yield
        tuner.note((time.perf_counter() - start) / size)
    finally:
        _PROCESS.is_at_work = False
        torch.set_num_threads(limit)


def settle_threads(run: Callable[[], object], device: torch.device) -> None:
    """Try the numbers of threads on work that does not count, so that all that follows has the one number.

    Args:
        run: a piece of work.
        device: of the work.
    """
    while _is_tuned(device) and not (_PROCESS.tuner and _PROCESS.tuner.is_settled):
        with tuned_threads(device):
            run()


def _is_tuned(device: torch.device) -> bool:
    return not _PROCESS.is_fixed and device.type == "cpu" and torch.get_num_threads() > 1


def _tell_of_load(room: int, limit: int) -> None:
    """Say once that others use the processor, and what the user's own program could do about spinning."""
    if _PROCESS.has_told:
        return
    _PROCESS.has_told = True
    hint = ""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        hint = "; in a program of your own, set OMP_WAIT_POLICY=PASSIVE or OMP_NUM_THREADS before torch is imported"
    LOGGER.info("other programs use the processor: computing with %d of %d threads while they do%s", room, limit, hint)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and values of <malloc.h>
_KEEP_BYTES = 2**30
_MOST_IN_OLD_VERSIONS = 2**25


def keep_freed_memory() -> None:
    """Let freed memory stay with the process instead of going back to the system.

    A training step on a CPU frees all its activations and needs them again in the next. By default glibc returns such
    large blocks at once, and the system hands them back page by page, zeroed: thousands of page faults a step, about
    4 % of the processor's time. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        if not mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES):
            mallopt(_M_MMAP_THRESHOLD, _MOST_IN_OLD_VERSIONS)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def return_freed_memory() -> None:
    """Give the system what the process has freed but kept, before worker processes are forked from it.

    A worker has all pages of its parent, shared until one of them writes. Free blocks are what it writes to first:
    a parent that has read a large annotation file would see them copied, one after the other, for many epochs.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
