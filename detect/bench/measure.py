"""Times of files, each in a fresh process of its own, which is also what its memory is measured of.

The processes work in turn (A B A B), so that what disturbs one disturbs the others. Accuracy is measured by
``detect.bench.tasks``.
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

import detect
from detect.bench.files import BenchFile
from detect.errors import InputError
from detect.runtime.progress import progress_bar

CHUNK = 8
"""Images that a process measures before the next one has its turn; a batch, if that is more."""
PERCENTILES = (50, 95, 99)


@dataclass
class Timing:
    """Times of a file at one batch size.

    Args:
        batch: images of a batch.
        stages: names.
        seconds: of each of ``stages``, for each batch.
        cpu_s: processor time of all batches.
        peak_bytes: memory of the process, up to here.
    """

    batch: int
    stages: tuple[str, ...]
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
        """Milliseconds of an image at each of ``PERCENTILES``, of each of ``stages`` and ``all``."""
        table = 1e3 * np.array(self.seconds) / self.batch  # (batches, stages)
        columns = {**dict(zip(self.stages, table.T, strict=True)), "all": table.sum(axis=1)}
        return {name: np.percentile(column, PERCENTILES).tolist() for name, column in columns.items()}


@dataclass(frozen=True)
class Measured:
    """Accuracy and times of a file.

    Args:
        file: that was measured.
        metrics: of the task (``detect.bench.tasks``), the picture's first; -1 where there is no such object.
        timings: one for each batch size.
    """

    file: BenchFile
    metrics: dict[str, float]
    timings: list[Timing]


class _Process:
    """A fresh process that runs one file, once it was asked to open it."""

    def __init__(self, file: BenchFile, threads: int) -> None:
        root = str(Path(detect.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}
        self._file, self._threads = file, threads
        self.stages: tuple[str, ...] = ()
        """Of a batch, in their order, once the file is open."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "detect.bench.process"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def open_file(self, names: Sequence[str]) -> None:
        """Open the file; ``names`` are the classes of the data."""
        file = self._file
        answer = self.ask(weights=str(file.path), is_foreign=file.is_foreign, names=list(names), threads=self._threads)
        self.stages = tuple(answer["stages"])

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
        process.open_file(names)
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
    with ExitStack() as stack:
        processes = [stack.enter_context(_started(file, names, threads)) for file in files]
        timings = [[Timing(batch, process.stages) for batch in batches] for process in processes]
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
