"""Model definitions: sections of named rows, read from a mapping and checked before anything is built.

Rows refer to one another by name only. The schema of the keys is ``detect.config.model``; files, parts and variants are
resolved before (``detect.models.catalog``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from detect.config.base import build
from detect.config.model import (
    BDSC_KEYS,
    BDSC_KINDS,
    OF_BDSC,
    SECTIONS,
    Convolutions,
    ModelConfig,
    Norm,
    RowConfig,
    Scale,
    SectionConfig,
)
from detect.errors import InputError, did_you_mean

_LEVEL = re.compile(r"[cp]\d")
"""Names of rows by which parts fit together."""

CLASSIFIER_HEADS = ("Classify", "ClassifyExits")
"""Last rows of classifiers."""


@dataclass(frozen=True)
class Row:
    """One row of the graph: the keys of ``RowConfig``, with the names of its inputs, and its section's name."""

    section: str
    name: str
    module: str
    inputs: tuple[str, ...]
    args: dict[str, Any]
    repeats: int
    reduction: int | None
    conv: Convolutions | None

    @property
    def label(self) -> str:
        """``section.name``, for messages."""
        return f"{self.section}.{self.name}"


@dataclass(frozen=True)
class Section:
    """Rows of a backbone, a neck or a head, and the settings of all of them: the keys of ``SectionConfig``.

    ``source`` is its file, for messages.
    """

    name: str
    scale: Scale
    defaults: dict[str, Any]
    norm: dict[str, float]
    conv: Convolutions
    rows: tuple[Row, ...]
    source: str = field(compare=False)


@dataclass(frozen=True)
class ModelDefinition:
    """A model, ready to be built.

    Args:
        name: in reports and checkpoints.
        source: the file, for messages.
        sections: in execution order, without empty ones.
    """

    name: str
    source: str
    sections: tuple[Section, ...]

    def where(self, section: Section) -> str:
        """Return the file of a section for messages, with the model in front where that is another."""
        return section.source if section.source == self.source else f"{self.source}: {section.source}"

    @property
    def is_classifier(self) -> bool:
        return self.rows[-1].module in CLASSIFIER_HEADS

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of all sections, in execution order; the last one is the output."""
        return tuple(row for section in self.sections for row in section.rows)


def parse_definition(content: dict[str, Any], source: str, sources: Mapping[str, str] | None = None) -> ModelDefinition:
    """Read a model's mapping with the keys of ``ModelConfig``, whose sections have rows and name no part.

    Args:
        content: the mapping.
        source: its file, for messages.
        sources: files of the sections that come from others.

    Raises:
        InputError: it names file, row, the value found and those allowed.
    """
    config = build(ModelConfig, content, source)
    known = ["image"]
    sections = []
    for name in SECTIONS:
        entry: SectionConfig | None = getattr(config, name)
        if entry is not None and entry.rows is None:
            raise InputError(f"{source}: {name}: must have rows, found the part {entry.part!r}")
        if entry is not None and entry.rows:
            sections.append(_read_section(config, name, entry, (sources or {}).get(name, source), known))
    if not sections:
        raise InputError(f"{source}: has no rows; give at least one section of {', '.join(SECTIONS)}")
    return ModelDefinition(config.name, source, tuple(sections))


def definition_to_plain(definition: ModelDefinition) -> dict[str, Any]:
    """Return the definition as a mapping for checkpoints, which ``parse_definition`` reads back."""
    plain: dict[str, Any] = {"name": definition.name}
    for section in definition.sections:
        plain[section.name] = {
            "scale": vars(section.scale).copy(),
            "defaults": copy.deepcopy(section.defaults),
            "norm": dict(section.norm),
            "conv": _conv_to_plain(section.conv),
            "rows": [_row_to_plain(row) for row in section.rows],
        }
    return plain


def with_args(definition: ModelDefinition, module: str, **args: Any) -> ModelDefinition:
    """Replace constructor keywords in every row of a module."""

    def changed(row: Row) -> Row:
        return replace(row, args={**row.args, **args}) if row.module == module else row

    return replace(
        definition, sections=tuple(replace(s, rows=tuple(map(changed, s.rows))) for s in definition.sections)
    )


def normalisation_of(definition: ModelDefinition) -> dict[str, Any] | None:
    """Return the ``args`` of the row that normalises the images, or None if there is none."""
    return next((row.args for row in definition.rows if row.module == "Normalise"), None)


def with_normalisation(definition: ModelDefinition, args: dict[str, Any] | None) -> ModelDefinition:
    """Replace the row that normalises the images, whose name is ``normalise``; with None there is none."""
    old = {row.name for row in definition.rows if row.module == "Normalise"}
    reads = "image" if args is None else "normalise"

    def changed(row: Row) -> Row:
        return replace(row, inputs=tuple(reads if name in {"image", *old} else name for name in row.inputs))

    sections = [
        replace(section, rows=tuple(changed(row) for row in section.rows if row.name not in old))
        for section in definition.sections
    ]
    if args is not None:
        first = sections[0]
        front = Row(first.name, "normalise", "Normalise", ("image",), args, 1, None, None)
        sections[0] = replace(first, rows=(front, *first.rows))
    return replace(definition, sections=tuple(sections))


def with_options(
    definition: ModelDefinition, defaults: dict[str, Any], scale: dict[str, Any], where: str
) -> ModelDefinition:
    """Override ``defaults`` and ``scale`` of all sections.

    Args:
        definition: the model.
        defaults: constructor keywords, for rows that do not override them.
        scale: fields of ``Scale``; ``depth`` and ``width`` multiply those of a section, so that parts keep their
            proportion.
        where: origin of the options, for messages.

    Raises:
        InputError: a scale is wrong, or no section has a default for a keyword.
    """
    known = {key for section in definition.sections for key in section.defaults}
    for key in defaults:
        if key not in known:
            raise InputError(f"{where}: unknown option {key!r}{did_you_mean(key, known)}")
    factors = vars(build(Scale, scale, where, "scale"))

    def scaled(own: Scale) -> Scale:
        multiple = {"channel_multiple": factors["channel_multiple"]} if "channel_multiple" in scale else {}
        return replace(own, depth=own.depth * factors["depth"], width=own.width * factors["width"], **multiple)

    sections = tuple(
        replace(section, defaults={**section.defaults, **defaults}, scale=scaled(section.scale))
        for section in definition.sections
    )
    return replace(definition, sections=sections)


def with_conv(definition: ModelDefinition, options: dict[str, Any], where: str) -> ModelDefinition:
    """Override ``conv`` of all sections.

    Args:
        definition: the model.
        options: ``kind`` and ``BDSC_KEYS``; without a kind, only sections of a BDSC kind change.
        where: origin of the options, for messages.

    Raises:
        InputError: an option is wrong, or belongs to a BDSC kind that no section has.
    """

    def changed(section: Section) -> Section:
        if "kind" not in options and section.conv.kind not in BDSC_KINDS:
            return section
        own = {} if "kind" in options else _conv_to_plain(section.conv)
        return replace(section, conv=build(Convolutions, {**own, **options}, where, "conv"))

    sections = tuple(map(changed, definition.sections))
    if not any(section.conv.kind in BDSC_KINDS for section in sections):
        for key in (key for key in BDSC_KEYS if key in options):
            raise InputError(f"{where}: conv.{key}: {OF_BDSC}, which no section has")
    return replace(definition, sections=sections)


def _row_to_plain(row: Row) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": row.name, "module": row.module, "from": list(row.inputs)}
    plain |= {"args": copy.deepcopy(row.args), "repeats": row.repeats}
    if row.reduction is not None:
        plain["reduction"] = row.reduction
    if row.conv is not None:
        plain["conv"] = _conv_to_plain(row.conv)
    return plain


def _conv_to_plain(conv: Convolutions) -> dict[str, Any]:
    return vars(conv).copy() if conv.kind in BDSC_KINDS else {"kind": conv.kind}


def _read_section(config: ModelConfig, name: str, own: SectionConfig, source: str, known: list[str]) -> Section:
    scale = own.scale or config.scale or Scale()
    return Section(
        name=name,
        scale=(config.scales or {})[scale] if isinstance(scale, str) else scale,
        defaults={**(config.defaults or {}), **(own.defaults or {})},
        norm={**_given(config.norm), **_given(own.norm)},
        conv=own.conv or config.conv or Convolutions(),
        rows=tuple(_read_row(row, name, source, known) for row in own.rows or ()),
        source=source,
    )


def _given(norm: Norm | None) -> dict[str, float]:
    return {key: value for key, value in vars(norm or Norm()).items() if value is not None}


def _read_row(row: RowConfig, section: str, source: str, known: list[str]) -> Row:
    """Resolve a row's inputs against ``known``, the names of the rows above, and add its own."""
    where = f"{source}: {section}.{row.name}"
    if row.name in known:
        raise InputError(f"{where}: name: {row.name!r} is taken by a row above")
    inputs = row.inputs or (known[-1],)
    for name in inputs:
        if name not in known:
            # Parts are joined by their levels, so that a missing level is compared with levels only.
            levels = [level for level in known if _LEVEL.fullmatch(level)] if _LEVEL.fullmatch(name) else []
            raise InputError(f"{where}: from: unknown layer {name!r}{did_you_mean(name, levels or known)}")
    known.append(row.name)
    return Row(section, row.name, row.module, inputs, row.args or {}, row.repeats or 1, row.reduction, row.conv)
