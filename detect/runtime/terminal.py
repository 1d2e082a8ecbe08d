"""The standard streams of a tool: what comes from strangers' files must not steer the terminal.

Class names and file names stay as they are in every result; only what is shown of them is escaped.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
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
        stream = getattr(sys, name)
        if not isinstance(stream, _ShieldedStream):
            setattr(sys, name, _ShieldedStream(stream, has_bars))


class _ShieldedStream:
    """A text stream that only what is visible goes through; all but writing is the stream's own.

    Args:
        stream: where it goes.
        has_bars: whether progress bars may move the cursor.
    """

    def __init__(self, stream: TextIO, has_bars: bool) -> None:
        self._stream = stream
        self._has_bars = has_bars

    def write(self, text: str) -> int:
        parts = _CURSOR_MOVES.split(text) if self._has_bars else [text]  # every second one is a move
        shown = [part if number % 2 else visible(part, _LAYOUT) for number, part in enumerate(parts)]
        self._stream.write("".join(shown))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
