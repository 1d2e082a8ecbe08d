"""Trainings of a comparison as processes, which go on where they were interrupted."""

from __future__ import annotations

import fcntl
import itertools
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from tqdm import tqdm

from detect.ablation.plan import Training
from detect.errors import InputError
from detect.runtime.files import write_text
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar
from detect.runtime.trainings import Trainings, last_line, sigterm_as_ctrl_c

RECORD, LOG = "ablation.json", "log.txt"
"""Files of a training's folder: its arguments, processor seconds and state; its output."""


class Record(NamedTuple):
    """State of a training.

    Args:
        arguments: of ``detect train``.
        cpu_seconds: processor time so far, over all its starts.
        is_done: it has ended well.
    """

    arguments: tuple[str, ...]
    cpu_seconds: float = 0.0
    is_done: bool = False


def read_record(training: Training) -> Record | None:
    """Read the state of a training; None if it has not begun.

    Raises:
        InputError: the file is damaged.
    """
    path = training.folder / RECORD
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return Record(tuple(content["arguments"]), float(content["cpu_seconds"]), bool(content["is_done"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: is damaged; another --out starts anew") from None


class Comparison:
    """Runs the trainings of a comparison.

    Args:
        trainings: in the order in which they begin.
        device: as of ``detect train``.
        processes: that train.
        on_finished: called after each training, by one thread at a time.
    """

    def __init__(
        self, trainings: Sequence[Training], device: str, processes: Trainings, on_finished: Callable[[], None]
    ) -> None:
        self.trainings = trainings
        self.device = device
        self.processes = processes
        self.on_finished = on_finished
        self._lock = threading.Lock()
        self._failed: dict[Path, str] = {}

    def run(self, jobs: int) -> dict[Path, str]:
        """Train what is not done, ``jobs`` at a time; one that fails does not stop the others.

        Returns:
            The folders of the trainings that failed, in their order, each with the problem in one line.

        Raises:
            InputError: a folder holds a training with other settings.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the running trainings are interrupted and go on the next time.
        """
        waiting: SimpleQueue[Training] = SimpleQueue()
        for training in self.trainings:
            record = read_record(training)
            if record is not None and record.arguments != self._arguments(training):
                raise InputError(f"{training.folder}: was trained with other settings; another --out starts anew")
            if record is None or not record.is_done:
                waiting.put(training)
        total = len(self.trainings)
        with (
            sigterm_as_ctrl_c(),
            progress_bar(None, "trainings", total, initial=total - waiting.qsize(), unit="run") as bar,
            ThreadPoolExecutor(jobs) as pool,
        ):
            try:
                for worker in as_completed([pool.submit(self._work, waiting, bar) for _ in range(jobs)]):
                    worker.result()
            finally:
                self.processes.stop()
        folders = [training.folder for training in self.trainings]
        return {folder: self._failed[folder] for folder in folders if folder in self._failed}

    def _arguments(self, training: Training) -> tuple[str, ...]:
        return tuple(training.arguments(self.device))

    def _work(self, waiting: SimpleQueue[Training], bar: tqdm) -> None:
        while not self.processes.is_stopping():
            try:
                training = waiting.get_nowait()
            except Empty:
                return
            self._train(training)
            with self._lock:
                bar.update()
                self.on_finished()

    def _train(self, training: Training) -> None:
        training.folder.mkdir(parents=True, exist_ok=True)
        with (training.folder / LOG).open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                LOGGER.warning("%s: another process trains it", training.folder)
                return
            record = read_record(training) or Record(self._arguments(training))
            if record.is_done:
                return
            _write_record(training.folder, record)
            started = (training.folder / "last.pt").is_file()
            arguments = record.arguments if not started else _resuming(record.arguments)
            ended = self.processes.run(arguments, log)
        record = record._replace(cpu_seconds=record.cpu_seconds + ended.cpu_seconds, is_done=ended.code == 0)
        _write_record(training.folder, record)
        if ended.code and not self.processes.is_stopping():
            problem = last_line(training.folder / LOG) or f"ended with exit code {ended.code} without output"
            LOGGER.warning("%s failed: %s", training.folder, problem)
            self._failed[training.folder] = problem


def _resuming(arguments: Sequence[str]) -> list[str]:
    """Arguments that continue a run: its settings are in its folder."""
    kept = [
        word
        for flag, value in itertools.pairwise(arguments)
        if flag in ("--out", "--device", "--data-root")
        for word in (flag, value)
    ]
    return [*kept, "--resume"]


def _write_record(folder: Path, record: Record) -> None:
    write_text(folder / RECORD, json.dumps(record._asdict(), indent=1) + "\n")
