"""Anchors: how boxes are read relative to them, how well a set of anchors covers boxes, and fitting them.

Letters: A anchors, B batch, H W cells, M boxes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

KMEANS_ITERATIONS = 100


def decode_boxes(probabilities: Tensor, anchors_px: Tensor, reduction: int) -> Tensor:
    """Boxes of one level, with s the sigmoid of the raw values.

    The centre is (2s - 0.5 + cell) * reduction, the size (2s)^2 * anchor: a centre reaches half a cell beyond each
    side of its cell, and a side 4 times its anchor, which is what the assignment needs.

    Args:
        probabilities: (B, A, H, W, 4), the raw x, y, w, h after the sigmoid.
        anchors_px: (A, 2) width, height.
        reduction: input pixels per cell.

    Returns:
        (B, A, H, W, 4) centre x, centre y, width, height in network-input pixels.

    Source: YOLOv5 v6.0.
    """
    height, width = probabilities.shape[2:4]
    centres = (probabilities[..., :2] * 2 - 0.5 + cell_grid(height, width, probabilities)) * reduction
    sizes = (probabilities[..., 2:] * 2).square() * anchors_px[:, None, None].to(probabilities.dtype)
    return torch.cat([centres, sizes], dim=-1)


def cell_grid(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2) column and row of each cell, with the device and type of ``like``."""
    rows = torch.arange(height, device=like.device, dtype=like.dtype)
    columns = torch.arange(width, device=like.device, dtype=like.dtype)
    grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1)


def best_possible_recall(sizes_px: np.ndarray, anchors_px: np.ndarray, max_ratio: float) -> float:
    """Share of boxes that at least one anchor can be assigned to.

    Args:
        sizes_px: (M, 2) widths and heights in network-input pixels, above 0.
        anchors_px: (A, 2).
        max_ratio: an anchor matches when neither side differs by this factor or more.

    Returns:
        In [0, 1]; 1 when there are no boxes.
    """
    if not len(sizes_px):
        return 1.0
    return float((_worst_ratio(sizes_px, anchors_px).min(axis=1) < max_ratio).mean())


def fit_anchors(sizes_px: np.ndarray, num_anchors: int, seed: int) -> np.ndarray:
    """Anchors for boxes by k-means on the logarithms of their sizes (the assignment judges ratios, not differences).

    Args:
        sizes_px: (M, 2) widths and heights in network-input pixels, above 0, M at least 1.
        num_anchors: A.
        seed: of the starting points.

    Returns:
        (A, 2) sorted by area. With fewer distinct sizes than anchors, some anchors are spread around the sizes.
    """
    rng = np.random.default_rng(seed)
    points = np.log(sizes_px)
    centres = _spread_start(points, num_anchors, rng)
    for _ in range(KMEANS_ITERATIONS):
        nearest = _squared_distances(points, centres).argmin(axis=1)
        moved = np.array(
            [points[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k] for k in range(num_anchors)]
        )
        if np.allclose(moved, centres, atol=1e-4):
            break
        centres = moved
    anchors = np.exp(centres)
    return anchors[np.argsort(anchors.prod(axis=1))]


def _worst_ratio(sizes_px: np.ndarray, anchors_px: np.ndarray) -> np.ndarray:
    """(M, A) the larger factor by which width or height of box and anchor differ."""
    ratio = sizes_px[:, None] / anchors_px[None]
    return np.maximum(ratio, 1 / ratio).max(axis=2)


def _spread_start(points: np.ndarray, num_centres: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is a point, the farther from the ones before the likelier."""
    centres = [points[rng.integers(len(points))]]
    while len(centres) < num_centres:
        nearest = _squared_distances(points, np.array(centres)).min(axis=1)
        if nearest.sum() > 0:
            centres.append(points[rng.choice(len(points), p=nearest / nearest.sum())])
        else:
            centres.append(points[rng.integers(len(points))] + rng.normal(0, 0.3, 2))
    return np.array(centres)


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return ((points[:, None] - centres[None]) ** 2).sum(axis=2)
