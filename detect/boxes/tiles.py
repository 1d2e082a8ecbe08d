"""Tiles of a large image, and which boxes at their edges are fragments of what another view shows whole.

Letters: V views (the tiles and the whole image), N boxes that they gave, n of them fragments of one view, m others.
"""

from __future__ import annotations

import math

import numpy as np

from detect.boxes.convert import box_areas
from detect.boxes.iou import intersection_areas

COVERED = 0.5
"""A fragment lies in the box of the whole object; more than this share of its area must."""

SURE = 0.5
"""The other box must have at least this share of the fragment's score. A whole object is not always found with more
confidence than its half; but at the low thresholds that AP is measured with, something covers every place."""


def tile_windows(image_hw: tuple[int, int], tile: int, overlap: float) -> np.ndarray:
    """The views of an image: even rows of tiles that cover it exactly, then the whole.

    Args:
        image_hw: height and width of the image in pixels.
        tile: side of a tile in pixels; where the image is narrower, tiles are as narrow.
        overlap: least share of its side that a tile has in common with the next one, in [0, 1).

    Returns:
        (V, 4) int64 left, top, right, bottom in image pixels: all tiles of one size, row by row, then the whole image.
        An image that is no larger than a tile is one view.
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
    """Where tiles begin along a side: as few as overlap enough, spread evenly from one end to the other."""
    if length <= tile:
        return np.zeros(1, dtype=np.int64)
    step = max(1, math.floor(tile * (1 - overlap)))
    count = 1 + math.ceil((length - tile) / step)
    return np.linspace(0, length - tile, count).round().astype(np.int64)


def ends_at_edge(
    boxes_xyxy_px: np.ndarray, windows_xyxy_px: np.ndarray, image_hw: tuple[int, int], margin_px: float
) -> np.ndarray:
    """Which boxes end where their view does, so that the object may go on beyond. The image's border is no such edge.

    Args:
        boxes_xyxy_px: (N, 4) in image pixels, inside their views.
        windows_xyxy_px: (N, 4), the view of each.
        image_hw: height and width of the image in pixels.
        margin_px: a box that ends closer to the edge than this ends there.

    Returns:
        (N,) bool.
    """
    inner_low = windows_xyxy_px[:, :2] > 0
    inner_high = windows_xyxy_px[:, 2:] < [image_hw[1], image_hw[0]]
    near = np.abs(boxes_xyxy_px - windows_xyxy_px) < margin_px
    return (near & np.concatenate([inner_low, inner_high], axis=1)).any(axis=1)


def find_fragments(
    boxes_xyxy_px: np.ndarray, scores: np.ndarray, labels: np.ndarray, views: np.ndarray, is_cut: np.ndarray
) -> np.ndarray:
    """Which boxes show a part of an object that another view shows better.

    Such a box ends at an edge of its view and is covered by a box of its class in another view, one that is whole or at
    least larger. An object that no view shows whole keeps its largest fragment, and any that goes on where that ends.

    Args:
        boxes_xyxy_px: (N, 4) in image pixels.
        scores: (N,).
        labels: (N,) int; boxes of different labels are of different objects.
        views: (N,) int, the view that gave each.
        is_cut: (N,) bool, see ``ends_at_edge``.

    Returns:
        (N,) bool.
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
