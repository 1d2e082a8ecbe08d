"""What detection and classification in Python take: images of many kinds, sizes, counts, weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from detect.data.images import from_pil, read_image
from detect.errors import InputError
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.untrusted import MAX_SIDE


def opened(weights: str | Path | Checkpoint) -> Checkpoint:
    """A checkpoint, read if it is a file.

    Raises:
        InputError: the file is not usable.
    """
    return weights if isinstance(weights, Checkpoint) else load_checkpoint(Path(weights))


def checked_size(image_size: int, multiple: int) -> int:
    """The side of the network input in pixels.

    Raises:
        InputError: it is not a multiple of ``multiple``, or not from 1 to ``MAX_SIDE``.
    """
    if not 1 <= image_size <= MAX_SIDE or image_size % multiple:
        raise InputError(f"image size: must be a multiple of {multiple} up to {MAX_SIDE}, found {image_size}")
    return image_size


def in_batches(source: Any, batch_size: int) -> Iterator[Sequence[Any]]:
    """One source or a list of them, in lists of at most ``batch_size``; an empty list gives none.

    Raises:
        InputError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch size: must be at least 1, found {batch_size}")
    sources = source if is_list(source) else [source]
    return (sources[start : start + batch_size] for start in range(0, len(sources), batch_size))


def is_list(source: Any) -> bool:
    """Whether ``source`` is a list of images; a name is a sequence too."""
    return isinstance(source, Sequence) and not isinstance(source, str)


def as_image(source: Any) -> np.ndarray:
    """The image of one source, (H, W, 3) uint8 RGB.

    Raises:
        InputError: it is not a path, an array or a PIL image, or cannot be read.
    """
    if isinstance(source, (str, Path)):
        return read_image(Path(source))
    if isinstance(source, Image):
        return from_pil(source, "source")
    if not isinstance(source, np.ndarray):
        raise InputError(f"source: must be a path, an array or a PIL image, found {type(source).__name__}")
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
        raise InputError(f"source: an array must be (H, W, 3) uint8 in RGB order, found {source.shape} {source.dtype}")
    return np.ascontiguousarray(source)
