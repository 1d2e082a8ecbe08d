"""Image files with several images: the frames of GIF, PNG, WebP and AVIF, the pages of TIFF.

Smaller copies of a page and masks in a TIFF are no pages. Of an MPO, whose images are views or previews of one scene,
only the first counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from detect.data.images import (
    FORMATS,
    ImageError,
    open_by_pillow,
    open_image_file,
    pillow_errors,
    read_image_file,
    upright_rgb,
    without_warnings,
)
from detect.data.pixel_values import MAX_TILED_PIXELS, PLAIN, ReadSettings, is_deep
from detect.runtime.logs import decoder_warnings

USUAL_FPS = 10.0
"""Default of animations that state no time, as in browsers."""

_SUFFIXES = tuple(suffix for kind in ("GIF", "PNG", "WEBP", "AVIF", "TIFF") for suffix in FORMATS[kind])
_TAG_KIND = 254  # NewSubfileType (TIFF 6.0, section 8)
_NO_PAGE = 0b101  # bit 0: a smaller copy, bit 2: a mask


def may_have_frames(path: Path) -> bool:
    """Return True for the suffix of a format with several images."""
    return path.suffix.lower() in _SUFFIXES


def count_frames(path: Path) -> int:
    """Count frames or pages; 1 for a file that cannot be read, which is reported when it is."""
    return describe_path(path)[0]


def describe_path(path: Path) -> tuple[int, bool]:
    """Describe a file as ``describe_file``; (1, False) if its format has one frame of 8 bits only, or on an error."""
    if not may_have_frames(path):
        return 1, False
    try:
        with open_image_file(path) as file:
            return describe_file(file, str(path))
    except (ImageError, OSError):
        return 1, False


def frame_numbers(image: Image.Image) -> list[int]:
    """Return the positions of the frames or pages among the images of an opened file."""
    count = int(getattr(image, "n_frames", 1))
    if image.format != "TIFF":
        return list(range(count))
    return [number for number in range(count) if _is_page(image, number)]


def describe_file(file: BinaryIO, where: str) -> tuple[int, bool]:
    """Count frames or pages; the second value is True if the first has more than 8 bits a channel."""
    with pillow_errors(where), without_warnings(), open_by_pillow(file, MAX_TILED_PIXELS) as image:
        has_many_bits = is_deep(image)
        return max(1, len(frame_numbers(image))), has_many_bits


class Animation:
    """An image file with several images.

    Args:
        path: the file.
        settings: range of values and limit of pixels.

    Raises:
        ImageError: it cannot be read.
    """

    def __init__(self, path: Path, settings: ReadSettings = PLAIN) -> None:
        self._path, self._settings = path, settings
        self._data = read_image_file(path, settings.max_pixels)
        with self._errors(), without_warnings(), open_by_pillow(BytesIO(self._data), settings.max_pixels) as image:
            self._numbers = frame_numbers(image)
            image.seek(0)
            image.load()  # only then WebP and AVIF know how long a frame is shown
            self.fps = min(1000.0, 1 / _seconds(image))
            """Frames per second, by the time that the first one is shown; of pages, one."""
        self.num_frames = len(self._numbers)
        """Frames or pages."""

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the frames in order.

        Yields:
            Time in seconds from the start, and (H, W, 3) uint8 RGB.

        Raises:
            ImageError: a frame is damaged, or has too many pixels.
        """
        time_s = 0.0
        with self._errors(), open_by_pillow(BytesIO(self._data), self._settings.max_pixels) as image:
            for number in self._numbers:
                with decoder_warnings(self._path), without_warnings():
                    image.seek(number)
                    pixels = upright_rgb(image, str(self._path), self._settings, data=self._data, page=number)
                yield time_s, pixels
                time_s += _seconds(image)

    def _errors(self) -> AbstractContextManager[None]:
        return pillow_errors(str(self._path), self._settings.max_pixels)


def _seconds(image: Image.Image) -> float:
    """Duration of the current frame."""
    if image.format == "TIFF":
        return 1.0
    found = image.info.get("duration", 0)
    return found / 1000 if isinstance(found, (int, float)) and 0 < found < 3_600_000 else 1 / USUAL_FPS


def _is_page(image: Image.Image, number: int) -> bool:
    image.seek(number)
    kind = getattr(image, "tag_v2", {}).get(_TAG_KIND, 0)
    return not (isinstance(kind, int) and kind & _NO_PAGE)
