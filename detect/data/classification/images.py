"""Sources of a classifier's training images: files, or all decoded images in memory.

Letters: N images, B images of a batch, H W pixels of an image, R side of the squares, S side of the network input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch

from detect.data.cache_space import available_memory, check_space
from detect.data.classification.geometry import center_square, resized_side
from detect.data.classification.table import ClassTable
from detect.data.images import ImageError
from detect.data.letterbox import PAD_VALUE
from detect.data.workers import Failure
from detect.runtime.progress import progress_bar

Result = TypeVar("Result")

_MANY = 1000
"""Number of images from which a progress bar is shown."""


class ImageSource(Protocol):
    """Source of images by their rows. One that cannot be read is grey, and appended to ``failures``."""

    def squares(self, rows: np.ndarray, failures: list[Failure]) -> np.ndarray:
        """Return (B, R, R, 3) uint8, a copy: each image as of ``center_square``."""

    def wholes(self, rows: np.ndarray, failures: list[Failure]) -> list[np.ndarray]:
        """Return B images, (H, W, 3) uint8 each, as large as the source has them; read only."""


class ImagesInFiles:
    """Images decoded each time.

    Args:
        table: the images.
        image_size: S.
        share: R = round(S / share).
    """

    def __init__(self, table: ClassTable, image_size: int, share: float) -> None:
        self.table = table
        self.image_size = image_size
        self.share = share

    def squares(self, rows: np.ndarray, failures: list[Failure]) -> np.ndarray:
        return np.stack([center_square(image, self.image_size, self.share) for image in self.wholes(rows, failures)])

    def wholes(self, rows: np.ndarray, failures: list[Failure]) -> list[np.ndarray]:
        images = []
        for row in rows.tolist():
            try:
                images.append(self.table.read(row))
            except ImageError as error:
                failures.append((row, str(error)))
                side = resized_side(self.image_size, self.share)
                images.append(np.full((side, side, 3), PAD_VALUE, dtype=np.uint8))
        return images


class ImagesInMemory:
    """Images as squares, in memory that worker processes share.

    Args:
        pixels: (N, R, R, 3) uint8.
        unreadable: row to reason, of the images that could not be read; they are grey.
    """

    def __init__(self, pixels: torch.Tensor, unreadable: dict[int, str]) -> None:
        self.pixels = pixels
        self.unreadable = unreadable

    def squares(self, rows: np.ndarray, failures: list[Failure]) -> np.ndarray:
        if self.unreadable:
            failures.extend((row, self.unreadable[row]) for row in rows.tolist() if row in self.unreadable)
        squares: np.ndarray = self.pixels.numpy()[rows]
        return squares

    def wholes(self, rows: np.ndarray, failures: list[Failure]) -> list[np.ndarray]:
        return list(self.squares(rows, failures))


def image_source(table: ClassTable, image_size: int, share: float, *, in_memory: bool) -> ImageSource:
    """Choose the source: pixels of R x R in the table, all images decoded in memory, or their files.

    In memory, crops are cut from squares, not from the original images. ``InputError`` if there is too little memory.
    """
    side = resized_side(image_size, share)
    if table.pixels is not None and table.pixels.shape[1:3] == (side, side):
        # PyTorch shares memory with arrays that may be written to only.
        return ImagesInMemory(torch.from_numpy(np.require(table.pixels, requirements=["C", "W"])), {})
    return _decode_all(table, image_size, share) if in_memory else ImagesInFiles(table, image_size, share)


def in_threads(work: Callable[[int], Result], rows: Sequence[int], description: str) -> Iterable[Result]:
    """Yield the result of ``work`` for each row, in order, on all cores: OpenCV releases Python's lock."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        done = pool.map(work, rows)
        yield from progress_bar(done, description, len(rows), unit="image", is_shown=len(rows) >= _MANY, leave=True)


def _decode_all(table: ClassTable, image_size: int, share: float) -> ImagesInMemory:
    side = resized_side(image_size, share)
    check_space(len(table) * side * side * 3, available_memory(), "memory", "use cache: none")
    pixels = torch.empty((len(table), side, side, 3), dtype=torch.uint8).share_memory_()
    squares = pixels.numpy()

    def decode(row: int) -> str | None:
        try:
            squares[row] = center_square(table.read(row), image_size, share)
        except ImageError as error:
            squares[row] = PAD_VALUE
            return str(error)
        return None

    reasons = enumerate(in_threads(decode, range(len(table)), "caching images"))
    return ImagesInMemory(pixels, {row: reason for row, reason in reasons if reason is not None})
