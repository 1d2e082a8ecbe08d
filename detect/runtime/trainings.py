"""Trainings as processes of ``detect train``, which end with this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

TRAIN = (sys.executable, "-m", "detect", "train")
"""The command that trains."""
GRACE_S = 30.0
"""Seconds after SIGTERM until a training is killed."""
MAX_LINE = 300
"""Maximum characters kept of the last line of a log."""
_POLL_S = 0.1


class Ended(NamedTuple):
    """A process that has ended.

    Args:
        code: exit code, negative for a signal.
        cpu_seconds: processor time of it and its children.
    """

    code: int
    cpu_seconds: float


class Trainings:
    """Processes that train, several at a time if several threads call ``run``.

    Args:
        train: the command.
    """

    def __init__(self, train: Sequence[str] = TRAIN) -> None:
        self.train = tuple(train)
        self._stopping = threading.Event()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def run(self, arguments: Sequence[str], log: BinaryIO) -> Ended:
        """Train, and wait for the end.

        Args:
            arguments: of the command.
            log: receives its output; a lock on it lives as long as the process.
        """
        with self._lock:
            if self.is_stopping():
                return Ended(-signal.SIGTERM, 0.0)
            # A session of its own: the terminal's Ctrl-C reaches this process only, which passes it on once.
            process = subprocess.Popen(
                [*self.train, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._running.discard(process)
        return Ended(process.returncode, usage.ru_utime + usage.ru_stime)

    def stop(self) -> None:
        """Interrupt the running trainings and wait until they have ended; kill them after ``GRACE_S`` seconds."""
        with self._lock:
            self._stopping.set()
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)  # SIGINT may be ignored, as a shell leaves it to background jobs
        deadline = time.monotonic() + GRACE_S
        for process in running:
            while process.returncode is None and time.monotonic() < deadline:  # ``run`` waits for it and sets it
                time.sleep(_POLL_S)
            _signal(process, signal.SIGKILL)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Treat SIGTERM, which job schedulers send, as Ctrl-C: otherwise trainings would outlive this process."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_line(path: Path) -> str:
    """Return the last line of a log that is not blank: its printable characters, cut, without ``error: ``."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2**16, 0))
        text = file.read().decode("utf-8", "replace")
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    line = " ".join(lines[-1].split()).removeprefix("error: ") if lines else ""
    return "".join(c for c in line if c.isprintable())[:MAX_LINE]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.returncode is None:
        os.killpg(process.pid, number)
