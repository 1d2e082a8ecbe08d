"""A graph whose head decides the task, as training, checkpoints and tools see it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from detect.models.definition import ModelDefinition
from detect.models.graph import Graph


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
