"""Events that end long work from outside: signals, stop requests, lost processes, timers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The signal to end (SIGTERM), which job schedulers and ``kill`` send, as an exception like that of Ctrl-C."""


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """End the block by ``KeyboardInterrupt`` or ``Terminated`` when Ctrl-C or SIGTERM comes. In the main thread only.

    A signal that the process was started to ignore stays ignored. A process that is forked in the block ends quietly.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise _as_exception(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in heard:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


class StopRequest:
    """Whether somebody wants the work to end."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that asked for it."""
        self._ends_at_once = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Note a first signal; a second one, or a first one in ``at_once``, ends the work where it is."""
        heard_before, self.signal = bool(self), number
        if heard_before or self._ends_at_once:
            raise _as_exception(number)

    def exception(self) -> KeyboardInterrupt:
        """What ends the work, if another process was asked to end it, too."""
        return _as_exception(self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that may end anywhere.

        Raises:
            KeyboardInterrupt: a signal has come, or comes during the block. ``Terminated`` if it is SIGTERM.
        """
        if self:
            raise self.exception()
        self._ends_at_once = True
        try:
            yield
        finally:
            self._ends_at_once = False


_requests: list[StopRequest] = []
"""Of the blocks of ``stop_requests`` that are being run, the innermost last."""


def requested_stop() -> KeyboardInterrupt | None:
    """The exception for a signal that the innermost block of ``stop_requests`` has heard; None if it has not."""
    return _requests[-1].exception() if _requests and _requests[-1] else None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Let the block end itself after Ctrl-C or SIGTERM. In the main thread only.

    Yields:
        True as soon as a signal has come.

    Raises:
        KeyboardInterrupt: a signal had come, when the block has ended well. ``Terminated`` if it was SIGTERM.
    """
    request = StopRequest()
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.hear) for number in numbers}
    _requests.append(request)
    try:
        yield request
    finally:
        _requests.remove(request)
        for number, handler in before.items():
            signal.signal(number, handler)
    if request:
        raise request.exception()


def _as_exception(number: int | None) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


class LostContactError(RuntimeError):
    """Another process of the run has ended or does not answer."""


_CAUSES = {
    "Killed": "it was killed from outside, most often because the memory is used up; fewer --workers or a smaller "
    "--batch-size need less",
    "Bus error": "/dev/shm or a disk that it reads from is full or gone; --workers 0 needs no /dev/shm, docker's "
    "--shm-size makes it larger",
    "": "--workers 0 shows what it does",
}
"""Of the end of a worker process, by what PyTorch says of it."""
_OF_A_WORKER = "DataLoader worker (pid"


def lost_worker(error: RuntimeError) -> LostContactError | None:
    """PyTorch's error for a worker process that has ended, with the cause; None for any other error.

    PyTorch raises it wherever the main thread is at that moment. The one that is a cause of another names the signal.
    """
    told = next((text for text in (str(error.__cause__), str(error)) if text.startswith(_OF_A_WORKER)), None)
    if told is None:
        return None
    told = told.partition("\n")[0].rstrip(". ").removeprefix("DataLoader ")
    cause = next(cause for found, cause in _CAUSES.items() if found in told)
    return LostContactError(f"{told}: {cause}")


TICK_S = 1.0


@contextmanager
def ticking(on_tick: Callable[[], None]) -> Iterator[None]:
    """Call ``on_tick`` every ``TICK_S`` seconds while the block waits; it may raise an error, which ends the block.

    A machine or a process that is suspended for an hour counts one tick. The clock is SIGALRM in the main thread; in
    other threads, and where the application itself uses that signal, there are no ticks.

    Args:
        on_tick: called between two steps of Python code.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGALRM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGALRM, lambda number, frame: on_tick())
    try:
        signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
