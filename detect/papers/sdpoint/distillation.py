"""In-place distillation: a cheap instance learns what the plain network, in the same update, predicts for its images.

Letters: B images of this process, A anchors per cell, H W cells of a level, K classes.

Source: Universally Slimmable Networks (Yu and Huang, 2019), section 3.3, for classifiers; detectors' loss is ours.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.config.recipe import LossConfig
from detect.losses.detection import GAIN_IMAGE_SIZE, GAIN_NUM_CLASSES, default_balance
from detect.models.heads import DetectionHead


def class_distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, K) against the teacher's probabilities."""
    return F.cross_entropy(logits.float(), teacher.float().softmax(dim=1))


class DetectionDistillation:
    """Compares raw predictions with the plain network's.

    Objectness and classes have the teacher's probabilities as targets, raw box values the teacher's; classes and boxes
    count by the teacher's objectness, without it by its best class. The gains are those of the detection loss. A level
    of fewer cells (``shrink``) learns, for each of its cells, the largest probability of the teacher's cells there, and
    no boxes.

    Args:
        config: gains of the detection loss.
        head: of the model.
        image_size: nominal training size in pixels.
    """

    def __init__(self, config: LossConfig, head: DetectionHead, image_size: int) -> None:
        self.head = head
        self.balance = config.balance or default_balance(head.reductions)
        self.objectness_gain = config.objectness * (image_size / GAIN_IMAGE_SIZE) ** 2
        self.class_gain = config.classes * head.num_classes / GAIN_NUM_CLASSES
        self.box_gain = config.box

    def __call__(self, raw: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """Compute the loss, a mean over images, of raw predictions (B, A, H, W, 5 + K) of each level."""
        total = raw[0].new_zeros((), dtype=torch.float32)
        values = 5 + self.head.num_classes  # without the logits of distributions
        for y, known, balance in zip(raw, teacher, self.balance, strict=True):
            total = total + self._level(y[..., :values].float(), known[..., :values].float(), balance)
        return total

    def _level(self, y: Tensor, known: Tensor, balance: float) -> Tensor:
        targets = known[..., 4:].sigmoid()  # (B, A, H, W, 1 + K)
        is_same = known.shape == y.shape
        if not is_same:
            targets = _largest(targets, y.shape)
        errors = F.binary_cross_entropy_with_logits(y[..., 4:], targets, reduction="none")
        certainty = targets[..., 0] if self.head.has_objectness else targets[..., 1:].amax(dim=-1)  # (B, A, H, W)
        weights = certainty / certainty.sum().clamp(min=1e-6)
        loss = self.objectness_gain * balance * errors[..., 0].mean()
        if y.shape[-1] > 6 or not self.head.has_objectness:  # beside objectness, a single class is certain
            loss = loss + self.class_gain * (errors[..., 1:].mean(dim=-1) * weights).sum()
        if is_same:
            distances = F.smooth_l1_loss(y[..., :4], known[..., :4], reduction="none").mean(dim=-1)
            loss = loss + self.box_gain * (distances * weights).sum()
        return loss


def _largest(targets: Tensor, shape: Any) -> Tensor:
    """Probabilities (B, A, H, W, 1 + K) on the cells of a level of another ``shape``."""
    batch, anchors, height, width, _ = shape
    planes = targets.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (B, A * (1 + K), H, W)
    pooled = F.adaptive_max_pool2d(planes, (height, width))
    return pooled.view(batch, anchors, -1, height, width).permute(0, 1, 3, 4, 2)
