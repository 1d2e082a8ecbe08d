"""Messages on standard error: the toolkit's own, and those of image decoders with the name of their file."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from detect.errors import visible

LOGGER = logging.getLogger("detect")
"""The toolkit's logger. As a library it stays silent unless the application configures logging."""
LOGGER.addHandler(logging.NullHandler())


class _ProgressHandler(logging.Handler):
    """Writes above an active progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def configure_logging() -> None:
    """Show the toolkit's messages on standard error (for the command-line tools)."""
    handler = _ProgressHandler()
    handler.setFormatter(_LevelFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def speak_as(speaker: str, level: int) -> None:
    """Name the speaker in front of each message, and leave out what is below a level.

    Args:
        speaker: one of several processes that write to the same terminal.
        level: of ``logging``.
    """
    LOGGER.setLevel(level)
    for handler in LOGGER.handlers:
        handler.setFormatter(_LevelFormatter(f"{speaker}: "))


class _LevelFormatter(logging.Formatter):
    """The bare message for information, the level in front of anything graver; one visible line each."""

    def __init__(self, speaker: str = "") -> None:
        super().__init__()
        self._speaker = speaker

    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return visible(self._speaker + prefix + super().format(record))


_MAX_SAID = 1000
"""Images that are remembered, so that each is said once in a process."""


class _Capture:
    """The file that descriptor 2 leads to while an image is decoded."""

    def __init__(self) -> None:
        self.is_on = False
        self._file = -1
        self._said: set[str] = set()

    def opened(self) -> int:
        """Its descriptor, opened by each process for itself."""
        if self._file < 0:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
            os.register_at_fork(after_in_child=self._forget)
        return self._file

    def taken(self) -> str:
        """The text in it, which is removed."""
        size = os.fstat(self._file).st_size
        if not size:
            return ""
        text = os.pread(self._file, size, 0).decode("utf-8", "replace")
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        return "; ".join(text.split("\n")[:2]).strip("; ")

    def is_new(self, name: str) -> bool:
        """Whether nothing was said of an image yet."""
        if name in self._said or len(self._said) >= _MAX_SAID:
            return False
        self._said.add(name)
        return True

    def _forget(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_CAPTURE = _Capture()


def listen_to_decoders() -> None:
    """Let ``named_messages`` work in this process and those that are forked from it; for tools only."""
    _CAPTURE.is_on = True


@contextmanager
def named_messages(path: Path) -> Iterator[None]:
    """Say in one line, with the file's name, what the decoders write about an image in the block.

    Args:
        path: of the image.
    """
    if not _CAPTURE.is_on or threading.current_thread() is not threading.main_thread():
        yield
        return
    file, before = _CAPTURE.opened(), os.dup(2)
    os.dup2(file, 2)
    text = ""
    try:
        yield
        text = _CAPTURE.taken()
    finally:  # where the image is refused, the error says why
        os.dup2(before, 2)
        os.close(before)
        _CAPTURE.taken()
    if text and _CAPTURE.is_new(str(path)):
        LOGGER.warning("%s: %s (the decoder's message; the image is used as it is)", path, text)
