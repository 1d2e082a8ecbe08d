"""Atomic files, and folders of results that one run holds."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from detect.errors import InputError
from detect.runtime.distributed import broadcast_text, is_main_process
from detect.runtime.logs import LOGGER

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


LOCK_NAME = ".in-use"
"""The file, in a folder that is held, that has the lock."""


def claim_new_folder(wanted: Path) -> Path:
    """Make ``wanted``, or the first of ``wanted-2``, ``wanted-3``, ... that is not there.

    Of processes that ask at the same time each gets its own.
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
def held_folder(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made, while the block runs; of several processes of a run the first does it for all.

    A process that has ended, in whatever way, holds nothing. A folder that is empty in the end vanishes.

    Args:
        folder: of the results.

    Raises:
        InputError: another process holds it.
    """
    complaint, lock = "", None
    if is_main_process():
        try:
            lock = _lock(folder)
        except InputError as error:
            complaint = str(error)
    if complaint := broadcast_text(complaint):
        raise InputError(complaint)
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
    """The locked file; None where the file system has no locks, which is told.

    The lock is one of POSIX: network file systems have it, and worker processes do not inherit it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / LOCK_NAME).open("a+", encoding="utf-8")
        except FileNotFoundError:  # who held it has removed the folder since
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
            with suppress(OSError):  # a full disk does not matter yet
                os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return file
        file.close()


def _is_still_there(file: IO[str]) -> bool:
    """Whether the open file is the one in its folder; who held it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    except FileNotFoundError:
        return False
