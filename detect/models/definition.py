"""What a model is, before anything is built: sections of named rows.

Rows refer to one another by name only; the facts that comments would state are fields that the builder checks. Where
the sections come from (``detect.models.catalog``) is forgotten here.
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
WORD_KEYS = ("scale", "defaults", "norm", "conv")
"""What a section says about all of its rows."""
_LEVEL = re.compile(r"[cp]\d")
"""Names of rows by which parts fit together."""


BDSC_KINDS = ("bdsc", "bdsc-float")
"""The kinds that have the keys of ``BDSC_KEYS``."""
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
        repeats: how often, before the model's depth is applied.
        reduction: input pixels per cell that the builder asserts, if given.
        conv: what its k x k convolutions are, if not what the section says.
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
        """``section.name``, as messages call the row."""
        return f"{self.section}.{self.name}"


@dataclass(frozen=True)
class Section:
    """The rows of a backbone, a neck or a head, and what holds for all of them.

    Args:
        name: ``backbone``, ``neck`` or ``head``.
        scale: compound scaling.
        defaults: constructor keywords that every module which has them gets, unless its row says otherwise.
        norm: ``eps`` and ``momentum`` of all batch norms.
        conv: what k x k convolutions are, unless their row says otherwise.
        rows: in execution order.
        source: the file that it comes from, for messages.
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
        name: what reports and checkpoints call it.
        source: the file, for messages.
        sections: in execution order; those that have rows.
    """

    name: str
    source: str
    sections: tuple[Section, ...]

    def where(self, section: Section) -> str:
        """The file of a section, for messages, with the model in front where that is another."""
        return section.source if section.source == self.source else f"{self.source}: {section.source}"

    @property
    def is_classifier(self) -> bool:
        """Whether the last row is a classifier's head: one answer for the whole image."""
        return self.rows[-1].module == "Classify"

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all sections, in execution order; the last one is the output."""
        return tuple(row for section in self.sections for row in section.rows)


def parse_definition(content: dict[str, Any], source: str) -> ModelDefinition:
    """A model's mapping as a definition.

    Args:
        content: ``name``; the sections, each a list of rows, or a mapping with ``rows``, ``scale``, ``defaults``,
            ``norm``, ``conv`` and ``source``; and ``scale``, ``defaults``, ``norm`` and ``conv`` for sections that do
            not say otherwise.
        source: the file, for messages.

    Raises:
        InputError: with file, row, what was found and what is allowed.
    """
    refuse_unknown(content, ("name", *WORD_KEYS, *SECTIONS), source)
    if not isinstance(content.get("name"), str):
        raise InputError(f"{source}: name: must be text, found {content.get('name')!r}")
    known = ["image"]
    sections = [_read_section(content, name, source, known) for name in SECTIONS if content.get(name) is not None]
    sections = [section for section in sections if section.rows]
    if not sections:
        raise InputError(f"{source}: has no rows; give at least one section of {', '.join(SECTIONS)}")
    return ModelDefinition(content["name"], source, tuple(sections))


def definition_to_plain(definition: ModelDefinition) -> dict[str, Any]:
    """The definition as a mapping that ``parse_definition`` reads back, for checkpoints."""
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
    """The definition with constructor keywords replaced in every row of that module."""

    def changed(row: Row) -> Row:
        return replace(row, args={**row.args, **args}) if row.module == module else row

    return replace(
        definition, sections=tuple(replace(s, rows=tuple(map(changed, s.rows))) for s in definition.sections)
    )


def with_words(
    definition: ModelDefinition, defaults: dict[str, Any], scale: dict[str, Any], where: str
) -> ModelDefinition:
    """The definition with words that overrule those of all its sections.

    Args:
        definition: the model.
        defaults: constructor keywords for all rows that do not say otherwise.
        scale: fields of ``Scale``; ``depth`` and ``width`` multiply what a section has, so that parts keep their
            proportion.
        where: who says so, for messages.

    Raises:
        InputError: a scale is wrong, or no section has a default for a word.
    """
    known = {word for section in definition.sections for word in section.defaults}
    for word in defaults:
        if word not in known:
            raise InputError(f"{where}: unknown word {word!r}{did_you_mean(word, known)}")
    factors = vars(read_scale(scale, where))

    def scaled(own: Scale) -> Scale:
        multiple = {"channel_multiple": factors["channel_multiple"]} if "channel_multiple" in scale else {}
        return replace(own, depth=own.depth * factors["depth"], width=own.width * factors["width"], **multiple)

    sections = tuple(
        replace(section, defaults={**section.defaults, **defaults}, scale=scaled(section.scale))
        for section in definition.sections
    )
    return replace(definition, sections=sections)


def with_conv(definition: ModelDefinition, words: dict[str, Any], where: str) -> ModelDefinition:
    """The definition with another choice of convolutions in all its sections.

    Args:
        definition: the model.
        words: ``kind`` and ``BDSC_KEYS``; where no kind is said, the sections with a BDSC kind keep that.
        where: who says so, for messages.

    Raises:
        InputError: the choice is wrong, or there is no BDSC kind that its words could belong to.
    """

    def changed(section: Section) -> Section:
        if "kind" not in words and section.conv.kind not in BDSC_KINDS:
            return section
        own = {} if "kind" in words else _conv_to_plain(section.conv)
        return replace(section, conv=read_conv({**own, **words}, where))

    sections = tuple(map(changed, definition.sections))
    if not any(section.conv.kind in BDSC_KINDS for section in sections):
        for key in (key for key in BDSC_KEYS if key in words):
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
    refuse_unknown(entry, ("rows", "source", *WORD_KEYS), f"{own}: {name}")
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
    """What a section says under a key, or else the model, and the file that it stands in."""
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
    """A mapping with the fields of ``Scale``, or None for no scaling; ``where`` is the file, for messages."""
    if scale is None:
        return Scale()
    if not isinstance(scale, dict):
        raise InputError(f"{where}: scale: must be a mapping with depth, width, channel_multiple, or a key of scales")
    return build(Scale, scale, where, "scale")


def read_conv(conv: Any, where: str) -> Convolutions:
    """A kind, or a mapping with the fields of ``Convolutions``; None is ``standard``. ``where`` is for messages."""
    if conv is None:
        return Convolutions()
    words = conv if isinstance(conv, dict) else {"kind": conv}
    read = build(Convolutions, {"kind": None, **words}, where, "conv")
    for key in words:
        if key in BDSC_KEYS and read.kind not in BDSC_KINDS:
            raise InputError(f"{where}: conv.{key}: {_OF_BDSC}, found {read.kind}")
    return read


def _read_norm(content: dict[str, Any], source: str) -> dict[str, float]:
    norm = vars(build(Norm, mapping(content, "norm", source), source, "norm"))
    return {key: value for key, value in norm.items() if value is not None}


def mapping(content: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """The mapping under a key, empty when there is none; ``where`` is the file, for messages."""
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
