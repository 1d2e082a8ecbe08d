"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detect.errors import InputError

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What the system says where a file cannot have a second name."""
_MARK = "-unfinished-"
"""In the names of temporary files."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        path: the file to be written; its folder is made.

    Yields:
        The path to write to. It has the same suffix, because writers choose formats by it.

    Raises:
        OSError: writing failed; it names ``path``, which is as it was.
    """
    temporary = _make_temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        path: the folder to be made; it may be there if it is empty.

    Yields:
        The folder to write to.

    Raises:
        InputError: there is such a folder with something in it, or such a file.
        OSError: writing failed; it names ``path``, which is as it was.
    """
    if path.exists() and not (path.is_dir() and next(path.iterdir(), None) is None):
        raise InputError(f"{path}: exists already and is not an empty folder; name a new one")
    building = _make_temporary_folder(path)
    try:
        yield building
        building.chmod(0o777 & ~_umask())
        building.replace(path)
    except OSError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(building):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_new_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically to a file that is not there; of two processes at the same time one does.

    Raises:
        FileExistsError: the file is there.
    """
    temporary = _make_temporary(path)
    try:
        write_text(temporary, text)
        os.link(temporary, path)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno not in _NO_LINKS:
            raise
        with path.open("x", encoding="utf-8") as file:  # a file system without links
            file.write(text)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write JSON atomically; NaN and infinities are refused, because JSON has none."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that processes left which were killed while they wrote files into a folder."""
    for path in folder.glob(f".*{_MARK}*"):
        path.unlink(missing_ok=True)


def _make_temporary(path: Path) -> Path:
    """An empty file beside ``path``, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{_MARK}", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    os.close(handle)
    return Path(name)


def _make_temporary_folder(path: Path) -> Path:
    """An empty folder beside ``path``, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        error.filename = str(path)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
