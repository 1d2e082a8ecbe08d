"""Optimizer, learning-rate schedule and moving average of the weights.

Rates are a pure function of the number of the update, so resuming changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from detect.config.recipe import EmaConfig, OptimizerConfig, Recipe
from detect.models.model import Model
from detect.training.muon import Muon

_Tensors = tuple[Tensor, ...] | list[Tensor]
REFERENCE_BATCH = 64
"""Images per update at which ``OptimizerConfig.weight_decay`` is stated for SGD."""


def batches_per_update(recipe: Recipe, num_batches: int) -> int:
    """Batches whose gradients accumulate up to ``nominal_batch_size``, of an epoch of ``num_batches``."""
    nominal = recipe.nominal_batch_size or recipe.batch_size
    return min(max(round(nominal / recipe.batch_size), 1), num_batches)


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, images_per_update: int, matrix_dtype: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """Build the optimizer with three groups of parameters: ``weights`` (decayed), ``norms``, ``biases``.

    Parameters that a layer names in ``no_decay`` (filters of depthwise convolutions) and, if ``mask_decay`` is off, in
    ``mask_weights`` (Q of binary weights) are in the group of the norms, whose rate is that of the weights. With
    ``norm_decay`` the norms themselves are among the weights, and biases decay.

    Args:
        model: its parameters that need gradients are optimised.
        config: the recipe's section.
        images_per_update: scales SGD's weight decay, because the loss is a sum over images.
        matrix_dtype: of the products that ``muon`` computes.
    """
    decay = config.weight_decay
    if config.name == "sgd":
        decay *= images_per_update / REFERENCE_BATCH
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "norms": [], "biases": []}
    undecayed = set(_undecayed(model, config.mask_decay))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_bias = name.endswith("bias")
            is_weight = parameter.ndim > 1 or (config.norm_decay and not is_bias)
            group = "weights" if is_weight and parameter not in undecayed else "biases" if is_bias else "norms"
            groups[group].append(parameter)
    decayed = ("weights", "biases") if config.norm_decay else ("weights",)
    settings = [
        {"params": parameters, "name": name, "weight_decay": decay if name in decayed else 0.0}
        for name, parameters in groups.items()
        if parameters
    ]
    if config.name == "muon":
        return Muon(
            list(_filters_apart(model, settings)), config.lr, betas=(config.momentum, 0.999), dtype=matrix_dtype
        )
    if config.name == "adamw":
        return torch.optim.AdamW(settings, lr=config.lr, betas=(config.momentum, 0.999))
    return torch.optim.SGD(
        settings, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov and config.momentum > 0
    )


def _filters_apart(model: nn.Module, settings: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the groups with the filters of convolutions apart, by the groups that their outputs are divided into.

    Filters of outputs, which have a bias, of depthwise convolutions and masks are left with the others.
    """
    others = set(_undecayed(model, mask_decay=False))
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.bias is None]
    filter_groups = {layer.weight: layer.groups for layer in convolutions if layer.weight not in others}
    for group in settings:
        divided: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            divided.setdefault(filter_groups.get(parameter, 0), []).append(parameter)
        for count, parameters in sorted(divided.items()):
            yield {**group, "params": parameters, "orthogonal": count > 0, "filter_groups": count}


def _undecayed(model: nn.Module, mask_decay: bool) -> Iterator[Tensor]:
    for layer in model.modules():
        stated: tuple[str, ...] = getattr(layer, "no_decay", ())
        if not mask_decay:
            stated += getattr(layer, "mask_weights", ())
        yield from (layer.get_parameter(name) for name in stated)


@dataclass(frozen=True)
class Schedule:
    """Learning rates and momentum at each update.

    Args:
        config: the recipe's section.
        updates_per_epoch: optimiser updates in an epoch, at least 1.
        epochs: length of the training.
    """

    config: OptimizerConfig
    updates_per_epoch: int
    epochs: int

    @property
    def warmup_updates(self) -> int:
        """Length of the warm-up: at least ``warmup_min_steps`` unless it is 0, at most half the training."""
        wanted = self.config.warmup_epochs * self.updates_per_epoch
        if wanted > 0:
            wanted = max(wanted, self.config.warmup_min_steps)
        return round(min(wanted, self.updates_per_epoch * self.epochs / 2))

    def rate(self, update: int, group: str) -> float:
        """Learning rate of a group (``weights``, ``norms``, ``biases``) at an update, counted from 0."""
        target = self.config.lr * self.decay(update)
        if update >= self.warmup_updates:
            return target
        start = self.config.warmup_bias_lr if group == "biases" else 0.0
        return start + (target - start) * (update + 1) / (self.warmup_updates + 1)

    def momentum(self, update: int) -> float:
        """Momentum (AdamW: beta1) at an update, counted from 0."""
        if update >= self.warmup_updates:
            return self.config.momentum
        start = min(self.config.warmup_momentum, self.config.momentum)
        return start + (self.config.momentum - start) * (update + 1) / (self.warmup_updates + 1)

    def decay(self, update: int) -> float:
        """Factor on the peak rate: 1 at the start; at the last update ``final_lr_factor``, except for ``step``."""
        config, updates = self.config, self.updates_per_epoch * self.epochs
        if config.schedule == "step":
            return config.step_factor ** sum(update >= share * updates for share in config.milestones)
        progress = min(update / max(updates - 1, 1), 1.0)
        falling = {
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
            "linear": 1 - progress,
            "poly": (1 - progress) ** config.power,
            "constant": 1.0,
        }
        return config.final_lr_factor + (1 - config.final_lr_factor) * falling[config.schedule]

    def apply(self, optimizer: torch.optim.Optimizer, update: int) -> None:
        momentum = self.momentum(update)
        for group in optimizer.param_groups:
            group["lr"] = self.rate(update, group["name"])
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


class WeightAverage(AveragedModel):
    module: Model


def build_ema(model: Model, config: EmaConfig) -> WeightAverage:
    """Build the exponential moving average (EMA) of weights and norm statistics; its model is ``.module``.

    At update t the decay is ``config.decay * (1 - exp(-t / ramp_steps))``, so that early weights are soon forgotten.
    """

    def average(averaged: _Tensors, current: _Tensors, num_averaged: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)  # counters, such as a norm's number of batches
            return
        decay = config.decay * (1 - math.exp(-int(num_averaged) / config.ramp_steps))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    ema = WeightAverage(model, multi_avg_fn=average, use_buffers=True)
    ema.requires_grad_(False)
    return ema
