"""Ending long work between two of its steps, so that what was done is whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The signal to end (SIGTERM), which job schedulers and ``kill`` send, as an exception like that of Ctrl-C."""


class StopRequest:
    """Whether somebody wants the work to end."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that asked for it."""

    def __bool__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Note a first signal; a second one ends the work where it is."""
        if self:
            raise _as_exception(number)
        self.signal = number


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
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if request.signal is not None:
        raise _as_exception(request.signal)


def _as_exception(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
