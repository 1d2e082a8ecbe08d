"""Modules that an exported file computes: a model with its decoding or its softmax.

Letters: B images, H W pixels, P predictions of an image, K classes, A anchors of a level, h w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detect.models.heads import DetectionHead
from detect.models.model import ClassificationModel, DetectionModel, Model
from detect.models.registry import Block

PREFIX = "model."
"""Prefix of the weights' names in an exported file, before their names in the model's state dict."""


class DecodedDetector(nn.Module):
    """A detection model with its decoding."""

    output_names = ("predictions",)

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32 RGB in [0, 1] to (B, P, 5 + K) float32, as ``DetectionModel.decode`` gives it."""
        # Half precision is for the network only: at 640 px it resolves half a pixel.
        raw = self.model(images.to(_precision(self.model)))
        height, width = images.shape[2:]
        # Where nothing fixes the input's size, a cell has the nominal reduction of its level.
        image_hw = (height, width) if self.model.graph.transform.fixed_sizes else None
        return self.model.decode([level.float() for level in raw], image_hw)


class RawDetector(nn.Module):
    """A detection model without its decoding; the model's head is replaced."""

    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model
        self.output_names = raw_names(model.head)
        model.graph.layers[model.definition.rows[-1].name] = _HeadMaps(model.head)
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32 RGB in [0, 1] to (B, A * (5 + K), h, w) float32 of each level, finest first."""
        return [level.float() for level in self.model(images.to(_precision(self.model)))]


class _HeadMaps(Block):
    """A head's maps alone: not every runtime can split them by anchor."""

    def __init__(self, head: DetectionHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """(B, C, h, w) of each level to (B, A * (5 + K), h, w)."""
        return self.head.level_maps(*maps)


def raw_names(head: DetectionHead) -> tuple[str, ...]:
    """Names of a raw file's outputs, such as ``raw_8`` where a cell has 8 input pixels."""
    return tuple(f"raw_{reduction}" for reduction in head.reductions)


class ClassProbabilities(nn.Module):
    """A classification model with its softmax.

    Probabilities, as ``detect.Classifier`` gives them; their logarithm is the logits but for a constant of each image.
    """

    output_names = ("probabilities",)

    def __init__(self, model: ClassificationModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32 RGB in [0, 1] to (B, K) float32; each row sums to 1."""
        return self.model(images.to(_precision(self.model))).float().softmax(dim=1)


Wrapper = DecodedDetector | RawDetector | ClassProbabilities


def wrapped(model: Model, raw: bool = False) -> Wrapper:
    """Wrap a model, in evaluation mode, by its task; ``raw`` leaves the decoding of a detector out."""
    if isinstance(model, ClassificationModel):
        return ClassProbabilities(model)
    assert isinstance(model, DetectionModel), "there are two tasks"
    return RawDetector(model) if raw else DecodedDetector(model)


def halved(model: Model) -> Model:
    """Convert a model to half precision, in place, but for a detector's anchors, which its decoding uses."""
    kept = {head: head.anchors_px for head in model.modules() if isinstance(head, DetectionHead)}
    model.half()
    for head, anchors_px in kept.items():
        head.anchors_px = anchors_px
    return model


def _precision(model: Model) -> torch.dtype:
    return next(model.parameters()).dtype
