"""Start of a command's process, before its imports, which take seconds; imports the standard library only."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SPIN_COUNT = "30000"
"""Spins of a waiting OpenMP thread (libgomp) before it sleeps. A tenth of the default: as fast on an idle machine, and
sooner out of the way of a thread that waits for a core (benchmarks/README.md)."""
_LINES = {signal.SIGINT: b"interrupted\n", signal.SIGTERM: b"terminated\n"}


def start_tool() -> None:
    """Prepare the process of a command: the first call of its file, before the other imports.

    Ctrl-C and SIGTERM end the process with one line and exit code 130 or 143 while there is nothing to clean up: until
    ``detect.runtime.cli.run_tool`` begins, and after it has ended. Closed standard streams are opened on ``/dev/null``,
    so that no result file gets their descriptors and the output of libraries. PyTorch's threads spin for a bounded time
    unless the environment sets it; OpenMP reads it when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for signal_number in _LINES:
        if signal.getsignal(signal_number) != signal.SIG_IGN:
            signal.signal(signal_number, _exit_at_once)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Exit at once on Ctrl-C and SIGTERM in the block, in which a command imports its libraries.

    There is nothing to clean up, and an import in progress may swallow an exception.
    """
    before = {number: signal.getsignal(number) for number in _LINES}
    handled = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in handled:
        signal.signal(number, _exit_at_once)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, _LINES[signal.Signals(number)])
    os._exit(128 + number)
