"""List of the shipped models and parts, with a line about each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detect.config.model import SECTIONS
from detect.config.yaml_files import load_yaml
from detect.models.catalog import FOLDERS, shipped_models, shipped_parts

MAX_LENGTH = 110
"""Characters of a line behind the name; where the changes of a variant's rows need more, only the rows are named."""


def listed() -> dict[str, dict[str, str]]:
    """Return a line about each shipped model, backbone, neck and head, by group and name."""
    groups = {"models": shipped_models(), **{folder: shipped_parts(section) for section, folder in FOLDERS.items()}}
    return {group: {name: describe(path, name) for name, path in files.items()} for group, files in groups.items()}


def listing() -> str:
    """Return the shipped names as text: a file's own name with its headline, a variant with its changes."""
    groups = listed()
    width = max(len(name) for group in groups.values() for name in group)
    lines = []
    for group, names in groups.items():
        lines += ["", f"{group}:"] + [f"  {name:<{width}}  {about}" for name, about in names.items()]
    return "\n".join(lines[1:])


def describe(path: Path, name: str) -> str:
    content = load_yaml(path)
    if name == content["name"]:
        return _headline(path)
    return f"{content['name']} with {_changes(content['variants'][name] or {})}"


def _headline(path: Path) -> str:
    line = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
    return line.split(". ")[0].split(": ")[0].removesuffix(".")


def _changes(variant: dict[str, Any]) -> str:
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
    if not isinstance(entry, dict):
        return str(entry)
    words = {key: value for key, value in entry.items() if key != "part"}
    return f"{entry['part']} ({_changes(words)})" if words else str(entry["part"])


def _rows(override: dict[str, dict[str, Any]]) -> str:
    """Describe the changes of rows; rows with the same change share an entry."""
    by_change: dict[str, list[str]] = {}
    for row, changes in override.items():
        words = [str(changes["module"])] if "module" in changes else []
        words += _pairs(changes.get("args", {}))
        words += _pairs({key: changes[key] for key in ("from", "repeats", "reduction") if key in changes})
        by_change.setdefault(", ".join(words), []).append(row)
    return "; ".join(f"{', '.join(rows)}: {change}" for change, rows in by_change.items())


def _pairs(words: dict[str, Any]) -> list[str]:
    return [f"{key} {json.dumps(value)}".replace('"', "") for key, value in words.items()]
