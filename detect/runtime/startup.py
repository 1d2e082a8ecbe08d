"""The first moments of a tool, before its imports, which take seconds; this module itself imports next to nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SPIN_COUNT = "30000"
"""Turns of a waiting OpenMP thread (libgomp) before it sleeps. A tenth of the default: as fast on an idle machine, and
sooner out of the way of a thread that waits for a core (benchmarks/README.md)."""
_LINES = {signal.SIGINT: b"interrupted\n", signal.SIGTERM: b"terminated\n"}


def start_tool() -> None:
    """Prepare the process of a tool: the first call of its file, in front of the imports.

    Ctrl-C and SIGTERM end the process with one line and exit code 130 or 143 as long as there is nothing to be cleaned
    up: until ``detect.runtime.cli.run_tool`` begins, and after it has ended. Standard streams that are closed lead to
    ``/dev/null``, so that no file of the tool's gets their numbers and what libraries print into it. PyTorch's threads
    spin for a bounded time, unless the environment says how they wait; OpenMP reads it when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for signal_number in _LINES:
        if signal.getsignal(signal_number) != signal.SIG_IGN:
            signal.signal(signal_number, _end_at_once)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process in the block as ``start_tool`` does: a command imports what it needs.

    Importing is seconds of work with nothing to be cleaned up, in code of others that may swallow an exception.
    """
    before = {number: signal.getsignal(number) for number in _LINES}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in heard:
        signal.signal(number, _end_at_once)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End without an exception, which an import that is half done might take for its own."""
    with suppress(OSError):
        os.write(2, _LINES[signal.Signals(number)])
    os._exit(128 + number)
