"""Images inside tar files, read in place: nothing is unpacked, and no file is read from its beginning.

Letters: N images, F tar files.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect.data.images import ImageError, read_image_file
from detect.data.pixel_values import MAX_PIXELS

MAX_OPEN = 16  # tar files per process; opening one on another machine costs several round trips


class OpenFile:
    """A file descriptor that is closed when it is no longer referenced."""

    def __init__(self, path: Path) -> None:
        self._number = -1
        self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        """Read at most ``size`` bytes. The descriptor's position stays: threads and forked processes may share it."""
        parts = []
        while size > 0 and (part := os.pread(self._number, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)


class Span(io.RawIOBase):
    """A part of an open file as a file.

    Args:
        file: the file.
        offset: of the part, in bytes.
        size: of the part, in bytes.
    """

    def __init__(self, file: OpenFile, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._size - self._position))
        data = self._file.read(self._offset + self._position, wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class StoredImage(NamedTuple):
    """Location of an image file's content, small enough to be sent to another process.

    Args:
        path: of the image in messages; its file, unless it is in a shard.
        shard: the tar file that it is in.
        offset: in the shard, in bytes.
        size: in the shard, in bytes.
    """

    path: Path
    shard: Path | None = None
    offset: int = 0
    size: int = 0

    def read(self, max_pixels: int = MAX_PIXELS) -> bytes:
        """Read the content; ``max_pixels`` limits its size. ``ImageError`` if it cannot be read."""
        if self.shard is None:
            return read_image_file(self.path, max_pixels)
        return self.read_from(partial(OpenFile, self.shard))

    def read_from(self, opened: Callable[[], OpenFile]) -> bytes:
        """Read the content from the shard that ``opened`` returns, or raise an ``ImageError``."""
        try:
            data = opened().read(self.offset, self.size)
        except OSError as error:
            raise ImageError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        if len(data) != self.size:
            raise ImageError(f"{self.path}: is truncated (its tar file ends before); copy that again")
        return data


@dataclass(frozen=True)
class ShardImages:
    """The images of a split in shards.

    Args:
        files: the F tar files.
        file_of_image: (N,) int64 index in ``files``.
        spans: (N, 2) int64 offset and size of each image in its file, in bytes.
    """

    files: Sequence[Path]
    file_of_image: np.ndarray
    spans: np.ndarray
    _open: dict[Path, OpenFile] = field(default_factory=dict, repr=False, compare=False)

    def file(self, row: int) -> Path:
        return self.files[self.file_of_image[row]]

    def read(self, image: StoredImage) -> bytes:
        """Read the content of an image through a cached descriptor, or raise an ``ImageError``."""
        assert image.shard is not None, "it is in a shard"
        return image.read_from(partial(self._opened, image.shard))

    def select(self, keep: np.ndarray) -> ShardImages:
        """Return the images where ``keep`` (N,) bool is True."""
        return ShardImages(self.files, self.file_of_image[keep], self.spans[keep])

    def _opened(self, path: Path) -> OpenFile:
        file = self._open.get(path)
        if file is None:
            file = self._open[path] = OpenFile(path)
            while len(self._open) > MAX_OPEN:  # the oldest; whoever reads from it has it still
                self._open.pop(next(iter(list(self._open))), None)
        return file

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the descriptors, which cannot be sent to worker processes."""
        return {**self.__dict__, "_open": {}}
