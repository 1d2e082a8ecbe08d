"""The detection model: a graph whose last row is a detection head."""

from __future__ import annotations

from torch import Tensor

from detect.errors import InputError
from detect.models.definition import ModelDefinition
from detect.models.heads import AnchorDetect, Classify
from detect.models.model import Model


class DetectionModel(Model):
    """Images to raw predictions; ``decode`` makes boxes of those.

    The loss (``detect.losses``) and the post-processing (``detect.boxes.nms``) are apart: all three share only the
    head's anchors and reductions.

    Args:
        definition: the model.
        num_classes: K.

    Raises:
        InputError: the definition cannot be built, or does not end with a detection head.
    """

    def __init__(self, definition: ModelDefinition, num_classes: int) -> None:
        super().__init__(definition, num_classes)
        assert isinstance(self.head, AnchorDetect)  # reading it checks the last row

    @property
    def head(self) -> AnchorDetect:
        """The detection head."""
        head = self.graph.last
        if not isinstance(head, AnchorDetect):
            row, name = self.definition.rows[-1], self.definition.name
            pyramid = isinstance(head, Classify) and {"c3", "c4", "c5"} <= self.graph.shapes.keys()
            hint = f"; {name} is a classifier, {name}+fpn a detector" if pyramid else ""
            raise InputError(
                f"{self.definition.source}: {row.label}: the last row must be AnchorDetect, found {row.module}{hint}"
            )
        return head

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raw predictions.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], H and W multiples of ``max_reduction``.

        Returns:
            One (B, A, h, w, 5 + K) for each level, finest first.
        """
        return self.graph(images)

    def decode(self, raw: list[Tensor], image_hw: tuple[int, int] | None = None) -> Tensor:
        """Raw predictions to boxes and probabilities, see ``AnchorDetect.decode``."""
        return self.head.decode(raw, image_hw)
