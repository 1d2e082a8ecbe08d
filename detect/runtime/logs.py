"""Messages on standard error, one line each: the toolkit's own, and those of image decoders with the file's name.

libjpeg and libtiff write to file descriptor 2 itself, as ``Corrupt JPEG data: 88 extraneous bytes before marker 0xd9``.
The descriptor belongs to the whole process, so it is redirected only in the commands' processes and only by their main
thread, which decodes one image at a time in a loader's worker as well. In a user's program nothing changes.
"""

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

_MAX_IMAGES = 1000
"""Images for which a process logs decoder messages."""


class _ProgressHandler(logging.Handler):
    """Writes above an active progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def configure_logging() -> None:
    """Show the toolkit's messages on standard error; for commands only."""
    handler = _ProgressHandler()
    handler.setFormatter(_LevelFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def set_log_prefix(prefix: str, level: int) -> None:
    """Put a prefix in front of each message of this process, and drop messages below a level."""
    LOGGER.setLevel(level)
    for handler in LOGGER.handlers:
        handler.setFormatter(_LevelFormatter(f"{prefix}: "))


class _LevelFormatter(logging.Formatter):
    """The bare message for information, the level in front of warnings and errors; control characters are escaped."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        return visible(self._prefix + level + super().format(record))


class _Capture:
    """The file to which descriptor 2 points while an image is decoded."""

    def __init__(self) -> None:
        self.is_on = False
        self._file = -1
        self._reported: set[str] = set()

    def descriptor(self) -> int:
        """Return the file's descriptor; each process opens its own."""
        if self._file < 0:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
            os.register_at_fork(after_in_child=self._close)
        return self._file

    def take(self) -> str:
        """Return the first two lines in the file and empty it."""
        size = os.fstat(self._file).st_size
        if not size:
            return ""
        text = os.pread(self._file, size, 0).decode("utf-8", "replace")
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        return "; ".join(text.split("\n")[:2]).strip("; ")

    def is_new(self, name: str) -> bool:
        if name in self._reported or len(self._reported) >= _MAX_IMAGES:
            return False
        self._reported.add(name)
        return True

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_CAPTURE = _Capture()


def capture_decoder_messages() -> None:
    """Turn ``decoder_warnings`` on in this process and those that are forked from it; for commands only."""
    _CAPTURE.is_on = True


@contextmanager
def decoder_warnings(path: Path) -> Iterator[None]:
    """Log what decoders write about an image in the block as one warning with its path."""
    if not _CAPTURE.is_on or threading.current_thread() is not threading.main_thread():
        yield
        return
    file, before = _CAPTURE.descriptor(), os.dup(2)
    os.dup2(file, 2)
    text = ""
    try:
        yield
        text = _CAPTURE.take()
    finally:  # where the image is refused, the error has the reason
        os.dup2(before, 2)
        os.close(before)
        _CAPTURE.take()
    if text and _CAPTURE.is_new(str(path)):
        LOGGER.warning("%s: %s (the decoder's message; the image is used as it is)", path, text)
