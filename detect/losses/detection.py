"""Loss of detection with assignments to anchors: boxes, objectness, classes; and the choice of the loss.

Letters: B images, L levels, A anchors per cell, H W cells, K classes, n matches of a level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detect.boxes.coding import CellSize, as_xy
from detect.boxes.iou import EPSILON, paired_iou
from detect.config.recipe import LossConfig
from detect.errors import InputError
from detect.losses.assignment import Matches, covered, match_best, match_by_ratio
from detect.losses.dynamic import DynamicLoss, check_class_loss
from detect.losses.terms import GAIN_FACTORS, LossTerms, choose_assignment, cross_entropy, decoded_boxes
from detect.models.heads import DetectionHead
from detect.runtime.distributed import all_reduce_sum
from detect.structures import Targets

GAIN_IMAGE_SIZE = 640
GAIN_NUM_CLASSES = 80
GAIN_NUM_LEVELS = 3
"""The gains of ``LossConfig`` are stated for this setting and scaled from it (YOLOv5 v6.0)."""


def detection_loss(config: LossConfig, head: DetectionHead, image_size: int) -> DetectionLoss | DynamicLoss:
    """Return the loss for the recipe's assignment; arguments and errors as for ``DetectionLoss``, and an ``InputError``
    if the class loss does not fit the head.
    """
    check_class_loss(config, head)
    if choose_assignment(config, head) in ("simota", "tal"):
        return DynamicLoss(config, head)
    return DetectionLoss(config, head, image_size)


class DetectionLoss:
    """Loss of raw predictions, with YOLOv5's or YOLOv3's assignment.

    Args:
        config: gains and options.
        head: anchors, their reductions, and the coding of boxes.
        image_size: nominal training size in pixels, which scales the objectness gain.

    Raises:
        InputError: ``config.balance`` does not have one weight per level, or the head's boxes cannot reach the cells of
            ``config.assignment``.

    Source: YOLOv5 v6.0; YOLOv3 (Redmon and Farhadi, 2018).
    """

    def __init__(self, config: LossConfig, head: DetectionHead, image_size: int) -> None:
        num_levels = len(head.reductions)
        if config.balance and len(config.balance) != num_levels:
            raise InputError(
                f"loss.balance: must have a weight for each of the model's {num_levels} levels, "
                f"found {len(config.balance)}"
            )
        self.config = config
        self.head = head
        self.assignment = choose_assignment(config, head)
        self.balance = config.balance or default_balance(head.reductions)
        factors = GAIN_FACTORS[self.assignment]
        levels = GAIN_NUM_LEVELS / num_levels
        self.box_gain = config.box * levels * factors.box
        self.objectness_gain = config.objectness * (image_size / GAIN_IMAGE_SIZE) ** 2 * levels * factors.objectness
        self.class_gain = config.classes * head.num_classes / GAIN_NUM_CLASSES * levels * factors.classes

    def __call__(self, raw: list[Tensor], targets: Targets) -> LossTerms:
        """Compute the loss of a batch.

        Args:
            raw: L maps (B, A, H, W, 5 + K) before any sigmoid; any float type, computed with as float32.
            targets: boxes in network-input pixels, and the input's size, where cells may not be nominal.

        Returns:
            The terms. Without a match, box and classes are 0; the total still has a gradient.
        """
        zero = raw[0].new_zeros((), dtype=torch.float32)
        box, objectness, classes = zero, zero, zero
        cells = self.head.cells_px(raw, targets.image_hw)
        ignored = self._ignored(raw, targets, cells)
        found = self._match(raw, targets, cells)
        # Means are over all processes, so that the loss does not depend on how a batch is divided.
        num_images, *num_matches = (int(count) for count in all_reduce_sum([len(raw[0]), *map(len, found)]))
        share = len(raw[0]) / num_images
        for level, (y, matches) in enumerate(zip(raw, found, strict=True)):
            # One gather for all columns; only these rows and the objectness plane are ever read.
            matched = y[matches.image, matches.anchor, matches.row, matches.column].float()
            errors, iou = self._box_errors(matched[:, :4], matches, level, cells[level], (y.shape[2], y.shape[3]))
            objectness = objectness + self._objectness_loss(y, matches, iou, level, ignored) * share
            if num_matches[level]:
                box = box + errors.sum() / num_matches[level]
                classes = classes + self._class_loss(matched[:, 5:], matches.labels, num_matches[level])
        return LossTerms(box * self.box_gain, objectness * self.objectness_gain, classes * self.class_gain, num_images)

    def _match(self, raw: list[Tensor], targets: Targets, cells: list[CellSize]) -> list[Matches]:
        grids_hw = [(y.shape[2], y.shape[3]) for y in raw]
        head = self.head
        if self.assignment == "yolov3":
            return match_best(targets, grids_hw, head.anchors_px, cells)
        levels = zip(grids_hw, head.anchors_px, cells, strict=True)
        return [match_by_ratio(targets, *level, self.config.anchor_ratio) for level in levels]

    def _box_errors(
        self, matched_xywh: Tensor, matches: Matches, level: int, cell_px: CellSize, grid_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Box losses (n,) of the matched predictions, and their IoUs (n,) with the targets, without a gradient."""
        coding = self.head.codings[level]
        anchors_px = self.head.anchors_px[level]
        anchors = (anchors_px / as_xy(cell_px, anchors_px))[matches.anchor]
        boxes = torch.cat([coding.centres(matched_xywh[:, :2]), coding.extents(matched_xywh[:, 2:], anchors)], dim=1)
        if self.config.box_iou == "mse":
            with torch.no_grad():
                iou = paired_iou(boxes, matches.boxes_cxcywh_cells, "iou")
            return squared_errors(boxes, matches.boxes_cxcywh_cells, grid_hw), iou
        iou = paired_iou(boxes, matches.boxes_cxcywh_cells, self.config.box_iou)
        return 1 - iou, iou.detach()

    def _objectness_loss(
        self, y: Tensor, matches: Matches, iou: Tensor, level: int, ignored: list[Tensor] | None
    ) -> Tensor:
        """Mean over all cells of a level, weighted by its balance.

        The target of a match is its IoU with YOLOv5's assignment. With YOLOv3's it is 1, provisionally: otherwise, with
        few matches, objectness grows too slowly (AP50 0.094 against 0.081 in the small setting of ``GAIN_FACTORS``).
        """
        counted = None
        if ignored is None:
            target = objectness_targets(y.shape[:4], matches, iou)
        else:
            target = objectness_targets(y.shape[:4], matches, torch.ones_like(iou))
            counted = (target.bool() | ~ignored[level]).float()
        return self._cross_entropy(y[..., 4].float(), target, counted).mean() * self.balance[level]

    @torch.no_grad()
    def _ignored(self, raw: list[Tensor], targets: Targets, cells: list[CellSize]) -> list[Tensor] | None:
        """(B, A, H, W) bool of each level: predictions that lie on a target; None in YOLOv5's assignment."""
        if self.assignment == "yolov5":
            return None
        boxes = decoded_boxes(raw, self.head, cells)
        found = covered(torch.cat(boxes, dim=1), targets, self.config.ignore_iou)
        parts = found.split([part.shape[1] for part in boxes], dim=1)
        return [part.view(y.shape[:4]) for part, y in zip(parts, raw, strict=True)]

    def _class_loss(self, logits: Tensor, labels: Tensor, num_matches: int) -> Tensor:
        """Share of this process in the mean over classes and matches, of which all processes have ``num_matches``."""
        if self.head.num_classes == 1:
            return logits.sum() * 0  # the only class is certain
        low, high = self.config.label_smoothing / 2, 1 - self.config.label_smoothing / 2
        target = torch.full_like(logits, low).scatter_(1, labels[:, None], high)
        return self._cross_entropy(logits, target).sum() / (num_matches * self.head.num_classes)

    def _cross_entropy(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return cross_entropy(logits, target, self.config.focal_gamma, weight)


def squared_errors(boxes_cxcywh: Tensor, targets_cxcywh: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Half the squared errors of boxes (n, 4) in cells, summed over centres and the logarithms of sides; (n,).

    Small boxes weigh up to twice as much: 2 - the target's share of the image (Darknet).

    Source: YOLOv3 (Redmon and Farhadi, 2018), section 2.1.
    """
    centres = boxes_cxcywh[:, :2] - targets_cxcywh[:, :2]
    sides, target_sides = (boxes[:, 2:].clamp(min=EPSILON).log() for boxes in (boxes_cxcywh, targets_cxcywh))
    weight = 2 - targets_cxcywh[:, 2:].prod(dim=1) / (grid_hw[0] * grid_hw[1])
    return torch.cat([centres, sides - target_sides], dim=1).square().sum(dim=1) * weight / 2


def default_balance(reductions: tuple[int, ...]) -> tuple[float, ...]:
    """Objectness weights of the levels, finest first: 4, 1 and 0.4 on three, and on P2 to P5 4, 1, 0.4 and 0.4."""
    # The mean over a level's cells times a quarter for each coarser level gives every cell the same weight; the few
    # cells of coarse levels get more. The finest level has 4 whatever its reduction, so that objectness keeps about the
    # weight that three levels give it beside boxes and classes, which are means over matches: with GAIN_NUM_LEVELS it
    # is 5.4 in all on three levels, 4.4 on four, 7.5 on two. (On P4 and P5, 1 and 0.4 would make it 2.1.) Other weights
    # on two and on four levels have not been measured. Three levels are YOLOv5's (v6.0).
    return tuple(max(4 * (reductions[0] / reduction) ** 2, 0.4) for reduction in reductions)


def objectness_targets(shape: torch.Size, matches: Matches, values: Tensor) -> Tensor:
    """Objectness targets (B, A, H, W) float32: 0 without a match, else the largest of the matches' ``values``.

    Values (n,), such as the IoU of the prediction, count as 0 below 0.
    """
    _, num_anchors, height, width = shape
    cell = ((matches.image * num_anchors + matches.anchor) * height + matches.row) * width + matches.column
    target = torch.zeros(shape.numel(), dtype=torch.float32, device=values.device)
    return target.scatter_reduce(0, cell, values.float().clamp(min=0), "amax").view(shape)
