"""Transforms of the albumentations library.

The library is imported only if a recipe uses it. Three of its habits are corrected here: on import it asks the package
index for updates; in worker processes it repeats its random numbers from worker to worker and from epoch to epoch; and
one seed for a ``Compose`` gives every transform in it the same stream, so that two flips always coincide.
"""

from __future__ import annotations

import os
import random
import re
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from detect.config.augment import AlbumentationConfig
from detect.data.detection.geometry import MIN_VISIBLE_SHARE, Sample, are_trainable
from detect.errors import InputError, did_you_mean

# Exceptions of its transforms for invalid arguments, found by giving nonsense to each of them.
_REFUSALS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    AssertionError,
    cv2.error,
    UserWarning,
)
_NOT_TRANSFORMS = ("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D", "Lambda")


class AlbumentationsStage:
    """Albumentations transforms of finished samples.

    Args:
        transforms: in the order of application, at least one.
        image_size: S; every transform must keep S x S images S x S.

    Raises:
        InputError: an unknown transform, arguments that it refuses, or one that changes the size or type of the image.
    """

    def __init__(self, transforms: Sequence[AlbumentationConfig], image_size: int) -> None:
        self.transforms = tuple(transforms)
        self.is_geometric = any(_is_geometric(transform) for transform in self.transforms)
        """True where a transform may move pixels, and with them boxes; some of these need squares (quarter turns)."""
        for index, transform in enumerate(self.transforms):
            _try_out(transform, image_size, f"augment.albumentations[{index}]: {transform.name}")
        # Built where it is used: the pipeline does not have to travel to the worker processes.
        self._pipeline: Any = None

    def __call__(self, rng: np.random.Generator, sample: Sample) -> Sample:
        """Transform a sample; all randomness comes from ``rng``."""
        if self._pipeline is None:
            self._pipeline = _compose([_make(transform) for transform in self.transforms])
        for transform, seed in zip(
            self._pipeline.transforms, rng.integers(2**63, size=len(self.transforms)), strict=True
        ):
            transform.set_random_state(np.random.default_rng(seed), random.Random(int(seed)))
        return _apply(self._pipeline, sample)


def _library() -> ModuleType:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # read on import; without it the import opens a connection
    import albumentations

    return albumentations


def _transform_class(name: str) -> Any:
    library = _library()
    known = {
        key: value
        for key, value in vars(library).items()
        if isinstance(value, type)
        and issubclass(value, (library.ImageOnlyTransform, library.DualTransform))
        and key not in _NOT_TRANSFORMS
    }
    if name not in known:
        raise InputError(f"augment.albumentations: unknown transform {name!r}{did_you_mean(name, known)}")
    return known[name]


def _is_geometric(transform: AlbumentationConfig) -> bool:
    return issubclass(_transform_class(transform.name), _library().DualTransform)


def _make(transform: AlbumentationConfig) -> Any:
    return _transform_class(transform.name)(p=transform.p, **transform.args)


def _compose(transforms: list[Any]) -> Any:
    library = _library()
    if not any(isinstance(transform, library.DualTransform) for transform in transforms):
        return library.Compose(transforms)  # boxes need not go through
    boxes = library.BboxParams(
        format="pascal_voc",
        label_fields=["indices"],
        min_visibility=MIN_VISIBLE_SHARE,
        clip=True,
        filter_invalid_bboxes=True,
    )
    return library.Compose(transforms, bbox_params=boxes)


def _apply(pipeline: Any, sample: Sample) -> Sample:
    if "bboxes" not in pipeline.processors:
        return Sample(pipeline(image=sample.image_rgb)["image"], sample.boxes_xyxy_px, sample.labels)
    # Labels travel as indices in an array: lists of integers come back as floats.
    result = pipeline(image=sample.image_rgb, bboxes=sample.boxes_xyxy_px, indices=np.arange(len(sample.labels)))
    boxes = np.asarray(result["bboxes"], dtype=np.float64).reshape(-1, 4)
    labels = sample.labels[np.asarray(result["indices"], dtype=np.int64)]
    keep = are_trainable(boxes, boxes)
    return Sample(np.ascontiguousarray(result["image"]), boxes[keep], labels[keep])


def _try_out(transform: AlbumentationConfig, image_size: int, where: str) -> None:
    """Make the transform and apply it once, so that mistakes show before training starts."""
    transform_class = _transform_class(transform.name)
    image = np.random.default_rng(0).integers(256, size=(image_size, image_size, 3), dtype=np.uint8)
    box = np.array([[0.25, 0.25, 0.75, 0.75]]) * image_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # its report of unknown arguments
            made = transform_class(p=1.0, **transform.args)
            made.set_random_state(np.random.default_rng(0), random.Random(0))
            result = _apply(_compose([made]), Sample(image, box, np.zeros(1, dtype=np.int64))).image_rgb
    except _REFUSALS as error:
        reason = " ".join(re.sub(r"For further information visit \S+", "", str(error)).split())
        raise InputError(f"{where}: {reason or type(error).__name__}") from None
    if result.shape != image.shape or result.dtype != np.uint8:
        raise InputError(
            f"{where}: turns {image.shape} uint8 images into {result.shape} {result.dtype}; only transforms that keep "
            "size and type are possible here (set sizes by image_size, zoom by augment.scale)"
        )
