"""Detection heads: from the neck's maps to raw predictions, and from those to boxes.

Letters: B batch, A anchors per cell, H W cells, K classes, L levels, P predictions of an image (A*H*W summed over
the levels).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from detect.boxes.anchors import decode_boxes
from detect.errors import InputError
from detect.models.registry import Block, register
from detect.structures import FeatureShape

PRIOR_OBJECTS_PER_IMAGE = 8
"""Objects expected in a 640 px image before anything is learnt (YOLOv5 v6.0); it sets the objectness bias."""
PRIOR_CLASS_MASS = 0.6
"""Sum of the class probabilities before anything is learnt (YOLOv5 v6.0)."""


@register
class AnchorDetect(Block):
    """One 1x1 convolution per level, A*(5 + K) channels: x, y, w, h, objectness, K classes for each anchor.

    Args:
        in_channels: channels of the L input maps.
        in_reductions: input pixels per cell of the L maps, finest first.
        num_classes: K.
        anchors_px: (L, A, 2) widths and heights in network-input pixels.

    Source: YOLOv5 v6.0.
    """

    many_inputs: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: tuple[int, ...],
        in_reductions: tuple[int, ...],
        num_classes: int,
        anchors_px: list[list[list[float]]],
    ) -> None:
        super().__init__()
        anchors = _check_anchors(anchors_px, len(in_channels))
        self.num_classes = num_classes
        self.reductions = in_reductions
        self.anchors_px: Tensor
        self.register_buffer("anchors_px", anchors)
        num_outputs = anchors.shape[1] * (5 + num_classes)
        self.num_outputs = num_outputs
        self.predict = nn.ModuleList(nn.Conv2d(channels, num_outputs, 1) for channels in in_channels)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """(B, C, H, W) of each level to raw predictions (B, A, H, W, 5 + K), before any sigmoid."""
        raw = []
        for conv, x in zip(self.predict, maps, strict=True):
            y = conv(x)
            batch, _, height, width = y.shape
            split = y.view(batch, self.anchors_px.shape[1], 5 + self.num_classes, height, width)
            raw.append(split.permute(0, 1, 3, 4, 2))
        return raw

    def decode(self, raw: list[Tensor]) -> Tensor:
        """Raw predictions to boxes and probabilities.

        Args:
            raw: what ``forward`` gave.

        Returns:
            (B, P, 5 + K): centre x, centre y, width, height in network-input pixels, objectness, K class probabilities.
        """
        levels = []
        for y, anchors, reduction in zip(raw, self.anchors_px, self.reductions, strict=True):
            probabilities = y.sigmoid()
            boxes = decode_boxes(probabilities[..., :4], anchors, reduction)
            levels.append(torch.cat([boxes, probabilities[..., 4:]], dim=-1).flatten(1, 3))
        return torch.cat(levels, dim=1)

    @torch.no_grad()
    def reset_biases(self) -> None:
        """Start from few objects and no favourite class, so that the first steps are not spent on learning that."""
        for conv, reduction in zip(self.predict, self.reductions, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None, "the head's convolutions have biases"
            bias = conv.bias.view(self.anchors_px.shape[1], -1)
            bias[:, 4] += math.log(PRIOR_OBJECTS_PER_IMAGE / (640 / reduction) ** 2)
            # 0.99 keeps one class finite; for it the logit is log(60), as in the source.
            bias[:, 5:] += math.log(PRIOR_CLASS_MASS / (self.num_classes - 0.99))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """The channels of one level's output, at the finest reduction."""
        reductions = [shape.reduction for shape in inputs]
        if reductions != sorted(reductions):
            found = ", ".join(str(reduction) for reduction in reductions)
            raise InputError(f"from: maps must come finest first, found reductions {found}")
        return FeatureShape(self.num_outputs, inputs[0].reduction)


def _check_anchors(anchors_px: list[list[list[float]]], num_levels: int) -> Tensor:
    try:
        anchors = np.array(anchors_px, dtype=np.float32)
    except (TypeError, ValueError):
        anchors = np.zeros(0, dtype=np.float32)
    if anchors.ndim != 3 or anchors.shape[2] != 2 or len(anchors) != num_levels or not (anchors > 0).all():
        raise InputError(
            f"anchors_px: must be {num_levels} lists (one for each input map) of [width, height] pairs above 0, "
            "as many in each"
        )
    return torch.tensor(anchors)
