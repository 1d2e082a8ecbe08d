"""One pass over the training set."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detect.errors import InputError
from detect.models.model import Model, network_input
from detect.runtime.cpu import tuned_threads
from detect.runtime.device import Precision, autocast
from detect.runtime.distributed import all_reduce_sum, num_processes
from detect.runtime.interruption import LostContactError
from detect.runtime.progress import progress_bar
from detect.structures import Batch
from detect.training.compute import ComputeMeter
from detect.training.ema import WeightAverage
from detect.training.optimizer import Schedule
from detect.training.preparation import set_training_mode
from detect.training.strategy import Part, Strategy, size_of, split_batch
from detect.training.task import Criterion, Loader


@dataclass(frozen=True)
class Trainee:
    """What learns, and by what.

    Args:
        model: on ``device``.
        network: what is called: the model, or what adds up its gradients over several processes.
        ema: its average, if there is one.
        loss: the criterion.
        optimizer: with the schedule's groups.
        scaler: of fp16 gradients; off otherwise.
        schedule: rates by update.
        accumulate: batches per update.
        device: where.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        meter: counts multiply-adds.
        strategies: what changes the batches, one after the other.
        loss_scale: factor on the loss of each image: 1, so that the loss of an update is the sum over its images, or
            one by their number for their mean.
    """

    model: Model
    network: nn.Module
    ema: WeightAverage | None
    loss: Criterion
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    accumulate: int
    device: torch.device
    precision: Precision
    meter: ComputeMeter
    strategies: tuple[Strategy, ...] = ()
    loss_scale: float = 1.0

    @property
    def averaged(self) -> Model:
        """The weights that count: the average if there is one."""
        return self.model if self.ema is None else self.ema.module


@dataclass
class Progress:
    """How far a run has come.

    Args:
        epoch: finished epochs.
        best: for each watched metric its best ``value`` and ``epoch``.
        batches: done of the epoch that is going on.
        sums: of the loss terms, over these batches.
        seconds: that they took.
    """

    epoch: int = 0
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    batches: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def end_epoch(self) -> None:
        """One more epoch is finished."""
        self.epoch, self.batches, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0


def train_epoch(
    trainee: Trainee,
    loader: Loader,
    progress: Progress,
    on_first_batch: Callable[[Batch], None] | None = None,
    after_update: Callable[[], None] | None = None,
    on_no_batch: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Learn from every batch of an epoch once.

    Args:
        trainee: what learns.
        loader: the training batches.
        progress: which epoch, and which of its batches are done; is kept up to date, but for the end of the epoch.
        on_first_batch: is shown the epoch's first batch.
        after_update: is called when ``trainee`` and ``progress`` are all that the rest of the run depends on.
        on_no_batch: is called before the error that ends the run because no batch comes any more.

    Returns:
        By TensorBoard tag: mean loss terms over the epoch (``loss/box``), multiply-adds of an image (``compute/gmacs``)
        and what the strategies record.

    Raises:
        InputError: a loss is not finite; nothing of that batch has been learnt.
    """
    set_training_mode(trainee.model)
    if progress.batches == 0:
        trainee.meter.start_epoch()
        for strategy in trainee.strategies:
            strategy.start_epoch()
    epoch, epochs, count = progress.epoch, trainee.schedule.epochs, len(loader)
    start = time.monotonic() - progress.seconds
    batches = _with_last_words(loader.epoch(epoch, progress.batches), on_no_batch)
    title = f"epoch {epoch + 1}/{epochs}"
    with progress_bar(batches, title, count, initial=progress.batches) as bar:
        for number, batch in enumerate(bar, start=progress.batches + 1):
            if number == 1 and on_first_batch is not None:
                on_first_batch(batch)
            update = epoch * trainee.schedule.updates_per_epoch + (number - 1) // trainee.accumulate
            is_whole = number % trainee.accumulate == 0 or number == count
            with tuned_threads(trainee.device, batch.images.numel()):
                terms = _step(trainee, _to_device(batch, trainee.device), progress, update, is_whole)
            for name, value in terms.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            progress.batches, progress.seconds = number, time.monotonic() - start
            shown = {name: f"{total / number:.4f}" for name, total in progress.sums.items()}
            bar.set_postfix({**shown, "memory": _memory(trainee.device)}, refresh=False)
            if is_whole and after_update is not None:
                after_update()
    values = {f"loss/{name}": total / max(progress.batches, 1) for name, total in progress.sums.items()}
    values |= trainee.meter.values()
    for strategy in trainee.strategies:
        values |= strategy.end_epoch()
    return values


def _with_last_words(batches: Iterator[Batch], on_no_batch: Callable[[], None] | None) -> Iterator[Batch]:
    """The batches; errors of their consumer do not come here."""
    try:
        yield from batches
    except (LostContactError, KeyboardInterrupt):
        if on_no_batch is not None:
            on_no_batch()
        raise


def _step(trainee: Trainee, whole: Part, progress: Progress, update: int, is_whole: bool) -> dict[str, float]:
    """Forward and backward of one batch, part by part, and the update when enough batches have gathered."""
    trainee.schedule.apply(trainee.optimizer, update)
    parts = split_batch(trainee.strategies, whole, progress.epoch, progress.batches + 1)
    sums: dict[str, float] = {}
    count = 0
    for number, part in enumerate(parts, start=1):
        terms, images = _backward(trainee, part, update, is_last=is_whole and number == len(parts))
        trainee.meter.add(images, size_of(part[0]), trainee.model.graph.transform, size_of(whole[0]))
        count += images
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value * images
    values = {name: total / count for name, total in sums.items()}
    if is_whole:
        _update(trainee, values, update)
    return values


def _update(trainee: Trainee, values: dict[str, float], update: int) -> None:
    """Let the gathered gradients move the weights, and the weights their average."""
    trainee.scaler.unscale_(trainee.optimizer)
    norm = nn.utils.clip_grad_norm_(trainee.model.parameters(), trainee.schedule.config.clip_norm or math.inf)
    if not (trainee.scaler.is_enabled() or math.isfinite(norm)):  # the scaler skips such updates itself
        raise _not_finite({**values, "gradient": float(norm)}, update, trainee)
    trainee.scaler.step(trainee.optimizer)
    trainee.scaler.update()
    trainee.optimizer.zero_grad(set_to_none=True)
    if trainee.ema is not None:
        trainee.ema.update_parameters(trainee.model)


def _backward(trainee: Trainee, part: Part, update: int, is_last: bool) -> tuple[dict[str, float], int]:
    """Forward and backward of images of one size; the terms of their loss, and how many all processes had.

    The gradients of the processes are added up with the last part of an update, those before wait.
    """
    images, targets = part
    network = trainee.network
    waits = network.no_sync() if isinstance(network, DistributedDataParallel) and not is_last else nullcontext()
    with waits:
        with autocast(trainee.precision, trainee.device):
            raw = network(images)
        terms = trainee.loss(raw, targets)
        shares = terms.values()
        values = dict(zip(shares, all_reduce_sum(list(shares.values())), strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            raise _not_finite(values, update, trainee)
        # A sum over images, so that parts and accumulated batches add up to one large batch. Of the gradients of
        # several processes PyTorch takes the mean.
        objective = terms.total * (terms.num_images * num_processes() * trainee.loss_scale)
        trainee.scaler.scale(objective).backward()
    return values, terms.num_images


def _not_finite(values: dict[str, float], update: int, trainee: Trainee) -> InputError:
    terms = ", ".join(f"{name} {value}" for name, value in values.items())
    rate = trainee.schedule.rate(update, "weights")
    return InputError(
        f"the loss is not finite at update {update}: {terms}; checkpoints written before are good. "
        f"Try a lower optimizer.lr (now {rate:.3g}), optimizer.clip_norm, or precision: fp32 (now {trainee.precision})"
    )


def _to_device(batch: Batch, device: torch.device) -> Part:
    """Images as (B, 3, H, W) float in [0, 1], channels last in memory, and targets."""
    return network_input(batch.images, device), batch.targets.to(device)


def _memory(device: torch.device) -> str:
    """Peak memory of the GPU, or of this process."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}G"
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f}G"


@contextmanager
def quiet_denormals() -> Iterator[None]:
    """Treat denormal floats as zero while training: on a CPU they are many times slower and mean nothing here."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
