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
from detect.training.checks import differences
from detect.training.state import TrainState
from detect.training.task import Task

LAST, PREVIOUS = "last.pt", "previous.pt"


class Checkpointer:
    """Writes the checkpoints of a run; of several processes the main one does.

    Args:
        folder: of the run.
        state: what ``last.pt`` saves.
        task: what checkpoints say of the data.
        provenance: without the epoch.
        stop: the graceful-stop request.
    """

    def __init__(
        self, folder: Path, state: TrainState, task: Task, provenance: dict[str, Any], stop: StopRequest
    ) -> None:
        self.folder, self.state, self.task = folder, state, task
        self.provenance, self.stop = provenance, stop
        self._saved_at = time.monotonic()
        if is_main_process():
            remove_temporary_files(folder)

    def after_update(self) -> None:
        """Write ``last.pt`` if it is due or a stop is requested.

        Raises:
            KeyboardInterrupt: a stop is requested; ``Terminated`` if it was by SIGTERM.
        """
        minutes = self.task.recipe.checkpoint_minutes
        is_due = minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes
        # All processes do the same as soon as one has a reason to.
        stops, saves = (total > 0 for total in all_reduce_sum([bool(self.stop), is_due]))
        if stops or saves:
            self.save(self.content())
        if stops:
            self.log_resume_command()
            raise self.stop.exception()

    def save_between_updates(self) -> None:
        """Write ``last.pt`` unless an update is half done or other processes would have to take part."""
        batches = self.state.batches
        if num_processes() == 1 and batches > 0 and batches % self.state.accumulate == 0:
            self.save(self.content())
            self.log_resume_command()

    def content(self, metrics: dict[str, float] | None = None) -> dict[str, Any]:
        """Return the fields of ``last.pt``, tensors not copied. All processes must call it."""
        training = {**self.state.state_dict(), "data": self.task.fingerprint}
        return {**self._fields(metrics or {}), "training": training}

    def save(self, content: dict[str, Any]) -> None:
        """Write ``last.pt``; the one before becomes ``previous.pt``."""
        self._saved_at = time.monotonic()
        if is_main_process():
            _keep_previous(self.folder)
            save_checkpoint(self.folder / LAST, self.state.averaged, **content)

    def end_epoch(self, eval_model: Model, metrics: dict[str, float]) -> None:
        """Write ``last.pt``, and ``eval_model`` as the best for each of its watched metrics that has improved."""
        for name, metric in best_names(self.task.recipe).items():
            if metrics and self.state.update_best(metric, metrics[metric]) and is_main_process():
                save_checkpoint(self.folder / name, eval_model, **self._fields(metrics))
        self.save(self.content(metrics))

    def log_resume_command(self) -> None:
        place = f"epoch {self.state.epoch + 1}, after batch {self.state.batches}"
        LOGGER.info("stopped in %s; to go on: detect train --resume --out %s", place, self.folder)

    def _fields(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Fields of a checkpoint beside the weights, as keywords of ``save_checkpoint``."""
        strategies = (strategy.checkpoint_extras for strategy in self.state.strategies)
        return {
            **self.task.checkpoint_fields,
            "image_size": self.task.recipe.image_size,
            **{key: value for extras in strategies for key, value in extras.items()},
            "metrics": metrics,
            "provenance": {**self.provenance, "epoch": self.state.epoch},
        }


def best_names(recipe: Recipe) -> dict[str, str]:
    """Map the file of each best checkpoint, first ``best.pt``, to its watched metric."""
    watched = recipe.evaluation.save_best
    return {f"best_{metric}.pt" if rank else "best.pt": metric for rank, metric in enumerate(watched)}


def load_resumed(folder: Path, task: Task, accept_other_data: bool) -> Checkpoint:
    """Load the checkpoint of a run to resume: ``last.pt``, or the one before it where that cannot be read.

    Args:
        folder: of the run.
        task: its data as they are now.
        accept_other_data: resume although images or boxes have changed; classes must be the same.

    Raises:
        InputError: no checkpoint can be read, or the data is not what the run was started with.
    """
    checkpoint = _load_newest(folder)
    if checkpoint.names != task.names:
        order = " in another order" * (sorted(checkpoint.names) == sorted(task.names))
        raise InputError(
            f"{folder / LAST}: was trained on the classes {', '.join(checkpoint.names)}, but the data has "
            f"{', '.join(task.names)}{order}; start a new run with --weights, which carries classes over by name"
        )
    value_range = task.checkpoint_fields["value_range"]
    if checkpoint.value_range != value_range:
        LOGGER.warning(
            "%s: was trained with the range of values %s, the data has %s now; state range in the data config",
            *(folder / LAST, checkpoint.value_range, value_range),
        )
    before = (checkpoint.training or {}).get("data")  # checkpoints of older versions have none
    if changes := differences(before, task.fingerprint) if isinstance(before, dict) else "":
        found = f"{folder / LAST}: the data is not what the run was started with: {changes}"
        if not accept_other_data:
            raise InputError(
                f"{found}; --resume anyway goes on with it, a new run with --weights starts from its weights"
            )
        LOGGER.warning("%s; it goes on, as was asked for", found)
    return checkpoint


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run in this folder can be resumed."""
    return any((folder / name).is_file() for name in (LAST, PREVIOUS))


def _load_newest(folder: Path) -> Checkpoint:
    try:
        return load_checkpoint(folder / LAST)
    except InputError as error:
        if not (folder / PREVIOUS).is_file():
            raise
        LOGGER.warning("%s; the checkpoint before it is taken: %s", error, folder / PREVIOUS)
    return load_checkpoint(folder / PREVIOUS)


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
