"""Names of splits and files side by side: common parts of recognising a format by the layout of its folders."""

from __future__ import annotations

import re
from pathlib import Path

from detect.config.data import SplitConfig
from detect.data.folders import is_image_name

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|trainval|minitrain|test-dev|test-challenge)(?=$|\d|_)"
)
_OURS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def split_of(name: str) -> str | None:
    """Return the split of a name such as ``train2017`` or ``Validation``."""
    found = _SPLIT.match(name.lower())
    return None if found is None else _OURS.get(found[1], found[1])


def subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def sorted_splits(splits: dict[str, SplitConfig]) -> dict[str, SplitConfig]:
    """Sort splits: train, val, then the others by name."""
    return dict(sorted(splits.items(), key=lambda item: (item[0] != "train", item[0] != "val", item[0])))


def has_suffix(folder: Path, suffix: str) -> bool:
    return folder.is_dir() and any(path.suffix.lower() == suffix for path in folder.iterdir())


def side_by_side(folder: Path, suffix: str) -> dict[str, SplitConfig]:
    """Find folders in which files of a suffix lie beside images of their names, as Roboflow and LabelImg write them."""
    splits: dict[str, SplitConfig] = {}
    for path in (folder, *subfolders(folder)):
        names = list(path.iterdir()) if has_suffix(path, suffix) else []
        stems = {name.stem for name in names if name.suffix.lower() == suffix}
        if any(name.stem in stems and is_image_name(name.name) for name in names):
            inside = "." if path == folder else path.name
            splits[split_of_folder(path, folder)] = SplitConfig(inside, inside if suffix == ".xml" else None)
    return sorted_splits(splits)


def split_of_folder(path: Path, folder: Path) -> str:
    """Return the split of a folder in the data set's; CVAT prefixes it with ``obj_``."""
    name = path.name.lower().removeprefix("obj_").replace("validation", "valid")
    return "train" if path == folder else split_of(name) or path.name
