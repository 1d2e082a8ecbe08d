"""Files of folders in a fixed order, safe against circular links, and the splits that folders are named after."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from detect.config.data import SplitConfig
from detect.data.annotations import Problems
from detect.data.images import IMAGE_SUFFIXES

NOT_READ = "files among the images in formats that are not read (not used)"

_BESIDE = (
    *(".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".html", ".cache", ".names", ".labels", ".data", ".tar"),
    *("thumbs.db", "desktop.ini"),
)
"""Ends of the names of files that are expected beside images."""


def walk_files(folder: Path, root: Path, report: Callable[[OSError], None]) -> Iterator[str]:
    """Yield all files, folder by folder, each folder once; hidden ones are left out.

    Args:
        folder: where to start.
        root: links are followed, but not back to this folder or above it. It may be ``folder`` itself.
        report: gets the error of each unreadable folder, which is skipped.

    Yields:
        Paths that start with ``folder``, sorted within each folder.
    """
    seen = {_identity(path) for path in (root.parents if folder == root else (root, *root.parents))}
    for current, folders, files in os.walk(folder, onerror=report, followlinks=True):
        identity = _identity(current)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            yield os.path.join(current, name)  # noqa: PTH118 (a million Path objects are slow)


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def count_suffixes(paths: Iterable[str | Path]) -> list[str]:
    """Count files by suffix, the most frequent first: ``12 .heic``, ``1 without a suffix``."""
    counts = Counter(os.path.splitext(path)[1].lower() or "without a suffix" for path in paths)  # noqa: PTH122
    return [f"{count} {suffix}" for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def report_left_out(paths: Iterable[str | Path], problems: Problems) -> None:
    """Count the files of a folder of images that are not images, by suffix; annotations beside them are expected."""
    others = [path for path in paths if not is_image_name(str(path)) and not _lies_beside(Path(path).name.lower())]
    if others:
        problems.merge([(NOT_READ, len(others), count_suffixes(others))])


def _lies_beside(name: str) -> bool:
    return name.endswith(_BESIDE) or name in ("readme", "license", "notice")


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


# ------------------------------------------------------------------------------------------- layouts


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
