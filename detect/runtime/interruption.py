"""Events that end long work: signals, stop requests, lost processes, and the timer that looks for them.

Imports no PyTorch: a command handles Ctrl-C before the library is loaded.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TICK_S = 1.0
"""Seconds between two calls of ``timer_ticks``."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which job schedulers and ``kill`` send, as an exception."""


class LostContactError(RuntimeError):
    """Another process of the run has ended or does not answer."""


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` on Ctrl-C and ``Terminated`` on SIGTERM in the block. In the main thread only.

    A signal that the process was started to ignore stays ignored. A process that is forked in the block exits quietly.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise _as_exception(number)

    before = _replace_handlers(end)
    try:
        yield
    finally:
        _restore_handlers(before)


class StopRequest:
    """A request for a graceful stop; true once a signal has arrived."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._is_immediate = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Record a first signal; raise on a second one, and on a first one in ``immediate``."""
        is_repeated, self.signal = bool(self), number
        if is_repeated or self._is_immediate:
            raise _as_exception(number)

    def exception(self) -> KeyboardInterrupt:
        """Return the exception that ends the work, also where another process received the signal."""
        return _as_exception(self.signal)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """End the block as soon as a signal arrives: for work that may stop anywhere.

        Raises:
            KeyboardInterrupt: a signal has arrived, before the block or in it; ``Terminated`` for SIGTERM.
        """
        if self:
            raise self.exception()
        self._is_immediate = True
        try:
            yield
        finally:
            self._is_immediate = False


_requests: list[StopRequest] = []
"""One for each active ``stop_requests`` block, the innermost last."""


def requested_stop() -> KeyboardInterrupt | None:
    """Return the exception for a signal that the innermost ``stop_requests`` block has received."""
    return _requests[-1].exception() if _requests and _requests[-1] else None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a stop request, so that the block ends between two steps. In the main thread only.

    Raises:
        KeyboardInterrupt: a signal arrived and the block has completed; ``Terminated`` for SIGTERM.
    """
    request = StopRequest()
    before = _replace_handlers(request.handle)
    _requests.append(request)
    try:
        yield request
    finally:
        _requests.remove(request)
        _restore_handlers(before)
    if request:
        raise request.exception()


def _replace_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Handle Ctrl-C and SIGTERM, unless they are ignored, and return the previous handlers."""
    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in handled}


def _restore_handlers(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _as_exception(number: int | None) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def timer_ticks(on_tick: Callable[[], None]) -> Iterator[None]:
    """Call ``on_tick`` every ``TICK_S`` seconds while the block waits; an error that it raises ends the block.

    A machine or process that is suspended for an hour counts one tick. The timer is SIGALRM in the main thread; in
    other threads, and where the application uses that signal itself, there are no ticks.
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


_WORKER_CAUSES = {
    "Killed": "it was killed from outside, most often because the memory is used up; fewer --workers or a smaller "
    "--batch-size need less",
    "Bus error": "/dev/shm or a disk that it reads from is full or gone; --workers 0 needs no /dev/shm, docker's "
    "--shm-size makes it larger",
    "": "--workers 0 shows what it does",
}
"""Cause and hint by a part of PyTorch's message; the empty part matches any."""
_WORKER_MESSAGE = "DataLoader worker (pid"


def lost_worker(error: RuntimeError) -> LostContactError | None:
    """Return PyTorch's error for a worker process that has ended with its cause; None for any other error.

    PyTorch raises it wherever the main thread is at that moment. If it has a cause, the cause names the signal.
    """
    messages = (str(error.__cause__), str(error))
    message = next((text for text in messages if text.startswith(_WORKER_MESSAGE)), None)
    if message is None:
        return None
    message = message.partition("\n")[0].rstrip(". ").removeprefix("DataLoader ")
    cause = next(cause for part, cause in _WORKER_CAUSES.items() if part in message)
    return LostContactError(f"{message}: {cause}")
