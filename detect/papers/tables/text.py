"""A paper's table beside ours, as text and for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from detect.analysis.profile_text import align
from detect.papers.sdpoint.transform import PLAIN
from detect.papers.tables.tables import Column, Comparison, PaperRow, PaperTable

NOTHING = "-"


def comparison_text(table: PaperTable, comparisons: list[Comparison]) -> str:
    """The table: for each structural column the paper's value, ours and the deviation; then accuracy; then the notes.

    A deviation beyond the row's tolerance ends with ``!``, or says that the row is not reproduced.
    """
    structure = [column for column in table.columns if column.measure is not None]
    others = [column for column in table.columns if column.measure is None]
    head = ["", "model", "px"]
    for column in structure:
        head += [column.name, "ours", "dev. %"]
    head += [column.name for column in others] + (["measured here"] if others else [])
    lines = [tuple(head)]
    fractions = {name for row in table.rows for name, value in row.paper.items() if value % 1}
    for comparison in comparisons:
        row = comparison.row
        cells = [row.label, _network(row), str(row.image_size or NOTHING)]
        for column in structure:
            cells += _structure_cells(comparison, column, column.name in fractions)
        cells += [_number(row.paper.get(column.name), column.name in fractions) for column in others]
        lines.append((*cells, _results(comparison, others)) if others else tuple(cells))
    notes = [f"{row.label}: {row.note}" for row in table.rows if row.note] + list(table.notes)
    beyond = [comparison.row for comparison in comparisons if not comparison.within_tolerance]
    notes += [f"{row.label}: beyond its tolerance of {row.tolerance_percent:g} %!" for row in beyond]
    return "\n".join([table.title, "", align(lines, left=2), "", *(f"  {note}" for note in notes)]).rstrip()


def comparison_plain(table: PaperTable, comparisons: list[Comparison]) -> dict[str, Any]:
    """The same for JSON."""
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
            }
            for comparison in comparisons
        ],
        "notes": list(table.notes),
    }


def _network(row: PaperRow) -> str:
    """The model, with its instance (SDPoint) where it is not the plain network."""
    if row.model is None:
        return NOTHING
    return row.model if row.instance == PLAIN else f"{row.model} {row.instance.name}"


def _structure_cells(comparison: Comparison, column: Column, fraction: bool) -> list[str]:
    """The paper's value, ours and the deviation."""
    ours, deviation = comparison.ours.get(column.name), comparison.deviations_percent.get(column.name)
    cells = [_number(comparison.row.paper.get(column.name), fraction), NOTHING, NOTHING]
    if ours is not None:
        cells[1] = f"{ours:.2f}" if ours >= 10 or column.measure in ("depth", "width") else f"{ours:.3f}"
    if deviation is not None:
        cells[2] = f"{round(deviation, 1) + 0.0:+.1f}" + _mark(comparison.row, deviation)
    return cells


def _mark(row: PaperRow, deviation: float) -> str:
    """What follows a deviation."""
    if abs(deviation) <= row.tolerance_percent:
        return ""
    return "!" if row.reproduced else " not reproduced"


def _results(comparison: Comparison, columns: list[Column]) -> str:
    """What was measured here of the columns that do not follow from the structure."""
    if comparison.row.model is None:
        return NOTHING
    found = [f"{c.name} {comparison.results[c.name]:g}" for c in columns if c.name in comparison.results]
    return ", ".join(found) or "not measured"


def _number(value: float | None, fraction: bool) -> str:
    """A value as the paper prints it; ``fraction`` is whether others of its column are no whole numbers."""
    if value is None:
        return NOTHING
    return f"{value:g}" if value % 1 or not fraction else f"{value:.1f}"
