"""Outputs of a comparison: one table as text, Markdown and CSV, and two pictures."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from detect.ablation.curves import Results, draw_curves, read_results
from detect.ablation.plan import Case, Training
from detect.ablation.running import read_record
from detect.ablation.timing import forward_ms
from detect.analysis.report import align
from detect.config.ablation import AblationConfig
from detect.drawing.text import chart_text
from detect.errors import InputError
from detect.models.checkpoint import load_checkpoint
from detect.runtime.files import atomic_path, write_text

RUNS_CSV, TABLE, PICTURE, CURVES = "runs.csv", "table.md", "picture.png", "curves.png"
AXES = {
    "gmacs": "billions of multiply-adds of an image",
    "ms": "milliseconds of a forward pass, one thread",
    "seconds": "processor seconds",
}
"""Labels of the costs that can be the horizontal axis."""


class Run(NamedTuple):
    """A finished training.

    Args:
        training: as planned.
        metrics: of ``best.pt`` on the validation split.
        cpu_seconds: processor time.
        parameters: of the model.
        gmacs: of an image and forward pass at full size, 1e9 multiply-adds.
        results: values of each epoch.
    """

    training: Training
    metrics: dict[str, float]
    cpu_seconds: float
    parameters: int
    gmacs: float
    results: Results


class Row(NamedTuple):
    """A case over its seeds.

    Args:
        case: its keys.
        runs: at least one.
        ms: of a forward pass (``forward_ms``).
    """

    case: Case
    runs: list[Run]
    ms: float

    def values(self, metric: str) -> list[float]:
        return [run.metrics[metric] for run in self.runs]

    @property
    def cpu_seconds(self) -> float:
        return statistics.mean(run.cpu_seconds for run in self.runs)


def read_runs(trainings: Sequence[Training], metrics: Sequence[str]) -> list[Run]:
    """Read the finished trainings.

    Raises:
        InputError: a training has no such metric, or a file is damaged.
    """
    return [
        _read_run(training, record.cpu_seconds, metrics)
        for training in trainings
        if (record := read_record(training)) is not None and record.is_done
    ]


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Collect the runs of each case, in the order of the cases, and time the first of each."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.training.case.title, []).append(run)
    times = forward_ms([group[0].training.checkpoint for group in groups.values()])
    return [Row(group[0].training.case, group, ms) for group, ms in zip(groups.values(), times, strict=True)]


def write_runs(path: Path, runs: Sequence[Run], metrics: Sequence[str], ms: Mapping[str, float]) -> None:
    """Write a line for each run; ``ms`` is that of its case's title, empty where it is not measured yet."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "seed", *metrics, "cpu_seconds", "parameters", "gmacs", "ms", "folder"])
    for run in runs:
        training = run.training
        scores = (f"{run.metrics[metric]:.4f}" for metric in metrics)
        forward = f"{ms[training.case.title]:.2f}" if training.case.title in ms else ""
        costs = (f"{run.cpu_seconds:.1f}", run.parameters, f"{run.gmacs:.4f}", forward)
        table.writerow([training.case.title, training.seed, *scores, *costs, training.folder.name])
    write_text(path, text.getvalue())


def write_outputs(config: AblationConfig, trainings: Sequence[Training], out: Path) -> Iterator[str]:
    """Write table and pictures of the finished trainings.

    Yields:
        The table, and the places of the outputs.

    Raises:
        InputError: no training has been finished.
    """
    runs = read_runs(trainings, config.metrics)
    if not runs:
        raise InputError(f"{out}: no training was finished; the logs in its folders say why")
    rows = rows_of(runs)
    write_runs(out / RUNS_CSV, runs, config.metrics, {row.case.title: row.ms for row in rows})
    lines = table_lines(rows, config)
    write_text(out / TABLE, "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], _rule(lines[0]), *lines[1:]]))
    draw_rows(out / PICTURE, rows, config)
    draw_curves(out / CURVES, {row.case.title: [run.results for run in row.runs] for row in rows}, config.metrics[0])
    yield align([tuple(line) for line in lines], left=1)
    if len(runs) < len(trainings):
        yield f"{len(trainings) - len(runs)} of {len(trainings)} trainings are not finished"
    yield f"{out}: {TABLE}, {RUNS_CSV}, {PICTURE}, {CURVES}, and a folder for each training"


def table_lines(rows: Sequence[Row], config: AblationConfig) -> list[list[str]]:
    """Return the table's cells, the head first: means over the seeds, with standard deviations."""
    head = ["case", *config.metrics, "seeds", "parameters", "GMACs", "ms", "CPU s"]
    lines = [head]
    for row in rows:
        first = row.runs[0]
        scores = [_spread(row.values(metric)) for metric in config.metrics]
        costs = [f"{first.parameters:,}", f"{first.gmacs:.3f}", f"{row.ms:.1f}", f"{row.cpu_seconds:.0f}"]
        lines.append([row.case.title, *scores, str(len(row.runs)), *costs])
    return lines


def draw_rows(path: Path, rows: Sequence[Row], config: AblationConfig) -> None:
    """Draw the first metric: a line for each case along the varied key, or a point for each row, over its cost."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    metric = config.metrics[0]
    ticks = [str(value) for value in config.vary.get(config.x, ())]
    for title, line in _lines(rows, config).items():
        x = [_place(row, config, ticks) for row in line]
        means = [statistics.mean(row.values(metric)) for row in line]
        deviations = [statistics.stdev(values) if len(values := row.values(metric)) > 1 else 0.0 for row in line]
        label = chart_text(title).replace("$", r"\$")  # a dollar begins a formula
        axes.errorbar(x, means, deviations, marker="o", capsize=3, label=label)
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel(AXES.get(config.x, config.x))
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _lines(rows: Sequence[Row], config: AblationConfig) -> dict[str, list[Row]]:
    """Group the rows that differ in the key of the horizontal axis only."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        rest = {key: value for key, value in row.case.varied.items() if key != config.x}
        lines.setdefault(row.case._replace(varied=rest).title, []).append(row)
    return lines


def _place(row: Row, config: AblationConfig, ticks: Sequence[str]) -> float:
    costs = {"gmacs": row.runs[0].gmacs, "ms": row.ms, "seconds": row.cpu_seconds}
    return costs[config.x] if config.x in costs else ticks.index(str(row.case.varied[config.x]))


def _read_run(training: Training, cpu_seconds: float, metrics: Sequence[str]) -> Run:
    path = training.checkpoint
    checkpoint = load_checkpoint(path)
    missing = [metric for metric in metrics if metric not in checkpoint.metrics]
    if missing:
        raise InputError(f"{path}: has no metric {missing[0]}; it has {', '.join(checkpoint.metrics)}")
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    results = read_results(results_path := training.folder / "results.csv")
    gmacs = _full_gmacs(results, results_path)
    return Run(training, checkpoint.metrics, cpu_seconds, parameters, gmacs, results)


def _full_gmacs(results: Results, path: Path) -> float:
    """Return the multiply-adds of the last epoch at full size."""
    try:
        return results[-1]["compute/full_gmacs"]
    except (KeyError, IndexError):
        raise InputError(f"{path}: is damaged") from None


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _rule(head: Sequence[str]) -> list[str]:
    return ["---", *("--:" for _ in head[1:])]
