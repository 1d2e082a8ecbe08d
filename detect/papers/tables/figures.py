"""Figures of the papers' tables: one column over another, a line for each series, the paper's values and ours.

matplotlib is imported on use, without ``pyplot``, which holds figures in global state and chooses a window system.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detect.drawing.text import chart_text
from detect.errors import InputError
from detect.papers.tables.tables import Comparison, PaperTable
from detect.runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = dict[str, list[tuple[float, float]]]
"""Points of each series."""


def draw_figure(path: Path, table: PaperTable, comparisons: list[Comparison]) -> None:
    """Draw the figure of a table: dashed the paper's lines, whole those that were measured here.

    Args:
        path: the PNG file.
        table: has a figure.
        comparisons: of the table.

    Raises:
        InputError: the table has no figure, or the file's name does not end in ``.png``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if table.figure is None:
        raise InputError(f"--picture: {table.name} has no figure")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: the picture is a PNG file; its name must end in .png")
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paper, ours = figure_points(table, comparisons)
    names = list(dict.fromkeys([*paper, *ours]))
    colors = {name: f"C{number % 10}" for number, name in enumerate(names)}
    _draw(axes, paper, colors, "--", "paper")
    _draw(axes, ours, colors, "-", "here")
    axes.set_title(chart_text(table.title), fontsize=10, parse_math=False)
    axes.set_xlabel(chart_text(table.figure.x))
    axes.set_ylabel(chart_text(table.figure.y))
    axes.grid(alpha=0.3)
    if names:
        axes.legend(fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def figure_points(table: PaperTable, comparisons: list[Comparison]) -> tuple[Points, Points]:
    """Return the points of the paper's lines and of ours, in the table's order; rows without a series have none.

    Ours are a structure that was measured, and a result that was: without results there are none.
    """
    assert table.figure is not None, "the table has a figure"
    axes = (table.figure.x, table.figure.y)
    paper: Points = {}
    ours: Points = {}
    for comparison in comparisons:
        series = comparison.row.series
        for points, values in ((paper, comparison.row.paper), (ours, {**comparison.ours, **comparison.results})):
            if series and all(axis in values for axis in axes):
                points.setdefault(series, []).append((values[axes[0]], values[axes[1]]))
    return paper, ours


def _draw(axes: Axes, points: Points, colors: dict[str, str], style: str, source: str) -> None:
    for name, places in points.items():
        label = f"{chart_text(name)}, {source}"
        x, y = zip(*sorted(places), strict=True)
        axes.plot(x, y, style, color=colors[name], marker="o", markersize=4, label=label)
