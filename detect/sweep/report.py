"""Outputs of a search: ``trials.csv``, the table, TensorBoard's HParams, the command that trains the best again."""

from __future__ import annotations

import csv
import io
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from detect.analysis.report import align
from detect.config.sweep import SweepConfig
from detect.errors import InputError
from detect.runtime.files import write_text
from detect.runtime.logs import LOGGER
from detect.sweep.ledger import LOG, Ledger, Trial, best_trial
from detect.sweep.picture import draw_parallel_coordinates
from detect.sweep.plan import Parameter, Plan, shown, training_arguments


def write_csv(path: Path, trials: Sequence[Trial], space: Sequence[Parameter], metric: str) -> None:
    keys = [parameter.key for parameter in space]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["number", "state", metric, *keys, "seconds", "problem"])
    for trial in trials:
        score = "" if trial.score is None else trial.score
        values = [trial.values.get(key, "") for key in keys]
        table.writerow([trial.number, trial.state, score, *values, f"{trial.seconds:.1f}", trial.problem])
    write_text(path, text.getvalue())


def trials_text(trials: Sequence[Trial], space: Sequence[Parameter], metric: str) -> str:
    """Format the trials as a table, best first; at the end those without a score, with their problems."""
    ranked = sorted(trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0)))
    lines = [("trial", metric, *(parameter.key for parameter in space), "seconds")]
    for trial in ranked:
        score = trial.state if trial.score is None else f"{trial.score:.4f}"
        values = (shown(trial.values.get(parameter.key, "")) for parameter in space)
        lines.append((str(trial.number), score, *values, f"{trial.seconds:.0f}"))
    problems = [f"trial {trial.number} failed: {trial.problem}" for trial in trials if trial.state == "failed"]
    return "\n".join([align(lines, left=0), *problems])


def write_hparams(folder: Path, trials: Sequence[Trial], metric: str) -> None:
    """Write the complete trials for the HParams page of TensorBoard; replaces the folder."""
    if folder.exists():
        shutil.rmtree(folder)
    with SummaryWriter(str(folder)) as writer:
        for trial in trials:
            if trial.score is not None:
                writer.add_hparams(trial.values, {f"val/{metric}": trial.score}, run_name=f"{trial.number:04d}")


def training_command(config: SweepConfig, trial: Trial) -> str:
    """The command that trains with a trial's values again."""
    return shlex.join(["detect", "train", *training_arguments(config, trial.values)])


def conclude(plan: Plan, ledger: Ledger) -> Iterator[str]:
    """Write the outputs.

    Yields:
        The table, and the places of the outputs.

    Raises:
        InputError: no trial was trained to its end.
    """
    trials, metric, folder = ledger.trials(), plan.config.metric, plan.folder
    write_csv(folder / "trials.csv", trials, plan.space, metric)
    yield trials_text(trials, plan.space, metric)
    unfinished = sum(trial.state == "unfinished" for trial in trials)
    if unfinished:
        LOGGER.warning("%d unfinished: another process trains them; when it has ended, --resume goes on", unfinished)
    best = best_trial(trials)
    if best is None and unfinished:
        return
    if best is None:
        raise InputError(f"{folder}: no trial was trained to its end; {ledger.trial_folder(0) / LOG} says why")
    draw_parallel_coordinates(folder / "parallel_coordinates.png", plan.space, trials, metric, plan.config.name)
    write_hparams(folder / "hparams", trials, metric)
    yield f"\nbest: trial {best.number}, {metric} {best.score:.4f}; to train it again:"
    yield training_command(plan.config, best)
    yield f"{folder}: trials.csv, parallel_coordinates.png, hparams (tensorboard --logdir {folder / 'hparams'}), trials"
