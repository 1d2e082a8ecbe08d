"""Ending long work between two of its steps, so that what was done is whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
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
