"""Curves of a comparison: its first metric over the epochs, on the validation split and on training batches."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from detect.drawing.text import chart_text
from detect.errors import InputError
from detect.runtime.files import atomic_path

Results = list[dict[str, float]]
"""Rows of a run's ``results.csv``, an epoch each, without empty fields."""


def read_results(path: Path) -> Results:
    """Read a ``results.csv``.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, strict=True)
            return [{tag: float(text) for tag, text in row.items() if text} for row in rows]
    except (OSError, TypeError, ValueError, csv.Error):
        raise InputError(f"{path}: is damaged") from None


def mean_curve(runs: Sequence[Results], tag: str) -> dict[int, float]:
    """Average a value over runs: epoch to mean, of the epochs in which every run has the value."""
    values = [{int(row["epoch"]): row[tag] for row in rows if tag in row} for rows in runs]
    epochs = set(values[0]).intersection(*values[1:])
    return {epoch: statistics.mean(run[epoch] for run in values) for epoch in sorted(epochs)}


def draw_curves(path: Path, cases: Mapping[str, Sequence[Results]], metric: str) -> None:
    """Draw means over the seeds: a line of the validation for each case, and a dashed one of training if it is logged.

    Args:
        path: a PNG.
        cases: title to the results of its runs.
        metric: its tags are ``val/METRIC`` and ``train/METRIC``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (title, runs) in enumerate(cases.items()):
        label = chart_text(title).replace("$", r"\$")  # a dollar begins a formula
        for split, style, name in (("val", "o-", label), ("train", "--", f"{label}, training batches")):
            if curve := mean_curve(runs, f"{split}/{metric}"):
                axes.plot(list(curve), list(curve.values()), style, color=f"C{number}", markersize=4, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
