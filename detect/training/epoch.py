"""One pass over the training set."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from detect.errors import InputError
from detect.models.model import Model, network_input
from detect.runtime.precision import Precision, autocast
from detect.structures import Batch
from detect.training.compute import ComputeMeter
from detect.training.ema import WeightAverage
from detect.training.optimizer import Schedule
from detect.training.preparation import set_training_mode
from detect.training.strategy import AnyTargets, Part, Strategy, size_of, split_batch
from detect.training.task import Criterion, Loader


@dataclass(frozen=True)
class Trainee:
    """What learns, and by what.

    Args:
        model: on ``device``.
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


def train_epoch(
    trainee: Trainee,
    loader: Loader,
    epoch: int,
    on_first_batch: Callable[[Batch], None] | None = None,
) -> dict[str, float]:
    """Learn from every batch of an epoch once.

    Args:
        trainee: what learns.
        loader: the training batches.
        epoch: counted from 0.
        on_first_batch: is shown the first batch.

    Returns:
        By TensorBoard tag: mean loss terms over the epoch (``loss/box``), multiply-adds of an image (``compute/gmacs``)
        and what the strategies record.

    Raises:
        InputError: a loss is not finite; nothing of that batch has been learnt.
    """
    set_training_mode(trainee.model)
    trainee.meter.start_epoch()
    sums: dict[str, float] = {}
    number, epochs = 0, trainee.schedule.epochs
    with tqdm(loader.epoch(epoch), total=len(loader), desc=f"epoch {epoch + 1}/{epochs}", leave=False) as bar:
        for number, batch in enumerate(bar, start=1):
            if number == 1 and on_first_batch is not None:
                on_first_batch(batch)
            update = epoch * trainee.schedule.updates_per_epoch + (number - 1) // trainee.accumulate
            whole = _to_device(batch, trainee.device)
            parts = split_batch(trainee.strategies, whole, epoch, number)
            terms = _step(trainee, parts, update, number, last=number == len(loader))
            for images, _ in parts:
                trainee.meter.add(len(images), size_of(images), trainee.model.instance, size_of(whole[0]))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            shown = {name: f"{total / number:.4f}" for name, total in sums.items()}
            bar.set_postfix({**shown, "memory": _memory(trainee.device)}, refresh=False)
    values = {f"loss/{name}": total / max(number, 1) for name, total in sums.items()} | trainee.meter.values()
    for strategy in trainee.strategies:
        values |= strategy.end_epoch()
    return values


def _step(trainee: Trainee, parts: list[Part], update: int, number: int, last: bool) -> dict[str, float]:
    """Forward and backward of one batch, part by part, and the update when enough batches have gathered."""
    trainee.schedule.apply(trainee.optimizer, update)
    values: dict[str, float] = {}
    count = sum(len(images) for images, _ in parts)
    for images, targets in parts:
        for name, value in _backward(trainee, images, targets, update).items():
            values[name] = values.get(name, 0.0) + value * (len(images) / count)
    if number % trainee.accumulate == 0 or last:
        trainee.scaler.unscale_(trainee.optimizer)
        norm = nn.utils.clip_grad_norm_(trainee.model.parameters(), trainee.schedule.config.clip_norm or math.inf)
        if not (trainee.scaler.is_enabled() or math.isfinite(norm)):  # the scaler skips such updates itself
            raise _not_finite({**values, "gradient": float(norm)}, update, trainee)
        trainee.scaler.step(trainee.optimizer)
        trainee.scaler.update()
        trainee.optimizer.zero_grad(set_to_none=True)
        if trainee.ema is not None:
            trainee.ema.update_parameters(trainee.model)
    return values


def _backward(trainee: Trainee, images: Tensor, targets: AnyTargets, update: int) -> dict[str, float]:
    """Forward and backward of images of one size; the terms of their loss."""
    with autocast(trainee.precision, trainee.device):
        raw = trainee.model(images)
    terms = trainee.loss(raw, targets)
    values = terms.values()
    if not all(math.isfinite(value) for value in values.values()):
        raise _not_finite(values, update, trainee)
    # A sum over images, so that parts and accumulated batches add up to one large batch.
    objective = terms.total * len(images) * trainee.loss_scale
    trainee.scaler.scale(objective).backward()
    return values


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
