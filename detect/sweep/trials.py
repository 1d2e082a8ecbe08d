"""Trials as processes of ``detect train``, one at a time on each device."""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from detect.errors import InputError, unreadable
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar
from detect.runtime.trainings import Trainings, last_line, sigterm_as_ctrl_c
from detect.sweep.ledger import LOG, Claim, Ledger, Trial, best_trial
from detect.sweep.plan import Plan, shown, training_arguments


class Search:
    """Runs the trials of a search.

    Args:
        plan: the search.
        ledger: its trials.
        train: the command that trains.
        on_finished: called after each trial, by one thread at a time.
    """

    def __init__(self, plan: Plan, ledger: Ledger, train: Sequence[str], on_finished: Callable[[], None]) -> None:
        self.plan = plan
        self.ledger = ledger
        self.trainings = Trainings(train)
        self.on_finished = on_finished
        self._lock = threading.Lock()

    def run(self, devices: Sequence[str]) -> None:
        """Train on each device, one trial after the other.

        Args:
            devices: as of ``detect train``; a device listed twice gets two trials at a time.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; the running trials are interrupted and can be resumed.
        """
        finished = [trial for trial in self.ledger.trials() if trial.state != "unfinished"]
        total = max(self.plan.config.num_trials, len(finished))
        with (
            sigterm_as_ctrl_c(),
            progress_bar(None, self.plan.config.name, total, initial=len(finished), unit="trial") as bar,
            ThreadPoolExecutor(len(devices)) as pool,
        ):
            try:
                for worker in as_completed([pool.submit(self._work, device, bar) for device in devices]):
                    worker.result()
            finally:
                self.trainings.stop()

    def _work(self, device: str, bar: tqdm) -> None:
        while not self.trainings.is_stopping() and (claim := self.ledger.claim(self.plan.config.num_trials)):
            start = time.monotonic()
            code = self._train(claim, device)
            seconds = time.monotonic() - start
            if self.trainings.is_stopping() and code != 0:
                self.ledger.release(claim, seconds)
                return
            outcome = outcome_of(claim.folder, code, self.plan.config.metric)
            trial = self.ledger.finish(claim, outcome, seconds)
            with self._lock:
                self._tell(trial, device, bar)
                self.on_finished()

    def _train(self, claim: Claim, device: str) -> int:
        """Run the training process of a trial and return its exit code."""
        started = (claim.folder / "last.pt").is_file()
        config = self.plan.config
        arguments = ["--resume"] if started else training_arguments(config, claim.values)
        if started and config.data_root:
            arguments += ["--data-root", config.data_root]
        return self.trainings.run([*arguments, "--out", str(claim.folder), "--device", device], claim.log).code

    def _tell(self, trial: Trial, device: str, bar: tqdm) -> None:
        metric = self.plan.config.metric
        if trial.score is None:
            log = self.ledger.trial_folder(trial.number) / LOG
            LOGGER.warning("trial %d failed on %s: %s (%s)", trial.number, device, trial.problem, log)
        else:
            values = ", ".join(f"{key} {shown(value)}" for key, value in trial.values.items())
            found = f"{metric} {trial.score:.4f} in {trial.seconds:.0f} s on {device}"
            LOGGER.info("trial %d: %s with %s", trial.number, found, values)
        bar.update()
        if (best := best_trial(self.ledger.trials())) is not None:
            bar.set_postfix_str(f"best {metric} {best.score:.4f} (trial {best.number})")


def outcome_of(folder: Path, code: int, metric: str) -> float | str:
    """Return the score of a trial whose process has ended, or its problem.

    Args:
        folder: of the trial.
        code: exit code of the process, negative for a signal.
        metric: of the score.
    """
    if code:
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        return last_line(folder / LOG) or f"ended with {end} without output"
    try:
        return read_score(folder / "results.csv", metric)
    except InputError as error:
        return str(error)


def read_score(path: Path, metric: str) -> float:
    """Return the best value of the column ``val/METRIC`` in a ``results.csv``.

    Raises:
        InputError: there is no such file or column, or no finite number in it.
    """
    column = f"val/{metric}"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            cells = [row.get(column) for row in csv.DictReader(file, strict=True)]
        numbers = [float(cell) for cell in cells if cell]
    except OSError as error:
        raise unreadable(path.name, error) from None
    except (ValueError, csv.Error):
        raise InputError(f"{path.name}: is damaged") from None
    finite = [number for number in numbers if math.isfinite(number)]
    if not finite:
        raise InputError(f"{path.name}: has no {column}")
    return max(finite)
