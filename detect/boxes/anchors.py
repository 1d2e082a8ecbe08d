"""Anchors: recall of a set of them on boxes, and fitting by k-means and by random changes.

Letters: A anchors, M boxes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from detect.boxes.iou import centred_iou

KMEANS_ITERATIONS = 100

MIN_ANCHOR_PX = 1.0
"""Smallest side of a fitted anchor; nothing of a thinner box is left in the network input."""

GENERATIONS, MUTATION, MUTATED = 1000, 0.1, 0.5
"""Changes that ``genetic`` tries, deviation of a side's logarithm in one, and share of the sides that it changes."""


class AnchorFit(NamedTuple):
    """Way to fit anchors.

    Args:
        num_anchors: A.
        method: as ``anchors.method`` of a recipe.
        max_ratio: of ``genetic``: a box farther than this factor from all anchors counts as lost.
    """

    num_anchors: int
    method: Literal["log-kmeans", "iou-kmeans", "genetic"] = "log-kmeans"
    max_ratio: float = 4.0


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


def fit_anchors(sizes_px: np.ndarray, fit: AnchorFit, seed: int) -> np.ndarray:
    """Fit anchors (A, 2), sorted by area, to sizes (M, 2) as of ``fittable_sizes``, M at least 1.

    With fewer distinct sizes than anchors, some anchors are spread around the sizes. ``seed`` is that of everything
    random.
    """
    rng = np.random.default_rng(seed)
    anchors = np.exp(_spread_start(np.log(sizes_px), fit.num_anchors, rng))
    anchors = _kmeans(sizes_px, anchors, fit.method == "iou-kmeans").clip(min=MIN_ANCHOR_PX)
    if fit.method == "genetic":
        anchors = _refine(sizes_px, anchors, fit.max_ratio, rng)
    return anchors[np.argsort(anchors.prod(axis=1))]


def _kmeans(sizes_px: np.ndarray, anchors_px: np.ndarray, by_iou: bool) -> np.ndarray:
    """Move anchors (A, 2) to the means of the sizes (M, 2) that are nearest to them, until they stay."""
    anchors = anchors_px
    for _ in range(KMEANS_ITERATIONS):
        if by_iou:  # YOLOv2 (Redmon and Farhadi, 2017), section 2: the distance is 1 - IoU
            nearest = centred_iou(sizes_px, anchors).argmax(axis=1)
        else:
            nearest = _squared_distances(np.log(sizes_px), np.log(anchors)).argmin(axis=1)
        groups = [sizes_px[nearest == k] for k in range(len(anchors))]
        moved = np.array(
            [
                anchor if not len(group) else group.mean(axis=0) if by_iou else np.exp(np.log(group).mean(axis=0))
                for anchor, group in zip(anchors, groups, strict=True)
            ]
        )
        if np.allclose(np.log(moved), np.log(anchors), rtol=1e-5, atol=1e-4):
            break
        anchors = moved
    return anchors


def _refine(sizes_px: np.ndarray, anchors_px: np.ndarray, max_ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Change anchors (A, 2) at random, generation by generation, and keep what makes ``_closeness`` larger."""
    sizes, best, reach = np.log(sizes_px), np.log(anchors_px), np.log(max_ratio)
    highest = _closeness(sizes, best, reach)
    for _ in range(GENERATIONS):
        change = rng.normal(0, MUTATION, best.shape) * (rng.random(best.shape) < MUTATED)
        changed = (best + change).clip(min=np.log(MIN_ANCHOR_PX))
        closeness = _closeness(sizes, changed, reach)
        if closeness > highest:
            best, highest = changed, closeness
    return np.exp(best)


def _closeness(sizes: np.ndarray, anchors: np.ndarray, reach: float) -> float:
    """Mean of 1 / the worse ratio of sizes (M, 2) to the best of anchors (A, 2), all logarithms; 0 without match."""
    wide, high = (np.abs(sizes[:, None, side] - anchors[None, :, side]) for side in (0, 1))  # (M, A)
    ratio = np.maximum(wide, high).min(axis=1)
    return float(np.where(ratio < reach, np.exp(-ratio), 0).mean())


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
