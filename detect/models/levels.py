"""Levels that a detector predicts on: ``levels: p2-p5`` of a model.

Level pN has 2^N input pixels per cell. A neck's file says how a finer level than its own is made (``finer``); a level
that is left out takes along the rows that serve nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from detect.config.model import Levels
from detect.errors import InputError, did_you_mean
from detect.models.definition import ModelDefinition, Row, with_args

Anchors = list[list[list[float]]]
_LEVEL = re.compile(r"p\d")
_ENTRY = re.compile(r"(?P<list>\w+)\.(?P<index>\d+)\.(?P<rest>.+)")
"""Name in a head of a weight in one of its lists, which have an entry for each level."""
ROWS = "graph.layers."
"""Start of the names of rows' weights in a model."""
_PER_LEVEL = ("anchors_px", "xy_scale")
"""Keywords of heads whose lists have an entry for each level."""


def level_names(levels: Levels) -> tuple[str, ...]:
    """Return the names of the levels from ``p2-p4``, finest first."""
    first, last = (int(name[1:]) for name in levels.split("-"))
    return tuple(f"p{number}" for number in range(first, last + 1))


def insert_rows(
    rows: list[dict[str, Any]], behind: dict[str, list[dict[str, Any]]], where: str
) -> list[dict[str, Any]]:
    """Insert rows behind the rows that they are listed by. A row without ``from`` then reads an inserted one in front
    of it. ``where`` is the file, for messages.
    """
    names = [row["name"] for row in rows]
    for name in behind:
        if name not in names:
            raise InputError(f"{where}: behind: unknown row {name!r}{did_you_mean(name, names)}")
    return [each for row in rows for each in (row, *behind.get(row["name"], ()))]


def choose_levels(definition: ModelDefinition, levels: Levels) -> ModelDefinition:
    """Let the head predict on other levels, and drop the rows that nothing reads any more.

    Of the head's lists with an entry for each level (anchors), a level keeps its own; a finer one has half the anchors
    of the next.

    Raises:
        InputError: the model is a classifier, its head reads rows of other names, or there is no row of a level's name.
    """
    wanted, where = level_names(levels), definition.source
    if definition.is_classifier:
        raise InputError(f"{where}: levels: {levels} belongs to a detector, found a classifier ({definition.name})")
    if others := [name for name in definition.rows[-1].inputs if not _LEVEL.fullmatch(name)]:
        raise InputError(f"{where}: levels: {levels}: the head must read rows named p2 to p5, found {others[0]!r}")
    known = {row.name for row in definition.rows}
    for name in wanted:
        if name not in known:
            neck = next((s.source for s in definition.sections if s.name == "neck"), where)
            raise InputError(f"{where}: levels: {levels}: there is no {name}; {neck} has no such row, nor one in finer")
    *rest, head = definition.sections
    *before, last = head.rows
    changed = replace(head, rows=(*before, _with_levels(last, wanted)))
    return _without_idle_rows(replace(definition, sections=(*rest, changed)))


def inherit_anchors(definition: ModelDefinition, source: ModelDefinition, anchors_px: Anchors) -> ModelDefinition:
    """Give the head the anchors (L, A, 2) of another model on the levels of the same names, if there are as many."""
    head = definition.rows[-1]
    own = head.args.get("anchors_px")
    if not isinstance(own, list) or len(own) != len(head.inputs):
        return definition
    given = dict(zip(source.rows[-1].inputs, anchors_px, strict=True))
    anchors = [given.get(name, anchors) for name, anchors in zip(head.inputs, own, strict=True)]
    if len({len(sizes) for sizes in anchors}) > 1:
        return definition
    return with_args(definition, head.module, anchors_px=anchors)


def rename_weights(
    given: Mapping[str, Tensor], source: ModelDefinition, target: ModelDefinition, names: Iterable[str]
) -> dict[str, Tensor]:
    """Return weights of the detector ``source`` under ``names``, those of ``target``, whose head has other levels.

    Parts of the head go by their level. A row that ``source`` lacks takes the weights of a row with the same module and
    inputs: with ``p2``, what was ``p3`` in YOLOv5's neck is ``fpn3``. What has no counterpart is left out.
    """
    own = {row.name for row in source.rows}
    readers = {(row.module, row.inputs): row.name for row in reversed(source.rows)}
    twins = {row.name: row.name if row.name in own else readers.get((row.module, row.inputs)) for row in target.rows}
    levels, head = source.rows[-1].inputs, target.rows[-1]
    found = {}
    for name in names:
        row, _, part = name.removeprefix(ROWS).partition(".")
        if row == head.name and (entry := _ENTRY.fullmatch(part)):
            level = head.inputs[int(entry["index"])]
            part = f"{entry['list']}.{levels.index(level)}.{entry['rest']}" if level in levels else ""
        old = f"{ROWS}{twins[row]}.{part}"
        if old in given:
            found[name] = given[old]
    return found


def _with_levels(head: Row, wanted: Sequence[str]) -> Row:
    args = dict(head.args)
    for key in _PER_LEVEL:
        if isinstance(args.get(key), list) and len(args[key]) == len(head.inputs):
            args[key] = _entries(dict(zip(head.inputs, args[key], strict=True)), wanted, halve=key == "anchors_px")
    return replace(head, inputs=tuple(wanted), args=args)


def _entries(own: dict[str, Any], wanted: Sequence[str], *, halve: bool) -> list[Any]:
    """Return the wanted levels' entries: their own, or that of the nearest level."""
    entries = dict(own)
    for name in sorted(set(wanted) - own.keys(), reverse=True):  # the next coarser one comes first
        nearest = min(entries, key=lambda level: abs(int(level[1:]) - int(name[1:])))
        entries[name] = _halved(entries[nearest]) if halve and nearest > name else entries[nearest]
    return [entries[name] for name in wanted]


def _halved(sizes: Any) -> Any:
    """Return nested lists of numbers at half their values; the head refuses anything else."""
    if isinstance(sizes, list):
        return [_halved(size) for size in sizes]
    return sizes / 2 if isinstance(sizes, (int, float)) else sizes


def _without_idle_rows(definition: ModelDefinition) -> ModelDefinition:
    """Drop the rows that no row reads, and those that only such rows read."""
    needed = {definition.rows[-1].name}
    for row in reversed(definition.rows):
        if row.name in needed:
            needed.update(row.inputs)
    kept = [replace(s, rows=tuple(row for row in s.rows if row.name in needed)) for s in definition.sections]
    return replace(definition, sections=tuple(section for section in kept if section.rows))
