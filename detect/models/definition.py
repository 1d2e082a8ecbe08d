"""Model definitions: sections of named rows, read from a mapping and checked before anything is built.

Rows refer to one another by name only. Files, parts and variants are resolved before (``detect.models.catalog``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from detect.config.base import build, keys_of
from detect.config.model import Convolutions, Norm, RowConfig, Scale
from detect.errors import InputError, did_you_mean

SECTIONS = ("backbone", "neck", "head")
ROW_KEYS = tuple(keys_of(RowConfig))
SETTING_KEYS = ("scale", "defaults", "norm", "conv")
"""Keys of a section that hold for all of its rows."""
_LEVEL = re.compile(r"[cp]\d")
"""Names of rows by which parts fit together."""
BDSC_KINDS = ("bdsc", "bdsc-float")
"""Kinds of convolutions that have the keys of ``BDSC_KEYS``."""
BDSC_KEYS = ("p", "p_of", "norm")
_OF_BDSC = f"belongs to the kinds {' and '.join(BDSC_KINDS)}"


@dataclass(frozen=True)
class Row:
    """One row of the graph.

    Args:
        section: ``backbone``, ``neck`` or ``head``.
        name: unique in the model; the weights' path.
        module: class name in the registry.
        inputs: names of rows above, or ``image``.
        args: the module's constructor keywords.
        repeats: number of copies, before the model's depth is applied.
        reduction: input pixels per cell that the builder asserts, if given.
        conv: kind of its k x k convolutions, if not that of the section.
    """

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
    """Rows of a backbone, a neck or a head, and the settings of all of them.

    Args:
        name: ``backbone``, ``neck`` or ``head``.
        scale: compound scaling.
        defaults: constructor keywords for every module that has them, unless its row overrides them.
        norm: ``eps`` and ``momentum`` of all batch norms.
        conv: kind of the k x k convolutions, unless their row overrides it.
        rows: in execution order.
        source: its file, for messages.
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
        return self.rows[-1].module == "Classify"

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of all sections, in execution order; the last one is the output."""
        return tuple(row for section in self.sections for row in section.rows)


def parse_definition(content: dict[str, Any], source: str) -> ModelDefinition:
    """Read a model's mapping: its ``name``, its sections, and ``SETTING_KEYS`` for sections that do not override them.

    A section is a list of rows, or a mapping with ``rows``, ``source`` and ``SETTING_KEYS``. ``source`` is the file,
    for messages; an ``InputError`` names file, row, the value found and those allowed.
    """
    refuse_unknown(content, ("name", *SETTING_KEYS, *SECTIONS), source)
    if not isinstance(content.get("name"), str):
        raise InputError(f"{source}: name: must be text, found {content.get('name')!r}")
    known = ["image"]
    sections = [_read_section(content, name, source, known) for name in SECTIONS if content.get(name) is not None]
    sections = [section for section in sections if section.rows]
    if not sections:
        raise InputError(f"{source}: has no rows; give at least one section of {', '.join(SECTIONS)}")
    return ModelDefinition(content["name"], source, tuple(sections))


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
    factors = vars(read_scale(scale, where))

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
        return replace(section, conv=read_conv({**own, **options}, where))

    sections = tuple(map(changed, definition.sections))
    if not any(section.conv.kind in BDSC_KINDS for section in sections):
        for key in (key for key in BDSC_KEYS if key in options):
            raise InputError(f"{where}: conv.{key}: {_OF_BDSC}, which no section has")
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


def _read_section(content: dict[str, Any], name: str, source: str, known: list[str]) -> Section:
    entry = content[name] if isinstance(content[name], dict) else {"rows": content[name]}
    own = entry.get("source", source)
    refuse_unknown(entry, ("rows", "source", *SETTING_KEYS), f"{own}: {name}")
    scale, scale_where = _own_or_shared(entry, content, "scale", own, source)
    conv, conv_where = _own_or_shared(entry, content, "conv", own, source)
    return Section(
        name=name,
        scale=read_scale(scale, scale_where),
        defaults={**mapping(content, "defaults", source), **mapping(entry, "defaults", own)},
        norm={**_read_norm(content, source), **_read_norm(entry, own)},
        conv=read_conv(conv, conv_where),
        rows=tuple(_read_rows(entry.get("rows"), name, own, known)),
        source=own,
    )


def _own_or_shared(entry: dict[str, Any], content: dict[str, Any], key: str, own: str, source: str) -> tuple[Any, str]:
    """Return the section's value of a key, or else the model's, and its file."""
    return (entry[key], own) if entry.get(key) is not None else (content.get(key), source)


def _read_rows(entries: Any, section: str, source: str, known: list[str]) -> Iterator[Row]:
    if not isinstance(entries, list):
        raise InputError(f"{source}: {section}: must be a list of rows or name a part, found {entries!r}")
    for number, entry in enumerate(entries, start=1):
        row = _read_row(entry, section, f"{source}: {section}, row {number}", known)
        known.append(row.name)
        yield row


def _read_row(entry: Any, section: str, where: str, known: list[str]) -> Row:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: must be a mapping with {', '.join(ROW_KEYS)}")
    name = entry.get("name")
    if isinstance(name, str) and name.isidentifier():
        where = f"{where} ({section}.{name})"
    row = build(RowConfig, entry, where)
    if row.name in known:
        raise InputError(f"{where}: name: {name!r} is taken by a row above")
    inputs = entry.get("from", known[-1])
    inputs = inputs if isinstance(inputs, list) else [inputs]
    if not inputs:
        raise InputError(f"{where}: from: is empty; name rows above")
    for reference in inputs:
        if not isinstance(reference, str):
            raise InputError(f"{where}: from: {reference!r} is not a name; rows are referred to by name, not by number")
        if reference not in known:
            # Parts are joined by their levels, so that a missing level is compared with levels only.
            levels = [name for name in known if _LEVEL.fullmatch(name)] if _LEVEL.fullmatch(reference) else []
            raise InputError(f"{where}: from: unknown layer {reference!r}{did_you_mean(reference, levels or known)}")
    return Row(
        section=section,
        name=row.name,
        module=row.module,
        inputs=tuple(inputs),
        args=row.args or {},
        repeats=row.repeats or 1,
        reduction=row.reduction,
        conv=None if row.conv is None else read_conv(row.conv, where),
    )


def read_scale(scale: Any, where: str) -> Scale:
    """Read a mapping with the fields of ``Scale``, or None for no scaling; ``where`` is the file, for messages."""
    if scale is None:
        return Scale()
    if not isinstance(scale, dict):
        raise InputError(f"{where}: scale: must be a mapping with depth, width, channel_multiple, or a key of scales")
    return build(Scale, scale, where, "scale")


def read_conv(conv: Any, where: str) -> Convolutions:
    """Read a kind, or a mapping with the fields of ``Convolutions``; ``where`` is the file, for messages."""
    if conv is None:
        return Convolutions()
    options = conv if isinstance(conv, dict) else {"kind": conv}
    read = build(Convolutions, {"kind": None, **options}, where, "conv")
    for key in options:
        if key in BDSC_KEYS and read.kind not in BDSC_KINDS:
            raise InputError(f"{where}: conv.{key}: {_OF_BDSC}, found {read.kind}")
    return read


def _read_norm(content: dict[str, Any], source: str) -> dict[str, float]:
    norm = vars(build(Norm, mapping(content, "norm", source), source, "norm"))
    return {key: value for key, value in norm.items() if value is not None}


def mapping(content: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return the mapping under a key, empty when there is none; ``where`` is the file, for messages."""
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {key}: must be a mapping, found {value!r}")
    return value


def refuse_unknown(content: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    """Refuse a key that is not allowed; ``where`` is the file, for messages."""
    for key in content:
        if key not in allowed:
            raise InputError(f"{where}: unknown key {key!r}{did_you_mean(str(key), allowed)}")
