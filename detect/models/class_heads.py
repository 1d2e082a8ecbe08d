"""Heads of classifiers: a pool over all cells and a fully connected layer, also behind early exits.

Letters: B batch, C channels, H W cells, K classes, E exits.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.heads import ClassOutputs
from detect.models.registry import Block, check_choice, register
from detect.structures import FeatureShape

GlobalPool = Literal["avg", "max"]


@register
class Classify(Block):
    """Global pool → fully connected layer.

    Args:
        in_channels: C.
        num_classes: K.
        average_last: classify every cell, then average: the same function for H * W times the arithmetic, as in some of
            Darknet's files.
        pool: ``avg`` or ``max``, over all cells.
    """

    def __init__(
        self, in_channels: int, num_classes: int, average_last: bool = False, pool: GlobalPool = "avg"
    ) -> None:
        super().__init__()
        check_choice("pool", pool, get_args(GlobalPool))
        if average_last and pool == "max":
            raise InputError("average_last: belongs to pool avg, found max")
        self.pool = pool
        self.linear = nn.Linear(in_channels, num_classes)
        self.class_outputs: tuple[ClassOutputs, ...] = (ClassOutputs("linear"),)
        self.average_last = average_last

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K) logits."""
        if self.average_last:
            return self.linear(x.permute(0, 2, 3, 1)).mean(dim=(1, 2))  # (B, H, W, K) to (B, K)
        return self.linear(x.amax(dim=(2, 3)) if self.pool == "max" else x.mean(dim=(2, 3)))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        # The reduction has no meaning: the output is one cell.
        return FeatureShape(self.linear.out_features, inputs[0].reduction)


@register
class ClassifyExits(Classify):
    """Global average pool → fully connected layer of the network's last map, and of those of its early exits.

    In training it returns the logits of all exits (B, E, K), of which the loss takes the mean; else (B, K), those of
    the exit ``active``: position in the inputs, of which the last is the network's own.

    Args:
        in_channels: C of each of the E maps.
        num_classes: K.

    Source: BranchyNet (Teerapittayanon et al., 2016), section III, with equal weights of the exits.
    """

    many_inputs = True

    def __init__(self, in_channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__(in_channels[-1], num_classes)
        self.exits = nn.ModuleList(nn.Linear(channels, num_classes) for channels in in_channels[:-1])
        self.class_outputs += tuple(ClassOutputs(f"exits.{number}") for number in range(len(self.exits)))
        self.active = len(self.exits)

    def forward(self, *maps: Tensor) -> Tensor:
        """E maps (B, C, H, W) to (B, E, K) or (B, K) logits."""
        layers = [*self.exits, self.linear]
        if self.training:
            pooled = [x.mean(dim=(2, 3)) for x in maps]
            return torch.stack([layer(x) for layer, x in zip(layers, pooled, strict=True)], dim=1)
        return layers[self.active](maps[self.active].mean(dim=(2, 3)))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return super().out_shape(inputs[-1])
