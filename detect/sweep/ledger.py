"""Trials of a search: Optuna's journal, and a lock for each trial.

Several threads and processes work on one search. The lock of a trial is on its log file, which the training process
inherits as its standard output: while that process lives nobody else claims the trial, even if the process that
started it has died.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Literal

from detect.config.sweep import Sampler
from detect.errors import InputError
from detect.runtime.reproducibility import generator
from detect.sweep.plan import Parameter, Values, import_optuna

JOURNAL, LOCK, LOG = "journal.log", "lock", "log.txt"
VALUES_STREAM = 7
"""Key of the generators that seed the trials."""

State = Literal["complete", "failed", "unfinished"]


@dataclass(frozen=True)
class Trial:
    """A recorded trial.

    Args:
        number: counted from 0.
        state: ``unfinished`` while it runs and after an interruption.
        values: of the parameters.
        score: best value of the metric, if complete.
        seconds: time of its training, over all its starts.
        problem: reason of a failure, in one line.
    """

    number: int
    state: State
    values: Values
    score: float | None
    seconds: float
    problem: str


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest score, the first of equals; None if none is complete."""
    return max(
        (trial for trial in trials if trial.score is not None), key=lambda trial: trial.score or 0.0, default=None
    )


@dataclass(frozen=True)
class Claim:
    """A trial that the holder works on exclusively.

    Args:
        number: of the trial.
        values: of the parameters.
        folder: of the trial.
        log: its log file, which holds the lock; open until the trial is finished or released.
    """

    number: int
    values: Values
    folder: Path
    log: BinaryIO


class Ledger:
    """The trials of a search.

    Optuna's random sampler draws the values of a trial with a seed that is a function of the search's seed and the
    trial's number; of a grid the trial's number is that of its point. So they depend neither on the worker nor on
    interruptions.

    Args:
        folder: of the search.
        space: its parameters.
        seed: its seed.
        sampler: ``random`` or ``grid``.

    Raises:
        InputError: Optuna is not installed, or the journal is damaged.
    """

    def __init__(self, folder: Path, space: tuple[Parameter, ...], seed: int, sampler: Sampler = "random") -> None:
        self.folder = folder
        self.seed = seed
        self._grid = list(product(*(parameter.choices for parameter in space))) if sampler == "grid" else []
        self._optuna = import_optuna()
        self._distributions = {parameter.key: self._distribution(parameter) for parameter in space}
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / JOURNAL
        with self._exclusive():
            try:
                backend = self._optuna.storages.journal.JournalFileBackend(str(journal))
                self._storage = self._optuna.storages.JournalStorage(backend)
                self._study = self._optuna.create_study(
                    study_name="sweep", storage=self._storage, direction="maximize", load_if_exists=True
                )
            except (ValueError, KeyError):
                raise InputError(f"{journal}: is damaged; another --out starts anew") from None

    def trials(self) -> list[Trial]:
        return [self._trial(found) for found in self._found()]

    def claim(self, total: int) -> Claim | None:
        """Claim an interrupted trial, else a new one; None when there are ``total``."""
        with self._exclusive():
            found = self._found()
            for trial in found[:total]:
                if self._trial(trial).state == "unfinished" and (claim := self._take(trial)):
                    return claim
            if len(found) >= total:
                return None
            number = self._ask(len(found))
            return self._take(self._found()[number])

    def finish(self, claim: Claim, outcome: float | str, seconds: float) -> Trial:
        """Record the end of a trial: its score or its problem, and the seconds since it was claimed."""
        with self._exclusive():
            self._add_seconds(claim.number, seconds)
            self._tell(claim.number, outcome)
            claim.log.close()
            return self._trial(self._found()[claim.number])

    def release(self, claim: Claim, seconds: float) -> None:
        """Release an interrupted trial after some seconds, for the next ``claim``."""
        with self._exclusive():
            self._add_seconds(claim.number, seconds)
            claim.log.close()

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"

    def _ask(self, number: int) -> int:
        """Record a new trial with its values; returns its number."""
        if self._grid:
            self._study.enqueue_trial(dict(zip(self._distributions, self._grid[number], strict=True)))
        else:
            seed = int(generator(VALUES_STREAM, self.seed, number).integers(2**32))
            self._study.sampler = self._optuna.samplers.RandomSampler(seed=seed)
        return self._study.ask(self._distributions).number

    def _take(self, trial: Any) -> Claim | None:
        """Claim an open trial, unless another worker holds its lock."""
        if trial.params.keys() != self._distributions.keys():
            self._tell(trial.number, "the machine stopped while its values were being written")
            return None
        folder = self.trial_folder(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / LOG).open("ab")
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.close()
            return None
        return Claim(trial.number, trial.params, folder, log)

    def _tell(self, number: int, outcome: float | str) -> None:
        if isinstance(outcome, str):
            self._set(number, "problem", outcome)
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, outcome)

    def _add_seconds(self, number: int, seconds: float) -> None:
        before = self._found()[number].user_attrs.get("seconds", 0.0)
        self._set(number, "seconds", before + seconds)

    def _set(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._found()[number]._trial_id, name, value)

    def _found(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)

    def _trial(self, found: Any) -> Trial:
        states: dict[str, State] = {"COMPLETE": "complete", "FAIL": "failed"}
        notes = found.user_attrs
        return Trial(
            number=found.number,
            state=states.get(found.state.name, "unfinished"),
            values=found.params,
            score=found.value,
            seconds=notes.get("seconds", 0.0),
            problem=notes.get("problem", ""),
        )

    def _distribution(self, parameter: Parameter) -> Any:
        kinds = self._optuna.distributions
        if parameter.choices:
            return kinds.CategoricalDistribution(parameter.choices)
        kind = kinds.IntDistribution if isinstance(parameter.low, int) else kinds.FloatDistribution
        return kind(parameter.low, parameter.high, log=parameter.log)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Exclude all other threads and processes from claiming and finishing trials."""
        with (self.folder / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
