"""SimOTA: assignment of targets to the predictions that already fit them best.

Letters: B images, M targets, L levels, A anchors per cell, H W cells, P predictions of an image (A*H*W summed over the
levels, in this order), C candidates of a target (9*A*L), K classes, n assigned predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.boxes.coding import CellSize, as_xy
from detect.boxes.convert import xyxy_to_cxcywh
from detect.boxes.iou import paired_iou
from detect.losses.assignment import cells_of
from detect.structures import Targets

IOU_WEIGHT = 3.0
"""Weight of the IoU's logarithm beside the cross-entropy of the classes in a prediction's cost (YOLOX, section 2.1)."""
SUMMED_IOUS = 10
"""A target has as many predictions as the sum of this many highest IoUs, rounded down (YOLOX, section 2.1)."""
EPSILON = 1e-8
"""Keeps the logarithm of an IoU of 0 finite."""


class Assigned(NamedTuple):
    """Assigned predictions; each has one target.

    Args:
        image: (n,) int64 image of the batch.
        prediction: (n,) int64 in [0, P).
        target: (n,) int64 in [0, M).
        quality: (n,) in [0, 1], what the score of the target's class should be: in SimOTA the IoU of the two.
    """

    image: Tensor
    prediction: Tensor
    target: Tensor
    quality: Tensor


def candidates_of(
    targets: Targets, grids_hw: Sequence[tuple[int, int]], cells_px: Sequence[CellSize], num_anchors: int
) -> tuple[Tensor, Tensor]:
    """Return the predictions of the 3 x 3 cells around each target's centre, on every level.

    Args:
        targets: M of them.
        grids_hw: H and W of each level.
        cells_px: input pixels per cell of each level.
        num_anchors: A.

    Returns:
        (M, C) int64 in [0, P), and (M, C) bool, False for a cell that lies outside its map.
    """
    centres = xyxy_to_cxcywh(targets.boxes_xyxy_px)[:, :2]
    near = torch.arange(-1, 2, device=centres.device)
    anchors = torch.arange(num_anchors, device=centres.device)
    found, inside, start = [], [], 0
    for (height, width), cell_px in zip(grids_hw, cells_px, strict=True):
        column, row = cells_of(centres / as_xy(cell_px, centres), (height, width))
        rows, columns = row[:, None, None] + near[:, None], column[:, None, None] + near  # (M, 3, 1), (M, 1, 3)
        is_cell = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (M, 3, 3)
        cells = (rows * width + columns).where(is_cell, 0)
        found.append(start + anchors[:, None] * (height * width) + cells.flatten(1)[:, None])  # (M, A, 9)
        inside.append(is_cell.flatten(1)[:, None].expand_as(found[-1]))
        start += num_anchors * height * width
    return torch.cat(found, dim=1).flatten(1), torch.cat(inside, dim=1).flatten(1)


@torch.no_grad()
def match_simota(
    boxes_cxcywh_px: Tensor, logits: Tensor, targets: Targets, candidates: Tensor, inside: Tensor
) -> Assigned:
    """Assign to each target those of its candidates that have the lowest cost.

    The cost is the cross-entropy of the class scores, less 3 times the logarithm of the IoU. A target gets as many
    predictions as the sum of its ten highest IoUs, at least one. A prediction that several targets want goes to the
    one with the lowest cost; of equal ones to the first.

    Args:
        boxes_cxcywh_px: (B, P, 4) predicted boxes in network-input pixels.
        logits: (B, P, 1 + K) objectness and classes, before the sigmoid.
        targets: boxes in network-input pixels; the assignment is sorted by them.
        candidates: (M, C) of ``candidates_of``.
        inside: (M, C) of ``candidates_of``.

    Source: YOLOX (Ge et al., 2021), section 2.1. Ours: a target's candidates are those near its own centre only.
    """
    image = targets.image_index[:, None].expand_as(candidates)
    gt_cxcywh_px = xyxy_to_cxcywh(targets.boxes_xyxy_px)[:, None]  # (M, 1, 4)
    iou = paired_iou(boxes_cxcywh_px[image, candidates], gt_cxcywh_px, "iou") * inside  # (M, C)
    cost = class_costs(logits[image, candidates], targets.labels) - IOU_WEIGHT * (iou + EPSILON).log()
    cost = cost.masked_fill(~inside, torch.inf)
    counts = iou.topk(min(SUMMED_IOUS, iou.shape[1]), dim=1).values.sum(dim=1).int().clamp(min=1)  # (M,)
    rank = cost.argsort(dim=1, stable=True).argsort(dim=1)  # (M, C), 0 for the cheapest candidate of a target
    target, place = ((rank < counts[:, None]) & inside).nonzero(as_tuple=True)
    image, prediction, cost = image[target, place], candidates[target, place], cost[target, place]
    num_images, num_predictions = boxes_cxcywh_px.shape[:2]
    kept = cheapest(image * num_predictions + prediction, num_images * num_predictions, cost, target)
    return Assigned(image[kept], prediction[kept], target[kept], iou[target, place][kept])


def class_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of candidates' scores, summed over the classes: (M, C, 1 + K) and labels (M,) to (M, C)."""
    scores = (logits[..., :1].sigmoid() * logits[..., 1:].sigmoid()).sqrt()  # (M, C, K), a geometric mean
    target = F.one_hot(labels, scores.shape[-1]).to(scores.dtype)[:, None].expand_as(scores)
    return F.binary_cross_entropy(scores, target, reduction="none").sum(dim=-1)


def cheapest(key: Tensor, num_keys: int, *costs: Tensor) -> Tensor:
    """(n,) bool: the pair of lowest cost of each key, by the first of the ``costs`` (n,) that tells it from others."""
    kept = torch.ones_like(key, dtype=torch.bool)
    for cost in costs:
        cost = cost.float().masked_fill(~kept, torch.inf)
        lowest = cost.new_full((num_keys,), torch.inf).scatter_reduce(0, key, cost, "amin")
        kept &= cost == lowest[key]
    return kept
