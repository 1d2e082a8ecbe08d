"""Folders of results, which two processes must not take at the same time."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from detect.errors import InputError
from detect.runtime.distributed import broadcast_text, is_main_process
from detect.runtime.logs import LOGGER

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
