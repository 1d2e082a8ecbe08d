"""A measurement as a user asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detect.bench.files import find_files
from detect.bench.measure import Measured, measure_times
from detect.bench.report import bench_table, write_bench
from detect.bench.tasks import Task, task_of
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.runtime.logs import LOGGER
from detect.runtime.processor import describe_processor
from detect.runtime.threads import use_threads


@dataclass(frozen=True)
class BenchRequest:
    """Arguments of ``detect bench``, by their names; its help describes them.

    Raises:
        InputError: there is no file.
    """

    weights: Sequence[str]
    data: str
    data_root: str | None = None
    split: str = "val"
    compare: Sequence[str] = ()
    batch: Sequence[int] = (1, 8)
    threads: int = 1
    images: int = 64
    out: Path | None = None

    def __post_init__(self) -> None:
        if not self.weights and not self.compare:
            raise InputError("bench: --weights or --compare must name a file")


def run_bench(request: BenchRequest) -> Iterator[str]:
    """Measure the files, and write the outputs.

    Yields:
        Lines for people.

    Raises:
        InputError: a file or the data is not usable, the files are of two tasks, or the split has too few images.
    """
    use_threads(request.threads)
    files = find_files(request.weights, request.compare)
    task = task_of(files).open(open_data(request.data, request.data_root), request.split)
    batches = sorted({*request.batch})
    images = _timed_images(request, task, batches[-1])
    heading = [
        f"{describe_processor().line()}; {request.threads} thread{'s' * (request.threads > 1)}",
        f"{request.data} {request.split}: accuracy on {len(task.table)} images, times on {len(images)} of them, in "
        f"turn, milliseconds of the wall for an image (stages: p50); {task.end}",
    ]
    yield from heading
    metrics = []
    for file in files:
        LOGGER.info("accuracy of %s", file.label)
        metrics.append(task.accuracy(file))
    timings = measure_times(files, images, batches, task.table.names, request.threads)
    measured = [Measured(*found) for found in zip(files, metrics, timings, strict=True)]
    yield from ("", bench_table(measured))
    if request.out is not None:
        yield write_bench(request.out, measured, heading)


def _timed_images(request: BenchRequest, task: Task, batch: int) -> list[str]:
    """Paths of images of the split, in whole batches of the largest size."""
    count = min(len(task.table), max(request.images, batch)) // batch * batch
    if not count:
        raise InputError(f"--batch {batch}: the split has {len(task.table)} images only; take --batch 1")
    return task.image_paths(count)
