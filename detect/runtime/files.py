"""Atomic files, and folders of results that one run holds."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from detect.errors import InputError
from detect.runtime.distributed import broadcast_text, is_main_process
from detect.runtime.logs import LOGGER

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""Errors of file systems without hard links."""
_MARK = "-unfinished-"
"""Part of the names of temporary files."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name and move it to ``path`` when the block ends without an error.

    Args:
        path: the file to write; its folder is made.

    Yields:
        The temporary path in the same folder, with the same suffix, by which writers choose a format.

    Raises:
        OSError: writing failed; the error names ``path``, which is unchanged.
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
def atomic_files(path: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Write files that belong together, ``path`` and those beside it, as ``atomic_path`` does; ``path`` is moved last.

    Args:
        path: the first file; its folder is made.
        suffixes: of the others, in the place of its own.

    Yields:
        The path of the first file in a temporary folder beside it.

    Raises:
        OSError: writing failed; the error names ``path``.
    """
    with _temporary_folder(path) as building:
        yield building / path.name
        for target in [*(path.with_suffix(suffix) for suffix in suffixes), path]:
            with (building / target.name).open("rb+") as written:
                os.fsync(written.fileno())
            (building / target.name).chmod(0o666 & ~_umask())
            (building / target.name).replace(target)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a folder under a temporary name and move it to ``path`` when the block ends without an error.

    Args:
        path: the folder to make; it may exist if it is empty.

    Yields:
        The temporary folder beside it.

    Raises:
        InputError: ``path`` is a file or a folder that is not empty.
        OSError: writing failed; the error names ``path``, which is unchanged.
    """
    if path.exists() and not (path.is_dir() and next(path.iterdir(), None) is None):
        raise InputError(f"{path}: exists already and is not an empty folder; name a new one")
    with _temporary_folder(path) as building:
        yield building
        building.chmod(0o777 & ~_umask())
        building.replace(path)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that goes at the end; an ``OSError`` about what is in it names ``path``."""
    building = _make_temporary_folder(path)
    try:
        yield building
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
    """Write UTF-8 text atomically to a file that does not exist; of several processes one succeeds.

    Raises:
        FileExistsError: the file exists.
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
    """Write JSON atomically; ``ValueError`` for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder."""
    for path in folder.glob(f".*{_MARK}*"):
        path.unlink(missing_ok=True)


def _make_temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{_MARK}", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    os.close(handle)
    return Path(name)


def _make_temporary_folder(path: Path) -> Path:
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


LOCK_NAME = ".in-use"
"""The file that holds the lock of a folder."""


def make_unique_folder(wanted: Path) -> Path:
    """Make ``wanted``, or the first of ``wanted-2``, ``wanted-3``, ... that does not exist.

    Of several processes each gets a folder of its own.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    folder = wanted
    for number in count(2):
        try:
            folder.mkdir()
        except FileExistsError:
            folder = wanted.with_name(f"{wanted.name}-{number}")
        else:
            break
    return folder


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make and lock a folder of results while the block runs; the main process of a run holds the lock for all.

    The lock of a process that has ended is free. A folder that is empty at the end is removed.

    Raises:
        InputError: another run holds the lock.
    """
    problem, lock = "", None
    if is_main_process():
        try:
            lock = _lock(folder)
        except InputError as error:
            problem = str(error)
    if problem := broadcast_text(problem):
        raise InputError(problem)
    try:
        yield
    finally:
        if lock is not None:
            (folder / LOCK_NAME).unlink(missing_ok=True)
            lock.close()
        if is_main_process():
            with suppress(OSError):
                folder.rmdir()


def _lock(folder: Path) -> IO[str] | None:
    """Lock the folder's file and return it; log a warning and return None where the file system has no locks.

    POSIX locks work on network file systems, and worker processes do not inherit them.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / LOCK_NAME).open("a+", encoding="utf-8")
        except FileNotFoundError:  # the previous holder has removed the folder
            continue
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                owner = file.read().strip() or "another process"
            raise InputError(
                f"{folder}: {owner} writes its results there at this moment; wait for its end, or choose another folder"
            ) from None
        except OSError as error:
            file.close()
            LOGGER.warning("%s: is not protected against a second process (%s)", folder, error.strerror)
            return None
        if _is_still_there(file):
            file.truncate(0)
            with suppress(OSError):  # the text is for messages only
                os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return file
        file.close()


def _is_still_there(file: IO[str]) -> bool:
    """Return whether the open file still has its name: the previous holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    except FileNotFoundError:
        return False
