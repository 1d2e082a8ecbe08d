"""One epoch: forward, backward and update for each batch."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel

from detect.config.recipe import Recipe
from detect.errors import InputError
from detect.evaluation.forward import evaluation_mode
from detect.models.model import network_input
from detect.runtime.cpu import tune_threads, tuned_threads
from detect.runtime.device import autocast
from detect.runtime.distributed import all_reduce_sum, num_processes
from detect.runtime.interruption import LostContactError
from detect.runtime.progress import progress_bar
from detect.structures import Batch
from detect.training.state import TrainState, set_training_mode
from detect.training.strategy import Part, size_of, split_batch
from detect.training.task import Loader

_TRIAL_IMAGES = 8
"""Largest batch on which numbers of threads are timed."""


def train_epoch(
    state: TrainState,
    loader: Loader,
    on_first_batch: Callable[[Batch], None] | None = None,
    after_update: Callable[[], None] | None = None,
    on_interrupt: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Train on every batch of an epoch, in a resumed epoch on those that are left.

    Args:
        state: is changed; ``state.end_epoch`` is left to the caller.
        loader: the training batches.
        on_first_batch: called with the first batch of the epoch.
        after_update: called after each update, when ``state`` can be saved.
        on_interrupt: called when Ctrl-C or the loss of another process ends the wait for a batch, before the error.

    Returns:
        By TensorBoard tag: mean loss terms over the epoch (``loss/box``), a classifier's ``train/top1``, multiply-adds
        of an image (``compute/gmacs``) and the values of the strategies.

    Raises:
        InputError: a loss is not finite; its batch has changed nothing.
    """
    set_training_mode(state.model)
    if state.batches == 0:
        state.meter.start_epoch()
        for strategy in state.strategies:
            strategy.on_epoch_start()
    count, start = len(loader), time.monotonic() - state.seconds
    batches = _interruptible(loader.epoch(state.epoch, state.batches), on_interrupt)
    title = f"epoch {state.epoch + 1}/{state.schedule.epochs}"
    with progress_bar(batches, title, count, initial=state.batches) as bar:
        for batch in bar:
            if state.batches == 0 and on_first_batch is not None:
                on_first_batch(batch)
            number = state.batches + 1
            ends_update = number % state.accumulate == 0 or number == count
            with tuned_threads(state.device, batch.images.numel()):
                terms = train_batch(state, batch, ends_update)
            state.end_batch(terms, time.monotonic() - start)
            postfix = {name: f"{total / number:.4f}" for name, total in state.sums.items()}
            bar.set_postfix({**postfix, "memory": _memory(state.device)}, refresh=False)
            if ends_update and after_update is not None:
                after_update()
    means = {name: total / max(state.batches, 1) for name, total in state.sums.items()}
    values = {name if "/" in name else f"loss/{name}": mean for name, mean in means.items()}
    values |= state.meter.values()
    for strategy in state.strategies:
        values |= strategy.on_epoch_end()
    return values


def train_batch(state: TrainState, batch: Batch, ends_update: bool) -> dict[str, float]:
    """Forward and backward of each part of a batch, then the update; return the mean loss terms."""
    state.schedule.apply(state.optimizer, state.update)
    # (B, 3, H, W) float in [0, 1], channels last in memory
    whole: Part = network_input(batch.images, state.device), batch.targets.to(state.device)
    parts = split_batch(state.strategies, whole, state.epoch, state.batches + 1)
    sums: dict[str, float] = {}
    count = 0
    for number, part in enumerate(parts, start=1):
        for strategy in state.strategies:
            strategy.on_part(number - 1)
        terms, images = _backward(state, part, all_reduce=ends_update and number == len(parts))
        state.meter.add_pass(images, size_of(part[0]), state.model.graph.transform)
        count += images
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value * images
    for strategy in state.strategies:
        strategy.on_batch_end(ends_update)
    # A process without images of its own has as many passes of each image as parts.
    passes = sum(len(images) for images, _ in parts) / len(whole[0]) if len(whole[0]) else len(parts)
    state.meter.add_images(round(count / passes), size_of(whole[0]))
    values = {name: total / count for name, total in sums.items()}
    if ends_update:
        norm = state.step()
        if not (math.isfinite(norm) or state.scaler.is_enabled()):
            raise _not_finite({**values, "gradient": norm}, state)
    return values


def _backward(state: TrainState, part: Part, all_reduce: bool) -> tuple[dict[str, float], int]:
    """Forward and backward of images of one size; return their loss terms and number, over all processes.

    The processes exchange gradients once per update: with ``all_reduce``, in its last part.
    """
    images, targets = part
    network = state.network
    waits = network.no_sync() if isinstance(network, DistributedDataParallel) and not all_reduce else nullcontext()
    with waits:
        with autocast(state.precision, state.device):
            raw = network(images)
        terms = state.criterion(raw, targets)
        shares = terms.values()
        values = dict(zip(shares, all_reduce_sum(list(shares.values())), strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            raise _not_finite(values, state)
        # A sum over images, so that parts and accumulated batches add up to one large batch. Of the gradients of
        # several processes PyTorch takes the mean.
        loss = terms.total
        for strategy in state.strategies:
            loss = strategy.on_loss(terms, loss, raw)
        objective = loss * (terms.num_images * num_processes() * state.loss_scale)
        state.scaler.scale(objective).backward()
    return values, terms.num_images


@torch.inference_mode()
def choose_threads(state: TrainState, recipe: Recipe) -> None:
    """Time numbers of threads before the first update, so that all updates, and a resumed run, have the same one."""
    side, count = recipe.image_size, min(recipe.batch_size, _TRIAL_IMAGES)
    images = network_input(torch.zeros(count, side, side, 3, dtype=torch.uint8), state.device)
    with evaluation_mode(state.model), autocast(state.precision, state.device):
        tune_threads(lambda: state.model(images), state.device)


@contextmanager
def quiet_denormals() -> Iterator[None]:
    """Treat denormal floats as zero while training: on a CPU they are many times slower and mean nothing here."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _interruptible(batches: Iterator[Batch], on_interrupt: Callable[[], None] | None) -> Iterator[Batch]:
    """The batches; errors of their consumer do not come here."""
    try:
        yield from batches
    except (LostContactError, KeyboardInterrupt):
        if on_interrupt is not None:
            on_interrupt()
        raise


def _not_finite(values: dict[str, float], state: TrainState) -> InputError:
    terms = ", ".join(f"{name} {value}" for name, value in values.items())
    rate = state.schedule.rate(state.update, "weights")
    return InputError(
        f"the loss is not finite at update {state.update}: {terms}; checkpoints written before are good. "
        f"Try a lower optimizer.lr (now {rate:.3g}), optimizer.clip_norm, or precision: fp32 (now {state.precision})"
    )


def _memory(device: torch.device) -> str:
    """Peak memory of the GPU, or of this process."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}G"
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f}G"
