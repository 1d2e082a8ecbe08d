"""Detection heads: from the neck's maps to raw predictions and boxes.

Every detection head is a ``DetectionHead``, whose members are all that the loss, the export and the transfer of weights
know of it.

Letters: B batch, A anchors per cell, H W cells, K classes, L levels, P predictions of an image (A*H*W summed over
the levels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from detect.boxes.coding import BoxCoding, CellSize, decode_levels
from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.registry import Block, BlockOptions, check_choice, register
from detect.structures import FeatureShape

Coding = Literal["yolov5", "yolov3"]
FreeCoding = Literal["exp", "distances"]
PRIOR_OBJECTS_PER_IMAGE = 8
"""Expected objects in a 640 px image before training (YOLOv5 v6.0); it sets the objectness bias."""
PRIOR_CLASS_MASS = 0.6
"""Sum of the class probabilities before training (YOLOv5 v6.0)."""
PRIOR_PROBABILITY = 0.01
"""Objectness and probability of each class before training, of heads without anchors (RetinaNet, section 4.1)."""
CERTAIN = 20.0
"""Value of an objectness that the head does not predict: its sigmoid is 1 in float32 and in float16."""
MIN_MEAN = 1e-4
"""Smallest mean of a distribution; its logarithm is finite in float16."""
MAX_BINS = 64
"""Limit of R; GFL has 17 on cells of 8 to 128 px."""
BOX_VALUES = 5
"""Values of an anchor in front of its classes: x, y, w, h, objectness."""


class ClassOutputs(NamedTuple):
    """A layer whose output channels belong to classes: ``groups`` times ``others`` channels and then the K classes.

    Args:
        layer: its name in the head.
        groups: repetitions, one for each anchor.
        others: channels of a group in front of the classes.
    """

    layer: str
    groups: int = 1
    others: int = 0


class DetectionHead(Block):
    """Base of the detection heads: raw predictions of each level, and how they become boxes.

    A cell has A predictions, and the box of each is coded relative to an anchor. A head without anchors has one
    prediction in each cell, relative to the cell.

    Args:
        num_classes: K.
        reductions: input pixels per cell of the L levels, finest first.
        codings: of boxes by raw values, for each level.
    """

    many_inputs: ClassVar[bool] = True
    anchors_px: Tensor
    """(L, A, 2) widths and heights in network-input pixels; a buffer."""
    class_outputs: tuple[ClassOutputs, ...]
    has_objectness: bool = True
    """False where it is 1 everywhere, and the classes' probabilities are the scores."""
    bins: int = 0
    """R, of a head that predicts distributions over -1, 0, ..., R - 2 cells for the distances of the sides."""

    def __init__(self, num_classes: int, reductions: tuple[int, ...], codings: Sequence[BoxCoding]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.reductions = reductions
        self.codings = tuple(codings)

    @property
    def num_anchors(self) -> int:
        """A."""
        return self.anchors_px.shape[1]

    @property
    def fitted_args(self) -> dict[str, Any]:
        """Keywords of the constructor whose values were fitted to the training data."""
        return {}

    def level_maps(self, *maps: Tensor) -> list[Tensor]:
        """(B, C, H, W) of each level to (B, A * (5 + K), H, W); the values of an anchor lie together."""
        raise NotImplementedError

    def reset_biases(self) -> None:
        """Set the biases so that the first predictions are few objects and equally likely classes."""
        raise NotImplementedError

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """(B, C, H, W) of each level to raw predictions (B, A, H, W, 5 + K), before any sigmoid.

        In training, a head with distributions has their 4 * R logits behind. Its x, y, w, h have no gradient then:
        ``box_values`` have.
        """
        return [self._by_anchor(y) for y in self.level_maps(*maps)]

    def box_values(self, y: Tensor) -> Tensor:
        """Raw x, y, w, h (*, 4) of raw predictions as ``forward`` gives them, of which each has a gradient."""
        if not (self.training and self.bins):
            return y[..., :4]
        return mean_bins(y[..., -4 * self.bins :].unflatten(-1, (4, self.bins)), dim=-1).log()

    def _by_anchor(self, y: Tensor) -> Tensor:
        """(B, A * V, H, W) to (B, A, H, W, V)."""
        batch, values, height, width = y.shape
        return y.view(batch, self.num_anchors, values // self.num_anchors, height, width).permute(0, 1, 3, 4, 2)

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

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """Return the channels of one level's output, at the finest reduction."""
        reductions = [shape.reduction for shape in inputs]
        if reductions != sorted(reductions):
            found = ", ".join(str(reduction) for reduction in reductions)
            raise InputError(f"from: maps must come finest first, found reductions {found}")
        return FeatureShape(self.num_anchors * (BOX_VALUES + self.num_classes), inputs[0].reduction)


@register
class AnchorDetect(DetectionHead):
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

    def __init__(
        self,
        in_channels: tuple[int, ...],
        in_reductions: tuple[int, ...],
        num_classes: int,
        anchors_px: list[list[list[float]]],
        coding: Coding = "yolov5",
        xy_scale: float | list[float] | None = None,
    ) -> None:
        check_choice("coding", coding, get_args(Coding))
        super().__init__(num_classes, in_reductions, _box_codings(coding, xy_scale, len(in_channels)))
        anchors = _check_anchors(anchors_px, len(in_channels))
        self.register_buffer("anchors_px", anchors)
        num_outputs = anchors.shape[1] * (BOX_VALUES + num_classes)
        self.predict = nn.ModuleList(nn.Conv2d(channels, num_outputs, 1) for channels in in_channels)
        layers = range(len(in_channels))
        self.class_outputs = tuple(ClassOutputs(f"predict.{i}", anchors.shape[1], BOX_VALUES) for i in layers)

    @property
    def fitted_args(self) -> dict[str, Any]:
        return {"anchors_px": self.anchors_px.tolist()}

    def level_maps(self, *maps: Tensor) -> list[Tensor]:
        return [conv(x) for conv, x in zip(self.predict, maps, strict=True)]

    @torch.no_grad()
    def reset_biases(self) -> None:
        for conv, reduction in zip(self.predict, self.reductions, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None, "the head's convolutions have biases"
            bias = conv.bias.view(self.num_anchors, -1)  # (A, 5 + K)
            # exp(b), nearly sigmoid(b) where it is small: expected objects over the cells of a 640 px image.
            bias[:, 4] += math.log(PRIOR_OBJECTS_PER_IMAGE / (640 / reduction) ** 2)
            # 0.99 keeps one class finite; for it the logit is log(60), as in the source.
            bias[:, BOX_VALUES:] += math.log(PRIOR_CLASS_MASS / (self.num_classes - 0.99))


@dataclass(frozen=True)
class AnchorFreeOptions(BlockOptions):
    """Keywords of ``AnchorFreeDetect``.

    Args:
        hidden_channels: C.
        activation: name of the activation.
        coding: ``exp``, the centre as an offset and the sides as exponentials of a cell's (YOLOX); or ``distances`` of
            the sides from the cell's centre (FCOS; here from one cell on its other side).
        objectness: predict it; without, the score is that of the class alone.
        bins: R; with ``distances``, each is the mean of a distribution over -1, 0, ..., R - 2 cells; None is a number.
    """

    hidden_channels: int = 256
    activation: str = "silu"
    coding: FreeCoding = "exp"
    objectness: bool = True
    bins: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins is not None and (self.coding != "distances" or not 2 <= self.bins <= MAX_BINS):
            raise InputError(
                f"bins: must be from 2 to {MAX_BINS} and belong to distances, found {self.bins} with {self.coding}"
            )

    @property
    def box_coding(self) -> BoxCoding:
        return BoxCoding(1.0, "exp", "linear") if self.coding == "exp" else BoxCoding(1.0, "distances", "distances")


@register
class AnchorFreeDetect(DetectionHead):
    """A decoupled head without anchors: classes and boxes have convolutions of their own.

    On each level a 1x1 convolution to C channels, then two branches of two 3x3 convolutions: one ends in K classes, the
    other in the box and objectness. A box is coded by the cell.

    Args:
        in_channels: channels of the L input maps.
        in_reductions: input pixels per cell of the L maps, finest first.
        num_classes: K.
        options: the rest.

    Source: YOLOX (Ge et al., 2021), section 2.1; FCOS (Tian et al., 2019) for a prediction by the cell alone;
    Generalized Focal Loss (Li et al., 2020), section 3.2, equations 3 to 5, for distributions.
    """

    widths: ClassVar[tuple[str, ...]] = ("hidden_channels",)
    Options = AnchorFreeOptions

    def __init__(
        self,
        in_channels: tuple[int, ...],
        in_reductions: tuple[int, ...],
        num_classes: int,
        options: AnchorFreeOptions,
    ) -> None:
        levels, hidden_channels = range(len(in_channels)), options.hidden_channels
        conv = partial(Conv, activation=options.activation)
        super().__init__(num_classes, in_reductions, [options.box_coding for _ in levels])
        self.has_objectness, self.bins = options.objectness, options.bins or 0
        sides = torch.tensor(in_reductions, dtype=torch.float32)
        # Of the model, not of its weights: they are in no state dict.
        self.register_buffer("anchors_px", sides.view(-1, 1, 1).expand(-1, 1, 2).contiguous(), persistent=False)

        def branch() -> nn.Sequential:
            return nn.Sequential(*(conv(hidden_channels, hidden_channels, 3) for _ in range(2)))

        self.stems = nn.ModuleList(conv(channels, hidden_channels, 1) for channels in in_channels)
        self.class_branches = nn.ModuleList(branch() for _ in levels)
        self.box_branches = nn.ModuleList(branch() for _ in levels)
        self.classes = nn.ModuleList(nn.Conv2d(hidden_channels, num_classes, 1) for _ in levels)
        num_values = 4 * max(self.bins, 1) + self.has_objectness
        self.boxes = nn.ModuleList(nn.Conv2d(hidden_channels, num_values, 1) for _ in levels)
        self.class_outputs = tuple(ClassOutputs(f"classes.{i}") for i in levels)
        self.side_means = side_means
        """Function of the distributions; an export may put one of other operators in its place."""

    def level_maps(self, *maps: Tensor) -> list[Tensor]:
        return [self._level_map(i, x)[0] for i, x in enumerate(maps)]

    def forward(self, *maps: Tensor) -> list[Tensor]:
        levels = [self._level_map(i, x) for i, x in enumerate(maps)]
        with_logits = self.training and self.bins > 0
        return [self._by_anchor(torch.cat(level, dim=1) if with_logits else level[0]) for level in levels]

    def _level_map(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) of level i to its raw values (B, 5 + K, H, W), and the logits (B, 4 * R, H, W) of distances."""
        x = self.stems[i](x)  # (B, C, H, W)
        boxes, classes = self.boxes[i](self.box_branches[i](x)), self.classes[i](self.class_branches[i](x))
        if self.has_objectness:
            sides, objectness = boxes.split([4 * max(self.bins, 1), 1], dim=1)
        else:  # a division with an empty part would be a copy in the exported file
            # Not torch.full_like, whose size is that of the example in files for ncnn.
            sides, objectness = boxes, boxes[:, :1].detach().clamp(CERTAIN, CERTAIN)
        values = sides
        if self.bins:
            # Training learns the boxes of a few cells, and the softmax of all of a level of 4 px cells, with its
            # gradient, would be a tenth of its time.
            logits = sides.detach() if self.training else sides
            values = self.side_means(logits, self.bins).log()
        return torch.cat([values, objectness, classes], dim=1), sides

    @torch.no_grad()
    def reset_biases(self) -> None:
        prior = math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY))
        for boxes, classes in zip(self.boxes, self.classes, strict=True):
            assert isinstance(boxes, nn.Conv2d), "a level's output"
            assert isinstance(classes, nn.Conv2d), "a level's output"
            assert boxes.bias is not None, "the head's convolutions have biases"
            assert classes.bias is not None, "the head's convolutions have biases"
            if self.has_objectness:
                boxes.bias[-1] = prior
            # A side half a cell from the centre is exp(value) = 3/2, or shares 0.6^bin, whose mean is 0.6 / (1 - 0.6).
            if self.bins:
                boxes.bias[: 4 * self.bins] += math.log(0.6) * torch.arange(self.bins).repeat(4)
            elif self.codings[0].sizes == "distances":
                boxes.bias[:4] += math.log(1.5)
            classes.bias.fill_(prior)


def mean_bins(logits: Tensor, dim: int) -> Tensor:
    """Means of distributions over 0, 1, ..., R - 1, distances plus 1, with R logits along ``dim``, which goes."""
    # In float32 also of a network in half precision: there a mean of 12 cells would be rounded to 1/128 cell, and its
    # logarithm, of which the box is an exponential, again.
    shares = logits.float().softmax(dim=dim)
    places = torch.arange(logits.shape[dim], device=logits.device, dtype=shares.dtype)
    shape = [1] * logits.ndim
    shape[dim] = -1
    return (shares * places.view(shape)).sum(dim=dim).clamp(min=MIN_MEAN)


def side_means(logits: Tensor, bins: int) -> Tensor:
    """Compute ``mean_bins`` of the four sides' logits (B, 4 * R, H, W): (B, 4, H, W)."""
    return mean_bins(logits.unflatten(1, (4, bins)), dim=2)


def side_means_apart(logits: Tensor, bins: int) -> Tensor:
    """Compute ``side_means`` side by side, with no more than four axes, for runtimes that know no fifth."""
    places = torch.arange(bins, device=logits.device, dtype=torch.float32).view(1, bins, 1, 1)
    sides = (side.softmax(dim=1) for side in logits.float().split(bins, dim=1))  # (B, R, H, W) each
    means = [nn.functional.conv2d(shares, places) for shares in sides]  # (B, 1, H, W) each
    return torch.cat(means, dim=1).clamp(min=MIN_MEAN)


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
