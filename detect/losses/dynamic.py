"""Loss of detection with assignments by predictions (dynamic ones): SimOTA and task-aligned.

Letters: B images, L levels, A anchors per cell, H W cells, P predictions of an image (A*H*W summed over the levels, in
this order), K classes, R bins of a distribution, n assigned predictions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.boxes.coding import CellSize, decode_distances
from detect.boxes.convert import xyxy_to_cxcywh
from detect.boxes.iou import IouKind, paired_iou
from detect.config.recipe import LossConfig
from detect.errors import InputError
from detect.losses.alignment import cell_centres, match_aligned
from detect.losses.simota import Assigned, candidates_of, match_simota
from detect.losses.terms import GAIN_FACTORS, LossTerms, choose_assignment, cross_entropy, decoded_boxes
from detect.models.heads import DetectionHead, mean_bins
from detect.runtime.distributed import all_reduce_sum
from detect.structures import Targets

DISTRIBUTION_SHARE = 0.25 / 2
"""Gain of the loss of distributions over that of boxes (Generalized Focal Loss, section 3.3: 1/4 and 2)."""
NEGATIVE_WEIGHT, NEGATIVE_POWER = 0.75, 2.0
"""Alpha and gamma of the varifocal loss (VarifocalNet, section 3.2)."""


class DynamicLoss:
    """Loss of raw predictions, whatever their head, with SimOTA's or the task-aligned assignment.

    A prediction weighs 1 in SimOTA and its quality in the task-aligned one. With objectness, classes count where
    something is assigned; without, everywhere.

    Args:
        config: gains and options; the gains are not scaled by image size or number of classes, because each term is a
            sum over predictions and classes, divided by the weight of the assigned predictions.
        head: coding of boxes.

    Raises:
        InputError: ``config.class_loss`` or ``config.assignment`` does not fit the head, or ``box_iou`` is no IoU.

    Source: YOLOX (Ge et al., 2021), section 2.1, whose box loss is 1 - IoU^2, ours that of ``config.box_iou``; its L1
    loss of the last epochs is left out. TOOD (Feng et al., 2021), section 3.2; ``focal_gamma`` of 2 is its class loss.
    """

    def __init__(self, config: LossConfig, head: DetectionHead) -> None:
        self.assignment = choose_assignment(config, head)
        if config.box_iou == "mse":
            raise InputError(
                f"loss.box_iou: mse is for assignments to anchors, the assignment is {self.assignment}; take an IoU"
            )
        factors = GAIN_FACTORS[self.assignment]
        self.box_iou: IouKind = config.box_iou
        self.config = config
        self.head = head
        self.box_gain = config.box * factors.box
        self.objectness_gain = config.objectness * factors.objectness if head.has_objectness else 0.0
        self.class_gain = config.classes * factors.classes

    def __call__(self, raw: list[Tensor], targets: Targets) -> LossTerms:
        """Compute the loss of a batch; arguments and result as in ``detect.losses.detection.DetectionLoss``."""
        cells_px = self.head.cells_px(raw, targets.image_hw)
        sizes = [4, 1 + self.head.num_classes, 4 * self.head.bins]
        coded, scores, bin_logits = zip(*(y.split(sizes, dim=-1) for y in raw), strict=True)
        boxes = torch.cat(decoded_boxes(list(coded), self.head, cells_px), dim=1)  # (B, P, 4)
        logits = torch.cat([y.float().flatten(1, 3) for y in scores], dim=1)  # (B, P, 1 + K)
        grids_hw = [(y.shape[2], y.shape[3]) for y in raw]
        centres = cell_centres(grids_hw, cells_px, self.head.num_anchors, boxes)
        assigned = self._assign(boxes.detach(), logits.detach(), targets, centres, grids_hw, cells_px)
        weight = torch.ones_like(assigned.quality) if self.assignment == "simota" else assigned.quality
        # Means are over all processes, so that the loss does not depend on how a batch is divided.
        num_images, total = all_reduce_sum([len(boxes), float(weight.sum())])
        gt_xyxy_px = targets.boxes_xyxy_px[assigned.target]
        if self.head.bins:
            box = self._distribution_loss(rows_of(bin_logits, assigned), assigned, gt_xyxy_px, centres, grids_hw)
        else:
            box = 1 - paired_iou(boxes[assigned.image, assigned.prediction], xyxy_to_cxcywh(gt_xyxy_px), self.box_iou)
        count = max(total, 1.0)
        return LossTerms(
            (box * weight).sum() * (self.box_gain / count),
            self._objectness_loss(logits[..., 0], assigned) * (self.objectness_gain / count),
            self._class_loss(logits[..., 1:], assigned, targets.labels) * (self.class_gain / count),
            int(num_images),
        )

    def _assign(
        self,
        boxes: Tensor,
        logits: Tensor,
        targets: Targets,
        centres: Tensor,
        grids_hw: list[tuple[int, int]],
        cells_px: list[CellSize],
    ) -> Assigned:
        if self.assignment == "tal":
            return match_aligned(boxes, logits, targets, centres, self.config)
        return match_simota(boxes, logits, targets, *candidates_of(targets, grids_hw, cells_px, self.head.num_anchors))

    def _distribution_loss(
        self,
        logits: Tensor,
        assigned: Assigned,
        gt_xyxy_px: Tensor,
        centres: Tensor,
        grids_hw: list[tuple[int, int]],
    ) -> Tensor:
        """(n,) loss of the boxes and of the distributions of their sides, of the assigned predictions alone.

        ``logits`` (n, 4 * R) and targets' boxes (n, 4) are theirs, ``centres`` (P, 2) those of all.
        """
        counts = [self.head.num_anchors * height * width for height, width in grids_hw]
        units = torch.cat([u[:1].expand(n, 2) for u, n in zip(self.head.anchors_px, counts, strict=True)])
        centre, unit = centres[assigned.prediction], units[assigned.prediction]  # (n, 2)
        logits = logits.unflatten(1, (4, self.head.bins))  # (n, 4, R)
        boxes = decode_distances(mean_bins(logits, dim=2).log(), centre, unit)
        iou = paired_iou(boxes, xyxy_to_cxcywh(gt_xyxy_px), self.box_iou)
        sides = torch.cat([(centre - gt_xyxy_px[:, :2]) / unit, (gt_xyxy_px[:, 2:] - centre) / unit], dim=1)
        # Bin 0 is -1 cell.
        return 1 - iou + DISTRIBUTION_SHARE * distribution_loss(logits, sides + 1).mean(dim=1)

    def _objectness_loss(self, logits: Tensor, assigned: Assigned) -> Tensor:
        if not self.head.has_objectness:
            return logits.new_zeros(())
        is_object = torch.zeros_like(logits)
        is_object[assigned.image, assigned.prediction] = 1
        return cross_entropy(logits, is_object, self.config.focal_gamma).sum()

    def _class_loss(self, logits: Tensor, assigned: Assigned, labels: Tensor) -> Tensor:
        """Sum over classes and the assigned predictions, or without objectness over all."""
        place: tuple[Tensor, ...] = (assigned.image, assigned.prediction)
        if self.head.has_objectness:
            logits = logits[place]  # (n, K)
            place = (torch.arange(len(logits), device=logits.device),)
        target = torch.zeros_like(logits)
        target[place + (labels[assigned.target],)] = assigned.quality  # noqa: RUF005  # Python 3.10 has no star here
        if self.config.class_loss == "varifocal":
            return varifocal(logits, target).sum()
        return cross_entropy(logits, target, self.config.focal_gamma).sum()


def rows_of(levels: Sequence[Tensor], assigned: Assigned) -> Tensor:
    """(n, V) float32 of the assigned predictions from maps (B, A, H, W, V), of which most values are never read."""
    found, order, start = [], [], 0
    for values in levels:
        of_image = values.flatten(1, 3)  # (B, A*H*W, V)
        here = ((assigned.prediction >= start) & (assigned.prediction < start + of_image.shape[1])).nonzero()[:, 0]
        found.append(of_image[assigned.image[here], assigned.prediction[here] - start])
        order.append(here)
        start += of_image.shape[1]
    return torch.cat(found).float()[torch.cat(order).argsort()]


def check_class_loss(config: LossConfig, head: DetectionHead) -> None:
    """Refuse a class loss that does not fit the head or the other options."""
    if config.class_loss == "varifocal" and head.has_objectness:
        raise InputError(
            "loss.class_loss: varifocal is for heads without objectness (+task-aligned, objectness: false)"
        )
    if config.class_loss == "varifocal" and config.focal_gamma > 0:
        raise InputError("loss.class_loss: varifocal has a focus of its own; loss.focal_gamma must be 0")


def varifocal(logits: Tensor, quality: Tensor) -> Tensor:
    """Varifocal loss of each logit to a target, 0 for negatives (VarifocalNet, Zhang et al., 2021, equation 2)."""
    negative = NEGATIVE_WEIGHT * logits.sigmoid() ** NEGATIVE_POWER
    weight = torch.where(quality > 0, quality, negative)
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * weight


def distribution_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Distribution focal loss (n, 4): cross-entropy of the two bins around each distance, by their nearness.

    ``logits`` are (n, 4, R), ``distances`` (n, 4) in bins; those outside [0, R - 1] count as its nearest end.

    Source: Generalized Focal Loss (Li et al., 2020), equation 6.
    """
    bins = logits.shape[2]
    place = distances.clamp(0, bins - 1)
    left = place.floor().clamp(max=bins - 2)
    share = place - left  # of the right one
    costs = -logits.log_softmax(dim=2)
    first, second = (costs.gather(2, (left.long() + step)[..., None])[..., 0] for step in (0, 1))
    return first * (1 - share) + second * share
