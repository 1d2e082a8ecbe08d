"""Models and shipped weights by name: YAML files, their variants, and combinations of parts.

A model YAML contains each section, or names a part: ``backbone: csppeleenet``. A part is a YAML of
``configs/backbones``, ``configs/necks`` or ``configs/heads``. Parts fit together by the names of their rows: a backbone
has ``c2``, ``c3``, ``c4`` and ``c5``, its maps at 4, 8, 16 and 32 input pixels per cell; a neck reads some of them and
has ``p3``, ``p4`` and ``p5`` (or fewer) for the head.
"""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from detect.config.base import CONFIGS, load_yaml, parse_overrides
from detect.config.model import Scale
from detect.errors import InputError, did_you_mean
from detect.models.definition import (
    ROW_KEYS,
    SECTIONS,
    SETTING_KEYS,
    ModelDefinition,
    mapping,
    parse_definition,
    read_conv,
    read_scale,
    refuse_unknown,
    with_conv,
    with_options,
)

_PACKAGED_WEIGHTS = Path(__file__).parents[1] / "weights"
WEIGHTS = _PACKAGED_WEIGHTS if _PACKAGED_WEIGHTS.is_dir() else Path(__file__).parents[2] / "weights"
"""Folder of the shipped checkpoints: inside an installed package, or beside it in a checkout."""
START_PREFIX = "start-"
"""Of the shipped checkpoints that were trained on generated scenes: ``start-MODEL``."""
FOLDERS = {"backbone": "backbones", "neck": "necks", "head": "heads"}
"""Folder of a section's parts in ``configs``."""
MODEL_KEYS = ("name", "scales", "variants", *SETTING_KEYS, *SECTIONS)
PART_KEYS = ("name", "rows", "head", "variants", "defaults", "norm", "conv")
REFERENCE_KEYS = ("part", "override", *SETTING_KEYS)
CLASSIFIER_HEAD = "classify"
"""The head of a backbone without a neck, if its YAML names no other."""
SHORT_OPTIONS = {"spd": ("downsample", "spd"), "csp": ("fusion", "csp"), "bdsc": ("conv", "bdsc")}
"""Short forms of ``KEY=VALUE`` in a model's name."""
CONV_OPTIONS = {"conv": "kind", "p": "p", "p_of": "p_of", "conv_norm": "norm"}
"""Keywords of a model's name, and the keys of a YAML's ``conv`` that they set."""

_FILE = re.compile(r"(?P<path>.+\.ya?ml)(?::(?P<variant>.*))?")
_NAME = re.compile(r"(?P<base>.*?\.ya?ml(?::[^+]*)?|[^+]*)(?P<rest>(?:\+[^+]*)*)")


def shipped_models() -> dict[str, Path]:
    """Return the model names of ``configs/models`` with their files."""
    return _index("models")


def shipped_parts(section: str) -> dict[str, Path]:
    """Return the parts of a section (``backbone``, ``neck`` or ``head``) with their files."""
    return _index(FOLDERS[section])


def shipped_weights() -> dict[str, Path]:
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.pt"))}


def shipped_start(model: str) -> str | None:
    """Return the name of the shipped checkpoint from which the training of a model starts, if there is one."""
    name = f"{START_PREFIX}{model}"
    return name if name in shipped_weights() else None


def find_weights(weights: Path) -> Path:
    """Return the file of a checkpoint: the path itself, or the file of a shipped name (``yolov5n-spd-bccd``).

    An existing file takes precedence over a name; a missing one is no error here, an unknown name an ``InputError``.
    Nothing is downloaded.
    """
    is_word = len(weights.parts) == 1 and not weights.suffix
    if not is_word or weights.is_file():
        return weights
    shipped = shipped_weights()
    if weights.name not in shipped:
        hint = did_you_mean(weights.name, shipped)
        raise InputError(f"{weights.name!r} is neither a file nor one of weights/{hint}")
    return shipped[weights.name]


def find_definition(name: str) -> ModelDefinition:
    """Return the definition of a model's name.

    Args:
        name: a start and options, joined by ``+``. The start is a shipped model (``yolov5n-spd``), a YAML file,
            ``FILE:VARIANT`` (a file alone is the model of its top level), or a backbone, which then has a classifier's
            head. Options: a neck (with its head), a head, ``width=X`` and ``depth=X`` as factors on the model's own,
            ``conv=KIND``, ``p=X``, ``p_of=input`` and ``conv_norm=false`` for the k x k convolutions
            (``detect.config.model.Convolutions``), ``KEY=VALUE`` for any keyword that the parts have defaults for; or
            ``spd`` for ``downsample=spd``, ``csp`` for ``fusion=csp``, ``bdsc`` for ``conv=bdsc``.
            ``cspdarknet53+efm+spd`` is a detector, ``resnet18+bdsc+p=2`` a classifier.

    Raises:
        InputError: there is no such model, or its YAML is wrong.
    """
    match = _NAME.fullmatch(name)
    assert match is not None, "the pattern fits any text"
    content, source = _start(match["base"])
    defaults: dict[str, Any] = {}
    scale: dict[str, Any] = {}
    conv: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for token in match["rest"].split("+")[1:]:
        if "=" in token or token in SHORT_OPTIONS:
            key, value = _option_of_name(token, name)
            target = scale if key in Scale.__dataclass_fields__ else conv if key in CONV_OPTIONS else defaults
            found = {key: value}
        else:
            target, found = parts, _part_of_name(token, name)
        if target.keys() & found.keys():
            raise InputError(f"model {name!r}: {token!r} sets {', '.join(found)} a second time")
        target |= found
    if not match["rest"]:  # a plain name keeps the file's own name and source
        return parse_definition(_resolve(content, source), source)
    # A named neck comes with its head, unless the name has a head too.
    content |= {"name": name, **({"head": None} if "neck" in parts else {}), **parts}
    definition = replace(parse_definition(_resolve(content, source), source), source=f"model {name!r}")
    definition = with_options(definition, defaults, scale, f"model {name!r}")
    return with_conv(definition, {CONV_OPTIONS[option]: value for option, value in conv.items()}, f"model {name!r}")


def _start(base: str) -> tuple[dict[str, Any], str]:
    if file := _FILE.fullmatch(base):
        return _read_model(Path(file["path"]), file["variant"]), file["path"]
    models, backbones = shipped_models(), shipped_parts("backbone")
    if base in models:
        return _read_model(models[base], base), str(models[base])
    if base in backbones:
        return {"name": base, "backbone": base}, str(backbones[base])
    raise InputError(
        f"model {base!r} is neither a .yaml file nor a shipped model or backbone"
        f"{did_you_mean(base, [*models, *backbones])}"
    )


def _option_of_name(token: str, name: str) -> tuple[str, Any]:
    if token in SHORT_OPTIONS:
        return SHORT_OPTIONS[token]
    if token.startswith("="):
        raise InputError(f"model {name!r}: {token!r} has no keyword in front of its value")
    ((key, value),) = parse_overrides([token]).items()
    return key, value


def _part_of_name(token: str, name: str) -> dict[str, Any]:
    necks, heads = shipped_parts("neck"), shipped_parts("head")
    if token in necks:
        return {"neck": token}
    if token in heads:
        return {"head": token}
    known = [*SHORT_OPTIONS, "width=", "depth=", *(f"{option}=" for option in CONV_OPTIONS), *necks, *heads]
    raise InputError(f"model {name!r}: unknown neck, head or option {token!r}{did_you_mean(token, known)}")


def _read_model(path: Path, variant: str | None = None) -> dict[str, Any]:
    content = load_yaml(path)
    refuse_unknown(content, MODEL_KEYS, str(path))
    return _choose(content, variant, (*SETTING_KEYS, *SECTIONS), path)


def _read_part(path: Path, variant: str | None) -> dict[str, Any]:
    content = load_yaml(path)
    refuse_unknown(content, PART_KEYS, str(path))
    content = _choose(content, variant, ("override", "head", "defaults", "norm", "conv"), path)
    return {**content, "rows": _override(content, str(path))}


def _choose(content: dict[str, Any], variant: str | None, keys: tuple[str, ...], path: Path) -> dict[str, Any]:
    """Apply a variant to the content: it adds to ``defaults`` and ``norm`` and replaces all other keys."""
    content = dict(content)
    variants = mapping(content, "variants", str(path))
    content.pop("variants", None)
    if not isinstance(content.get("name", ""), str):
        raise InputError(f"{path}: name: must be text, found {content['name']!r}")
    if content.get("name") in variants:
        raise InputError(f"{path}: variants: {content['name']!r} is the name of the file's own model")
    if variant is None or variant == content.get("name"):
        return content
    if variant not in variants:
        raise InputError(
            f"{path}: has no model {variant!r}{did_you_mean(variant, [*variants, str(content.get('name'))])}"
        )
    chosen = mapping(variants, variant, f"{path}: variants")
    refuse_unknown(chosen, keys, f"{path}: variants.{variant}")
    added = {
        key: {**mapping(content, key, str(path)), **mapping(chosen, key, str(path))} for key in ("defaults", "norm")
    }
    return {**content, **chosen, **added, "name": variant}


def _resolve(content: dict[str, Any], source: str) -> dict[str, Any]:
    """Look up scales and parts of a model's content, for ``parse_definition``."""
    content = dict(content)
    scales = mapping(content, "scales", source)
    content.pop("scales", None)
    content["scale"] = _named_scale(content.get("scale"), scales, source)
    read_conv(content.get("conv"), source)
    if content.get("head") is None:
        content["head"] = _own_head(content, source)
    for section in SECTIONS:
        reference = _reference(content.get(section))
        if reference is not None:
            content[section] = _resolve_part(reference, section, content, scales, source)
    return content


def _own_head(content: dict[str, Any], source: str) -> str | None:
    """Return the head of the neck's YAML; without a neck the backbone's, by default a classifier's."""
    section, default = ("backbone", CLASSIFIER_HEAD) if content.get("neck") is None else ("neck", None)
    reference = _reference(content.get(section))
    if reference is None:
        return None
    return _read_part(*_find_part(reference.get("part"), section, source)).get("head", default)


def _reference(entry: Any) -> dict[str, Any] | None:
    if isinstance(entry, str):
        return {"part": entry}
    return entry if isinstance(entry, dict) and "rows" not in entry else None


def _resolve_part(
    reference: dict[str, Any], section: str, content: dict[str, Any], scales: dict[str, Any], source: str
) -> dict[str, Any]:
    """Return the section of a reference. Its own options override the model's, and those override the part's."""
    where = f"{source}: {section}"
    refuse_unknown(reference, REFERENCE_KEYS, where)
    path, variant = _find_part(reference.get("part"), section, source)
    part = _read_part(path, variant)
    rows = _override({**part, "override": reference.get("override")}, where)
    levels = [part, content, reference]  # later ones override earlier ones
    scale = _named_scale(reference.get("scale"), scales, where) or content["scale"]
    read_conv(reference.get("conv"), where)
    conv = next((w["conv"] for w in reversed(levels) if w.get("conv") is not None), None)
    resolved = {key: {k: v for w in levels for k, v in mapping(w, key, where).items()} for key in ("defaults", "norm")}
    return {"rows": rows, "scale": scale, "conv": conv, "source": str(path), **resolved}


def _find_part(name: Any, section: str, source: str) -> tuple[Path, str | None]:
    """Return a part's file and variant: a shipped one, or ``FILE`` or ``FILE:VARIANT`` beside the model's."""
    file = _FILE.fullmatch(name) if isinstance(name, str) else None
    if file:
        return Path(source).parent / file["path"], file["variant"]
    parts = shipped_parts(section)
    if not isinstance(name, str) or name not in parts:
        raise InputError(f"{source}: {section}: unknown part {name!r}{did_you_mean(str(name), parts)}")
    return parts[name], name


def _override(content: dict[str, Any], where: str) -> list[Any]:
    """Return the rows with ``override`` applied: ``args`` are added, all other keys replaced."""
    rows = copy.deepcopy(content.get("rows", []))
    if not isinstance(rows, list):
        raise InputError(f"{where}: rows: must be a list of rows")
    by_name = {row["name"]: row for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)}
    for name in mapping(content, "override", where):
        if name not in by_name:
            raise InputError(f"{where}: override: unknown row {name!r}{did_you_mean(str(name), by_name)}")
        changes = mapping(content["override"], name, f"{where}: override")
        refuse_unknown(changes, tuple(key for key in ROW_KEYS if key != "name"), f"{where}: override.{name}")
        row = by_name[name]
        args = {**mapping(row, "args", where), **mapping(changes, "args", f"{where}: override.{name}")}
        row |= {**changes, "args": args}
    return rows


def _named_scale(scale: Any, scales: dict[str, Any], where: str) -> Any:
    if isinstance(scale, str):
        if scale not in scales:
            raise InputError(f"{where}: scale: unknown {scale!r}{did_you_mean(scale, scales)}")
        scale = scales[scale]
    read_scale(scale, where)
    return scale


@functools.cache
def _index(folder: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((CONFIGS / folder).glob("*.yaml")):
        content = load_yaml(path)
        for name in (content["name"], *content.get("variants", {})):
            if name in found:
                raise InputError(f"{path}: {name!r} is defined in {found[name]} too")
            found[name] = path
    return found
