"""What ``--source`` may name: an image, a folder, a pattern, or several of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from detect.data.images import IMAGE_SUFFIXES
from detect.errors import InputError


def expand_sources(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The image files that ``source`` names.

    Args:
        source: an image file; a folder, searched with its subfolders but without hidden files; a glob pattern (``**``
            crosses folders); or a list of these.

    Returns:
        At least one path, each once, in the order of the list and sorted within a folder or pattern.

    Raises:
        InputError: a part of ``source`` names no image.
    """
    parts = [source] if isinstance(source, (str, Path)) else list(source)
    if not parts:
        raise InputError("source: is an empty list; name an image, a folder or a pattern")
    return list(dict.fromkeys(path for part in parts for path in _expand(str(Path(part).expanduser()))))


def _expand(part: str) -> list[Path]:
    path = Path(part)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _images_below(path)
        if not found:
            raise InputError(f"source {part}: the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return found
    if not glob.has_magic(part):
        raise InputError(f"source {part}: no such file or folder")
    matches = sorted(Path(match) for match in glob.glob(part, recursive=True))
    found = [match for match in matches if match.is_file() and match.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        what = f"matches {len(matches)} files or folders, but no image" if matches else "matches no file"
        raise InputError(f"source {part}: the pattern {what}; quote patterns, so that the shell leaves them alone")
    return found


def _images_below(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                found.append(Path(parent, name))
    return sorted(found)
