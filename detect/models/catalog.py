"""Models and shipped weights by name: YAML files, their variants, and combinations of parts.

A model YAML contains each section, or names a part: ``backbone: csppeleenet``. A part is a YAML of
``configs/backbones``, ``configs/necks`` or ``configs/heads``. Parts fit together by the names of their rows: a backbone
has ``c2``, ``c3``, ``c4`` and ``c5``, its maps at 4, 8, 16 and 32 input pixels per cell; a neck reads some of them and
has ``p3``, ``p4`` and ``p5`` (or fewer) for the head.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from detect.config.base import build
from detect.config.model import SECTIONS, Levels, ModelChanges, ModelConfig, PartConfig, Scale, SectionConfig
from detect.config.yaml_files import CONFIGS, load_yaml, parse_overrides
from detect.errors import InputError, did_you_mean
from detect.models.definition import ModelDefinition, parse_definition, with_conv, with_options
from detect.models.levels import choose_levels, insert_rows, level_names

_PACKAGED_WEIGHTS = Path(__file__).parents[1] / "weights"
WEIGHTS = _PACKAGED_WEIGHTS if _PACKAGED_WEIGHTS.is_dir() else Path(__file__).parents[2] / "weights"
"""Folder of the shipped checkpoints: inside an installed package, or beside it in a checkout."""
START_PREFIX = "start-"
"""Start of the names of shipped checkpoints that were trained on generated scenes: ``start-MODEL``."""
FOLDERS = {"backbone": "backbones", "neck": "necks", "head": "heads"}
"""Folder of a section's parts in ``configs``."""
CLASSIFIER_HEAD = "classify"
"""The head of a backbone without a neck, if its YAML names no other."""
SHORT_OPTIONS = {
    "spd": ("downsample", "spd"),
    "csp": ("fusion", "csp"),
    "bdsc": ("conv", "bdsc"),
    "p2": ("levels", "p2-p5"),
}
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
            head. Options: a neck (with its head), a head, ``levels=p2-p4``, ``width=X`` and ``depth=X`` as factors,
            ``conv=KIND``, ``p=X``, ``p_of=input`` and ``conv_norm=false`` for the k x k convolutions
            (``detect.config.model.Convolutions``), ``KEY=VALUE`` for any keyword that the parts have defaults for; or
            ``spd`` for ``downsample=spd``, ``csp`` for ``fusion=csp``, ``bdsc`` for ``conv=bdsc``, ``p2`` for
            ``levels=p2-p5``. ``cspdarknet53+efm+spd`` is a detector, ``resnet18+bdsc+p=2`` a classifier.

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
            of_kind = {**dict.fromkeys(Scale.__dataclass_fields__, scale), **dict.fromkeys(CONV_OPTIONS, conv)}
            target = {**of_kind, "levels": parts}.get(key, defaults)
            found = {key: value}
        else:
            target, found = parts, _part_of_name(token, name)
        if target.keys() & found.keys():
            raise InputError(f"model {name!r}: {token!r} sets {', '.join(found)} a second time")
        target |= found
    if not match["rest"]:  # a plain name keeps the file's own name and source
        return _resolve(content, source)
    build(ModelChanges, {key: value for key, value in parts.items() if key == "levels"}, f"model {name!r}")
    # A named neck comes with its head, unless the name has a head too.
    content |= {"name": name, **({"head": None} if "neck" in parts else {}), **parts}
    definition = replace(_resolve(content, source), source=f"model {name!r}")
    definition = with_options(definition, defaults, scale, f"model {name!r}")
    return with_conv(definition, {CONV_OPTIONS[option]: value for option, value in conv.items()}, f"model {name!r}")


def _start(base: str) -> tuple[dict[str, Any], str]:
    if file := _FILE.fullmatch(base):
        return _read(ModelConfig, Path(file["path"]), file["variant"]), file["path"]
    models, backbones = shipped_models(), shipped_parts("backbone")
    if base in models:
        return _read(ModelConfig, models[base], base), str(models[base])
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
    known = [*SHORT_OPTIONS, "levels=", "width=", "depth=", *(f"{option}=" for option in CONV_OPTIONS), *necks, *heads]
    raise InputError(f"model {name!r}: unknown neck, head or option {token!r}{did_you_mean(token, known)}")


def _read(schema: type[ModelConfig | PartConfig], path: Path, variant: str | None) -> dict[str, Any]:
    """Read a file and apply a variant, as mappings; ``null`` in a variant removes the file's value."""
    content = load_yaml(path)
    own = build(schema, content, str(path)).name
    variants = {str(name): changes or {} for name, changes in (content.pop("variants", None) or {}).items()}
    if variant is None or variant == own:
        return content
    if variant not in variants:
        raise InputError(f"{path}: has no model {variant!r}{did_you_mean(variant, [*variants, str(own)])}")
    changes = variants[variant]
    return {**content, **changes, **_merge_settings(content, changes), "name": variant}


def _merge_settings(*levels: dict[str, Any]) -> dict[str, Any]:
    """Merge ``defaults`` and ``norm``; later levels override earlier ones."""
    return {key: {k: v for level in levels for k, v in (level.get(key) or {}).items()} for key in ("defaults", "norm")}


def _resolve(content: dict[str, Any], source: str) -> ModelDefinition:
    """Replace the names of parts in a valid model by the parts' rows and settings."""
    head = content.get("head")
    content = {**content, "head": _own_head(content, source) if head is None else head}
    sources = {}
    for section in SECTIONS:
        reference = _reference(content, section)
        if reference is not None:
            path, variant = _find_part(reference["part"], section, source)
            content[section] = _resolve_part(reference, path, variant, content, f"{source}: {section}")
            sources[section] = str(path)
    definition = parse_definition(content, source, sources)
    return choose_levels(definition, content["levels"]) if content.get("levels") else definition


def _own_head(content: dict[str, Any], source: str) -> str | None:
    """Return the head of the neck's YAML; without a neck the backbone's, by default a classifier's."""
    section, default = ("backbone", CLASSIFIER_HEAD) if content.get("neck") is None else ("neck", None)
    reference = _reference(content, section)
    if reference is None:
        return None
    head: str | None = _read(PartConfig, *_find_part(reference["part"], section, source)).get("head", default)
    return head


def _reference(content: dict[str, Any], section: str) -> dict[str, Any] | None:
    """Return the mapping of a section that names a part."""
    entry: dict[str, Any] = SectionConfig.expand(content.get(section))
    return None if entry.get("part") is None else entry


def _resolve_part(
    reference: dict[str, Any], path: Path, variant: str | None, content: dict[str, Any], where: str
) -> dict[str, Any]:
    """Return the section of a reference. Its own options override the model's, and those override the part's."""
    part = _read(PartConfig, path, variant)
    rows = _with_finer(part, content.get("levels"), str(path))
    rows = _override(rows, reference.get("override"), where)
    levels = [part, content, reference]
    conv = next((level["conv"] for level in reversed(levels) if level.get("conv") is not None), None)
    return {"rows": rows, "scale": reference.get("scale"), "conv": conv, **_merge_settings(*levels)}


def _with_finer(part: dict[str, Any], levels: Levels | None, where: str) -> list[dict[str, Any]]:
    """Return a part's rows with those of the finer levels that are wanted, and its own changes."""
    rows, changes = part["rows"], dict(part.get("override") or {})
    for name, finer in (part.get("finer") or {}).items():
        if levels is not None and name >= level_names(levels)[0]:
            rows = insert_rows(rows, finer["behind"], f"{where}: finer.{name}")
            rows = _override(rows, finer.get("override"), f"{where}: finer.{name}")
        else:  # a variant may change rows that are not there
            for row in (row for inserted in finer["behind"].values() for row in inserted):
                changes.pop(row["name"], None)
    return _override(rows, changes, where)


def _find_part(name: str, section: str, source: str) -> tuple[Path, str | None]:
    """Return a part's file and variant: a shipped one, or ``FILE`` or ``FILE:VARIANT`` beside the model's."""
    if file := _FILE.fullmatch(name):
        return Path(source).parent / file["path"], file["variant"]
    parts = shipped_parts(section)
    if name not in parts:
        raise InputError(f"{source}: {section}: unknown part {name!r}{did_you_mean(name, parts)}")
    return parts[name], name


def _override(rows: list[dict[str, Any]], override: dict[str, Any] | None, where: str) -> list[dict[str, Any]]:
    """Return the rows with changes: ``args`` are added, all other keys replaced."""
    changed = {row["name"]: row for row in rows}
    for name, changes in (override or {}).items():
        if name not in changed:
            raise InputError(f"{where}: override: unknown row {name!r}{did_you_mean(str(name), changed)}")
        args = [keys.get("args") or {} for keys in (changed[name], changes or {})]
        changed[name] = {**changed[name], **(changes or {}), "args": {**args[0], **args[1]}}
    return [changed[row["name"]] for row in rows]


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
