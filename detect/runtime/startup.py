"""The first moments of a tool, before its imports, which take seconds; this module itself imports next to nothing."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

_LINES = {signal.SIGINT: b"interrupted\n", signal.SIGTERM: b"terminated\n"}


def start_tool() -> None:
    """Prepare the process of a tool: the first call of its file, in front of the imports.

    Ctrl-C and SIGTERM end the process with one line and exit code 130 or 143 as long as there is nothing to be cleaned
    up: until ``detect.runtime.cli.run_tool`` begins, and after it has ended. Standard streams that are closed lead to
    ``/dev/null``, so that no file of the tool's gets their numbers and what libraries print into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for signal_number in _LINES:
        if signal.getsignal(signal_number) != signal.SIG_IGN:
            signal.signal(signal_number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """End without an exception, which an import that is half done might take for its own."""
    with suppress(OSError):
        os.write(2, _LINES[signal.Signals(number)])
    os._exit(128 + number)
