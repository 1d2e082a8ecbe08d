"""Standard streams that escape control characters, so that names in strangers' files cannot control the terminal.

Class names and file names stay unchanged in every result; only their display is escaped. A stream that cannot be
written to never ends the work.
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
# Of progress bars: back to the start of the line, and up a line where there are several.
_CURSOR_MOVES = re.compile(r"(\r|\x1b\[A)")


def shield_terminal() -> None:
    """Escape text on standard output and standard error by ``visible``, but for line breaks and tabs.

    Progress bars, on standard error, may move the cursor; the text in them must be made ``visible`` before.
    """
    for name, has_bars in (("stdout", False), ("stderr", True)):
        stream = getattr(sys, name) or io.StringIO()  # None: it was closed when the process began
        if not isinstance(stream, _ShieldedStream):
            setattr(sys, name, _ShieldedStream(stream, has_bars))


def flush_output() -> OSError | None:
    """Flush standard output; return the first error by which text was lost, if any. A closed pipe is none."""
    sys.stdout.flush()
    return sys.stdout.problem if isinstance(sys.stdout, _ShieldedStream) else None


class _ShieldedStream:
    """A text stream that escapes its text and never fails; other attributes are the stream's own.

    Args:
        stream: the wrapped stream.
        has_bars: progress bars may move the cursor.
    """

    def __init__(self, stream: TextIO, has_bars: bool) -> None:
        self._stream = stream
        self._has_bars = has_bars
        self.problem: OSError | None = None
        """The first error other than a closed pipe."""

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
        """After an error, redirect the stream, and its buffer, to ``/dev/null``."""
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
