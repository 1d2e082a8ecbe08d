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
    for conv in model.head.predict:
        conv.weight.mul_(0.2)
        conv.bias.view(model.head.anchors_px.shape[1], -1)[:, 4:] = 0
