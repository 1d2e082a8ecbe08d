"""The checkpoints of a run: ``last.pt``, the one before it, and the best."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from detect.config.recipe import Recipe
from detect.errors import InputError
from detect.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from detect.models.model import Model
from detect.runtime.distributed import all_reduce_sum, is_main_process, num_processes
from detect.runtime.files import atomic_path, remove_temporary_files
from detect.runtime.interruption import StopRequest
from detect.runtime.logs import LOGGER
from detect.training.epoch import Progress, Trainee
from detect.training.state import training_state
from detect.training.task import Task

LAST, PREVIOUS = "last.pt", "previous.pt"


class CheckpointKeeper:
    """Writes a run's checkpoints; of several processes the first writes for all.

    Args:
        folder: the run's.
        trainee: what learns.
        task: its data.
        progress: how far it has come.
        origin: the provenance, without the epoch.
        stop: the wish that the run ends.
    """

    def __init__(
        self,
        folder: Path,
        trainee: Trainee,
        task: Task,
        progress: Progress,
        origin: dict[str, Any],
        stop: StopRequest,
    ) -> None:
        self.folder, self.recipe = folder, task.recipe
        self.trainee, self.task, self.progress = trainee, task, progress
        self.origin, self.stop = origin, stop
        self._saved_at = time.monotonic()
        if is_main_process():
            remove_temporary_files(folder)

    def after_update(self) -> None:
        """Write ``last.pt`` if it is time; end the run, well kept, if somebody wants that.

        Raises:
            KeyboardInterrupt: somebody does; ``Terminated`` if it was by SIGTERM.
        """
        minutes = self.recipe.checkpoint_minutes
        is_due = minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes
        # All processes do the same, as soon as one is asked to.
        wants_end, wants_save = (total > 0 for total in all_reduce_sum([bool(self.stop), is_due]))
        if wants_end or wants_save:
            self.save(self.state())
        if wants_end:
            self.say_how_to_go_on()
            raise self.stop.exception()

    def keep_between_updates(self) -> None:
        """Write ``last.pt`` if nothing is in the middle of an update, and no other process must take part."""
        batches = self.progress.batches
        if num_processes() == 1 and batches > 0 and batches % self.trainee.accumulate == 0:
            self.save(self.state())
            self.say_how_to_go_on()

    def state(self, metrics: dict[str, float] | None = None) -> dict[str, Any]:
        """What ``last.pt`` would say now, without a copy of the tensors. All processes must call it.

        Args:
            metrics: of the weights as they are now, if they have been measured.
        """
        return {
            **self._facts(metrics or {}),
            "training": {**training_state(self.trainee, self.progress), "data": self.task.fingerprint},
        }

    def save(self, state: dict[str, Any]) -> None:
        """Write ``last.pt``; the one before becomes ``previous.pt``."""
        self._saved_at = time.monotonic()
        if is_main_process():
            _keep_previous(self.folder)
            save_checkpoint(self.folder / LAST, self.trainee.averaged, **state)

    def end_epoch(self, judged: Model, metrics: dict[str, float]) -> None:
        """Write a best checkpoint for each watched metric that has improved, and ``last.pt``.

        Args:
            judged: what was measured.
            metrics: of it; empty if nothing was.
        """
        best, epoch = self.progress.best, self.progress.epoch
        for name, metric in best_names(self.recipe).items():
            if metrics and metrics[metric] > best.get(metric, {"value": -2.0})["value"]:
                best[metric] = {"value": metrics[metric], "epoch": epoch}
                if is_main_process():
                    save_checkpoint(self.folder / name, judged, **self._facts(metrics))
        self.save(self.state(metrics))

    def say_how_to_go_on(self) -> None:
        """Tell where the run was stopped."""
        place = f"epoch {self.progress.epoch + 1}, after batch {self.progress.batches}"
        LOGGER.info("stopped in %s; to go on: tools/train.py --resume --out %s", place, self.folder)

    def _facts(self, metrics: dict[str, float]) -> dict[str, Any]:
        """What checkpoints say beside the weights."""
        return {
            **self.task.facts,
            "image_size": self.recipe.image_size,
            **{key: value for strategy in self.trainee.strategies for key, value in strategy.facts.items()},
            "metrics": metrics,
            "provenance": {**self.origin, "epoch": self.progress.epoch},
        }


def best_names(recipe: Recipe) -> dict[str, str]:
    """The watched metric of each best checkpoint, the first of them ``best.pt``."""
    watched = recipe.evaluation.save_best
    return {f"best_{metric}.pt" if rank else "best.pt": metric for rank, metric in enumerate(watched)}


def load_newest(folder: Path) -> Checkpoint:
    """``last.pt``, or the checkpoint before it if that cannot be read, which is said aloud.

    Raises:
        InputError: neither can be read.
    """
    try:
        return load_checkpoint(folder / LAST)
    except InputError as error:
        if not (folder / PREVIOUS).is_file():
            raise
        LOGGER.warning("%s; the checkpoint before it is taken: %s", error, folder / PREVIOUS)
    return load_checkpoint(folder / PREVIOUS)


def has_checkpoint(folder: Path) -> bool:
    """Whether a run in this folder can go on."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


def _keep_previous(folder: Path) -> None:
    """Give ``last.pt`` a second name, without a moment at which it has none."""
    last = folder / LAST
    if not last.is_file():
        return
    with atomic_path(folder / PREVIOUS) as temporary:
        temporary.unlink()
        try:
            os.link(last, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(last, temporary)
