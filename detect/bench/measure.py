"""Accuracy and speed of detector files in one run: each from the file itself.

Accuracy is measured as ``detect val`` does. For the speed each file has a fresh process of its own, which is also what
its memory is measured of; the processes work in turn (A B A B), so that what disturbs one disturbs the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import detect
from detect.bench.process import STAGES, open_bench_network
from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.evaluation.detection import DetectionOptions, evaluate_network
from detect.evaluation.loop import Conditions, log_class_differences
from detect.inference.formats import num_bytes
from detect.models.catalog import shipped_weights
from detect.runtime.progress import progress_bar

CHUNK = 8
"""Images that a process measures before the next one has its turn; a batch, if that is more."""
METRICS = ("AP", "AP50", "AP_S")
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class BenchFile:
    """A file to measure.

    Args:
        label: as the user named it.
        path: of the file.
        is_foreign: of another toolkit (``detect.bench.foreign``).
    """

    label: str
    path: Path
    is_foreign: bool = False

    @property
    def num_bytes(self) -> int:
        return num_bytes(self.path)


@dataclass
class Timing:
    """Times of a file at one batch size.

    Args:
        batch: images of a batch.
        seconds: of each of ``STAGES``, for each batch.
        cpu_s: processor time of all batches.
        peak_bytes: memory of the process, up to here.
    """

    batch: int
    seconds: list[list[float]] = field(default_factory=list)
    cpu_s: float = 0.0
    peak_bytes: int = 0

    @property
    def images(self) -> int:
        return self.batch * len(self.seconds)

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds of an image."""
        return 1e3 * self.cpu_s / self.images

    @property
    def images_per_s(self) -> float:
        return self.images / float(np.sum(self.seconds))

    def percentiles_ms(self) -> dict[str, list[float]]:
        """Milliseconds of an image at each of ``PERCENTILES``, of each of ``STAGES`` and ``all``."""
        table = 1e3 * np.array(self.seconds) / self.batch  # (batches, stages)
        columns = {**dict(zip(STAGES, table.T, strict=True)), "all": table.sum(axis=1)}
        return {name: np.percentile(column, PERCENTILES).tolist() for name, column in columns.items()}


@dataclass(frozen=True)
class Measured:
    """Accuracy and times of a file.

    Args:
        file: that was measured.
        metrics: of ``METRICS``; -1 where there is no such object.
        timings: one for each batch size.
    """

    file: BenchFile
    metrics: dict[str, float]
    timings: list[Timing]


def find_files(weights: Sequence[str], foreign: Sequence[str]) -> list[BenchFile]:
    """Find the files, shipped names included.

    Raises:
        InputError: a file does not exist, or is named twice.
    """
    shipped = shipped_weights()
    files = [BenchFile(name, shipped.get(name, Path(name))) for name in weights]
    files += [BenchFile(name, Path(name), is_foreign=True) for name in foreign]
    for number, file in enumerate(files):
        if not file.path.is_file():
            raise InputError(f"{file.label}: is neither a file nor one of weights/")
        if file.path.resolve() in [other.path.resolve() for other in files[:number]]:
            raise InputError(f"{file.label}: is named twice")
    return files


def measure_accuracy(file: BenchFile, table: AnnotationTable) -> dict[str, float]:
    """``METRICS`` of a file on a labelled split.

    Raises:
        InputError: the file is not usable, or has no class in common with the data.
    """
    network = open_bench_network(str(file.path), file.is_foreign, table.names)
    log_class_differences(network.names, table.names)
    conditions = Conditions(
        network.image_size, batch_size=8, workers=0, device=torch.device("cpu"), names=network.names
    )
    metrics = evaluate_network(network.predictions, network.multiple, table, conditions, DetectionOptions()).metrics
    assert metrics is not None, "the split is labelled"
    return {name: metrics[name] for name in METRICS}


class _Process:
    """A fresh process that runs one file, once it was asked to open it."""

    def __init__(self, file: BenchFile, threads: int) -> None:
        root = str(Path(detect.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}
        self._file = file
        self._process = subprocess.Popen(
            [sys.executable, "-m", "detect.bench.process"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and wait for the answer; ``InputError`` if it is an error."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "it is a pipe"
        assert stdout is not None, "it is a pipe"
        line = ""
        try:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise InputError(f"{self._file.label}: its process ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InputError(answer["error"])
        return answer

    def end(self) -> None:
        with self._process:  # closes its pipes and waits
            self._process.kill()


@contextmanager
def _started(file: BenchFile, names: Sequence[str], threads: int) -> Iterator[_Process]:
    process = _Process(file, threads)
    try:
        process.ask(weights=str(file.path), is_foreign=file.is_foreign, names=list(names), threads=threads)
        yield process
    finally:
        process.end()


def measure_times(
    files: Sequence[BenchFile], images: Sequence[str], batches: Sequence[int], names: Sequence[str], threads: int
) -> list[list[Timing]]:
    """Time files on images, in turn.

    Args:
        files: each gets a process of its own.
        images: paths; at least as many as the largest batch.
        batches: sizes, the smallest first, so that each one's memory is not that of a larger one.
        names: classes of the data, for files of other toolkits.
        threads: computing threads of each process.

    Returns:
        For each file a timing for each batch size.
    """
    timings = [[Timing(batch) for batch in batches] for _ in files]
    with ExitStack() as stack:
        processes = [stack.enter_context(_started(file, names, threads)) for file in files]
        for place, batch in enumerate(batches):
            for process in processes:  # the first batch allocates
                process.ask(batch=batch, images=images[:batch])
            for chunk in progress_bar(_chunks(images, batch), f"batch {batch}", unit="turn"):
                for process, found in zip(processes, timings, strict=True):
                    answer = process.ask(batch=batch, images=chunk)
                    timing = found[place]
                    timing.seconds += answer["seconds"]
                    timing.cpu_s += answer["cpu_s"]
                    timing.peak_bytes = max(timing.peak_bytes, answer["peak_bytes"])
    return timings


def _chunks(images: Sequence[str], batch: int) -> list[Sequence[str]]:
    """Whole batches, about ``CHUNK`` images at a time."""
    size = batch * max(1, CHUNK // batch)
    whole = images[: len(images) // batch * batch]
    return [whole[start : start + size] for start in range(0, len(whole), size)]
