"""The moving average of the weights, which is what is evaluated and saved."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from detect.config.recipe import EmaConfig
from detect.models.model import Model

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage(AveragedModel):
    """``AveragedModel`` of a model of ours."""

    module: Model


def build_ema(model: Model, config: EmaConfig) -> WeightAverage:
    """An average of weights and norm statistics whose decay grows from 0 to ``config.decay``.

    The early weights are far from the later ones: ``decay * (1 - exp(-t / ramp_steps))`` forgets them quickly.

    Args:
        model: the model that learns; its average is ``.module``, brought up to date by ``.update_parameters(model)``.
        config: the recipe's section.
    """

    def average(averaged: Tensors, current: Tensors, num_averaged: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)  # counters, such as a norm's number of batches
            return
        decay = config.decay * (1 - math.exp(-int(num_averaged) / config.ramp_steps))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    ema = WeightAverage(model, multi_avg_fn=average, use_buffers=True)
    ema.requires_grad_(False)
    return ema
