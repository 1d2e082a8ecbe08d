"""The tasks that are measured: of each its metrics, its data and the images that are timed.

The stages of a batch are in ``detect.bench.pipeline``, which does not import PyTorch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
import torch

from detect.bench.files import BenchFile
from detect.bench.pipeline import BenchNetwork, open_bench_detector
from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable
from detect.data.classification.datasets import open_class_split
from detect.data.classification.table import ClassTable
from detect.data.datasets import open_split
from detect.errors import InputError
from detect.evaluation.classification import evaluate_class_network, logits_of_probabilities
from detect.evaluation.detection import DetectionOptions, evaluate_network
from detect.evaluation.loop import Conditions, log_class_differences
from detect.inference.network import InferenceNetwork
from detect.inference.opening import open_network

BATCH_SIZE = 8
"""Images that go through the network together where accuracy is measured."""

Table = TypeVar("Table", AnnotationTable, ClassTable)


class Task(ABC):
    """A task on a split of its data."""

    metrics: ClassVar[tuple[str, ...]]
    """Names as ``detect val`` has them; the first is the picture's."""
    end: ClassVar[str]
    """End of the time that is measured, for the heading."""
    table: AnnotationTable | ClassTable
    """The split."""

    @classmethod
    @abstractmethod
    def open(cls, data: DataConfig, split: str) -> Task:
        """Open a split; ``InputError`` if it is not usable, not labelled, or its images are not files."""

    @abstractmethod
    def rows(self, count: int) -> Sequence[int]:
        """Rows of ``count`` images to time."""

    @abstractmethod
    def evaluate(self, file: BenchFile) -> Mapping[str, float]:
        """All metrics of a file, as ``detect val`` computes them; ``InputError`` if it is not usable."""

    def accuracy(self, file: BenchFile) -> dict[str, float]:
        """``metrics`` of a file; errors as of ``evaluate``."""
        found = self.evaluate(file)
        return {name: found[name] for name in self.metrics}

    def image_paths(self, count: int) -> list[str]:
        return [str(self.table.path(row)) for row in self.rows(count)]


@dataclass(frozen=True)
class DetectionTask(Task):
    """Detectors, and those of other toolkits, on images with boxes."""

    metrics: ClassVar = ("AP", "AP50", "AP_S")
    end: ClassVar = "suppression is included"
    table: AnnotationTable

    @classmethod
    def open(cls, data: DataConfig, split: str) -> DetectionTask:
        table = open_split(data, split)
        if not table.is_labelled or table.is_crowd.all():
            raise InputError(f"--split {split}: has no objects, so that there is no AP to measure")
        if table.shards is not None or not table.path(0).is_file():
            raise InputError(f"{data.name}: its images are not files, whose decoding is measured; detect data convert")
        return cls(table)

    def rows(self, count: int) -> Sequence[int]:
        return range(count)

    def evaluate(self, file: BenchFile) -> Mapping[str, float]:
        network = open_bench_detector(str(file.path), file.is_foreign, self.table.names)
        table, conditions = _as_trained(self.table, network), _conditions(network)
        log_class_differences(network.names, table.names)
        metrics = evaluate_network(network.predictions, network.multiple, table, conditions, DetectionOptions()).metrics
        assert metrics is not None, "the split is labelled"
        return metrics.values


@dataclass(frozen=True)
class ClassificationTask(Task):
    """Classifiers on images with a class each."""

    metrics: ClassVar = ("top1", "top5")
    end: ClassVar = "until the classes' probabilities"
    table: ClassTable

    @classmethod
    def open(cls, data: DataConfig, split: str) -> ClassificationTask:
        table = open_class_split(data, split)
        if table.pixels is not None:
            raise InputError(
                f"{data.name}: its images are not files, whose decoding is measured; take image folders "
                "(format: folders)"
            )
        return cls(table)

    def rows(self, count: int) -> Sequence[int]:
        # Evenly spaced: in many formats the images of one class come one behind the other.
        rows: list[int] = (np.arange(count) * len(self.table) // count).tolist()
        return rows

    def evaluate(self, file: BenchFile) -> Mapping[str, float]:
        network = open_network(file.path, "cpu", "fp32")
        table, conditions = _as_trained(self.table, network), _conditions(network)
        log_class_differences(network.names, table.names)
        forward = logits_of_probabilities(network.probabilities)
        evaluation = evaluate_class_network(forward, network.multiple, table, conditions, network.center_crop)
        return evaluation.metrics.values


def task_of(files: Sequence[BenchFile]) -> type[Task]:
    """Find the task of the files.

    Raises:
        InputError: a file is not usable, or there are detectors and classifiers.
    """
    classifiers = [file for file in files if _is_classifier(file)]
    detectors = [file for file in files if file not in classifiers]
    if classifiers and detectors:
        if detectors[0].is_foreign:
            raise InputError(f"--compare: is for detectors; {classifiers[0].label} is a classifier")
        raise InputError(
            f"--weights: {classifiers[0].label} is a classifier, {detectors[0].label} a detector; measure them apart"
        )
    return ClassificationTask if classifiers else DetectionTask


def _is_classifier(file: BenchFile) -> bool:
    return not file.is_foreign and open_network(file.path, "cpu", "fp32").is_classifier


def _as_trained(table: Table, network: BenchNetwork | InferenceNetwork) -> Table:
    """The table, read with the network's range of values, if it has one."""
    if network.value_range is None:
        return table
    return replace(table, read_settings=replace(table.read_settings, value_range=network.value_range))


def _conditions(network: BenchNetwork | InferenceNetwork) -> Conditions:
    return Conditions(
        network.image_size, batch_size=BATCH_SIZE, workers=0, device=torch.device("cpu"), names=network.names
    )
