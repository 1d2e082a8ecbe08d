"""The evaluation loop, shared by detection and classification: a split's images, the network, one output per image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from detect.class_names import ClassMatch, match_names, some_names
from detect.errors import InputError
from detect.runtime.device import Precision
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar
from detect.structures import Batch

Output = TypeVar("Output")
Step = Callable[[Batch], Sequence[Output]]
"""One output for each image of a batch."""


@dataclass(frozen=True)
class Conditions:
    """Settings that every evaluation has.

    Args:
        image_size: side of the network input in pixels; for a detector the long side.
        batch_size: images per batch.
        workers: processes that load images; 0 loads in this one.
        device: device of the network.
        precision: number format of the network; what follows the network is float32.
        names: class names of the network, matched with the table's by name; None: the table's, in its order. Only the
            table's classes are measured.
        strict: refuse an image that cannot be read. Otherwise it counts as one without an answer.
        progress: show a progress bar.
    """

    image_size: int
    batch_size: int
    workers: int
    device: torch.device
    precision: Precision = "fp32"
    names: tuple[str, ...] | None = None
    strict: bool = False
    progress: bool = True

    def check(self, multiple: int) -> None:
        """Raise ``InputError`` for a value outside its range; ``multiple`` divides the side of the network input."""
        if self.image_size < multiple or self.image_size % multiple:
            raise InputError(f"image size: must be a multiple of {multiple}, found {self.image_size}")
        if self.batch_size < 1:
            raise InputError(f"batch size: must be at least 1, found {self.batch_size}")
        if self.workers < 0:
            raise InputError(f"workers: must be at least 0, found {self.workers}")


@torch.inference_mode()
def run_evaluation(
    loader: Iterable[Batch], step: Step[Output], clock: Clock, label: str = "evaluate", *, progress: bool = True
) -> dict[int, Output]:
    """Run ``step`` on each batch of a split; ``step`` calls ``clock.lap`` after its parts.

    Returns:
        Row of the table to the image's output; images that cannot be read have none.
    """
    outputs: dict[int, Output] = {}
    for batch in progress_bar(loader, label, unit="batch", is_shown=progress):
        clock.start(batch.preprocess_seconds)
        outputs.update(zip(batch.rows.tolist(), step(batch), strict=True))
    return outputs


class Clock:
    """Sum of the time of each part of an evaluation.

    Args:
        device: device of the network; a GPU is synchronized at each lap.
        parts: names; the first is preprocessing, whose time ``start`` receives.
    """

    def __init__(self, device: torch.device, parts: tuple[str, ...]) -> None:
        self._device = device
        self._seconds = dict.fromkeys(parts, 0.0)
        self._first = parts[0]
        self._last = time.perf_counter()

    def start(self, preprocess_seconds: float) -> None:
        """Begin a batch that took ``preprocess_seconds``, perhaps in another process while this one was busy."""
        self._seconds[self._first] += preprocess_seconds
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the time since the last ``lap`` or ``start`` to ``part``."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def per_image_ms(self, images: int) -> dict[str, float]:
        """Milliseconds per image of each part."""
        return {part: 1000 * seconds / max(images, 1) for part, seconds in self._seconds.items()}


def match_classes(model_names: tuple[str, ...], data_names: tuple[str, ...]) -> np.ndarray:
    """Return (K,) int64, the data's index of each of the model's classes by name, or -1; ``InputError`` if none is."""
    return _match(model_names, data_names).target_of


def shared_classes(label_of: np.ndarray) -> tuple[int, ...] | None:
    """Indices of the model's classes that the data has, by the (K,) of ``match_classes``; None for all."""
    # Detections of the others are no errors, and must not take a place among the best of an image.
    return None if (label_of >= 0).all() else tuple(np.flatnonzero(label_of >= 0).tolist())


def log_class_differences(model_names: tuple[str, ...], data_names: tuple[str, ...]) -> None:
    """Warn of classes that only the model or only the data has.

    Raises:
        InputError: they have no class in common.
    """
    match = _match(model_names, data_names)
    differences = match.differences(
        "the data lacks {}: not evaluated, no error",
        "the model lacks {}: their objects count as missed",
        "case and blanks apart, {}",
    )
    if differences:
        counts = f"{len(match.shared)} of the model's {len(model_names)} and the data's {len(data_names)} are the same"
        LOGGER.warning("classes: %s; %s", counts, differences)


def _match(model_names: tuple[str, ...], data_names: tuple[str, ...]) -> ClassMatch:
    match = match_names(model_names, data_names)
    if not match.shared:
        raise InputError(
            f"classes: the checkpoint and the data have none in common; the checkpoint has {some_names(model_names)}, "
            f"the data {some_names(data_names)}"
        )
    return match
