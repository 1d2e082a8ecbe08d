"""A measurement as a user asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detect.bench.measure import Measured, find_files, measure_accuracy, measure_times
from detect.bench.report import bench_table, write_bench
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.recognition import open_data
from detect.errors import InputError
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
        InputError: a file or the data is not usable, or the split has too few images.
    """
    use_threads(request.threads)
    files = find_files(request.weights, request.compare)
    table = open_split(open_data(request.data, request.data_root), request.split)
    batches = sorted({*request.batch})
    images = _timed_images(request, table, batches[-1])
    heading = [
        f"{describe_processor().line()}; {request.threads} thread{'s' * (request.threads > 1)}",
        f"{request.data} {request.split}: accuracy on {len(table)} images, times on {len(images)} of them, in turn, "
        "milliseconds of the wall for an image (stages: p50); suppression is included",
    ]
    yield from heading
    metrics = [measure_accuracy(file, table) for file in files]
    timings = measure_times(files, images, batches, table.names, request.threads)
    measured = [Measured(*found) for found in zip(files, metrics, timings, strict=True)]
    yield from ("", bench_table(measured))
    if request.out is not None:
        yield write_bench(request.out, measured, heading)


def _timed_images(request: BenchRequest, table: AnnotationTable, batch: int) -> list[str]:
    """Paths of the first images of the split, in whole batches of the largest size."""
    if not table.is_labelled or table.is_crowd.all():
        raise InputError(f"--split {request.split}: has no objects, so that there is no AP to measure")
    if table.shards is not None or not table.path(0).is_file():
        raise InputError(f"{request.data}: its images are not files, whose decoding is measured; detect data convert")
    count = min(len(table), max(request.images, batch)) // batch * batch
    if not count:
        raise InputError(f"--batch {batch}: the split has {len(table)} images only")
    return [str(table.path(row)) for row in range(count)]
