"""The names that models are put together from, each with a line that says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detect.config.base import load_yaml
from detect.models.catalog import FOLDERS, shipped_models, shipped_parts
from detect.models.definition import SECTIONS, mapping

MAX_LENGTH = 110
"""Characters of a line behind the name; where the rows of a variant need more, they are only named."""


def listed() -> dict[str, dict[str, str]]:
    """Shipped models, backbones, necks and heads by name, each with a line about it, in the order of their files."""
    groups = {"models": shipped_models(), **{folder: shipped_parts(section) for section, folder in FOLDERS.items()}}
    return {group: {name: describe(path, name) for name, path in files.items()} for group, files in groups.items()}


def listing() -> str:
    """The shipped names as text, a line each.

    The first one of a file has the file's headline, a variant of it what it changes.
    """
    groups = listed()
    width = max(len(name) for group in groups.values() for name in group)
    lines = []
    for group, names in groups.items():
        lines += ["", f"{group}:"] + [f"  {name:<{width}}  {about}" for name, about in names.items()]
    return "\n".join(lines[1:])


def describe(path: Path, name: str) -> str:
    """One line about a name that a model's or a part's YAML defines."""
    content = load_yaml(path)
    if name == content["name"]:
        return _headline(path)
    return f"{content['name']} with {_changes(mapping(content['variants'], name, str(path)))}"


def _headline(path: Path) -> str:
    """The first sentence of a file's header."""
    line = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
    return line.split(". ")[0].split(": ")[0].removesuffix(".")


def _changes(variant: dict[str, Any]) -> str:
    """What a variant says: sections, scale, words, norms, rows."""
    found = [f"{section} {_reference(variant[section])}" for section in SECTIONS if section in variant]
    scale = variant.get("scale", {})
    found += [f"scale {scale}"] if isinstance(scale, str) else _pairs(scale)
    found += _pairs(variant.get("defaults", {}))
    found += [f"norm {pair}" for pair in _pairs(variant.get("norm", {}))]
    words = ", ".join(found)
    if "override" not in variant:
        return words
    start = f"{words}; " if words else ""
    detailed = start + _rows(variant["override"])
    return detailed if len(detailed) <= MAX_LENGTH else f"{start}other {', '.join(variant['override'])}"


def _reference(entry: Any) -> str:
    """A part's name, with what a model says about it."""
    if not isinstance(entry, dict):
        return str(entry)
    words = {key: value for key, value in entry.items() if key != "part"}
    return f"{entry['part']} ({_changes(words)})" if words else str(entry["part"])


def _rows(override: dict[str, dict[str, Any]]) -> str:
    """What changes in which rows, those with the same change together."""
    by_change: dict[str, list[str]] = {}
    for row, changes in override.items():
        words = [str(changes["module"])] if "module" in changes else []
        words += _pairs(changes.get("args", {}))
        words += _pairs({key: changes[key] for key in ("from", "repeats", "reduction") if key in changes})
        by_change.setdefault(", ".join(words), []).append(row)
    return "; ".join(f"{', '.join(rows)}: {change}" for change, rows in by_change.items())


def _pairs(words: dict[str, Any]) -> list[str]:
    """``KEY VALUE``, values as in YAML."""
    return [f"{key} {json.dumps(value)}".replace('"', "") for key, value in words.items()]
