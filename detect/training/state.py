"""The state of a training: what its updates change, what a checkpoint saves and what resuming restores."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detect.errors import InputError, did_you_mean
from detect.models.checkpoint import Checkpoint
from detect.models.model import Model
from detect.models.rows import set_norms
from detect.runtime.device import Precision, choose_precision
from detect.runtime.distributed import all_gather, broadcast_text, num_processes, rank
from detect.training.batch_norms import prepare_norms
from detect.training.optimizer import (
    REFERENCE_BATCH,
    Schedule,
    WeightAverage,
    batches_per_update,
    build_ema,
    build_optimizer,
)
from detect.training.recorder import ComputeMeter
from detect.training.strategy import Strategy, open_strategies
from detect.training.task import Criterion, Loader, Task

_COUNTERS = ("epoch", "best", "batches", "sums", "seconds")
_DDP_KEYS = inspect.signature(DistributedDataParallel).parameters


@dataclass
class TrainState:
    """Everything that an update changes, and what changes it. Only its own methods assign its counters.

    Args:
        model: on ``device``.
        network: the forward pass: ``model``, or ``DistributedDataParallel`` around it.
        ema: moving average of the weights, if there is one.
        criterion: the loss.
        optimizer: with the groups of ``build_optimizer``.
        scaler: of fp16 gradients; disabled in other precisions.
        schedule: learning rates and momentum of each update.
        accumulate: batches per update.
        device: of model and batches.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        meter: counts multiply-adds.
        strategies: in the order in which they change a batch.
        loss_scale: factor on the loss of each image: 1 for the sum over the images of an update, 1 / images for their
            mean.
        epoch: finished epochs.
        best: ``value`` and ``epoch`` of each watched metric.
        batches: finished batches of the current epoch.
        sums: of the loss terms, over these batches.
        seconds: time of these batches.
    """

    model: Model
    network: nn.Module
    ema: WeightAverage | None
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    accumulate: int
    device: torch.device
    precision: Precision
    meter: ComputeMeter
    strategies: tuple[Strategy, ...] = ()
    loss_scale: float = 1.0
    epoch: int = 0
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    batches: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def averaged(self) -> Model:
        """The model that is evaluated and saved: the EMA, or the trained model itself where there is none."""
        return self.model if self.ema is None else self.ema.module

    def eval_model(self) -> Model:
        """The averaged model as the strategies prepare it for evaluation."""
        model = self.averaged
        for strategy in self.strategies:
            model = strategy.eval_model(model, self.epoch)
        return model

    @property
    def update(self) -> int:
        """The update that the next batch belongs to, counted from 0 over all epochs."""
        return self.epoch * self.schedule.updates_per_epoch + self.batches // self.accumulate

    def step(self) -> float:
        """Clip, step, update the EMA; change nothing where the gradient is not finite (fp16's scaler sees to that).

        Returns:
            Norm of the gradient before clipping.
        """
        self.scaler.unscale_(self.optimizer)
        limit = self.schedule.config.clip_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                self.ema.update_parameters(self.model)
        return norm

    def end_batch(self, terms: dict[str, float], seconds: float) -> None:
        """Count a finished batch with its loss terms; ``seconds`` have passed since the start of the epoch."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.batches, self.seconds = self.batches + 1, seconds

    def end_epoch(self) -> None:
        self.epoch, self.batches, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0

    def update_best(self, metric: str, value: float) -> bool:
        """Keep the value of a watched metric if it is the best so far, and return whether it is."""
        is_better = value > self.best.get(metric, {"value": -2.0})["value"]
        if is_better:
            self.best[metric] = {"value": value, "epoch": self.epoch}
        return is_better

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of the run depends on, between two updates. All processes must call it.

        Samples, rates and the draws of the strategies are functions of (seed, epoch, batch) and need no state.
        """
        return {
            **copy.deepcopy({name: getattr(self, name) for name in _COUNTERS}),
            "model": self.model.state_dict(),
            "ema_updates": int(self.ema.n_averaged) if self.ema else 0,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "meter": self.meter.state_dict(),
            "strategies": [strategy.state_dict() for strategy in self.strategies],
            "rng": _random_states(self.device),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a ``last.pt``, from whose model this state was built.

        Raises:
            InputError: the checkpoint holds no training state, or one of another run.
        """
        state = checkpoint.training
        if state is None:
            raise InputError("the checkpoint holds weights only; resuming needs last.pt of an unfinished run")
        try:
            # The EMA is a copy of the checkpoint's model, whose weights are averaged: it only lacks its counter.
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.n_averaged.fill_(state["ema_updates"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.meter.load_state_dict(state["meter"])
            for strategy, counted in zip(self.strategies, state["strategies"], strict=True):
                strategy.load_state_dict(counted)
            _restore_random_states(state["rng"])
            for name in _COUNTERS:
                setattr(self, name, state[name])
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise InputError(
                f"the checkpoint's training state does not fit this run: {str(error).splitlines()[0]}"
            ) from None


def build_state(task: Task, model: Model, loader: Loader, device: torch.device) -> TrainState:
    """Build the optimizer and what else trains a model, from the recipe of its task.

    Args:
        task: decides the loss.
        model: is moved to ``device`` and gets the norms of training.
        loader: the training batches.
        device: of the training.
    """
    recipe, batches = task.recipe, len(loader)
    precision: Any = broadcast_text(choose_precision(recipe.precision, device))
    model = model.to(device).to(memory_format=torch.channels_last)
    prepare_norms(model)
    if recipe.norm_momentum:
        set_norms(model, {"momentum": recipe.norm_momentum})
    accumulate = batches_per_update(recipe, batches)
    images_per_update = recipe.batch_size * accumulate
    # Where the loss is a mean, its weight relative to the decay does not grow with the batch.
    decay_batch = images_per_update if task.sums_images else REFERENCE_BATCH
    strategies = open_strategies(recipe, model, loader, device, precision)
    return TrainState(
        model=model,
        network=_distributed(model, device, strategies),
        ema=build_ema(model, recipe.ema) if recipe.ema.decay > 0 else None,
        criterion=task.criterion(model),
        optimizer=build_optimizer(
            model, recipe.optimizer, decay_batch, torch.bfloat16 if precision == "bf16" else torch.float32
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        schedule=Schedule(recipe.optimizer, -(-batches // accumulate), recipe.epochs),
        accumulate=accumulate,
        device=device,
        precision=precision,
        meter=ComputeMeter(model.graph, model.num_classes),
        strategies=strategies,
        loss_scale=1.0 if task.sums_images else 1 / images_per_update,
    )


def freeze(model: Model, names: tuple[str, ...]) -> None:
    """Stop sections or rows from learning; ``set_training_mode`` keeps the statistics of their norms.

    Args:
        model: is changed.
        names: sections (``backbone``) or rows (``stem``).

    Raises:
        InputError: a name is neither a section nor a row, or nothing is left to train.
    """
    rows = {row.name: row.section for row in model.definition.rows}
    allowed = {*rows, *rows.values()}
    for name in names:
        if name not in allowed:
            raise InputError(f"freeze: unknown section or row {name!r}{did_you_mean(name, allowed)}")
    for row, section in rows.items():
        if row in names or section in names:
            model.graph.layers[row].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"freeze: {', '.join(names)} is the whole model; nothing would learn")


def set_training_mode(model: Model) -> None:
    """Set training mode, but evaluation mode for frozen norms, whose statistics must not drift."""
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and not layer.weight.requires_grad:
            layer.eval()


def _distributed(model: Model, device: torch.device, strategies: tuple[Strategy, ...]) -> nn.Module:
    """The model, in several processes wrapped so that its gradients are the mean over all of them."""
    if num_processes() == 1:
        return model
    # The wrapper would wait for gradients that a batch does not give.
    own_gradients = [name for strategy in strategies for name in strategy.own_gradients]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, own_gradients)
    # PyTorch warns of 1 x 1 kernels, of which two memory layouts are the same.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # Statistics of the norms are the same everywhere already. The newer name does the same without a warning.
    of_buffers = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_KEYS else "broadcast_buffers"
    options: dict[str, Any] = {of_buffers: False, "device_ids": [device] if device.type == "cuda" else None}
    return DistributedDataParallel(model, **options)


def _random_states(device: torch.device) -> list[list[torch.Tensor]]:
    """States of PyTorch's generators of the CPU and, if used, of the GPU, in each process."""
    states = [torch.get_rng_state()]  # Nothing draws from the global generators of Python and NumPy.
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [[torch.from_numpy(part) for part in all_gather(state.numpy())] for state in states]


def _restore_random_states(states: list[list[torch.Tensor]]) -> None:
    """Restore the generators of this process; a process that did not exist keeps the state of its seed."""
    for of_processes, put_back in zip(states, (torch.set_rng_state, torch.cuda.set_rng_state), strict=False):
        if rank() < len(of_processes) and (put_back is torch.set_rng_state or torch.cuda.is_available()):
            put_back(of_processes[rank()])
