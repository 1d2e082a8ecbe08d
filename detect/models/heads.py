"""Heads: from the neck's maps to raw predictions and boxes, and from the backbone's map to logits.

Letters: B batch, A anchors per cell, H W cells, K classes, L levels, P predictions of an image (A*H*W summed over
the levels).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from detect.boxes.coding import BoxCoding, CellSize, decode_levels
from detect.errors import InputError
from detect.models.registry import Block, check_choice, register
from detect.structures import FeatureShape

PRIOR_OBJECTS_PER_IMAGE = 8
"""Expected objects in a 640 px image before training (YOLOv5 v6.0); it sets the objectness bias."""
Coding = Literal["yolov5", "yolov3"]
GlobalPool = Literal["avg", "max"]
PRIOR_CLASS_MASS = 0.6
"""Sum of the class probabilities before training (YOLOv5 v6.0)."""


@register
class AnchorDetect(Block):
    """One 1x1 convolution per level, A*(5 + K) channels: x, y, w, h, objectness, K classes for each anchor.

    Args:
        in_channels: channels of the L input maps.
        in_reductions: input pixels per cell of the L maps, finest first.
        num_classes: K.
        anchors_px: (L, A, 2) widths and heights in network-input pixels.
        coding: of boxes by raw values (``detect.boxes.coding``).
        xy_scale: with ``yolov3``, factor on the sigmoid of the centres: one number for all levels, or one for each
            (YOLOv4); 1 by default.

    Source: YOLOv5 v6.0; YOLOv3 (Redmon and Farhadi, 2018).
    """

    many_inputs: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: tuple[int, ...],
        in_reductions: tuple[int, ...],
        num_classes: int,
        anchors_px: list[list[list[float]]],
        coding: Coding = "yolov5",
        xy_scale: float | list[float] | None = None,
    ) -> None:
        super().__init__()
        check_choice("coding", coding, get_args(Coding))
        anchors = _check_anchors(anchors_px, len(in_channels))
        self.codings = _box_codings(coding, xy_scale, len(in_channels))
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
            y = conv(x)  # (B, A * (5 + K), H, W)
            batch, _, height, width = y.shape
            split = y.view(batch, self.anchors_px.shape[1], 5 + self.num_classes, height, width)
            raw.append(split.permute(0, 1, 3, 4, 2))  # (B, A, H, W, 5 + K)
        return raw

    def cells_px(self, raw: list[Tensor], image_hw: tuple[int, int] | None) -> list[CellSize]:
        """Return the size of each level's cells in network-input pixels.

        ``image_hw`` is the network input's; None where levels have their nominal size, as everywhere but in SDPoint.
        """
        cells: list[CellSize] = []
        for y, reduction in zip(raw, self.reductions, strict=True):
            cell = (reduction, reduction) if image_hw is None else (image_hw[1] / y.shape[3], image_hw[0] / y.shape[2])
            cells.append(reduction if cell == (reduction, reduction) else cell)
        return cells

    def decode(self, raw: list[Tensor], image_hw: tuple[int, int] | None = None) -> Tensor:
        """Convert the output of ``forward`` to (B, P, 5 + K): cx, cy, width, height in input pixels, probabilities."""
        # objectness, then K classes; P runs over the levels, anchors, rows and columns
        return decode_levels(raw, self.codings, list(self.anchors_px), self.cells_px(raw, image_hw))

    @torch.no_grad()
    def reset_biases(self) -> None:
        """Set the biases so that the first predictions are few objects and equally likely classes."""
        for conv, reduction in zip(self.predict, self.reductions, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None, "the head's convolutions have biases"
            bias = conv.bias.view(self.anchors_px.shape[1], -1)  # (A, 5 + K)
            # exp(b), nearly sigmoid(b) where it is small: expected objects over the cells of a 640 px image.
            bias[:, 4] += math.log(PRIOR_OBJECTS_PER_IMAGE / (640 / reduction) ** 2)
            # 0.99 keeps one class finite; for it the logit is log(60), as in the source.
            bias[:, 5:] += math.log(PRIOR_CLASS_MASS / (self.num_classes - 0.99))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """Return the channels of one level's output, at the finest reduction."""
        reductions = [shape.reduction for shape in inputs]
        if reductions != sorted(reductions):
            found = ", ".join(str(reduction) for reduction in reductions)
            raise InputError(f"from: maps must come finest first, found reductions {found}")
        return FeatureShape(self.num_outputs, inputs[0].reduction)


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
        self.average_last = average_last

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K) logits."""
        if self.average_last:
            return self.linear(x.permute(0, 2, 3, 1)).mean(dim=(1, 2))  # (B, H, W, K) to (B, K)
        return self.linear(x.amax(dim=(2, 3)) if self.pool == "max" else x.mean(dim=(2, 3)))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        # The reduction has no meaning: the output is one cell.
        return FeatureShape(self.linear.out_features, inputs[0].reduction)


def _box_codings(coding: Coding, xy_scale: float | list[float] | None, num_levels: int) -> tuple[BoxCoding, ...]:
    if coding == "yolov5":
        if xy_scale is not None:
            raise InputError(f"xy_scale: belongs to coding yolov3, found {xy_scale!r} with yolov5")
        return (BoxCoding(2.0, "square"),) * num_levels
    scales = xy_scale if isinstance(xy_scale, list) else [1.0 if xy_scale is None else xy_scale] * num_levels
    numbers = all(isinstance(scale, (int, float)) and not isinstance(scale, bool) and scale >= 1 for scale in scales)
    if len(scales) != num_levels or not numbers:
        raise InputError(f"xy_scale: must be a number of at least 1, or {num_levels} of them, found {xy_scale!r}")
    return tuple(BoxCoding(float(scale), "exp") for scale in scales)


def _check_anchors(anchors_px: list[list[list[float]]], num_levels: int) -> Tensor:
    try:
        anchors = np.array(anchors_px, dtype=np.float32)
    except (TypeError, ValueError):
        anchors = np.zeros(0, dtype=np.float32)
    is_size = np.isfinite(anchors) & (anchors > 0)
    if anchors.ndim != 3 or anchors.shape[2] != 2 or len(anchors) != num_levels or not is_size.all():
        raise InputError(
            f"anchors_px: must be {num_levels} lists (one for each input map) of [width, height] pairs above 0, "
            "as many in each"
        )
    return torch.tensor(anchors)
