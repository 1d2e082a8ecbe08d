"""Images of many kinds, and sizes, as ``Detector`` and ``Classifier`` take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

import numpy as np
from PIL.Image import Image

from detect.data.images import from_pil, read_image
from detect.data.pixel_values import FEW_GREY_LEVELS, PLAIN, ReadSettings, to_bytes
from detect.errors import InputError
from detect.runtime.logs import LOGGER, decoder_warnings
from detect.safety.metadata import MAX_SIDE

ImageSource: TypeAlias = str | Path | np.ndarray | Image
"""An image file, a (H, W, 3) uint8 array in RGB order, or a PIL image."""


@dataclass(frozen=True)
class Source:
    """An image, a video, a camera or a stream.

    Args:
        name: name in messages and results, unique in a run: the path, a stream's address without user and password,
            ``camera 0``, ``image 3``.
        kind: a ``still``, an ``animation`` (an image file with several frames or pages), a video ``file``, or something
            ``live``: a camera or an address.
        origin: the path, the address, the camera's number, or the still itself.
    """

    name: str
    kind: Literal["still", "animation", "file", "live"]
    origin: Path | str | int | np.ndarray | Image

    @property
    def path(self) -> Path | None:
        """The file; None for cameras, addresses and what is in memory."""
        return self.origin if isinstance(self.origin, Path) else None


def checked_size(image_size: int, multiple: int) -> int:
    """Return ``image_size``; raise ``InputError`` unless it is a multiple of ``multiple`` and at most ``MAX_SIDE``."""
    if not 1 <= image_size <= MAX_SIDE or image_size % multiple:
        raise InputError(f"image size: must be a multiple of {multiple} up to {MAX_SIDE}, found {image_size}")
    return image_size


def in_batches(source: Any, batch_size: int) -> Iterator[Sequence[Any]]:
    """Split one source or a list of them into lists of at most ``batch_size``."""
    if batch_size < 1:
        raise InputError(f"batch size: must be at least 1, found {batch_size}")
    sources = source if is_list(source) else [source]
    return (sources[start : start + batch_size] for start in range(0, len(sources), batch_size))


def is_list(source: Any) -> TypeGuard[Sequence[Any]]:
    """True for a list of images; a name is a sequence too."""
    return isinstance(source, Sequence) and not isinstance(source, str)


def as_image(source: Any, settings: ReadSettings = PLAIN) -> np.ndarray:
    """Read the image of one source, (H, W, 3) uint8 RGB.

    Args:
        source: a path, an array or a PIL image.
        settings: value range of more than 8 bits, and limit of pixels.

    Raises:
        InputError: it is not a path, an array or a PIL image, or cannot be read.
    """
    if isinstance(source, (str, Path)):
        return _read_first(Path(source), settings)
    if isinstance(source, Image):
        return from_pil(source, "source", settings)
    if not isinstance(source, np.ndarray):
        raise InputError(f"source: must be a path, an array or a PIL image, found {type(source).__name__}")
    if source.dtype != np.uint8:
        source = _as_bytes(source, settings)
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
        raise InputError(f"source: an array must be (H, W, 3) uint8 in RGB order, found {source.shape} {source.dtype}")
    return np.ascontiguousarray(source)


def _read_first(path: Path, settings: ReadSettings) -> np.ndarray:
    """Read a file's image, of several the first; warn where the high byte of a deep image has few grey levels."""
    from detect.data.animations import describe_path

    with decoder_warnings(path):
        image = read_image(path, settings)
    count, has_many_bits = describe_path(path)
    if count > 1:
        LOGGER.info("%s: has %d frames or pages, of which the first is used", path, count)
    if has_many_bits and settings.value_range is None and (levels := len(np.unique(image))) < FEW_GREY_LEVELS:
        LOGGER.warning(
            "%s: has more than 8 bits a channel, whose high byte shows %d of 256 levels; the model knows no range of "
            "values, because it was trained on 8 bits: convert the image as the training images were",
            *(path, levels),
        )
    return image


def _as_bytes(values: np.ndarray, settings: ReadSettings) -> np.ndarray:
    """Convert (H, W), (H, W, 1) or (H, W, 3) of more than 8 bits to (H, W, 3) uint8; others stay as they are."""
    is_grey = values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 1)
    if not is_grey and not (values.ndim == 3 and values.shape[2] == 3):
        return values
    if settings.value_range is None and values.dtype == np.uint16:
        pixels = (values >> 8).astype(np.uint8)
    elif settings.value_range is not None and np.issubdtype(values.dtype, np.number):
        pixels = to_bytes(values, settings.value_range)
    else:
        return values
    return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2) if is_grey else pixels


def warn_of_tiles(trained_px: int, tile: int | None) -> None:
    """Warn of whole images for a network that was trained on tiles of ``trained_px`` pixels; 0: it was not."""
    if trained_px and tile is None:
        LOGGER.warning(
            "trained on tiles of %d px: in whole images objects are smaller than in training; take --tile %d",
            *(trained_px, trained_px),
        )
