"""Common parts of the writers: the split to write, its files, valid names of images and classes, the new data config.

Names come from other people's files and may hold anything; a format needs them on one line, in XML, or as a path that
stays in its folder. Changed names are counted.

Letters: N images, M boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from detect.config.base import to_plain
from detect.config.data import DataConfig, SplitConfig
from detect.config.yaml_files import dump_yaml
from detect.data.annotations import AnnotationTable, Problems
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError
from detect.runtime.files import write_text

RENAMED_IMAGE = "image names that the format cannot hold, or duplicates without their suffix (changed)"
RENAMED_CLASS = "class names that the format cannot hold, or duplicates (changed)"

CONFIG = "data.yaml"
"""The data config in the folder of the new data set."""

_UNSAFE = '\\:*?"<>|'  # invalid in file names of other systems; a backslash separates folders there
_PLAIN = "_"


@dataclass(frozen=True)
class Target:
    """A split to write.

    Args:
        config: the source data set.
        split: its name.
        table: its images and boxes.
        images: folder of the images, relative to the new data set; or absolute, where they stay in place.
        image_names: N paths relative to that folder, with ``/``.
        names: K valid class names.
        stays: the images stay in place, perhaps among others, so that the split needs a list.
        losses: gets what the format cannot hold.
    """

    config: DataConfig
    split: str
    table: AnnotationTable
    images: str
    image_names: list[str]
    names: tuple[str, ...]
    stays: bool
    losses: Problems

    @property
    def source(self) -> SplitConfig:
        return self.config.splits[self.split]


def annotation_file(folder: Path, image_name: str, suffix: str) -> Path:
    """Return the path of an image's annotation file, and make its folder."""
    path = folder / PurePosixPath(image_name).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines in UTF-8, and make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# --------------------------------------------------------------------------------------------------- names


def relative_names(table: AnnotationTable, images: Path) -> list[str]:
    """Return N image paths relative to the folder of the images, with ``/``.

    An image elsewhere keeps its file name alone. One in a shard has its name there, with the shard's in front if any
    name is not unique.
    """
    if table.shards is not None:
        return _names_in_shards(table)
    folders = (images, images.resolve())
    names = []
    for path in map(table.path, range(len(table))):
        inside = next((path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), Path(path.name))
        names.append(inside.as_posix())
    return names


def _names_in_shards(table: AnnotationTable) -> list[str]:
    images = [table.stored(row) for row in range(len(table))]
    names = [image.path.relative_to(image.shard).as_posix() for image in images if image.shard is not None]
    if len({name.casefold() for name in names}) == len(names):
        return names
    return [f"{image.shard.stem}/{name}" for image, name in zip(images, names, strict=True) if image.shard is not None]


def safe_names(names: Sequence[str], flat: bool, changes: Problems) -> list[str]:
    """Return N image names of printable characters that are distinct without their suffix, whatever their case.

    Args:
        names: with ``/`` between folders.
        flat: no folders: ``a/b.jpg`` becomes ``a_b.jpg``.
        changes: gets the changed names.
    """
    taken: set[str] = set()
    safe = []
    for name in names:
        wanted = _safe_path(name.replace("/", _PLAIN) if flat else name)
        unique = _unique(wanted, taken)
        taken.add(_stem(unique).casefold())
        if unique != (name.replace("/", _PLAIN) if flat else name):
            changes.add(RENAMED_IMAGE, f"{name[:100]!r} is {unique[:100]!r}")
        safe.append(unique)
    return safe


def check_safe(names: Sequence[str], why: str) -> None:
    """Refuse image names that would have to be changed; ``why`` they cannot be goes into the message."""
    changes = Problems()
    safe_names(names, False, changes)
    if changes:
        raise InputError(f"{changes.summary()[0]}; {why}")


def safe_classes(names: Sequence[str], changes: Problems) -> tuple[str, ...]:
    """Return K distinct class names of printable characters, without spaces around them; ``changes`` gets the changed
    ones.
    """
    taken: set[str] = set()
    safe = []
    for name in names:
        wanted = printable(name).strip() or _PLAIN
        unique = next(one for one in _numbered(wanted, "") if one not in taken)
        taken.add(unique)
        if unique != name:
            changes.add(RENAMED_CLASS, f"{name[:100]!r} is {unique[:100]!r}")
        safe.append(unique)
    return tuple(safe)


def split_folder(name: str) -> str:
    """Return the name of a split if it can be part of file names: letters, digits, ``.``, ``-`` and ``_``."""
    if not name or name.startswith(".") or not all(c.isalnum() or c in ".-_" for c in name) or len(name) > 100:
        raise InputError(f"split {name[:100]!r}: cannot be a folder's name; use letters, digits, '.', '-' and '_'")
    return name


def _safe_path(name: str) -> str:
    parts = []
    for part in name.split("/"):
        clean = "".join(_PLAIN if c in _UNSAFE else c for c in printable(part)).strip()
        clean = PurePosixPath(clean).stem.strip() + PurePosixPath(clean).suffix
        # Readers leave out hidden files, and look for "labels" in the place of the last "images".
        parts.append(_PLAIN + clean if not clean or clean.startswith(".") or clean == "images" else clean)
    path = "/".join(parts)
    return path if path.lower().endswith(IMAGE_SUFFIXES) else f"{path}.jpg"


def printable(text: str) -> str:
    """Replace control characters, line ends and lone surrogates."""
    return "".join(c if c.isprintable() else _PLAIN for c in text)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _unique(name: str, taken: set[str]) -> str:
    suffix = PurePosixPath(name).suffix
    return next(one for one in _numbered(_stem(name), suffix) if _stem(one).casefold() not in taken)


def _numbered(stem: str, suffix: str) -> Iterable[str]:
    """Yield ``stem``, ``stem-2``, ``stem-3``, ... with the suffix."""
    yield f"{stem}{suffix}"
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


def ignored_in_all_classes(table: AnnotationTable) -> np.ndarray:
    """Return (M,) bool: crowd regions ignored for all classes, so that each class has one with the same box."""
    result = np.zeros(len(table.labels), bool)
    crowds = np.flatnonzero(table.is_crowd)
    if len(table.names) > 1 and len(crowds):
        keys = np.column_stack([table.image_of_box[crowds], table.exact_xywh_px[crowds]])
        _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        result[crowds] = counts[inverse.reshape(-1)] == len(table.names)
    return result


# --------------------------------------------------------------------------------------------- data config


def write_data_config(
    folder: Path,
    source: DataConfig,
    command: str,
    kind: str,
    splits: Mapping[str, SplitConfig],
    names: tuple[str, ...] | None,
) -> None:
    """Write the data config of a data set made from another one.

    Args:
        folder: of the new data set.
        source: the data set that it is made from, whose name, background and range of values it keeps.
        command: subcommand of ``detect data`` that made it.
        kind: its format.
        splits: its splits.
        names: K class names, where the format does not hold them or only some are wanted.
    """
    content: dict[str, Any] = {"name": source.name, "root": ".", "format": kind}
    if names is not None:
        content["names"] = list(names)
    if source.range is not None:
        content["range"] = to_plain(source.range)
    if source.max_pixels != DataConfig.max_pixels:
        content["max_pixels"] = source.max_pixels
    if source.background != "keep":
        content["background"] = source.background
    content["splits"] = {
        split: {key: value for key, value in vars(section).items() if value is not None}
        for split, section in splits.items()
    }
    write_text(folder / CONFIG, f"# Made by detect data {command}.\n{dump_yaml(content)}")


def plain_number(value: float) -> str:
    """Return a number with all its digits, a whole one without a decimal point."""
    return str(int(value)) if value.is_integer() else repr(value)
