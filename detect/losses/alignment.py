"""Task-aligned assignment (TAL) of targets to the predictions that class and place them best.

Letters: B images, M targets, m of them at once, L levels, A anchors per cell, H W cells, P predictions of an image
(A*H*W summed over the levels, in this order), K classes, k predictions of a target, n assigned predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detect.boxes.coding import CellSize, as_xy, cell_grid
from detect.boxes.convert import xyxy_to_cxcywh
from detect.boxes.iou import paired_iou
from detect.config.recipe import LossConfig
from detect.losses.assignment import PAIRS_AT_ONCE
from detect.losses.simota import Assigned, cheapest
from detect.structures import Targets

MIN_QUALITY = 0.1
"""Least quality of the nearest cells of an object that has few inside. Their boxes do not overlap it at first; at a
quality of 0 they would never learn to. Ours; other values have not been measured."""


class _Chosen(NamedTuple):
    """The best predictions of m targets: each (m, k), with alignment -1 where a target has fewer.

    Args:
        prediction: in [0, P).
        alignment: t.
        iou: IoU with the target.
        distance: squared, of the cell's from the target's centre, in pixels.
        is_few: the target has few cells inside.
    """

    prediction: Tensor
    alignment: Tensor
    iou: Tensor
    distance: Tensor
    is_few: Tensor


def cell_centres(
    grids_hw: Sequence[tuple[int, int]], cells_px: Sequence[CellSize], num_anchors: int, like: Tensor
) -> Tensor:
    """(P, 2) centres of the predictions' cells, in network-input pixels, with the device and type of ``like``."""
    levels = [(cell_grid(*grid, like) + 0.5) * as_xy(cell, like) for grid, cell in zip(grids_hw, cells_px, strict=True)]
    return torch.cat([level.flatten(0, 1).repeat(num_anchors, 1) for level in levels])


@torch.no_grad()
def match_aligned(
    boxes_cxcywh_px: Tensor, logits: Tensor, targets: Targets, centres_px: Tensor, config: LossConfig
) -> Assigned:
    """Assign to each target the ``top_k`` predictions of highest alignment, of those whose cell's centre it holds.

    The alignment is t = s^alpha * u^beta with the score s of the target's class and the IoU u. A target that holds
    fewer than ``nearest_cells`` centres gets the predictions of that many nearest cells instead (ours: a box of 3 px
    may hold none). A prediction that several targets want goes to the one of the highest IoU, then to the nearest. The
    quality is t, scaled for each target so that its largest is the largest IoU.

    Args:
        boxes_cxcywh_px: (B, P, 4) predicted boxes in network-input pixels.
        logits: (B, P, 1 + K) objectness and classes, before the sigmoid.
        targets: boxes in network-input pixels; the assignment is sorted by them.
        centres_px: (P, 2) of ``cell_centres``.
        config: ``top_k``, ``nearest_cells`` and the powers.

    Source: TOOD (Feng et al., 2021), section 3.2.
    """
    parts = list(_choose(boxes_cxcywh_px, logits, targets, centres_px, config))
    best = _Chosen(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    target, place = (best.alignment >= 0).nonzero(as_tuple=True)
    prediction, alignment, iou, distance, is_few = (column[target, place] for column in best)
    image = targets.image_index[target]
    num_images, num_predictions = boxes_cxcywh_px.shape[:2]
    key = image * num_predictions + prediction
    kept = cheapest(key, num_images * num_predictions, -iou, distance, target)
    image, prediction, target, alignment, iou = (part[kept] for part in (image, prediction, target, alignment, iou))
    zeros = iou.new_zeros(len(targets))
    largest_t, largest_iou = (zeros.scatter_reduce(0, target, part, "amax")[target] for part in (alignment, iou))
    quality = torch.where(largest_t > 0, alignment / largest_t.clamp(min=torch.finfo().tiny) * largest_iou, 0.0)
    quality = torch.where(is_few[kept], quality.clamp(min=MIN_QUALITY), quality)
    return Assigned(image, prediction, target, quality)


def _choose(
    boxes_cxcywh_px: Tensor, logits: Tensor, targets: Targets, centres_px: Tensor, config: LossConfig
) -> Iterator[_Chosen]:
    """Yield the best predictions of some targets after the other, so that M * P pairs are never in memory."""
    num_predictions = len(centres_px)
    num_chosen = min(config.top_k, num_predictions)
    size = max(PAIRS_AT_ONCE // num_predictions, 1)
    columns = (targets.image_index, targets.labels, targets.boxes_xyxy_px)
    for image, label, gt_xyxy_px in zip(*(column.split(size) for column in columns), strict=True):
        is_candidate, is_few = _candidates(centres_px, gt_xyxy_px, config.nearest_cells)
        target, prediction = is_candidate.nonzero(as_tuple=True)  # (c,), of all candidates, target by target
        boxes, values = boxes_cxcywh_px[image[target], prediction], logits[image[target], prediction]
        iou = paired_iou(boxes, xyxy_to_cxcywh(gt_xyxy_px)[target], "iou")
        score = values.gather(1, 1 + label[target, None])[:, 0].sigmoid() * values[:, 0].sigmoid()
        alignment, best = _best(score**config.score_power * iou**config.iou_power, target, len(gt_xyxy_px), num_chosen)
        centre = (gt_xyxy_px[:, :2] + gt_xyxy_px[:, 2:])[:, None] / 2
        distance = (centres_px[prediction[best]] - centre).square().sum(dim=2)
        yield _Chosen(prediction[best], alignment, iou[best], distance, is_few[:, None].expand_as(best))


def _best(alignment: Tensor, target: Tensor, num_targets: int, num_chosen: int) -> tuple[Tensor, Tensor]:
    """The k candidates of the highest alignment of each of m targets.

    ``alignment`` (c,) is that of all candidates, ``target`` (c,) in [0, m), sorted. Returns (m, k) alignment, -1 where
    a target has fewer candidates, and (m, k) int64 in [0, c).
    """
    counts = target.bincount(minlength=num_targets)
    first = counts.cumsum(dim=0) - counts
    width = max([num_chosen, *counts.tolist()])
    table = alignment.new_full((num_targets, width), -1.0)  # a row for each target
    table[target, torch.arange(len(target), device=target.device) - first[target]] = alignment
    values, place = table.topk(num_chosen, dim=1)
    return values, (first[:, None] + place).clamp(max=max(len(target) - 1, 0))


def _candidates(centres_px: Tensor, boxes_xyxy_px: Tensor, nearest_cells: int) -> tuple[Tensor, Tensor]:
    """(m, P) bool, the predictions that a box may have, and (m,) bool, whether its cells inside are few."""
    (x, y), (left, top, right, bottom) = centres_px.T, boxes_xyxy_px.T[:, :, None]
    is_candidate = (x > left) & (x < right) & (y > top) & (y < bottom)  # (m, P)
    is_few = is_candidate.sum(dim=1) < nearest_cells
    few = boxes_xyxy_px[is_few]
    distance = ((few[:, None, :2] + few[:, None, 2:]) / 2 - centres_px).square().sum(dim=2)  # (few, P)
    near = distance.topk(min(nearest_cells, len(centres_px)), dim=1, largest=False).indices
    is_candidate[is_few] = is_candidate[is_few].scatter(1, near, value=True)
    return is_candidate, is_few
