"""The classification model: a graph whose last row is a classifier's head."""

from __future__ import annotations

import torch
from torch import Tensor

from detect.errors import InputError
from detect.models.definition import ModelDefinition
from detect.models.heads import Classify
from detect.models.model import Model


class ClassificationModel(Model):
    """Images to logits. The images' mean and deviation are part of the model, so that every user gives [0, 1].

    Args:
        definition: the model.
        num_classes: K.

    Raises:
        InputError: the definition cannot be built, or does not end with a classifier's head.
    """

    def __init__(self, definition: ModelDefinition, num_classes: int) -> None:
        super().__init__(definition, num_classes)
        assert isinstance(self.head, Classify)  # reading it checks the last row
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))

    @property
    def head(self) -> Classify:
        """The classifier's head."""
        head = self.graph.last
        if not isinstance(head, Classify):
            row = self.definition.rows[-1]
            raise InputError(
                f"{self.definition.source}: {row.label}: the last row must be Classify, found {row.module}; "
                f"{self.definition.name} is a detector"
            )
        return head

    def normalise_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Set the mean and deviation of red, green and blue, in [0, 1], that images are normalised by."""
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))

    def normalised(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to mean 0 and deviation 1, as the graph takes them."""
        return (images - self.mean.view(1, 3, 1, 1)) / self.std.view(1, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], H and W multiples of ``max_reduction``.

        Returns:
            (B, K).
        """
        return self.graph(self.normalised(images))
