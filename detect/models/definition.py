"""What a model YAML says, before anything is built.

Rows are named; they refer to one another by name only; the facts that comments would state are fields that the builder
checks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detect.config.loader import CONFIGS, load_yaml
from detect.errors import InputError, did_you_mean

SECTIONS = ("backbone", "neck", "head")
ROW_KEYS = ("name", "module", "from", "args", "repeats", "reduction")
VARIANT_KEYS = ("scale", "defaults")


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
    """

    section: str
    name: str
    module: str
    inputs: tuple[str, ...]
    args: dict[str, Any]
    repeats: int
    reduction: int | None

    @property
    def label(self) -> str:
        """``section.name``, as messages call the row."""
        return f"{self.section}.{self.name}"


@dataclass(frozen=True)
class Scale:
    """Compound scaling.

    Args:
        depth: repeats above 1 become max(round(repeats * depth), 1).
        width: channels become channels * width, rounded up to a multiple of ``channel_multiple``.
        channel_multiple: see ``width``.
    """

    depth: float = 1.0
    width: float = 1.0
    channel_multiple: int = 8


@dataclass(frozen=True)
class ModelDefinition:
    """A model, ready to be built.

    Args:
        name: what reports and checkpoints call it.
        source: the file, for messages.
        scale: compound scaling.
        defaults: constructor keywords that every module which has them gets, unless its row says otherwise.
        norm: ``eps`` and ``momentum`` of all batch norms.
        rows: in execution order; the last one is the output.
    """

    name: str
    source: str
    scale: Scale
    defaults: dict[str, Any]
    norm: dict[str, float]
    rows: tuple[Row, ...]


def shipped_models() -> dict[str, Path]:
    """Every model name of ``configs/models`` with the file that defines it."""
    found: dict[str, Path] = {}
    for path in sorted((CONFIGS / "models").glob("*.yaml")):
        content = load_yaml(path)
        for name in (content["name"], *content.get("variants", {})):
            if name in found:
                raise InputError(f"{path}: model {name!r} is defined in {found[name]} too")
            found[name] = path
    return found


def find_definition(name: str) -> ModelDefinition:
    """The definition of a shipped model, or of a file.

    Args:
        name: a model name (``yolov5n-spd``), a YAML file, or ``FILE:VARIANT``. A file alone is the model that its own
            top level describes.

    Raises:
        InputError: there is no such model, or its YAML is wrong.
    """
    file, colon, variant = name.rpartition(":")
    if colon and file.endswith((".yaml", ".yml")):
        return read_definition(Path(file), variant)
    if name.endswith((".yaml", ".yml")):
        return read_definition(Path(name))
    shipped = shipped_models()
    if name not in shipped:
        raise InputError(f"model {name!r} is neither a .yaml file nor a shipped model{did_you_mean(name, shipped)}")
    return read_definition(shipped[name], name)


def read_definition(path: Path, variant: str | None = None) -> ModelDefinition:
    """A model YAML, with one of its variants chosen."""
    content = load_yaml(path)
    if variant is not None and variant != content.get("name"):
        variants = _mapping(content, "variants", str(path))
        if variant not in variants:
            raise InputError(
                f"{path}: has no model {variant!r}{did_you_mean(variant, [*variants, str(content.get('name'))])}"
            )
        chosen = _mapping(variants, variant, f"{path}: variants")
        _refuse_unknown(chosen, VARIANT_KEYS, f"{path}: variants.{variant}")
        content = {**content, "name": variant, "scale": chosen.get("scale", content.get("scale"))}
        content["defaults"] = {**_mapping(content, "defaults", str(path)), **_mapping(chosen, "defaults", str(path))}
    return parse_definition(content, str(path))


def parse_definition(content: dict[str, Any], source: str) -> ModelDefinition:
    """A model's mapping as a definition.

    Args:
        content: keys ``name``, ``scale`` (a mapping, or a key of ``scales``), ``scales``, ``defaults``, ``norm``, the
            sections, and ``variants`` (not looked at here).
        source: the file, for messages.

    Raises:
        InputError: with file, row, what was found and what is allowed.
    """
    _refuse_unknown(content, ("name", "scale", "scales", "defaults", "norm", "variants", *SECTIONS), source)
    if not isinstance(content.get("name"), str):
        raise InputError(f"{source}: name: must be text, found {content.get('name')!r}")
    rows = tuple(_read_rows(content, source))
    if not rows:
        raise InputError(f"{source}: has no rows; give at least one section of {', '.join(SECTIONS)}")
    return ModelDefinition(
        name=content["name"],
        source=source,
        scale=_read_scale(content, source),
        defaults=_mapping(content, "defaults", source),
        norm=_read_norm(content, source),
        rows=rows,
    )


def definition_to_plain(definition: ModelDefinition) -> dict[str, Any]:
    """The definition as a mapping that ``parse_definition`` reads back, for checkpoints."""
    plain: dict[str, Any] = {
        "name": definition.name,
        "scale": vars(definition.scale).copy(),
        "defaults": copy.deepcopy(definition.defaults),
        "norm": dict(definition.norm),
    }
    for row in definition.rows:
        entry: dict[str, Any] = {"name": row.name, "module": row.module, "from": list(row.inputs)}
        entry |= {"args": copy.deepcopy(row.args), "repeats": row.repeats}
        if row.reduction is not None:
            entry["reduction"] = row.reduction
        plain.setdefault(row.section, []).append(entry)
    return plain


def with_args(definition: ModelDefinition, module: str, **args: Any) -> ModelDefinition:
    """The definition with constructor keywords replaced in every row of that module."""
    rows = tuple(replace(r, args={**r.args, **args}) if r.module == module else r for r in definition.rows)
    return replace(definition, rows=rows)


def _read_rows(content: dict[str, Any], source: str) -> Iterator[Row]:
    known = ["image"]
    for section in SECTIONS:
        entries = content.get(section, [])
        if not isinstance(entries, list):
            raise InputError(f"{source}: {section}: must be a list of rows")
        for number, entry in enumerate(entries, start=1):
            row = _read_row(entry, section, f"{source}: {section}, row {number}", known)
            known.append(row.name)
            yield row


def _read_row(entry: Any, section: str, where: str, known: list[str]) -> Row:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: must be a mapping with {', '.join(ROW_KEYS)}")
    name = entry.get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{where}: name: must be a word of letters, digits and _, found {name!r}")
    where = f"{where} ({section}.{name})"
    _refuse_unknown(entry, ROW_KEYS, where)
    if name in known:
        raise InputError(f"{where}: name: {name!r} is taken by a row above")
    if not isinstance(entry.get("module"), str):
        raise InputError(f"{where}: module: must be a class name, found {entry.get('module')!r}")
    inputs = entry.get("from", known[-1])
    inputs = inputs if isinstance(inputs, list) else [inputs]
    if not inputs:
        raise InputError(f"{where}: from: is empty; name rows above")
    for reference in inputs:
        if not isinstance(reference, str):
            raise InputError(f"{where}: from: {reference!r} is not a name; rows are referred to by name, not by number")
        if reference not in known:
            raise InputError(f"{where}: from: unknown layer {reference!r}{did_you_mean(reference, known)}")
    return Row(
        section=section,
        name=name,
        module=entry["module"],
        inputs=tuple(inputs),
        args=_mapping(entry, "args", where),
        repeats=_whole_number(entry, "repeats", where, 1) or 1,
        reduction=_whole_number(entry, "reduction", where, None),
    )


def _read_scale(content: dict[str, Any], source: str) -> Scale:
    scale = content.get("scale")
    if scale is None:
        return Scale()
    if isinstance(scale, str):
        scales = _mapping(content, "scales", source)
        if scale not in scales:
            raise InputError(f"{source}: scale: unknown {scale!r}{did_you_mean(scale, scales)}")
        scale = scales[scale]
    if not isinstance(scale, dict):
        raise InputError(f"{source}: scale: must be a mapping with depth, width, channel_multiple, or a key of scales")
    _refuse_unknown(scale, tuple(Scale.__dataclass_fields__), f"{source}: scale")
    for key, value in scale.items():
        whole = key == "channel_multiple"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 < value < 1000:
            raise InputError(
                f"{source}: scale.{key}: must be a {'whole ' if whole else ''}number above 0, found {value!r}"
            )
    return Scale(**scale)


def _read_norm(content: dict[str, Any], source: str) -> dict[str, float]:
    norm = _mapping(content, "norm", source)
    _refuse_unknown(norm, ("eps", "momentum"), f"{source}: norm")
    for key, value in norm.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise InputError(f"{source}: norm.{key}: must be a number in (0, 1), found {value!r}")
    return norm


def _mapping(content: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {key}: must be a mapping, found {value!r}")
    return value


def _whole_number(content: dict[str, Any], key: str, where: str, default: int | None) -> int | None:
    value = content.get(key, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{where}: {key}: must be a whole number above 0, found {value!r}")
    return value


def _refuse_unknown(content: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in allowed:
            raise InputError(f"{where}: unknown key {key!r}{did_you_mean(str(key), allowed)}")
