"""Assignment of targets to anchors and cells by their sizes and places; ``detect.losses.simota`` is by predictions.

YOLOv5's assigns a target to several anchors of several cells (``match_by_ratio``), YOLOv3's to the anchor of highest
IoU (``match_best``).

Letters: B images, M targets, L levels, A anchors per cell, H W cells, P predictions of an image (A*H*W summed over the
levels), n matches of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detect.boxes.coding import CellSize, as_xy
from detect.boxes.convert import cxcywh_to_xyxy, xyxy_to_cxcywh
from detect.boxes.iou import centred_iou, exceeds_iou
from detect.structures import Targets

NEIGHBOUR_REACH = 0.5
"""Largest distance of the centre to a neighbouring cell that takes part, in cells (YOLOv5 v6.0)."""
PAIRS_AT_ONCE = 2**18
"""Pairs of target and prediction that ``covered`` compares at once: some megabytes, whatever the batch."""


@dataclass(frozen=True)
class Matches:
    """Matches of one level: ``boxes[i]`` is assigned to anchor ``anchor[i]`` of a cell.

    Args:
        image: (n,) int64 image of the batch.
        anchor: (n,) int64 in [0, A).
        row: (n,) int64 cell, in [0, H).
        column: (n,) int64 cell, in [0, W).
        boxes_cxcywh_cells: (n, 4) centre relative to the cell's corner, width and height, in cells.
        labels: (n,) int64 class index.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    boxes_cxcywh_cells: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def match_by_ratio(
    targets: Targets, grid_hw: tuple[int, int], anchors_px: Tensor, cell_px: CellSize, max_ratio: float
) -> Matches:
    """Match targets to the anchors (A, 2) of one level if neither side differs by ``max_ratio`` or more.

    A target is assigned to the cell that holds its centre, and to the nearer neighbour to the left or right and above
    or below, where there is one. The matches are sorted by neighbour (own cell first), then anchor, then target.

    Source: YOLOv5 v6.0.
    """
    centres, sizes = (part / as_xy(cell_px, part) for part in xyxy_to_cxcywh(targets.boxes_xyxy_px).split(2, dim=1))
    ratio = sizes[None] / (anchors_px / as_xy(cell_px, anchors_px))[:, None].to(sizes.dtype)  # (A, M, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(dim=2) < max_ratio
    anchor, target = fits.nonzero(as_tuple=True)
    neighbour, match = _neighbours(centres[target], grid_hw).nonzero(as_tuple=True)
    anchor, target = anchor[match], target[match]

    column, row = cells_of(centres[target] + _OFFSETS.to(centres)[neighbour] * NEIGHBOUR_REACH, grid_hw)
    boxes = torch.cat([centres[target] - torch.stack([column, row], dim=1), sizes[target]], dim=1)
    return Matches(targets.image_index[target], anchor, row, column, boxes, targets.labels[target])


def match_best(
    targets: Targets, grids_hw: list[tuple[int, int]], anchors_px: Tensor, cells_px: Sequence[CellSize]
) -> list[Matches]:
    """Match each target to the anchor of highest IoU, in the cell that holds the target's centre.

    Of different anchors with the same IoU the first one counts. If several levels have that anchor, the target is
    assigned to it on each of them (YOLOv3-tiny has 81 x 82 px twice). One without area is not matched. Arguments and
    result have an entry per level: H and W, anchors (A, 2), input pixels per cell; the matches are sorted by target.

    Source: YOLOv3 (Redmon and Farhadi, 2018), section 2.1.
    """
    centres, sizes = xyxy_to_cxcywh(targets.boxes_xyxy_px).split(2, dim=1)
    anchors = anchors_px.to(sizes.dtype)
    best_iou, best = centred_iou(sizes, anchors.flatten(0, 1)).max(dim=1)
    best_anchor = anchors.flatten(0, 1)[best]  # (M, 2)
    matches = []
    for level, (grid_hw, cell_px) in enumerate(zip(grids_hw, cells_px, strict=True)):
        same = (anchors[level] == best_anchor[:, None]).all(dim=2)  # (M, A)
        target = (same.any(dim=1) & (best_iou > 0)).nonzero().flatten()
        anchor = same[target].int().argmax(dim=1)  # the first one, should a level have it twice
        cell = as_xy(cell_px, centres)
        centre = centres[target] / cell
        column, row = cells_of(centre, grid_hw)
        boxes = torch.cat([centre - torch.stack([column, row], dim=1), sizes[target] / cell], dim=1)
        matches.append(Matches(targets.image_index[target], anchor, row, column, boxes, targets.labels[target]))
    return matches


def covered(boxes_cxcywh_px: Tensor, targets: Targets, min_iou: float) -> Tensor:
    """Predictions (B, P, 4) whose IoU with any target of their image is above ``min_iou``: (B, P) bool.

    Each target meets the predictions of its own image only: M * P pairs, 0.55 of the loss's time with a ``box_iou`` per
    image and level (CPU, 16 images of 416 px) at 112 targets, 0.24 at 3,200.
    """
    corners = cxcywh_to_xyxy(boxes_cxcywh_px).permute(2, 0, 1).contiguous()  # (4, B, P)
    hits = torch.zeros(corners.shape[1:], device=corners.device)
    size = max(PAIRS_AT_ONCE // max(corners.shape[2], 1), 1)
    for image, boxes in zip(targets.image_index.split(size), targets.boxes_xyxy_px.split(size), strict=True):
        hits.index_add_(0, image, exceeds_iou(corners[:, image], boxes.T[..., None], min_iou).float())
    return hits > 0


_OFFSETS = torch.tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])
"""x and y of the own cell and of its neighbours left, above, right, below."""


def _neighbours(centres: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """(5, n) bool: own cell and neighbours left, above, right and below that take part."""
    size = centres.new_tensor([grid_hw[1], grid_hw[0]])
    from_end = size - centres
    before = (centres % 1 < NEIGHBOUR_REACH) & (centres > 1)
    after = (from_end % 1 < NEIGHBOUR_REACH) & (from_end > 1)
    own = torch.ones(1, len(centres), dtype=torch.bool, device=centres.device)
    return torch.cat([own, before.T, after.T])


def cells_of(points: Tensor, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(n,) column and row of the cells that hold points (n, 2), in cells; an edge of the grid belongs to its cells."""
    height, width = grid_hw
    cell = points.floor().long()
    return cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
