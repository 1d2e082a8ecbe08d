"""Prediction over many files: read, detect or classify, and report what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detect.data.images import ImageError, read_image
from detect.errors import InputError
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.runtime.logs import LOGGER
from detect.structures import Classification, Detections


@dataclass(frozen=True)
class FilePrediction:
    """What was found in a file.

    Args:
        path: the image.
        image_rgb: (H, W, 3) uint8.
        detections: in its pixels.
    """

    path: Path
    image_rgb: np.ndarray
    detections: Detections

    def line(self) -> str:
        """The file and how many objects of each class were found, in one line."""
        counts = Counter(self.detections.class_names)
        found = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
        return " ".join(f"{self.path}: {found}".split())


@dataclass(frozen=True)
class FileClassification:
    """What a file shows.

    Args:
        path: the image.
        image_rgb: (H, W, 3) uint8.
        classification: of it.
    """

    path: Path
    image_rgb: np.ndarray
    classification: Classification

    def line(self) -> str:
        """The file and its five most probable classes, in one line."""
        found = ", ".join(f"{name} {score:.2f}" for name, score in self.classification.top(5))
        return " ".join(f"{self.path}: {found}".split())


def predict_files(
    detector: Detector, paths: Sequence[Path], batch_size: int = 1, **options: Any
) -> Iterator[FilePrediction]:
    """Predict on files, ``batch_size`` of them in memory at a time.

    Args:
        detector: the model.
        paths: image files. Unreadable ones among several are skipped, reported one by one and counted at the end.
        batch_size: images that are read, and at most go through the network, together.
        options: of ``Detector.predict``.

    Yields:
        A record for each readable file, in order.

    Raises:
        ImageError: the only file, or every file, is unreadable.
        InputError: an option is outside its range.
    """
    for images in _read_in_batches(paths, batch_size):
        found = detector.predict([image for _, image in images], batch_size=batch_size, **options)
        for (path, image), detections in zip(images, found, strict=True):
            yield FilePrediction(path, image, detections)


def classify_files(
    classifier: Classifier, paths: Sequence[Path], batch_size: int = 1, image_size: int | None = None
) -> Iterator[FileClassification]:
    """Classify files, ``batch_size`` of them in memory at a time.

    Args:
        classifier: the model.
        paths: image files, as for ``predict_files``.
        batch_size: images that are read, and go through the network, together.
        image_size: of ``Classifier.predict``.

    Yields:
        A record for each readable file, in order.

    Raises:
        ImageError: the only file, or every file, is unreadable.
        InputError: an option is outside its range.
    """
    for images in _read_in_batches(paths, batch_size):
        found = classifier.predict([image for _, image in images], batch_size=batch_size, image_size=image_size)
        for (path, image), classification in zip(images, found, strict=True):
            yield FileClassification(path, image, classification)


def _read_in_batches(paths: Sequence[Path], batch_size: int) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """The readable ones of each ``batch_size`` files, perhaps none; the others are told about."""
    if batch_size < 1:
        raise InputError(f"batch size: must be at least 1, found {batch_size}")
    unreadable: list[ImageError] = []
    for start in range(0, len(paths), batch_size):
        images: list[tuple[Path, np.ndarray]] = []
        for path in paths[start : start + batch_size]:
            try:
                images.append((path, read_image(path)))
            except ImageError as error:
                unreadable.append(error)
                if len(paths) > 1:
                    LOGGER.warning("%s (skipped)", error)
        yield images
    if unreadable and len(unreadable) == len(paths):
        if len(paths) == 1:
            raise unreadable[0]
        raise ImageError(f"none of the {len(paths)} images could be read; the first: {unreadable[0]}")
    if unreadable:
        LOGGER.warning("%d of %d images could not be read and were skipped", len(unreadable), len(paths))
