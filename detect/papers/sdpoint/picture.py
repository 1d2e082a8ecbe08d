"""A network's instances (SDPoint) as a curve of accuracy over cost, with the plain network at lower image sizes beside.

matplotlib is imported on use, and only its figures: ``pyplot`` would hold every figure in global state and choose a
window system.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detect.drawing.text import shorten
from detect.papers.sdpoint.comparison import Baseline, Comparison
from detect.runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSTANCE, FRONT, BASELINES = "#9ecae1", "#1f4e79", ("#e45756", "#f2a541")
MAX_NAME = 40
"""Characters of a baseline's model and run."""
MAX_LABELS = 8
"""Instances of the front that get their name; of more, some from all over it."""


def draw_comparison(path: Path, comparison: Comparison, title: str) -> None:
    """Draw the metric over the multiply-adds: all instances, their Pareto front, and the baselines.

    Args:
        path: the PNG file.
        comparison: what was measured.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_instances(axes, comparison)
    own, *others = comparison.baselines
    _draw_baseline(axes, own, comparison.metric, BASELINES[0], "the same plain network at lower image sizes")
    for baseline in others:
        name = f"{shorten(baseline.title, MAX_NAME)} at lower image sizes"
        _draw_baseline(axes, baseline, comparison.metric, BASELINES[1], name)
    axes.set_xlabel("billions of multiply-adds of an image")
    axes.set_ylabel(comparison.metric)
    axes.set_title(title.encode("latin-1", "replace").decode("latin-1"), fontsize=10, parse_math=False)
    axes.margins(0.07)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", fontsize=8)
    full = comparison.full_macs / 1e9
    axes.secondary_xaxis(
        "top", functions=(lambda gmacs: np.divide(gmacs, full), lambda share: np.multiply(share, full))
    ).set_xlabel("share of the full cost")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_instances(axes: Axes, comparison: Comparison) -> None:
    metric, front = comparison.metric, comparison.front
    others = [record for record in comparison.records if record not in front]
    axes.plot(
        [record.macs / 1e9 for record in others],
        [record.metrics[metric] for record in others],
        linestyle="",
        marker="o",
        markersize=5,
        color=INSTANCE,
        label="instances",
    )
    axes.plot(
        [record.macs / 1e9 for record in front],
        [record.metrics[metric] for record in front],
        marker="o",
        markersize=6,
        linewidth=1.8,
        color=FRONT,
        label="instances on the Pareto front",
        zorder=4,
    )
    for index in sorted(set(np.linspace(0, len(front) - 1, MAX_LABELS).round().astype(int).tolist())):
        place = (front[index].macs / 1e9, front[index].metrics[metric])
        style: dict[str, Any] = {"xytext": (-5, 5), "textcoords": "offset points", "ha": "right", "fontsize": 8}
        axes.annotate(front[index].instance.name, place, color=FRONT, zorder=5, **style)


def _draw_baseline(axes: Axes, baseline: Baseline, metric: str, color: str, name: str) -> None:
    """Draw a baseline; the sizes of the first stand right of its points, those of the other left."""
    right = color == BASELINES[0]
    places = [(size.macs / 1e9, size.metrics[metric]) for size in baseline.sizes]
    xs, ys = zip(*places, strict=True)
    line, *_ = axes.plot(xs, ys, linestyle="--", marker="s", markersize=4, color=color, label="_", zorder=3)
    line.set_label(name.encode("latin-1", "replace").decode("latin-1").replace("$", r"\$"))
    for size, place in zip(baseline.sizes, places, strict=True):
        style: dict[str, Any] = {"xytext": (4, -11) if right else (-4, 5), "ha": "left" if right else "right"}
        axes.annotate(
            f"{size.image_size} px", place, fontsize=7, color=color, zorder=3, textcoords="offset points", **style
        )
