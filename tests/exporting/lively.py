"""Norms as a training leaves them, without one."""

from __future__ import annotations

import torch
from torch import nn

from detect.models.model import DetectionModel, Model


@torch.no_grad()
def enliven(model: Model, negative: float = 0.0) -> None:
    """Give the norms factors, shifts and the statistics of a batch, so that the model answers to its input.

    Args:
        model: in training mode; images of 96 px must fit it.
        negative: share of the factors that are below 0.
    """
    for norm in [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]:
        norm.weight.uniform_(0.5, 1.0)
        if negative:
            norm.weight[torch.rand_like(norm.weight) < negative] *= -1
        norm.bias.normal_(0, 0.1)
        norm.momentum = 1.0  # the statistics of one batch
    model(torch.rand(8, 3, 12, 12).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))


@torch.no_grad()
def find_everywhere(model: DetectionModel) -> None:
    """Give each prediction an objectness and class probabilities near one half."""
    soften_outputs(model, 0.2)


@torch.no_grad()
def soften_outputs(model: DetectionModel, factor: float) -> None:
    """Multiply the weights of the head's last convolutions, and set the biases of objectness and classes to 0."""
    for outputs in model.head.class_outputs:
        conv = model.head.get_submodule(outputs.layer)
        conv.weight.mul_(factor)
        conv.bias.view(outputs.groups, -1)[:, max(outputs.others - 1, 0) :] = 0
    for conv in getattr(model.head, "boxes", ()):  # those of a head without anchors
        conv.weight.mul_(factor)
        conv.bias[4] = 0
