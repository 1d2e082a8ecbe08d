"""Images whose values choose the ranges of an INT8 file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from detect.data.annotations import AnnotationTable
from detect.data.classification.geometry import center_crop
from detect.data.classification.table import ClassTable
from detect.data.images import ImageError
from detect.data.letterbox import letterbox
from detect.errors import InputError
from detect.models.checkpoint import Checkpoint
from detect.runtime.logs import LOGGER
from detect.runtime.reproducibility import generator

Method = Literal["minmax", "entropy", "percentile"]
"""Choice of a range from the values that were seen: all of them; what loses the least information; 99.999 %."""
DEFAULT_METHOD: Method = "minmax"
"""The one that lost least in ``docs/results/int8.md``, on average and in the worst case; it takes half the time."""
DEFAULT_IMAGES = 64
FEW_IMAGES = 16
"""Below it a warning: ranges of single images vary."""
_COMPARED = 8
"""Images that are looked at for their colours."""
_FLAT = 1.0
"""Standard deviation of the pixels, below which an image shows nothing."""


@dataclass(frozen=True)
class Calibration:
    """Images and method of a calibration.

    Args:
        images: (H, W, 3) uint8 RGB, scaled as for the network, not padded.
        method: choice of the ranges.
    """

    images: list[np.ndarray]
    method: Method = DEFAULT_METHOD


def read_calibration(
    train: AnnotationTable | ClassTable, checkpoint: Checkpoint, image_size: int, count: int, method: Method
) -> Calibration:
    """Read up to ``count`` images of a training split, the same at each call, scaled as for the network.

    Raises:
        InputError: fewer than two images are asked for or can be read, or all are of one colour each.
    """
    if count < 2:
        raise InputError(f"calibration: needs at least 2 training images, {count} was asked for; {FEW_IMAGES} or more")
    images = list(islice(_scaled_images(train, checkpoint, image_size), count))
    if len(images) < 2:
        raise InputError(f"calibration: needs at least 2 training images, found {len(images)}; {FEW_IMAGES} or more")
    if all(image.std(axis=(0, 1)).max() < _FLAT for image in images):
        raise InputError(f"calibration: the {len(images)} training images show nothing, each is of one colour")
    if len(images) < FEW_IMAGES:
        LOGGER.warning("calibration: %d training images are few; %d or more are better", len(images), FEW_IMAGES)
    return Calibration(images, method)


def warn_of_grey(calibration: Calibration, other: AnnotationTable | ClassTable) -> None:
    """Warn where all images of the calibration are grey and some of another split, which are what comes, are not."""
    if all(map(_is_grey, calibration.images)) and not all(map(_is_grey, islice(_images(other), _COMPARED))):
        LOGGER.warning(
            "calibration: all %d training images are grey, those of the other split are not, so that values of colours "
            "lie outside the ranges",
            len(calibration.images),
        )


def _scaled_images(
    table: AnnotationTable | ClassTable, checkpoint: Checkpoint, image_size: int
) -> Iterator[np.ndarray]:
    for image in _images(table):
        if checkpoint.model.definition.is_classifier:
            yield center_crop(image, image_size, checkpoint.center_crop)
        else:
            yield letterbox(image, image_size)[0]


def _images(table: AnnotationTable | ClassTable) -> Iterator[np.ndarray]:
    """Images of a split in an order drawn once, without those that cannot be read."""
    for row in generator(len(table)).permutation(len(table)).tolist():
        try:
            yield table.read(row)
        except ImageError as error:
            LOGGER.warning("calibration: %s; left out", error)


def _is_grey(image: np.ndarray) -> bool:
    return bool((image == image[..., :1]).all())
