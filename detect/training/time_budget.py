"""Epochs for a number of minutes: updates and a validation are timed on this machine before the training."""

from __future__ import annotations

import copy
import math
import time
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from detect.config.recipe import AnyRecipe, DetectionRecipe, Recipe
from detect.errors import InputError
from detect.models.model import Model
from detect.runtime.cpu import tuned_threads
from detect.runtime.device import Precision
from detect.runtime.distributed import broadcast_text
from detect.runtime.logs import LOGGER
from detect.training.epoch import choose_threads, train_batch
from detect.training.settings import RunSettings
from detect.training.state import TrainState, build_state, set_training_mode
from detect.training.task import Loader, Task

PROBE_SHARE = 0.05
"""Share of the time in which updates are timed."""
PROBE_BATCHES = 3
"""Least number of timed batches, after those of the first update: these are slower."""
VALIDATION_SHARE = 0.2
"""Largest share of the time for validation; it is less frequent then."""
RESERVE = 0.05
"""Share of the time for checkpoints and pictures, and for updates that take longer than those that were timed."""
LAST_EPOCHS_SHARE = 0.2
"""Largest share of ``augment.close_mosaic``, which is made for trainings of many epochs."""

USUAL_EPOCHS = 100
"""Epochs of the training that is timed and thrown away."""


@dataclass(frozen=True)
class Timing:
    """Seconds of the parts of a training.

    Args:
        spent: since the start of the program's work, with the measurement.
        setup: of what is done again before the first update: opening the images, with a cache.
        epoch: of an epoch without its validation.
        validation: of one validation.
    """

    spent: float
    setup: float
    epoch: float
    validation: float


def fit_epochs(timing: Timing, minutes: float) -> tuple[int, int]:
    """Choose the largest number of epochs that fits, and the epochs between two validations.

    Raises:
        InputError: one epoch does not fit.
    """
    left = 60 * minutes * (1 - RESERVE) - timing.spent - timing.setup
    every = max(1, math.ceil(timing.validation * (1 - VALIDATION_SHARE) / (VALIDATION_SHARE * timing.epoch)))
    rounds = max(0, math.floor(left / (every * timing.epoch + timing.validation)))
    rest = left - rounds * (every * timing.epoch + timing.validation) - timing.validation  # the last epoch has its own
    epochs = rounds * every + min(every - 1, max(0, math.floor(rest / timing.epoch)))
    if epochs < 1:
        needed = (timing.spent + timing.setup + timing.epoch + timing.validation) / 60 / (1 - RESERVE)
        raise InputError(
            f"--minutes {minutes:g}: too little for one epoch, which takes {timing.epoch:.0f} s here, beside "
            f"{timing.validation:.0f} s of validation and {timing.spent + timing.setup:.0f} s of preparation; at least "
            f"--minutes {math.ceil(10 * needed) / 10:g}, or fewer images (train_images), or a smaller --image-size"
        )
    return epochs, min(every, epochs)


def with_epochs(recipe: AnyRecipe, epochs: int, every: int) -> AnyRecipe:
    """Return the recipe with the chosen epochs, in the place of ``min_updates`` as well."""
    chosen = replace(recipe, epochs=epochs, min_updates=0, evaluation=replace(recipe.evaluation, every=every))
    if isinstance(chosen, DetectionRecipe):
        close_mosaic = min(chosen.augment.close_mosaic, math.floor(LAST_EPOCHS_SHARE * epochs))
        chosen = replace(chosen, augment=replace(chosen.augment, close_mosaic=close_mosaic))
    return chosen


def timed_recipe(recipe: AnyRecipe) -> AnyRecipe:
    """Return the recipe of the training that is timed: its first epoch has mosaics, and is at the full size.

    With TRD the run is shorter than asked for, by what its reduced epochs save.
    """
    timed = with_epochs(recipe, USUAL_EPOCHS, 1)
    if timed.trd.resolution > 0:
        timed = replace(timed, trd=replace(timed.trd, variant="regular"))  # every second epoch is reduced
    return timed


def fit_to_minutes(settings: RunSettings, task: Task, model: Model, start: float) -> tuple[RunSettings, Task]:
    """Choose the epochs of a run of ``settings.minutes``; log the choice.

    Args:
        settings: of the run.
        task: of the run.
        model: with the weights of its start; it is not changed.
        start: of the program's work, in seconds of ``time.monotonic``.

    Raises:
        InputError: one epoch does not fit.
    """
    assert settings.minutes is not None, "there is a budget"
    random_state = torch.get_rng_state()
    probe = _with_recipe(task, timed_recipe(task.recipe))
    timing, precision = _measure(settings, probe, copy.deepcopy(model), start)
    torch.set_rng_state(random_state)  # the run is that of --epochs
    epochs, every = fit_epochs(timing, settings.minutes)
    recipe = replace(with_epochs(settings.recipe, epochs, every), precision=precision)
    LOGGER.info(
        "minutes %g: %d epochs of %.1f s here, validation every %d of %.1f s; %.0f s were spent on timing",
        *(settings.minutes, epochs, timing.epoch, every, timing.validation, timing.spent),
    )
    return replace(settings, recipe=recipe), _with_recipe(task, recipe)


def _with_recipe(task: Task, recipe: Recipe) -> Task:
    other = copy.copy(task)
    other.recipe = recipe
    return other


def _measure(settings: RunSettings, task: Task, model: Model, start: float) -> tuple[Timing, Precision]:
    """Time a training that is thrown away; return its precision, so that it is not chosen again."""
    before = time.monotonic()
    loader = task.loader(model, settings.out)
    ready = time.monotonic()
    state = build_state(task, model, loader, settings.device)
    choose_threads(state, task.recipe)
    assert settings.minutes is not None, "there is a budget"
    epoch = _batch_seconds(state, loader, 60 * settings.minutes * PROBE_SHARE) * len(loader)
    validation = validation_seconds(task, state)
    mine = Timing(time.monotonic() - start, ready - before, epoch, validation)
    seconds = broadcast_text(" ".join(map(repr, (mine.spent, mine.setup, mine.epoch, mine.validation))))
    return Timing(*map(float, seconds.split())), state.precision


def validation_seconds(task: Task, state: TrainState) -> float:
    """Time a validation, with what the strategies do for it after the first epochs."""
    start, state.epoch = time.monotonic(), USUAL_EPOCHS - 1
    task.validate(state.eval_model(), state.device, state.precision)
    return time.monotonic() - start


def _batch_seconds(state: TrainState, loader: Loader, limit: float) -> float:
    """Mean time of a batch: of those of about ``limit`` seconds, or of all of an epoch."""
    set_training_mode(state.model)
    for strategy in state.strategies:
        strategy.on_epoch_start()
    first = min(state.accumulate, len(loader) - 1)  # warm-up: memory, kernels, worker processes
    start = since = time.monotonic()
    number = 0
    with closing(loader.epoch(0)) as batches:  # type: ignore[type-var]  # a generator
        for number, batch in enumerate(batches, start=1):
            with tuned_threads(state.device, batch.images.numel()):
                train_batch(state, batch, ends_update=number % state.accumulate == 0 or number == len(loader))
            state.end_batch({}, 0.0)
            now = time.monotonic()
            if number == first:
                since = now
            if number >= first + PROBE_BATCHES and now - start > limit:
                break
    return (time.monotonic() - since) / max(number - first, 1)
