"""A training, from its settings to its best checkpoint.

Several processes (``detect.runtime.distributed``) share the images of a batch; all return the same.
``train`` raises ``InputError`` where settings, data or weights are wrong, or another process trains in the folder;
nothing is overwritten. A graceful-stop request ends the run after an update by ``KeyboardInterrupt``; ``last.pt`` is
written and can be resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from detect.config.base import to_plain
from detect.config.recipe import ClassificationRecipe, Recipe
from detect.models.checkpoint import load_checkpoint
from detect.models.model import Model
from detect.runtime.cpu import keep_freed_memory
from detect.runtime.distributed import barrier, is_main_process, num_processes
from detect.runtime.files import locked_folder
from detect.runtime.interruption import StopRequest
from detect.runtime.logs import LOGGER
from detect.runtime.reproducibility import collect_provenance, seed_everything
from detect.runtime.threads import use_threads
from detect.structures import Batch
from detect.training.batch_norms import measure_folded_norms
from detect.training.checkpoints import Checkpointer, best_names, load_resumed
from detect.training.checks import draw_images, with_enough_epochs
from detect.training.classification import ClassificationTask, open_classification_data
from detect.training.detection import DetectionTask
from detect.training.detection_data import epoch_images, prepare_detection_data
from detect.training.epoch import choose_threads, quiet_denormals, train_epoch
from detect.training.loggers import LoggedRun
from detect.training.recorder import Recorder, compute_line, write_settings
from detect.training.settings import RunSettings
from detect.training.state import TrainState, build_state, freeze
from detect.training.task import Loader, Task, Validation
from detect.training.time_budget import fit_to_minutes


def train(settings: RunSettings, stop: StopRequest | None = None) -> dict[str, float]:
    """Train, validate, keep ``best.pt`` and ``last.pt``; return the metrics of ``best.pt``."""
    with locked_folder(settings.out):
        return _train(settings, StopRequest() if stop is None else stop)


def _train(settings: RunSettings, stop: StopRequest) -> dict[str, float]:
    start, out = time.monotonic(), settings.out
    keep_freed_memory()
    use_threads(settings.recipe.threads)
    task = open_task(settings)
    seed_everything(settings.recipe.seed)
    resumed = load_resumed(out, task, settings.accept_other_data) if settings.resume else None
    model = resumed.model if resumed else task.prepare_model(settings.model, settings.weights)
    freeze(model, settings.recipe.freeze)
    if settings.minutes is not None and not resumed:
        # Times an epoch of a copy, and chooses as many as fit; a stop request need not wait for an update here.
        with stop.immediate():
            settings, task = fit_to_minutes(settings, task, model, start)
    recipe = settings.recipe
    loader = task.loader(model, out)
    if not resumed:
        # Imported weights may have their norms folded into the convolutions; training needs statistics again.
        measure_folded_norms(model, loader, recipe.batch_size, settings.device)
    state = build_state(task, model, loader, settings.device)
    choose_threads(state, recipe)
    if resumed:
        state.restore(resumed)
        batches = f" and batch {state.batches} of the next" if state.batches else ""
        LOGGER.info("resuming after epoch %d of %d%s", state.epoch, task.recipe.epochs, batches)
    resolved = _resolved(settings, state)
    checkpointer = Checkpointer(out, state, task, {**collect_provenance(), "settings": resolved, **task.counts}, stop)
    write_settings(out, resolved)
    logged = LoggedRun(out, resolved, resumed_after=state.epoch if resumed else None)
    LOGGER.info(
        "training %s in %s on %s, %d batches an epoch",
        model.definition.name,
        state.precision,
        settings.device if num_processes() == 1 else f"{num_processes()} x {settings.device.type}",
        len(loader),
    )
    with Recorder(logged, settings.loggers) as recorder, quiet_denormals():
        _train_epochs(state, task, loader, checkpointer, recorder)
        barrier("the end of the run")  # the main process has written the best checkpoints
        for name in best_names(recipe):
            for strategy in state.strategies:
                strategy.on_train_end(out / name)
        for line in (compute_line(recorder.rows), *(x for s in state.strategies for x in s.report(recorder.rows))):
            LOGGER.info("%s", line)
    return load_checkpoint(out / "best.pt").metrics


def open_task(settings: RunSettings) -> Task:
    """Read and check the data; the recipe's kind decides the task."""
    recipe = settings.recipe
    if isinstance(recipe, ClassificationRecipe):
        classes = open_classification_data(settings.data, settings.strict)
        classes = replace(classes, train=draw_images(classes.train, recipe))
        return ClassificationTask(classes, with_enough_epochs(recipe, len(classes.train)), settings.strict)
    data = prepare_detection_data(settings.data, recipe, settings.strict)
    return DetectionTask(data, with_enough_epochs(recipe, epoch_images(data.train, recipe)), settings.strict)


def _train_epochs(
    state: TrainState, task: Task, loader: Loader, checkpointer: Checkpointer, recorder: Recorder
) -> None:
    """Train, validate, record and save, epoch by epoch."""
    recipe = task.recipe
    record_batch: Callable[[Batch], None] | None = partial(_record_batch, task, recorder, state.epoch)  # once
    while state.epoch < recipe.epochs and not _is_stalled(recipe, state):
        start = time.monotonic() - state.seconds  # a resumed epoch has been running for that long
        values = train_epoch(state, loader, record_batch, checkpointer.after_update, checkpointer.save_between_updates)
        record_batch = None
        values |= {f"rate/{group['name']}": group["lr"] for group in state.optimizer.param_groups}
        values["time/epoch_s"] = time.monotonic() - start
        eval_model, metrics = state.averaged, {}
        if state.epoch + 1 == recipe.epochs or (state.epoch + 1) % recipe.evaluation.every == 0:
            eval_model, found = _validate(state, task, checkpointer)
            metrics = found.metrics
            if is_main_process():
                recorder.picture("val/predictions", found.picture(), state.epoch + 1)
        values |= {f"val/{name}": value for name, value in metrics.items()}
        state.end_epoch()
        recorder.epoch(state.epoch, values)
        checkpointer.end_epoch(eval_model, metrics)
        _log_epoch(task, state.epoch, values, time.monotonic() - start)


def _record_batch(task: Task, recorder: Recorder, epoch: int, batch: Batch) -> None:
    if is_main_process():
        recorder.picture("train/batch", task.batch_picture(batch), epoch + 1)


def _validate(state: TrainState, task: Task, checkpointer: Checkpointer) -> tuple[Model, Validation]:
    """The averaged model as the strategies prepare it for evaluation, and its metrics.

    Raises:
        KeyboardInterrupt: a stop was requested; the state from before the validation is saved.
    """
    before = checkpointer.content()
    try:
        with checkpointer.stop.immediate():
            model = state.eval_model()
            return model, task.validate(model, state.device, state.precision)
    except KeyboardInterrupt:
        checkpointer.save(before)
        checkpointer.log_resume_command()
        raise


def _is_stalled(recipe: Recipe, state: TrainState) -> bool:
    """Return whether the first watched metric has not improved for ``patience`` epochs, and log it."""
    metric, patience = recipe.evaluation.save_best[0], recipe.evaluation.patience
    best = state.best.get(metric)
    is_stalled = patience > 0 and best is not None and state.epoch - best["epoch"] >= patience
    if is_stalled:
        LOGGER.info("stopped: no better %s for %d epochs", metric, patience)
    return is_stalled


def _log_epoch(task: Task, epoch: int, values: dict[str, float], seconds: float) -> None:
    losses = "  ".join(f"{tag.removeprefix('loss/')} {values[tag]:.4f}" for tag in values if tag.startswith("loss/"))
    scores = "  ".join(f"{name} {values[f'val/{name}']:.3f}" for name in task.logged if f"val/{name}" in values)
    epochs = task.recipe.epochs
    left = seconds * (epochs - epoch) / 60
    LOGGER.info("epoch %d/%d  %s  %s  %.1f s, %.0f min left", epoch, epochs, losses, scores, seconds, left)


def _resolved(settings: RunSettings, state: TrainState) -> dict[str, Any]:
    """The settings as plain values for ``config.yaml``, with the chosen precision, which a resumed run keeps."""
    return {
        "model": settings.model or state.model.definition.name,
        "weights": str(settings.weights) if settings.weights else None,
        "data": to_plain(settings.data),
        "recipe": to_plain(replace(settings.recipe, precision=state.precision)),
        "task": "classification" if isinstance(settings.recipe, ClassificationRecipe) else "detection",
        "strict": settings.strict,
        "logger": list(settings.loggers),
    }
