"""The ``data.yaml`` that tools for YOLO use: ``path``, ``train``, ``val``, ``test``, ``names``, ``nc``.

It is data, nothing more: a ``download`` in it is never fetched and never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detect.config.schema import DataConfig, SplitConfig
from detect.errors import InputError
from detect.runtime.logs import LOGGER

SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
"""The keys that name images, and what the splits are called here."""

_KNOWN = (*SPLITS, "path", "names", "nc")


def is_yolo_yaml(content: dict[str, Any]) -> bool:
    """Whether a YAML file's mapping is such a file: it names classes and images, and has no ``splits``."""
    return "splits" not in content and any(key in content for key in ("names", "nc")) and bool({*SPLITS} & {*content})


def config_of_yolo_yaml(path: Path, content: dict[str, Any], data_root: str | None) -> DataConfig:
    """Such a file as a data config, with ``root`` as an absolute path.

    Args:
        path: the file.
        content: its mapping.
        data_root: replaces ``path`` in it; relative to the current folder.

    Raises:
        InputError: a key has a value that it cannot have; one for key points, which are not read, is there.
    """
    if "kpt_shape" in content:
        raise InputError(f"{path}: has kpt_shape, so its labels are key points, which are not read")
    names = _names(path, content)
    found = content.get("path")
    if found is not None and not isinstance(found, str):
        raise InputError(f"{path}: path: must be text, found {found!r}")
    root = (Path(data_root) if data_root else path.parent / (found or ".")).expanduser().resolve()
    splits: dict[str, SplitConfig] = {}
    for key, split in SPLITS.items():
        if content.get(key) is not None:
            if split in splits:
                raise InputError(f"{path}: has both val and valid; leave one out")
            splits[split] = _split(path, key, content[key], root)
    if not splits:
        raise InputError(f"{path}: {', '.join(key for key in SPLITS if key in content)}: names no images")
    ignored = [str(key) for key in content if key not in _KNOWN]
    note = f"; ignored, not used: {', '.join(map(repr, ignored))}" if ignored else ""
    LOGGER.info("%s: read as YOLO data, because it has %s%s", path, _seen(content), note)
    return DataConfig(name=root.name or "data", root=str(root), splits=splits, format="yolo", names=names)


def _seen(content: dict[str, Any]) -> str:
    return ", ".join(key for key in _KNOWN if key in content)


def _names(path: Path, content: dict[str, Any]) -> tuple[str, ...] | None:
    """The class names; None where only their number is given, or nothing."""
    found, count = content.get("names"), content.get("nc")
    if count is not None and (type(count) is not int or count < 1):
        raise InputError(f"{path}: nc: must be a whole number above 0, found {count!r}")
    if isinstance(found, dict):
        if sorted(found, key=str) != sorted(range(len(found)), key=str) or any(type(key) is not int for key in found):
            raise InputError(f"{path}: names: must have the numbers 0 to {len(found) - 1}, found {str([*found])[:80]}")
        found = [found[number] for number in range(len(found))]
    if found is None:
        return tuple(str(number) for number in range(count)) if count is not None and count <= 10_000 else None
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: names: must be a list of names, or names by number, found {str(found)[:80]!r}")
    if any(not isinstance(name, (str, int, float)) for name in found):
        raise InputError(f"{path}: names: must be words, found {str(found)[:80]}")
    if count is not None and count != len(found):
        raise InputError(f"{path}: nc: is {count}, but there are {len(found)} names")
    return tuple(str(name) for name in found)


def _split(path: Path, key: str, found: Any, root: Path) -> SplitConfig:
    """The images of a key: a folder, or a text file that lists them."""
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, str):
        raise InputError(
            f"{path}: {key}: must be one folder of images, or one txt file that lists them, found {str(found)[:80]!r}"
        )
    # Some exporters write ../train/images beside a data.yaml whose folder has train/images.
    inside = found.removeprefix("../")
    if not (root / found).exists() and (root / inside).exists():
        LOGGER.info("%s: %s: %s is not there, %s is taken", path, key, found, inside)
        found = inside
    return SplitConfig(images=".", list=found) if found.endswith(".txt") else SplitConfig(images=found)
