"""Data configs of tools for YOLO: ``data.yaml``, and Darknet's ``obj.data`` (``key = value``).

They are data only: a ``download`` key is never fetched and never run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detect.config.data import DataConfig, SplitConfig
from detect.config.yaml_files import load_yaml
from detect.data.annotations import Problems
from detect.data.formats.annotation_files import read_list
from detect.data.formats.image_names import path_forms
from detect.data.formats.yolo import LIST_SUFFIX, read_names
from detect.errors import InputError, is_path
from detect.runtime.logs import LOGGER

SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
"""Keys that name images, and the names of their splits."""

DARKNET_SUFFIX = ".data"

_KEY_POINTS = "kpt_shape"
_KNOWN = (*SPLITS, "path", "names", "nc", _KEY_POINTS)
_PARTS = "must be a folder of images, a txt file that lists them, or a list of such"


def is_yolo_yaml(content: dict[str, Any]) -> bool:
    """Tell whether a YAML mapping is YOLO's: it names classes and images, and has no ``splits``."""
    return "splits" not in content and any(key in content for key in ("names", "nc")) and bool({*SPLITS} & {*content})


def config_of_yolo_yaml(path: Path, content: dict[str, Any], data_root: str | None) -> DataConfig:
    """Convert ``data.yaml`` to a data config, with ``root`` as an absolute path.

    Args:
        path: the file.
        content: its mapping.
        data_root: replaces ``path`` in it; relative to the current folder.

    Raises:
        InputError: a value is invalid, or two splits lead to the same images.
    """
    names = _names(path, content)
    found = {key: content[key] for key in SPLITS if content.get(key) is not None}
    root = _root(path, content.get("path"), data_root, found.values())
    splits = _splits(path, found, root)
    if not splits:
        raise InputError(f"{path}: {', '.join(key for key in SPLITS if key in content)}: names no images")
    ignored = [str(key) for key in content if key not in _KNOWN]
    note = f"; ignored, not used: {', '.join(map(repr, ignored))}" if ignored else ""
    seen = ", ".join(key for key in _KNOWN if key in content)
    LOGGER.info("%s: read as YOLO data, because it has %s%s", path, seen, note)
    if _KEY_POINTS in content:
        LOGGER.info("%s: %s: of rows with key points the boxes are used, the points are not", path, _KEY_POINTS)
    return DataConfig(name=root.name or "data", root=str(root), splits=splits, format="yolo", names=names)


def config_of_darknet_data(path: Path, data_root: str | None) -> DataConfig:
    """Convert Darknet's ``obj.data``, as CVAT and others write it (``train = data/train.txt``), to a data config.

    Args:
        path: the file.
        data_root: replaces its folder; relative to the current folder.

    Raises:
        InputError: it names no images.
    """
    lines = [line.split("#", 1)[0].partition("=") for line in read_list(path, Problems(), "key = value")]
    content = {key.strip(): value.strip() for key, equals, value in lines if equals and value.strip()}
    root = Path(data_root or path.parent).expanduser().resolve()
    splits = _splits(path, {key: content[key] for key in SPLITS if key in content}, root)
    if not splits:
        raise InputError(f"{path}: names no images; it must have a line such as train = data/train.txt")
    names = None
    if "names" in content:
        names = read_names(root / _existing(path, "names", content["names"], root))
    LOGGER.info("%s: read as YOLO data of Darknet, because it has %s", path, ", ".join(content))
    return DataConfig(name=root.name or "data", root=str(root), splits=splits, format="yolo", names=names)


# -------------------------------------------------------------------------------------------------- classes


def _names(path: Path, content: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names as written, numbers where only ``nc`` is given, None where neither is."""
    count = content.get("nc")
    if count is not None and (type(count) is not int or count < 1):
        raise InputError(f"{path}: nc: must be a whole number above 0, found {count!r}")
    if content.get("names") is None:
        return tuple(str(number) for number in range(count)) if count is not None and count <= 10_000 else None
    found = load_yaml(path, as_text=True)["names"]
    if isinstance(found, dict):
        numbers = [str(number) for number in range(len(found))]
        if {*found} != {*numbers}:
            raise InputError(f"{path}: names: must have the numbers 0 to {len(found) - 1}, found {_listed(found)}")
        found = [found[number] for number in numbers]
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: names: must be a list of names, or names by number, found {str(found)[:80]!r}")
    if any(not isinstance(name, str) for name in found):
        raise InputError(f"{path}: names: must be words, found {str(found)[:80]}")
    if count is not None and count != len(found):
        raise InputError(f"{path}: nc: is {count}, but there are {len(found)} names")
    return tuple(found)


def _listed(keys: Iterable[str]) -> str:
    return f"[{', '.join(keys)}]"[:80]


# --------------------------------------------------------------------------------------------------- images


def _root(path: Path, found: Any, data_root: str | None, images: Iterable[Any]) -> Path:
    """Return ``path`` as written or, where only the file's own folder has the images, that folder."""
    if found is not None and (not isinstance(found, str) or not is_path(found)):
        raise InputError(f"{path}: path: must be text, found {found!r:.100}")
    root = Path(data_root) if data_root else path.parent / (found or ".")
    root = Path(os.path.expanduser(root)).resolve()  # noqa: PTH111 (leaves the home of nobody as it is)
    if data_root or root.is_dir():
        return root
    written = (part for value in images for part in (value if isinstance(value, list) else [value]))
    forms = (form for part in written if isinstance(part, str) and is_path(part) for form in path_forms(part))
    if any((path.parent / form).exists() for form in forms):
        LOGGER.info("%s: path: %s is not there, the folder of the file is taken", path, found)
        return path.parent.resolve()
    return root


def _splits(path: Path, found: dict[str, Any], root: Path) -> dict[str, SplitConfig]:
    """Return the splits by name; ``found`` has the file's keys and their values."""
    splits: dict[str, SplitConfig] = {}
    keys: dict[tuple[str, ...], str] = {}
    for key, value in found.items():
        if SPLITS[key] in splits:
            raise InputError(f"{path}: has both val and valid; leave one out")
        written = tuple([value] if isinstance(value, str) else value) if isinstance(value, (str, list)) else ()
        if not written or not all(isinstance(part, str) and is_path(part) for part in written):
            raise InputError(f"{path}: {key}: {_PARTS}, found {str(value)[:80]!r}")
        parts = tuple(_existing(path, key, part, root) for part in written)
        other = keys.setdefault(parts, key)
        if other != key and found[other] != value:
            raise InputError(f"{path}: {other} and {key} both lead to {', '.join(parts)}; write paths that are there")
        splits[SPLITS[key]] = _section(parts)
    return splits


def _section(parts: tuple[str, ...]) -> SplitConfig:
    has_list = any(part.lower().endswith(LIST_SUFFIX) for part in parts)
    if len(parts) == 1:
        return SplitConfig(images=".", list=parts[0]) if has_list else SplitConfig(images=parts[0])
    is_mixed = len({os.path.isabs(part) for part in parts}) > 1  # noqa: PTH117
    images = "." if has_list or is_mixed else os.path.commonpath(parts) or "."
    return SplitConfig(images=images, parts=parts)


def _existing(path: Path, key: str, found: str, root: Path) -> str:
    """Return a path as written or, if it does not exist, the longest end of it that does.

    Some exporters write ``../train/images`` beside a folder ``train``, or put the project's name in front.
    """
    for form in path_forms(found):
        if (root / form).exists():
            if form != found:
                LOGGER.info("%s: %s: %s is not there, %s is taken", path, key, found, form)
            return form
    return found
