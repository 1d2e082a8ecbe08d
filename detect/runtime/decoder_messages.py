"""What libjpeg and libtiff write to standard error about a damaged image, with the name of the file.

They write to the descriptor itself, as ``Corrupt JPEG data: 88 extraneous bytes before marker 0xd9``. Descriptor 2
belongs to the whole process, so it is only turned aside in the processes of our own tools, and only by their main
thread: a loader's worker decodes one image at a time there, too. In the program of a user nothing is changed.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detect.runtime.logs import LOGGER

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
