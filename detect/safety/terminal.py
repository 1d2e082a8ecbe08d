"""The standard streams of a tool: what comes from strangers' files must not steer the terminal.

Class names and file names stay as they are in every result; only what is shown of them is escaped. A stream that cannot
be written to never ends the work.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from detect.errors import visible

_LAYOUT = "\n\t"
# Of a progress bar, which goes back to the start of its line, and up a line where there are several.
_CURSOR_MOVES = re.compile(r"(\r|\x1b\[A)")


def shield_terminal() -> None:
    """From now on, show on standard output and standard error only what is ``visible``, with lines and tabs.

    Progress bars, on standard error, may move the cursor; the words in them must be made ``visible`` before.
    """
    for name, has_bars in (("stdout", False), ("stderr", True)):
        stream = getattr(sys, name) or io.StringIO()  # None: it was closed when the process began
        if not isinstance(stream, _ShieldedStream):
            setattr(sys, name, _ShieldedStream(stream, has_bars))


def flush_output() -> OSError | None:
    """Write what is left of standard output.

    Returns:
        The error by which some of its text was lost, if there was one; a reader that has gone away is none.
    """
    sys.stdout.flush()
    return sys.stdout.problem if isinstance(sys.stdout, _ShieldedStream) else None


class _ShieldedStream:
    """A text stream that only what is visible goes through, and that never fails; the rest is the stream's own.

    Args:
        stream: where it goes.
        has_bars: whether progress bars may move the cursor.
    """

    def __init__(self, stream: TextIO, has_bars: bool) -> None:
        self._stream = stream
        self._has_bars = has_bars
        self.problem: OSError | None = None
        """The first error other than that its reader has gone away."""

    def write(self, text: str) -> int:
        parts = _CURSOR_MOVES.split(text) if self._has_bars else [text]  # every second one is a move
        shown = [part if number % 2 else visible(part, _LAYOUT) for number, part in enumerate(parts)]
        with self._silent_once_broken():
            self._stream.write("".join(shown))
        return len(text)

    def flush(self) -> None:
        with self._silent_once_broken():
            self._stream.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    @contextmanager
    def _silent_once_broken(self) -> Iterator[None]:
        """After an error, lead all that is written, and what is still in the buffer, to ``/dev/null``."""
        try:
            yield
        except OSError as error:
            if not isinstance(error, ConnectionError):
                self.problem = self.problem or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
