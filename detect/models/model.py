"""A graph whose head decides the task, as training, checkpoints and tools see it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detect.models.definition import ModelDefinition
from detect.models.graph import Graph


def network_input(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float in [0, 1] on ``device``, channels last in memory, as models take it.

    They travel as bytes, a quarter of their size as floats.
    """
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


class Model(nn.Module):
    """What ``DetectionModel`` and ``ClassificationModel`` have in common.

    Args:
        definition: the model.
        num_classes: K.

    Raises:
        InputError: the definition cannot be built.
    """

    def __init__(self, definition: ModelDefinition, num_classes: int) -> None:
        super().__init__()
        self.graph = Graph(definition, num_classes)
        self.num_classes = num_classes
        """K."""
        self.extras = nn.ModuleDict()
        """Modules of papers, by the name of their checkpoint entry; no part of the state."""

    @property
    def definition(self) -> ModelDefinition:
        """What the model was built from."""
        return self.graph.definition

    @property
    def max_reduction(self) -> int:
        """Input height and width must be multiples of it."""
        return self.graph.max_reduction

    def forward(self, images: Tensor) -> Any:
        """(B, 3, H, W) RGB in [0, 1], H and W multiples of ``max_reduction``, to what the head gives."""
        raise NotImplementedError
