"""Papers' tables beside measurements of the models here.

A table is a YAML of ``configs/tables``: a paper's columns and rows as printed, and for each row the corresponding model
here. Structure (parameters, operations) is measured from the model; accuracy comes from a file of results, where there
is one.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detect.analysis.profile import ModelProfile, build_on_meta, count_bytes, profile_graph
from detect.config.base import Listed, Named, Strict, build
from detect.config.yaml_files import CONFIGS, load_yaml
from detect.errors import InputError, did_you_mean
from detect.models.catalog import find_definition
from detect.papers.sdpoint.transform import PLAIN, Instance
from detect.papers.tables.operations import Operations, count_operations
from detect.papers.trd.schedule import area_rule, mean_flops

Measure = Literal[
    "parameters",
    "weights",
    "stored_values",
    "size",
    "bflops",
    "bottleneck",
    "cio",
    "pyramid_cio",
    "sdpoint_flops",
    "mflops",
    "mflops_true",
    "depth",
    "width",
]
"""Contents of a column: ``ModelProfile``'s counts in millions, MiB, billions of operations, or factors of the scale;
the convolutional input/output of what lies behind the backbone, in millions; TRD's mean operations in millions, by the
area rule or by the operations at the reduced resolution."""

FILE_MIB = 0.02
"""Overhead of a model file of the BDSC paper, whose ``size`` is that of a file. Fitted: its tables, printed to 0.01 MB,
exceed the count by 0.00 to 0.03, ResNet-74's by 0.06."""

_MEASURES: dict[str, Callable[[ModelProfile], float]] = {
    "parameters": lambda profile: profile.parameters / 1e6,
    "weights": lambda profile: profile.weights / 1e6,
    "stored_values": lambda profile: profile.stored_values / 1e6,
    "bflops": lambda profile: profile.bflops,
    "bottleneck": lambda profile: profile.bottleneck.darknet_flops / 1e9 if profile.bottleneck else 0.0,
    "cio": lambda profile: profile.cio / 1e6,
}


@dataclass(frozen=True)
class Column(Strict):
    """A column of a paper's table.

    Args:
        name: its heading.
        measure: its contents, if they follow from a model's structure; accuracy and speed do not.
    """

    name: str
    measure: Measure | None = None


@dataclass(frozen=True)
class ReducedEpochs(Strict):
    """Epochs at a lower resolution (TRD).

    Args:
        resolution: lambda, side of their images in pixels.
        probability: P, of an epoch to be one of them.
    """

    resolution: int
    probability: float


@dataclass(frozen=True)
class PaperRow(Strict):
    """A row of a paper's table.

    Args:
        label: as in the paper, unique in the table.
        paper: values by the names of the columns; percentages in percent. A column without one has none in the paper.
        model: the corresponding model here; None where there is none.
        image_size: side of the square input in pixels; required with a model.
        num_classes: K of its model, where it is not the table's.
        instance: network of the model whose operations count (SDPoint); default, the plain network.
        trd: its training; default, one at ``image_size`` alone.
        tolerance_percent: largest allowed deviation from the paper.
        reproduced: false where the model here is known not to give the paper's value: the table says so, and no
            deviation counts.
        note: reason of a deviation above 1 %, or a remark; required where it is not reproduced.
        command: fills the columns that are measured by training, in place of the table's.
        series: line of the table's figure; empty for a row that is not in it.
    """

    label: str
    paper: Named[float]
    model: str | None = None
    image_size: int | None = None
    num_classes: int | None = None
    instance: Instance = PLAIN
    trd: ReducedEpochs | None = None
    tolerance_percent: float = 1.0
    reproduced: bool = True
    note: str = ""
    command: str = ""
    series: str = ""

    def mistakes(self, columns: list[str]) -> Iterator[str]:
        yield from (f"paper: {mistake}" for mistake in _unknown_names(self.paper, columns))
        if self.model is not None and self.image_size is None:
            yield "image_size: is missing; a model is measured at one"
        if self.model is None and (self.instance != PLAIN or self.trd is not None):
            yield "model: is missing; instance and trd belong to one"
        if self.instance != PLAIN and not 0 < self.instance.ratio < 1:
            yield f"instance.ratio: must be between 0 and 1, found {self.instance.ratio:g}"
        if self.trd is not None and not 0 <= self.trd.probability <= 1:
            yield f"trd.probability: must be from 0 to 1, found {self.trd.probability:g}"
        if not self.reproduced and not self.note:
            yield "note: is missing; a row that is not reproduced says why"


@dataclass(frozen=True)
class Figure(Strict):
    """Axes of a table's figure.

    Args:
        x: name of the column.
        y: name of the column.
    """

    x: str
    y: str


@dataclass(frozen=True)
class PaperTable(Strict):
    """A table of a paper.

    Args:
        name: of its file.
        title: paper, number and subject.
        num_classes: K of its models, unless a row says otherwise.
        columns: in the paper's order, after the label.
        rows: in the paper's order.
        notes: remarks on the whole table.
        command: fills the columns of a row that are measured by training or running; ``{model}``, ``{resolution}`` and
            ``{probability}`` (0 without ``trd``) are the row's.
        figure: the paper's figure of the table; None where it has none.
    """

    name: str
    title: str
    num_classes: int
    columns: Listed[Column]
    rows: Listed[PaperRow]
    notes: Listed[str] = ()
    command: str = ""
    figure: Figure | None = None

    def command_of(self, row: PaperRow) -> str:
        """Command that measures a row; empty without one, and for a row without a model."""
        if row.model is None:
            return ""
        trd = row.trd or ReducedEpochs(0, 0)
        values = {"model": row.model, "resolution": trd.resolution, "probability": f"{trd.probability:g}"}
        command = row.command or self.command
        for name, value in values.items():
            command = command.replace(f"{{{name}}}", str(value))
        return command

    def contradictions(self) -> Iterator[tuple[str, str]]:
        columns = [column.name for column in self.columns]
        axes = () if self.figure is None else (self.figure.x, self.figure.y)
        yield from (("figure", mistake) for mistake in _unknown_names(dict.fromkeys(axes), columns))
        labels: set[str] = set()
        for row in self.rows:
            if row.label in labels:
                yield "", f"row {row.label!r}: duplicate label"
            labels.add(row.label)
            for mistake in row.mistakes(columns):
                yield "", f"row {row.label!r}: {mistake}"


@dataclass(frozen=True)
class Comparison:
    """A row of a paper's table beside our model.

    Args:
        row: the paper's.
        ours: measured structure by the names of the columns; empty without a model.
        results: measured accuracy by the names of the columns, as far as it was measured.
    """

    row: PaperRow
    ours: dict[str, float]
    results: dict[str, float]

    @property
    def deviations_percent(self) -> dict[str, float]:
        """Deviations of ours from the paper's, where both have a value."""
        paper = self.row.paper
        return {name: 100 * (value / paper[name] - 1) for name, value in self.ours.items() if name in paper}

    @property
    def within_tolerance(self) -> bool:
        """True where no deviation exceeds the tolerance; a row that is not reproduced allows any."""
        return not self.row.reproduced or all(
            abs(value) <= self.row.tolerance_percent for value in self.deviations_percent.values()
        )


def shipped_tables() -> dict[str, Path]:
    return {path.stem: path for path in sorted((CONFIGS / "tables").glob("*.yaml"))}


def load_table(name: str) -> PaperTable:
    """Load a shipped table by its name, or a YAML file.

    Raises:
        InputError: there is none, or its YAML is wrong.
    """
    tables = shipped_tables()
    if name not in tables and not name.endswith((".yaml", ".yml")):
        raise InputError(f"unknown table {name!r}{did_you_mean(name, tables)}")
    path = tables.get(name, Path(name))
    return build(PaperTable, load_yaml(path), str(path))


def load_results(path: Path, table: PaperTable) -> dict[str, dict[str, float]]:
    """Read measured accuracy from JSON: ``{label of a row: {name of a column: value}}``, percentages in percent.

    Args:
        path: the file; a missing one gives no results.
        table: the results'.

    Raises:
        InputError: the form is wrong, or the table has no such row or column.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON in UTF-8: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise InputError(f"{path}: must be {{label: {{column: number}}}}")
    _check_names(content, [row.label for row in table.rows], str(path))
    for label, values in content.items():
        where = f"{path}: {label!r}"
        _check_names(values, [column.name for column in table.columns if column.measure is None], where)
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InputError(f"{where}: {name}: must be a number, found {value!r}")
    return content


def compare(table: PaperTable, results: dict[str, dict[str, float]]) -> list[Comparison]:
    """Measure the models of a table.

    Args:
        table: the paper's.
        results: from ``load_results``.

    Raises:
        InputError: a model does not exist or cannot be built.
    """
    graph = functools.cache(build_on_meta)

    @functools.cache
    def profile(model: str, image_size: int, num_classes: int) -> ModelProfile:
        return profile_graph(graph(model, num_classes), image_size, num_classes, memory=False)

    @functools.cache
    def count(model: str, image_size: int, num_classes: int, instance: Instance = PLAIN) -> Operations:
        return count_operations(graph(model, num_classes), image_size, instance)

    @functools.cache
    def size(model: str, num_classes: int) -> float:
        return count_bytes(graph(model, num_classes)) / 2**20 + FILE_MIB

    measure = functools.partial(_measure, table=table, profile=profile, count=count, size=size)
    return [Comparison(row, measure(row), results.get(row.label, {})) for row in table.rows]


def _measure(
    row: PaperRow,
    table: PaperTable,
    profile: Callable[[str, int, int], ModelProfile],
    count: Callable[..., Operations],
    size: Callable[[str, int], float],
) -> dict[str, float]:
    if row.model is None or row.image_size is None:
        return {}
    model, image_size, num_classes = row.model, row.image_size, row.num_classes or table.num_classes
    wanted = {column.measure for column in table.columns}
    scale = find_definition(model).sections[0].scale
    values: dict[str, float] = {"depth": scale.depth, "width": scale.width}
    if wanted & _MEASURES.keys():
        found = profile(model, image_size, num_classes)
        values |= {measure: read(found) for measure, read in _MEASURES.items()}
    if "pyramid_cio" in wanted:
        backbone = {row.name for row in find_definition(model).sections[0].rows}
        rows = profile(model, image_size, num_classes).rows
        values["pyramid_cio"] = sum(row.cio for row in rows if row.name not in backbone) / 1e6
    if "size" in wanted:
        values["size"] = size(model, num_classes)
    if "sdpoint_flops" in wanted:
        values["sdpoint_flops"] = count(model, image_size, num_classes, row.instance).sdpoint_flops / 1e9
    if wanted & {"mflops", "mflops_true"}:
        values |= _mean_flops(row.trd, image_size, lambda size: count(model, size, num_classes).trd_macs / 1e6)
    return {column.name: values[column.measure] for column in table.columns if column.measure is not None}


def _mean_flops(trd: ReducedEpochs | None, image_size: int, cost: Callable[[int], float]) -> dict[str, float]:
    """TRD's measures; ``cost`` is that of an image by its side in pixels."""
    full = cost(image_size)
    if trd is None:
        return {"mflops": full, "mflops_true": full}
    return {
        "mflops": mean_flops(full, area_rule(full, trd.resolution, image_size), trd.probability),
        "mflops_true": mean_flops(full, cost(trd.resolution), trd.probability),
    }


def _check_names(found: dict[str, Any], allowed: list[str], where: str) -> None:
    for mistake in _unknown_names(found, allowed):
        raise InputError(f"{where}: {mistake}")


def _unknown_names(found: dict[str, Any], allowed: list[str]) -> list[str]:
    return [f"unknown {name!r}{did_you_mean(name, allowed)}" for name in found if name not in allowed]
