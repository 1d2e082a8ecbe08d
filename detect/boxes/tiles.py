"""Tiles of a large image, and fragments of objects at their edges.

Letters: V views (the tiles and the whole image), N boxes of all views, n fragments of one view, m other boxes.
"""

from __future__ import annotations

import math

import numpy as np

from detect.boxes.convert import box_areas
from detect.boxes.intersections import intersection_areas

MIN_TILE_PX = 32
MAX_OVERLAP = 0.9
"""Beyond these limits an image has thousands of tiles, most likely by a typing error."""

COVERED = 0.5
"""Least share of a fragment's area inside the box of the whole object."""

SURE = 0.5
"""Least score of the other box, over the fragment's. A whole object does not always score higher than its half; but at
the low thresholds of AP, some box covers every place."""


def tile_windows(image_hw: tuple[int, int], tile: int, overlap: float) -> np.ndarray:
    """Views of an image, (V, 4) int64 xyxy: rows of evenly spaced tiles that cover it exactly, then the whole image.

    Tiles have one size, ``tile`` pixels or the image's side if that is less; neighbours share at least ``overlap`` of
    their side, in [0, 1). An image that is no larger than a tile is one view.
    """
    height, width = image_hw
    whole = np.array([[0, 0, width, height]], dtype=np.int64)
    if max(image_hw) <= tile:
        return whole
    tops, lefts = np.meshgrid(_starts(height, tile, overlap), _starts(width, tile, overlap), indexing="ij")
    corners = np.stack([lefts.ravel(), tops.ravel()], axis=1)
    tile_wh = np.minimum([width, height], tile)
    tiles = np.concatenate([corners, corners + tile_wh], axis=1)
    return np.concatenate([tiles, whole])


def _starts(length: int, tile: int, overlap: float) -> np.ndarray:
    """First pixels of the tiles along a side: as few tiles as ``overlap`` allows, evenly spaced."""
    if length <= tile:
        return np.zeros(1, dtype=np.int64)
    step = max(1, math.floor(tile * (1 - overlap)))
    count = 1 + math.ceil((length - tile) / step)
    return np.linspace(0, length - tile, count).round().astype(np.int64)


def ends_at_edge(
    boxes_xyxy_px: np.ndarray, windows_xyxy_px: np.ndarray, image_hw: tuple[int, int], margin_px: float
) -> np.ndarray:
    """Boxes (N, 4) that end within ``margin_px`` of an inner edge of their windows (N, 4): (N,) bool.

    The object may go on beyond; the image's border does not count.
    """
    inner_low = windows_xyxy_px[:, :2] > 0
    inner_high = windows_xyxy_px[:, 2:] < [image_hw[1], image_hw[0]]
    near = np.abs(boxes_xyxy_px - windows_xyxy_px) < margin_px
    return (near & np.concatenate([inner_low, inner_high], axis=1)).any(axis=1)


def find_fragments(
    boxes_xyxy_px: np.ndarray, scores: np.ndarray, labels: np.ndarray, views: np.ndarray, is_cut: np.ndarray
) -> np.ndarray:
    """Boxes (N, 4) of a part of an object that another view shows better: (N,) bool.

    A fragment ends at an edge of its view (``is_cut``, see ``ends_at_edge``) and is covered by a box of its label in
    another view, one that is whole or at least larger. An object that no view shows whole keeps its largest fragment,
    and any that continues it. ``views`` (N,) is the view of each box.
    """
    areas = box_areas(boxes_xyxy_px)
    is_fragment = np.zeros(len(boxes_xyxy_px), dtype=bool)
    for view in np.unique(views[is_cut]):
        mine = np.flatnonzero(is_cut & (views == view))
        low, high = boxes_xyxy_px[mine, :2].min(axis=0), boxes_xyxy_px[mine, 2:].max(axis=0)
        is_near = ((boxes_xyxy_px[:, :2] < high) & (boxes_xyxy_px[:, 2:] > low)).all(axis=1)
        others = np.flatnonzero((views != view) & is_near)
        better = ~is_cut[others] | (areas[others] > areas[mine, None])  # (n, m)
        better &= labels[others] == labels[mine, None]
        better &= scores[others] >= SURE * scores[mine, None]
        better &= intersection_areas(boxes_xyxy_px[mine], boxes_xyxy_px[others]) > COVERED * areas[mine, None]
        is_fragment[mine] = better.any(axis=1)
    return is_fragment
