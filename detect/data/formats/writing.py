"""What the writers of all formats are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from detect.config.base import dump_yaml, to_plain
from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable, Problems
from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError
from detect.runtime.files import write_text


@dataclass(frozen=True)
class Target:
    """A split that is to be written.

    Args:
        config: the data set that it comes from.
        split: its name.
        table: its images and boxes.
        images: folder of the images in the new data set, relative to it; or, absolute, where they stay.
        image_names: N paths relative to that folder, with ``/``.
        names: K class names, as they can be written.
        stays: the images stay where they are, among others perhaps, so that a list says which are meant.
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
        """Where the split comes from."""
        return self.config.splits[self.split]


def annotation_file(folder: Path, image_name: str, suffix: str) -> Path:
    """The file of an image's boxes in a folder, which is made: called like the image, but for the suffix."""
    path = folder / PurePosixPath(image_name).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write UTF-8 text, a line each, into a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# ------------------------------------------------------------------------------------------------ names


RENAMED_IMAGE = "image names that the format cannot hold, or that stand twice without their suffix (changed)"
RENAMED_CLASS = "class names that the format cannot hold, or that stand twice (changed)"

_UNSAFE = '\\:*?"<>|'  # not in file names of other systems, and a backslash divides folders there
_PLAIN = "_"


def relative_names(table: AnnotationTable, images: Path) -> list[str]:
    """N image names as they are: paths relative to the folder of the images, with ``/``.

    Args:
        table: the split.
        images: its folder; an image elsewhere is called by its file name alone. One in a shard is called as there, and
            if such a name stands twice, all have their shard's in front.
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
    """N image names of printable characters, no two of which are the same without their suffix, whatever their case.

    Args:
        names: with ``/`` between folders.
        flat: no folders: ``a/b.jpg`` becomes ``a_b.jpg``.
        changes: gets those that were changed.
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
    """Refuse image names that would have to be changed.

    Args:
        names: N names with ``/`` between folders.
        why: they cannot be.

    Raises:
        InputError: there is one.
    """
    changes = Problems()
    safe_names(names, False, changes)
    if changes:
        raise InputError(f"{changes.summary()[0]}; {why}")


def safe_classes(names: Sequence[str], changes: Problems) -> tuple[str, ...]:
    """K class names of printable characters, without blanks around them, all different.

    Args:
        names: K class names.
        changes: gets those that were changed.
    """
    taken: set[str] = set()
    safe = []
    for name in names:
        wanted = _printable(name).strip() or _PLAIN
        unique = next(one for one in _numbered(wanted, "") if one not in taken)
        taken.add(unique)
        if unique != name:
            changes.add(RENAMED_CLASS, f"{name[:100]!r} is {unique[:100]!r}")
        safe.append(unique)
    return tuple(safe)


def split_folder(name: str) -> str:
    """The name of a split, which becomes part of file names.

    Raises:
        InputError: it holds anything else than letters, digits, ``.``, ``-`` and ``_``, or starts with a dot.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in ".-_" for c in name) or len(name) > 100:
        raise InputError(f"split {name[:100]!r}: cannot be a folder's name; use letters, digits, '.', '-' and '_'")
    return name


def _safe_path(name: str) -> str:
    parts = []
    for part in name.split("/"):
        clean = "".join(_PLAIN if c in _UNSAFE else c for c in _printable(part)).strip()
        clean = PurePosixPath(clean).stem.strip() + PurePosixPath(clean).suffix
        # Readers leave out hidden files, and look for "labels" in the place of the last "images".
        parts.append(_PLAIN + clean if not clean or clean.startswith(".") or clean == "images" else clean)
    path = "/".join(parts)
    return path if path.lower().endswith(IMAGE_SUFFIXES) else f"{path}.jpg"


def _printable(text: str) -> str:
    """Without control characters, line ends and halves of surrogate pairs; every other character as it is."""
    return "".join(c if c.isprintable() else _PLAIN for c in text)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _unique(name: str, taken: set[str]) -> str:
    suffix = PurePosixPath(name).suffix
    return next(one for one in _numbered(_stem(name), suffix) if _stem(one).casefold() not in taken)


def _numbered(stem: str, suffix: str) -> Iterable[str]:
    """``stem``, ``stem-2``, ``stem-3``, ... with the suffix."""
    yield f"{stem}{suffix}"
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


# ------------------------------------------------------------------------------------------------ regions


def of_every_class(table: AnnotationTable) -> np.ndarray:
    """(M,) bool, the crowd regions that stand for every class with the same box in their image."""
    result = np.zeros(len(table.labels), bool)
    crowds = np.flatnonzero(table.is_crowd)
    if len(table.names) > 1 and len(crowds):
        keys = np.column_stack([table.image_of_box[crowds], table.exact_xywh_px[crowds]])
        _, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        result[crowds] = counts[inverse.reshape(-1)] == len(table.names)
    return result


# ------------------------------------------------------------------------------------------------ new_config


CONFIG = "data.yaml"
"""Its file, in the folder of the new data set."""


def write_data_config(
    folder: Path,
    source: DataConfig,
    command: str,
    kind: str,
    splits: Mapping[str, SplitConfig],
    names: tuple[str, ...] | None,
) -> None:
    """Write the data config.

    Args:
        folder: of the new data set.
        source: the data set that it was made of, whose name, treatment of background and range of values it has.
        command: of ``tools/data.py``, which made it.
        kind: its format.
        splits: its splits.
        names: K class names, where the format does not say them or some of them are wanted.
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
    write_text(folder / CONFIG, f"# Made by tools/data.py {command}.\n{dump_yaml(content)}")


def plain_number(value: float) -> str:
    """A number with all its digits, a whole one without a point."""
    return str(int(value)) if value.is_integer() else repr(value)
