"""The loss of anchor-based detection: boxes, objectness, classes.

Letters: B images, L levels, A anchors per cell, H W cells, K classes, n matches of a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.boxes.iou import complete_iou
from detect.config.schema import LossConfig
from detect.errors import InputError
from detect.losses.assignment import Matches, match_anchors
from detect.structures import Targets

GAIN_IMAGE_SIZE = 640
GAIN_NUM_CLASSES = 80
GAIN_NUM_LEVELS = 3
"""The gains of ``LossConfig`` are stated for this setting and scaled from it (YOLOv5 v6.0)."""


@dataclass(frozen=True)
class LossTerms:
    """The weighted terms, each a scalar, as means over the batch.

    Args:
        box: 1 - CIoU of matched boxes.
        objectness: cross-entropy of objectness over all cells.
        classes: cross-entropy of classes over matched boxes.
    """

    box: Tensor
    objectness: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.box + self.objectness + self.classes

    def values(self) -> dict[str, float]:
        """Plain numbers by name, for logs."""
        return {name: float(getattr(self, name).detach()) for name in ("box", "objectness", "classes")}


class DetectionLoss:
    """Compares raw predictions with targets.

    Args:
        config: gains and options.
        anchors_px: (L, A, 2).
        reductions: input pixels per cell of the L levels, finest first.
        num_classes: K.
        image_size: the nominal training size in pixels, which scales the objectness gain.

    Raises:
        InputError: ``config.balance`` does not have one weight for each level.

    Source: YOLOv5 v6.0.
    """

    def __init__(
        self, config: LossConfig, anchors_px: Tensor, reductions: tuple[int, ...], num_classes: int, image_size: int
    ) -> None:
        if len(config.balance) != len(reductions):
            raise InputError(
                f"loss.balance: must have a weight for each of the model's {len(reductions)} levels, "
                f"found {len(config.balance)}"
            )
        self.config = config
        self.anchors_px = anchors_px
        self.reductions = reductions
        self.num_classes = num_classes
        levels = GAIN_NUM_LEVELS / len(reductions)
        self.box_gain = config.box * levels
        self.objectness_gain = config.objectness * (image_size / GAIN_IMAGE_SIZE) ** 2 * levels
        self.class_gain = config.classes * num_classes / GAIN_NUM_CLASSES * levels

    def __call__(self, raw: list[Tensor], targets: Targets) -> LossTerms:
        """The loss of a batch.

        Args:
            raw: L maps (B, A, H, W, 5 + K) before any sigmoid; any float type, computed with as float32.
            targets: boxes in network-input pixels.

        Returns:
            The terms. Without any match, box and classes are zero; the total is differentiable still.
        """
        zero = raw[0].new_zeros((), dtype=torch.float32)
        box, objectness, classes = zero, zero, zero
        for level, y in enumerate(raw):
            matches = match_anchors(
                targets,
                (y.shape[2], y.shape[3]),
                self.anchors_px[level],
                self.reductions[level],
                self.config.anchor_ratio,
            )
            # One gather for all columns; only these rows and the objectness plane are ever read.
            matched = y[matches.image, matches.anchor, matches.row, matches.column].float()
            iou = self._iou(matched[:, :4], matches, level)
            goal = objectness_targets(y.shape[:4], matches, iou.detach())
            objectness = objectness + self._cross_entropy(y[..., 4].float(), goal) * self.config.balance[level]
            if len(matches):
                box = box + (1 - iou).mean()
                classes = classes + self._class_loss(matched[:, 5:], matches.labels)
        return LossTerms(box * self.box_gain, objectness * self.objectness_gain, classes * self.class_gain)

    def _iou(self, matched_xywh: Tensor, matches: Matches, level: int) -> Tensor:
        """(n,) CIoU of the decoded matched predictions with their targets, in cells."""
        probabilities = matched_xywh.sigmoid()
        centres = probabilities[:, :2] * 2 - 0.5
        anchors = (self.anchors_px[level] / self.reductions[level])[matches.anchor]
        sizes = (probabilities[:, 2:] * 2).square() * anchors
        return complete_iou(torch.cat([centres, sizes], dim=1), matches.boxes_cxcywh_cells)

    def _class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.num_classes == 1:
            return logits.sum() * 0  # the only class is certain
        low, high = self.config.label_smoothing / 2, 1 - self.config.label_smoothing / 2
        goal = torch.full_like(logits, low).scatter_(1, labels[:, None], high)
        return self._cross_entropy(logits, goal)

    def _cross_entropy(self, logits: Tensor, goal: Tensor) -> Tensor:
        """Mean binary cross-entropy, focused on what is hard when ``focal_gamma`` is above 0."""
        loss = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
        if self.config.focal_gamma > 0:
            # Soft goals: the error |p - goal| stands for 1 - p_t of the focal loss (Lin et al., 2017, equation 4).
            loss = loss * (logits.sigmoid() - goal).abs() ** self.config.focal_gamma
        return loss.mean()


def objectness_targets(shape: torch.Size, matches: Matches, iou: Tensor) -> Tensor:
    """What the objectness of each anchor of each cell should be: the CIoU of its prediction, at least 0; 0 without
    a match.

    Args:
        shape: (B, A, H, W).
        matches: n matches.
        iou: (n,) CIoU of the matched predictions.

    Returns:
        (B, A, H, W) float32. Where several objects meet in one anchor the best one counts, so the order does not
        matter.
    """
    _, num_anchors, height, width = shape
    cell = ((matches.image * num_anchors + matches.anchor) * height + matches.row) * width + matches.column
    goal = torch.zeros(shape.numel(), dtype=torch.float32, device=iou.device)
    return goal.scatter_reduce(0, cell, iou.float().clamp(min=0), "amax").view(shape)
