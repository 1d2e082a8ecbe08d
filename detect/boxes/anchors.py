"""Anchors: recall of a set of them on boxes, and fitting by k-means.

Letters: A anchors, M boxes.
"""

from __future__ import annotations

import numpy as np

from detect.boxes.iou import centred_iou

KMEANS_ITERATIONS = 100

MIN_ANCHOR_PX = 1.0
"""Smallest side of a fitted anchor; nothing of a thinner box is left in the network input."""


def fittable_sizes(sizes_px: np.ndarray) -> np.ndarray:
    """Select the sizes (m, 2) of (M, 2) that are finite and at least ``MIN_ANCHOR_PX`` on both sides."""
    return sizes_px[np.isfinite(sizes_px).all(axis=1) & (sizes_px >= MIN_ANCHOR_PX).all(axis=1)]


def best_possible_recall(sizes_px: np.ndarray, anchors_px: np.ndarray, max_ratio: float) -> float:
    """Share of box sizes (M, 2) that match an anchor (A, 2) by YOLOv5's ``match_by_ratio``; 1 for no boxes."""
    if not len(sizes_px):
        return 1.0
    return float((_worst_ratio(sizes_px, anchors_px).min(axis=1) < max_ratio).mean())


def close_recall(sizes_px: np.ndarray, anchors_px: np.ndarray, min_iou: float) -> float:
    """Share of box sizes (M, 2) whose centred IoU with an anchor (A, 2) reaches ``min_iou``; 1 for no boxes."""
    if not len(sizes_px):
        return 1.0
    return float((centred_iou(sizes_px, anchors_px).max(axis=1) >= min_iou).mean())


def fit_anchors(sizes_px: np.ndarray, num_anchors: int, seed: int) -> np.ndarray:
    """Fit anchors by k-means on the logarithms of box sizes (the assignment compares ratios, not differences).

    Args:
        sizes_px: (M, 2) as of ``fittable_sizes``, M at least 1.
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
    anchors = np.exp(centres).clip(min=MIN_ANCHOR_PX)
    return anchors[np.argsort(anchors.prod(axis=1))]


def _worst_ratio(sizes_px: np.ndarray, anchors_px: np.ndarray) -> np.ndarray:
    """(M, A) the larger factor by which width or height of box and anchor differ."""
    ratio = sizes_px[:, None] / anchors_px[None]
    return np.maximum(ratio, 1 / ratio).max(axis=2)


def _spread_start(points: np.ndarray, num_centres: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: draw each next centre among the points, with probability by squared distance to the centres so far."""
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
