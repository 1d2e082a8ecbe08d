"""A paper's table beside our measurements: as text, for JSON, and as a figure of one column over another.

matplotlib is imported on use, without ``pyplot``, which holds figures in global state and chooses a window system.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detect.analysis.report import align
from detect.drawing.text import chart_text
from detect.errors import InputError
from detect.papers.sdpoint.transform import PLAIN
from detect.papers.tables.tables import Column, Comparison, PaperRow, PaperTable
from detect.runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NOTHING = "-"
"""A cell without a value."""
Points = dict[str, list[tuple[float, float]]]
"""Points of each series."""


def comparison_text(table: PaperTable, comparisons: list[Comparison]) -> str:
    """Format the table: for each structural column the paper's value, ours and the deviation; then accuracy and notes.

    A deviation beyond the row's tolerance is marked by ``!``, or by ``not reproduced``.
    """
    structure = [column for column in table.columns if column.measure is not None]
    others = [column for column in table.columns if column.measure is None]
    head = ["", "model", "px"]
    for column in structure:
        head += [column.name, "ours", "dev. %"]
    quoted = [column for column in others if any(column.name in row.paper for row in table.rows)]
    head += [column.name for column in quoted] + (["measured here"] if others else [])
    lines = [tuple(head)]
    fractions = {name for row in table.rows for name, value in row.paper.items() if value % 1}
    for comparison in comparisons:
        row = comparison.row
        cells = [row.label, _network(row), str(row.image_size or NOTHING)]
        for column in structure:
            cells += _structure_cells(comparison, column, column.name in fractions)
        cells += [_number(row.paper.get(column.name), column.name in fractions) for column in quoted]
        lines.append((*cells, _results(comparison, others)) if others else tuple(cells))
    notes = [f"{row.label}: {row.note}" for row in table.rows if row.note] + list(table.notes)
    notes += _commands(table, comparisons)
    beyond = [comparison.row for comparison in comparisons if not comparison.within_tolerance]
    notes += [f"{row.label}: beyond its tolerance of {row.tolerance_percent:g} %!" for row in beyond]
    return "\n".join([table.title, "", align(lines, left=2), "", *(f"  {note}" for note in notes)]).rstrip()


def _commands(table: PaperTable, comparisons: list[Comparison]) -> list[str]:
    """Lines about measuring what is not measured: the table's command once, and those of rows with their own."""
    open_rows = [c.row for c in comparisons if c.row.model is not None and not c.results]
    own = [f"to measure {row.label}: {row.command}" for row in open_rows if row.command]
    if table.command and len(own) < len(open_rows):
        words = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), table.command)
        own.insert(0, f"to measure {'another row' if own else 'a row'}: {words}")
    return own


def comparison_plain(table: PaperTable, comparisons: list[Comparison]) -> dict[str, Any]:
    """Return the table as a mapping for JSON."""
    return {
        "name": table.name,
        "title": table.title,
        "rows": [
            {
                "label": comparison.row.label,
                "model": comparison.row.model,
                "image_size": comparison.row.image_size,
                "num_classes": comparison.row.num_classes or table.num_classes,
                "instance": asdict(comparison.row.instance),
                "trd": asdict(comparison.row.trd) if comparison.row.trd else None,
                "paper": comparison.row.paper,
                "ours": comparison.ours,
                "deviations_percent": comparison.deviations_percent,
                "tolerance_percent": comparison.row.tolerance_percent,
                "within_tolerance": comparison.within_tolerance,
                "reproduced": comparison.row.reproduced,
                "measured": comparison.results,
                "note": comparison.row.note,
                "command": table.command_of(comparison.row),
                "series": comparison.row.series,
            }
            for comparison in comparisons
        ],
        "notes": list(table.notes),
    }


def _network(row: PaperRow) -> str:
    if row.model is None:
        return NOTHING
    return row.model if row.instance == PLAIN else f"{row.model} {row.instance.name}"


def _structure_cells(comparison: Comparison, column: Column, fraction: bool) -> list[str]:
    ours, deviation = comparison.ours.get(column.name), comparison.deviations_percent.get(column.name)
    cells = [_number(comparison.row.paper.get(column.name), fraction), NOTHING, NOTHING]
    if ours is not None:
        cells[1] = f"{ours:.2f}" if ours >= 10 or column.measure in ("depth", "width") else f"{ours:.3f}"
    if deviation is not None:
        cells[2] = f"{round(deviation, 1) + 0.0:+.1f}" + _mark(comparison.row, deviation)
    return cells


def _mark(row: PaperRow, deviation: float) -> str:
    if abs(deviation) <= row.tolerance_percent:
        return ""
    return "!" if row.reproduced else " not reproduced"


def _results(comparison: Comparison, columns: list[Column]) -> str:
    if comparison.row.model is None:
        return NOTHING
    found = [f"{c.name} {comparison.results[c.name]:g}" for c in columns if c.name in comparison.results]
    return ", ".join(found) or "not measured"


def _number(value: float | None, fraction: bool) -> str:
    """Format a value as the paper prints it, with a decimal if others of its column have one (``fraction``)."""
    if value is None:
        return NOTHING
    return f"{value:g}" if value % 1 or not fraction else f"{value:.1f}"


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
