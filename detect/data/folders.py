"""Files of folders in a fixed order, safe against circular links."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

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


def find_unread(paths: Iterable[str | Path]) -> list[tuple[str, int, list[str]]]:
    """Count the files of a folder of images that are not images, for ``Problems.merge``; annotations are expected."""
    others = [path for path in paths if not is_image_name(str(path)) and not _lies_beside(Path(path).name.lower())]
    return [(NOT_READ, len(others), count_suffixes(others))] if others else []


def _lies_beside(name: str) -> bool:
    return name.endswith(_BESIDE) or name in ("readme", "license", "notice")


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino
