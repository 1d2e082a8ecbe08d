"""Which anchor of which cell learns which object.

Letters: M targets, A anchors per cell, H W cells, n matches of a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detect.structures import Targets

NEIGHBOUR_REACH = 0.5
"""A neighbouring cell takes part when the object's centre is nearer than this to it, in cells (YOLOv5 v6.0)."""


@dataclass(frozen=True)
class Matches:
    """The matches of one level: row i says that anchor ``anchor[i]`` of a cell learns the box ``boxes[i]``.

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


def match_anchors(
    targets: Targets, grid_hw: tuple[int, int], anchors_px: Tensor, reduction: int, max_ratio: float
) -> Matches:
    """Match targets to the anchors of one level.

    A target matches an anchor when neither side differs by ``max_ratio`` or more. It is learnt by the cell that holds
    its centre, and by the nearer neighbour to the left or right and above or below, where there is one.

    Args:
        targets: M boxes, xyxy in network-input pixels.
        grid_hw: H, W.
        anchors_px: (A, 2) width, height.
        reduction: input pixels per cell.
        max_ratio: see above.

    Returns:
        The matches, by neighbour (own cell first), then anchor, then target.

    Source: YOLOv5 v6.0.
    """
    centres, sizes = _centres_and_sizes(targets.boxes_xyxy_px / reduction)
    ratio = sizes[None] / (anchors_px / reduction)[:, None].to(sizes.dtype)  # (A, M, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(dim=2) < max_ratio
    anchor, target = fits.nonzero(as_tuple=True)
    neighbour, match = _neighbours(centres[target], grid_hw).nonzero(as_tuple=True)
    anchor, target = anchor[match], target[match]

    height, width = grid_hw
    cell = (centres[target] + _OFFSETS.to(centres)[neighbour] * NEIGHBOUR_REACH).floor().long()
    column, row = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    corner = torch.stack([column, row], dim=1)
    boxes = torch.cat([centres[target] - corner, sizes[target]], dim=1)
    return Matches(targets.image_index[target], anchor, row, column, boxes, targets.labels[target])


_OFFSETS = torch.tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])
"""x and y of the own cell and of its neighbours left, above, right, below."""


def _neighbours(centres: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """(5, n) bool: whether the own cell and the neighbours left, above, right and below take part."""
    size = centres.new_tensor([grid_hw[1], grid_hw[0]])
    from_end = size - centres
    before = (centres % 1 < NEIGHBOUR_REACH) & (centres > 1)
    after = (from_end % 1 < NEIGHBOUR_REACH) & (from_end > 1)
    own = torch.ones(1, len(centres), dtype=torch.bool, device=centres.device)
    return torch.cat([own, before.T, after.T])


def _centres_and_sizes(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes_xyxy.split(2, dim=1)
    return (low + high) / 2, high - low
