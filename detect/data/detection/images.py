"""Sources of a detector's training images: files, the files read last, or a cache of all decoded images.

All return letterboxed images (long side S), because nothing needs them larger. The arrays are read-only: several
samples share them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from detect.data.annotations import AnnotationTable
from detect.data.cache_space import available_memory, check_space
from detect.data.images import ImageError
from detect.data.letterbox import letterbox, letterboxed_hw
from detect.errors import InputError
from detect.runtime.distributed import main_process_first
from detect.runtime.files import atomic_path
from detect.runtime.progress import progress_bar


class ImageStore(Protocol):
    """Source of letterboxed images."""

    def read(self, row: int) -> np.ndarray:
        """Return image ``row``: (h, w, 3) uint8, max(h, w) = S, read-only; ``ImageError`` if it cannot be read."""


def read_original(table: AnnotationTable, row: int) -> np.ndarray:
    """Read the image of a row, or its window, at its own size, (H, W, 3) uint8; errors as ``view_of``."""
    return view_of(table, row, table.read_file(row))


def view_of(table: AnnotationTable, row: int, image_rgb: np.ndarray) -> np.ndarray:
    """Return the window of a row in the image of its file, or, in a table without windows, that image.

    Raises:
        ImageError: the image's size differs from the table's.
    """
    sizes_hw = table.sizes_hw if table.windows is None else table.windows.image_sizes_hw
    expected = tuple(sizes_hw[row].tolist())
    if image_rgb.shape[:2] != expected:
        raise ImageError(
            f"{table.path(row)}: has {image_rgb.shape[:2]} pixels (height, width), its annotation says {expected}"
        )
    return image_rgb if table.windows is None else table.windows.cut(row, image_rgb)


class ImageFiles:
    """Images decoded from their files each time.

    Args:
        table: the images.
        image_size: S.
    """

    def __init__(self, table: AnnotationTable, image_size: int) -> None:
        self.table = table
        self.image_size = image_size

    def read(self, row: int) -> np.ndarray:
        return self.scale(row, self.decode(row))

    def decode(self, row: int) -> np.ndarray:
        """Read the whole image of the row's file, (H, W, 3) uint8; ``ImageError`` if that fails."""
        return self.table.read_file(row)

    def scale(self, row: int, image_rgb: np.ndarray) -> np.ndarray:
        """Return what ``read`` does, from the decoded image of the row's file."""
        resized, _ = letterbox(view_of(self.table, row, image_rgb), self.image_size)
        resized.flags.writeable = False
        return resized


class RecentImages:
    """Cache of the images that were read last.

    Args:
        store: source of the others.
        capacity: number of cached images.
    """

    def __init__(self, store: ImageStore, capacity: int) -> None:
        self.store = store
        self.capacity = capacity
        self._images: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(self, row: int) -> np.ndarray:
        image = self._images.get(row)
        if image is None:
            image = self.store.read(row)
            self._images[row] = image
            if len(self._images) > self.capacity:
                self._images.popitem(last=False)
        self._images.move_to_end(row)
        return image


class MappedFile:
    """Bytes of a file as an array. Pickled as a path, never as content.

    Args:
        path: the file.
        size: its bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._bytes: np.ndarray | None = None

    def numpy(self) -> np.ndarray:
        """Map the file: (size,) uint8; writes go to the file."""
        if self._bytes is None:
            self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r+", shape=(self.size,))
        return self._bytes

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "size": self.size, "_bytes": None}


class CachedImages:
    """Decoded images of a table, one after another in one flat buffer that worker processes share.

    Args:
        files: the images; it also reads those that cannot be decoded, so that each use raises the same error.
        sizes_hw: (N, 2) int64, each image's letterboxed height and width.
        buffer: ``cache_bytes(sizes_hw)`` of uint8: the pixels, then for each image 1 if it is cached, else 0.
    """

    def __init__(self, files: ImageFiles, sizes_hw: np.ndarray, buffer: torch.Tensor | MappedFile) -> None:
        self.files = files
        self.sizes_hw = sizes_hw
        self.offsets = np.concatenate([[0], np.cumsum(sizes_hw.prod(axis=1) * 3)])
        self.buffer = buffer

    def read(self, row: int) -> np.ndarray:
        if not self.buffer.numpy()[self.offsets[-1] + row]:
            return self.files.read(row)
        image = self._pixels(row)
        image.flags.writeable = False
        return image

    def fill(self) -> None:
        """Decode every file into the buffer, on all cores, with a progress bar."""
        self.buffer.numpy()[self.offsets[-1] :] = 0
        rows_of_files = _rows_of_files(self.files.table)
        # OpenCV decodes outside of Python's lock, so threads are enough.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            done = pool.map(self._fill_rows, rows_of_files)
            for _ in progress_bar(done, "caching images", len(rows_of_files), unit="image", leave=True):
                pass

    def _fill_rows(self, rows: range) -> None:
        """Fill the windows, or the one whole image, of a file."""
        try:
            image = self.files.decode(rows[0])
            for row in rows:
                self._pixels(row)[:] = self.files.scale(row, image)
                self.buffer.numpy()[self.offsets[-1] + row] = 1
        except ImageError:
            return

    def _pixels(self, row: int) -> np.ndarray:
        height, width = self.sizes_hw[row]
        return self.buffer.numpy()[self.offsets[row] : self.offsets[row + 1]].reshape(height, width, 3)


def build_cache(files: ImageFiles, kind: Literal["ram", "disk"], cache_folder: Path | None = None) -> CachedImages:
    """Decode all images once.

    Args:
        files: the images.
        kind: ``ram`` keeps them in shared memory, ``disk`` in a memory-mapped file, named by a hash of the images'
            paths and dates: a file that exists, as when a run is resumed, is used. Several processes of one machine
            share the file; with ``ram`` each has its own images.
        cache_folder: folder of the file of ``disk``.

    Raises:
        InputError: there is too little memory or disk space, or ``disk`` has no folder.
    """
    sizes = [letterboxed_hw((height, width), files.image_size) for height, width in files.table.sizes_hw.tolist()]
    sizes_hw = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    needed = cache_bytes(sizes_hw)
    if kind == "ram":
        check_space(needed, available_memory(), "memory", "use cache: disk or cache: none")
        cache = CachedImages(files, sizes_hw, torch.empty(needed, dtype=torch.uint8).share_memory_())
        cache.fill()
        return cache
    if cache_folder is None:
        raise InputError("cache: disk needs an output folder for its file; give one, or use cache: ram")
    path = cache_folder / f"images-{_key(files)}.cache"
    with main_process_first():
        if not (path.is_file() and path.stat().st_size == needed):
            _fill_file(files, sizes_hw, path)
    return CachedImages(files, sizes_hw, MappedFile(path, needed))


def cache_bytes(sizes_hw: np.ndarray) -> int:
    """Size of the buffer for images of these (N, 2) sizes."""
    return int(sizes_hw.prod(axis=1).sum()) * 3 + len(sizes_hw)


def _rows_of_files(table: AnnotationTable) -> list[range]:
    """Rows that follow one another and are windows of one file; without windows, one row each."""
    if table.windows is None:
        return [range(row, row + 1) for row in range(len(table))]
    starts = np.flatnonzero(np.append(True, table.image_paths[1:] != table.image_paths[:-1])).tolist()
    return [range(start, stop) for start, stop in pairwise([*starts, len(table)])]


def _fill_file(files: ImageFiles, sizes_hw: np.ndarray, path: Path) -> None:
    needed = cache_bytes(sizes_hw)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_space(needed, shutil.disk_usage(path.parent).free, f"disk space in {path.parent}", "use cache: none")
    with atomic_path(path) as temporary:
        with temporary.open("rb+") as file:
            # Take the space now: a full disk met while writing to the map would kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            else:
                file.truncate(needed)
        CachedImages(files, sizes_hw, MappedFile(temporary, needed)).fill()


def _key(files: ImageFiles) -> str:
    """Hash of the paths, sizes and dates of the files, and of the image size."""
    table = files.table
    digest = hashlib.sha256(f"letterbox {files.image_size}\n".encode())
    if table.read_settings.value_range is not None:
        digest.update(f"range {table.read_settings.value_range}\n".encode())
    digest.update(table.sizes_hw.astype("<i4").tobytes())
    if table.windows is not None:
        digest.update(table.windows.windows_xyxy_px.astype("<i8").tobytes())
    for row in range(len(table)):
        path = table.path(row)
        try:
            status = table.stored_in(row).stat()
            stamp = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            stamp = "missing"
        digest.update(f"{path}\0{stamp}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
