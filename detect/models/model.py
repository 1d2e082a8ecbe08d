"""Models as training, checkpoints and commands see them: a graph whose head decides the task.

Letters: B batch, A anchors per cell, h w cells of a level, K classes.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv, SteppedConv, fuse_norm
from detect.models.class_heads import Classify
from detect.models.definition import ModelDefinition
from detect.models.graph import Graph
from detect.models.heads import DetectionHead
from detect.models.norms import named_norms


def network_input(images: Tensor, device: torch.device) -> Tensor:
    """Convert images (B, H, W, 3) uint8 RGB to (B, 3, H, W) float in [0, 1] on ``device``, channels last in memory."""
    # The images travel as bytes, a quarter of their size as floats; permute changes the strides only: (B, 3, H, W).
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)


class Model(nn.Module):
    """Base of ``DetectionModel`` and ``ClassificationModel``.

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
        return self.graph.definition

    @property
    def max_reduction(self) -> int:
        """Number of pixels of which input height and width must be multiples."""
        return self.graph.max_reduction

    def forward(self, images: Tensor) -> Any:
        """Run the graph and its head on (B, 3, H, W) RGB in [0, 1], H and W multiples of ``max_reduction``."""
        raise NotImplementedError


class DetectionModel(Model):
    """Images to raw predictions, which ``decode`` turns into boxes.

    The loss (``detect.losses``) and the post-processing (``detect.boxes.nms``) are separate: all three share only the
    head's coding of boxes.

    Args:
        definition: the model.
        num_classes: K.

    Raises:
        InputError: the definition cannot be built, or does not end with a detection head.
    """

    def __init__(self, definition: ModelDefinition, num_classes: int) -> None:
        super().__init__(definition, num_classes)
        assert isinstance(self.head, DetectionHead)  # reading it checks the last row

    @property
    def head(self) -> DetectionHead:
        head = self.graph.last
        if not isinstance(head, DetectionHead):
            row, name = self.definition.rows[-1], self.definition.name
            pyramid = isinstance(head, Classify) and {"c3", "c4", "c5"} <= self.graph.shapes.keys()
            hint = f"; {name} is a classifier, {name}+fpn a detector" if pyramid else ""
            heads = " or ".join(kind.__name__ for kind in DetectionHead.__subclasses__())
            raise InputError(
                f"{self.definition.source}: {row.label}: the last row must be {heads}, found {row.module}{hint}"
            )
        return head

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return raw predictions, one (B, A, h, w, 5 + K) for each level, finest first; ``images`` as in ``Model``."""
        return self.graph(images)

    def decode(self, raw: list[Tensor], image_hw: tuple[int, int] | None = None) -> Tensor:
        """Convert raw predictions to boxes and probabilities, see ``DetectionHead.decode``."""
        return self.head.decode(raw, image_hw)


class ClassificationModel(Model):
    """Images to logits. The mean and deviation of the images belong to the model; callers give values in [0, 1].

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
        head = self.graph.last
        if not isinstance(head, Classify):
            row = self.definition.rows[-1]
            raise InputError(
                f"{self.definition.source}: {row.label}: the last row must be Classify, found {row.module}; "
                f"{self.definition.name} is a detector"
            )
        return head

    def normalise_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Set the mean and deviation of red, green and blue, in [0, 1]."""
        self.mean.copy_(torch.tensor(mean))
        self.std.copy_(torch.tensor(std))

    def normalised(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, H, W) in [0, 1] to mean 0 and deviation 1."""
        mean, std = self.mean.view(1, 3, 1, 1), self.std.view(1, 3, 1, 1)  # one value for each channel
        return (images - mean) / std

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K); ``images`` as in ``Model``."""
        return self.graph(self.normalised(images))


ModelKind = TypeVar("ModelKind", bound=Model)


@torch.no_grad()
def fuse_conv_bn(model: ModelKind) -> ModelKind:
    """Return a copy of a float32 model in evaluation mode whose norms are fused into the convolutions before them.

    Binary weights become ordinary ones. The norm between the two steps of a decoupled convolution goes into the first,
    whose bias acts before the zero padding of the second, as the norm did.
    """
    ordinary = _ordinary(model)
    for layer in list(ordinary.modules()):
        if isinstance(layer, Conv):
            steps = isinstance(layer.conv, SteppedConv)
            fuse_norm(layer, *((layer.conv, layer.conv.last) if steps else (layer, "conv")))
    return ordinary.float()


@torch.no_grad()
def affine_norms(model: ModelKind) -> ModelKind:
    """Return a copy with a ``ChannelAffine`` in the place of each norm, and ordinary in place of binary weights.

    Kernels stay as they are, so that they are the same for other statistics of the norms. Model as of ``fuse_conv_bn``.
    """
    ordinary = _ordinary(model)
    for path, norm in named_norms(ordinary.graph):
        parent, _, name = path.rpartition(".")
        setattr(ordinary.graph.get_submodule(parent), name, ChannelAffine(norm))
    return ordinary.float()


def _ordinary(model: ModelKind) -> ModelKind:
    """A copy in float64, so that each weight is rounded once, at the end, without binary weights."""
    ordinary = copy.deepcopy(model).double()
    for layer in list(ordinary.modules()):
        if isinstance(layer, SteppedConv):
            layer.fuse()
    return ordinary


class ChannelAffine(nn.Module):
    """A factor and a summand for each channel, as a batch norm in evaluation mode computes.

    Args:
        norm: with running statistics.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None, "it has statistics"
        assert norm.running_var is not None, "it has statistics"
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.factor: Tensor
        self.summand: Tensor
        self.register_buffer("factor", factor[:, None, None])
        self.register_buffer("summand", (norm.bias - norm.running_mean * factor)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x * self.factor + self.summand
