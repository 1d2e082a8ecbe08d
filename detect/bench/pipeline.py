"""A file from image files to its answers, and the time of each stage of a batch.

PyTorch is imported for a checkpoint only, as in a user's program.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from detect.data.classification.geometry import center_crop
from detect.data.images import read_image
from detect.data.letterbox import letterbox, pad_batch
from detect.data.pixel_values import ReadSettings
from detect.evaluation.postprocess import Predictions, PredictSettings, postprocess
from detect.inference.network import InferenceNetwork
from detect.inference.opening import open_network
from detect.structures import Letterbox


class BenchNetwork(Protocol):
    """The part of a detector's ``InferenceNetwork`` that a measurement needs."""

    name: str
    names: tuple[str, ...]
    image_size: int
    multiple: int
    value_range: tuple[float, float] | None

    def predictions(self, images: np.ndarray) -> Predictions:
        """(B, H, W, 3) uint8 RGB to (B, P, 5 + K) float32."""
        ...


class Pipeline(Protocol):
    """The stages of one task, and a network in them."""

    stages: ClassVar[tuple[str, ...]]

    @property
    def name(self) -> str: ...

    def time_batch(self, paths: Sequence[str]) -> list[float]:
        """Seconds of each of ``stages`` for a batch of image files."""
        ...


class DetectionPipeline:
    """A detector; images of one shape go through the network together, as in ``Detector``."""

    stages: ClassVar[tuple[str, ...]] = ("decode", "letterbox", "network", "suppression")

    def __init__(self, network: BenchNetwork) -> None:
        self.network, self.settings = network, PredictSettings()

    @property
    def name(self) -> str:
        return self.network.name

    def time_batch(self, paths: Sequence[str]) -> list[float]:
        network = self.network
        times = [time.perf_counter()]
        images = _read(paths, network.value_range)
        times.append(time.perf_counter())
        groups: dict[tuple[int, ...], list[tuple[np.ndarray, Letterbox]]] = {}
        for image in images:
            placed = letterbox(image, network.image_size)
            groups.setdefault(placed[0].shape, []).append(placed)
        batches = [(pad_batch([image for image, _ in group], network.multiple), group) for group in groups.values()]
        times.append(time.perf_counter())
        found = [(network.predictions(batch), [placement for _, placement in group]) for batch, group in batches]
        times.append(time.perf_counter())
        for predictions, letterboxes in found:
            postprocess(predictions, letterboxes, self.settings, network.names)
        times.append(time.perf_counter())
        return np.diff(times).tolist()


class ClassificationPipeline:
    """A classifier; all images of a batch go through the network together, as in ``Classifier``."""

    stages: ClassVar[tuple[str, ...]] = ("decode", "crop", "network")

    def __init__(self, network: InferenceNetwork) -> None:
        self.network = network

    @property
    def name(self) -> str:
        return self.network.name

    def time_batch(self, paths: Sequence[str]) -> list[float]:
        network = self.network
        times = [time.perf_counter()]
        images = _read(paths, network.value_range)
        times.append(time.perf_counter())
        batch = np.stack([center_crop(image, network.image_size, network.center_crop) for image in images])
        times.append(time.perf_counter())
        network.probabilities(batch)
        times.append(time.perf_counter())
        return np.diff(times).tolist()


def open_bench_detector(weights: str, is_foreign: bool, names: Sequence[str]) -> BenchNetwork:
    """Open a detector on the CPU; ``names`` are the classes of the data, for one of another toolkit.

    Raises:
        InputError: the file is not usable.
    """
    if is_foreign:
        from detect.bench.foreign import ForeignNetwork

        return ForeignNetwork(Path(weights), tuple(names))
    return open_network(weights, "cpu", "fp32")


def open_pipeline(weights: str, is_foreign: bool, names: Sequence[str]) -> Pipeline:
    """Open a file as a detector or a classifier, by its network; arguments and errors as of ``open_bench_detector``."""
    if is_foreign:
        return DetectionPipeline(open_bench_detector(weights, is_foreign, names))
    network = open_network(weights, "cpu", "fp32")
    return ClassificationPipeline(network) if network.is_classifier else DetectionPipeline(network)


def _read(paths: Sequence[str], value_range: tuple[float, float] | None) -> list[np.ndarray]:
    reading = ReadSettings(value_range)
    return [read_image(Path(path), reading) for path in paths]
