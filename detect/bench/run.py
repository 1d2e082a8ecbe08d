"""A measurement as a user requests it, and its outputs: a table as text, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detect.analysis.report import align
from detect.bench.files import find_files
from detect.bench.measure import PERCENTILES, Measured, Timing, measure_times
from detect.bench.tasks import Task, task_of
from detect.data.recognition import open_data
from detect.drawing.text import chart_text, shorten
from detect.errors import InputError
from detect.evaluation.report import number
from detect.runtime.files import atomic_path, write_text
from detect.runtime.logs import LOGGER
from detect.runtime.processor import describe_processor
from detect.runtime.threads import use_threads

TABLE, CSV, PICTURE = "bench.txt", "bench.csv", "bench.png"
_MAX_LABEL = 40
_LEAST_SPAN = 0.05
"""Accuracy that the picture's axis spans at least: files a thousandth apart must not look far apart."""
_COLORS = {
    "decode": "#9ecae9",
    "letterbox": "#54a24b",
    "crop": "#54a24b",
    "network": "#4c78a8",
    "suppression": "#f58518",
}
"""Colour of each stage in the picture."""


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


def bench_table(measured: Sequence[Measured]) -> str:
    """A line for each file and batch size. The files are of one task, and have its metrics and stages."""
    metrics, stages = _columns(measured)
    percentiles = (f"p{p}" for p in PERCENTILES)
    head = ("file", *metrics, "MB", "batch", *stages, *percentiles, "images/s", "CPU ms", "faster", "peak MiB")
    firsts = {timing.batch: timing for timing in measured[0].timings}
    lines = [_line(one, timing, firsts[timing.batch]) for one in measured for timing in one.timings]
    return align([head, *lines], left=1)


def _columns(measured: Sequence[Measured]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the metrics, and of the stages."""
    return tuple(measured[0].metrics), measured[0].timings[0].stages


def _line(one: Measured, timing: Timing, first: Timing) -> tuple[str, ...]:
    """Cells of a line; ``first`` is of the first file, at the same batch size."""
    times = timing.percentiles_ms()
    return (
        shorten(one.file.label, _MAX_LABEL),
        *(number(value).strip() for value in one.metrics.values()),
        f"{one.file.num_bytes / 1e6:.2f}",
        str(timing.batch),
        *(f"{times[stage][0]:.1f}" for stage in timing.stages),
        *(f"{value:.1f}" for value in times["all"]),
        f"{timing.images_per_s:.1f}",
        f"{timing.cpu_ms:.1f}",
        f"{first.cpu_ms / timing.cpu_ms:.2f}" if timing.cpu_s else "?",
        f"{timing.peak_bytes / 2**20:.0f}" if timing.peak_bytes else "?",
    )


def write_bench(folder: Path, measured: Sequence[Measured], heading: Sequence[str]) -> str:
    """Write the table under its heading, the CSV file and the picture; return the line about them."""
    write_text(folder / TABLE, "\n".join([*heading, "", bench_table(measured), ""]))
    write_text(folder / CSV, _csv(measured, heading))
    draw_bench(folder / PICTURE, measured, heading)
    return f"{folder}: {TABLE}, {CSV}, {PICTURE}"


def _csv(measured: Sequence[Measured], heading: Sequence[str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    metrics, stages = _columns(measured)
    times = [f"{stage}_p{p}_ms" for stage in (*stages, "all") for p in PERCENTILES]
    table.writerow(
        ["file", *metrics, "bytes", "batch", "images", *times, "images_per_s", "cpu_ms", "peak_bytes", "conditions"]
    )
    for one in measured:
        for timing in one.timings:
            values = [f"{value:.3f}" for stage in timing.percentiles_ms().values() for value in stage]
            table.writerow(
                [
                    one.file.label,
                    *(f"{value:.4f}" for value in one.metrics.values()),
                    one.file.num_bytes,
                    *(timing.batch, timing.images),
                    *values,
                    *(f"{timing.images_per_s:.2f}", f"{timing.cpu_ms:.3f}", timing.peak_bytes, " | ".join(heading)),
                ]
            )
    return text.getvalue()


def draw_bench(path: Path, measured: Sequence[Measured], heading: Sequence[str]) -> None:
    """Draw the stages of each file, and the first metric over the time of an image; both at the smallest batch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.2 + 0.5 * len(measured)), layout="constrained")
    FigureCanvasAgg(figure)
    bars, points = figure.subplots(1, 2)
    labels = [chart_text(shorten(one.file.label, _MAX_LABEL)) for one in measured]
    times = [one.timings[0].percentiles_ms() for one in measured]
    left = [0.0] * len(measured)
    (metric, *_), stages = _columns(measured)
    for stage in stages:
        widths = [found[stage][0] for found in times]
        bars.barh(labels, widths, left=left, color=_COLORS[stage], label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    bars.invert_yaxis()
    bars.set_xlabel(f"ms of an image, p50, batch {measured[0].timings[0].batch}")
    bars.legend(fontsize="small")
    for one, found, label in zip(measured, times, labels, strict=True):
        size = 20 + 20 * one.file.num_bytes / 1e6
        points.scatter(found["all"][0], one.metrics[metric], s=size, label=label, alpha=0.7)
    points.set(xlabel="ms of an image, p50", ylabel=metric, xlim=(0, 1.1 * max(found["all"][0] for found in times)))
    scores = [one.metrics[metric] for one in measured]
    middle, half = (max(scores) + min(scores)) / 2, max(0.6 * (max(scores) - min(scores)), _LEAST_SPAN / 2)
    points.set_ylim(middle - half, middle + half)
    points.legend(fontsize="small", title="area: bytes")
    figure.suptitle(chart_text(heading[0]), fontsize="small", parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
