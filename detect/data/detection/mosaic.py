"""Four or nine images on one canvas.

Letters: S side of the square network input, N boxes. A mosaic shows objects at sizes and in company that single images
do not, and gives the loss the objects of several images for the price of one. Boxes are xyxy in pixels, continuous
coordinates.

Source: Bochkovskiy et al., YOLOv4, arXiv:2004.10934, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detect.data.detection.geometry import Scene
from detect.data.letterbox import PAD_VALUE


@dataclass(frozen=True)
class Tile:
    """An image to be put somewhere.

    Args:
        image_rgb: (h, w, 3) uint8, long side at most S; never written to.
        boxes_xyxy_px: (N, 4) float64, its own pixels, inside it.
        labels: (N,) int64.
    """

    image_rgb: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray


def single(tile: Tile) -> Scene:
    """One image as a scene of its own."""
    height, width = tile.image_rgb.shape[:2]
    return Scene(tile.image_rgb, tile.boxes_xyxy_px, tile.boxes_xyxy_px, tile.labels, (width / 2, height / 2))


def mosaic4(rng: np.random.Generator, tiles: Sequence[Tile], image_size: int) -> Scene:
    """Four images around a random point of a 2S x 2S canvas; each touches the point with one corner.

    Args:
        rng: draws the point, uniform in [S/2, 3S/2] both ways, and shuffles the tiles.
        tiles: four.
        image_size: S.
    """
    x, y = (int(v) for v in rng.integers(image_size // 2, image_size + image_size // 2, size=2, endpoint=True))
    shuffled = [tiles[i] for i in rng.permutation(4)]
    sizes = [tile.image_rgb.shape[:2] for tile in shuffled]
    corners = [
        (x - sizes[0][1], y - sizes[0][0]),  # top left
        (x, y - sizes[1][0]),  # top right
        (x - sizes[2][1], y),  # bottom left
        (x, y),  # bottom right
    ]
    return _compose(shuffled, corners, 2 * image_size, (float(image_size), float(image_size)))


def mosaic9(rng: np.random.Generator, tiles: Sequence[Tile], image_size: int) -> Scene:
    """Nine images on a 3S x 3S canvas: one in the middle, eight around it like the wings of a pinwheel.

    Args:
        rng: draws where the warp looks, uniform in [S, 2S] both ways, and shuffles the tiles.
        tiles: nine.
        image_size: S.
    """
    centre_x, centre_y = rng.uniform(image_size, 2 * image_size, size=2)
    shuffled = [tiles[i] for i in rng.permutation(9)]
    corners = _pinwheel([tile.image_rgb.shape[:2] for tile in shuffled], 3 * image_size)
    return _compose(shuffled, corners, 3 * image_size, (float(centre_x), float(centre_y)))


def _pinwheel(sizes_hw: Sequence[tuple[int, ...]], canvas_size: int) -> list[tuple[int, int]]:
    """Top left corners (x, y) of nine images that touch but never overlap, whatever their sizes.

    Each edge image starts at one corner of the middle one and may reach beyond its next corner (the top one to the
    right, the right one down, and so on); each corner image steps aside for it.
    """
    (h0, w0), top, right, bottom, left, top_left, top_right, _, bottom_left = sizes_hw
    x1, y1 = (canvas_size - w0) // 2, (canvas_size - h0) // 2
    x2, y2 = x1 + w0, y1 + h0
    return [
        (x1, y1),
        (x1, y1 - top[0]),
        (x2, y1),
        (x2 - bottom[1], y2),
        (x1 - left[1], y2 - left[0]),
        (x1 - top_left[1], min(y1, y2 - left[0]) - top_left[0]),
        (max(x2, x1 + top[1]), y1 - top_right[0]),
        (x2, max(y2, y1 + right[0])),
        (min(x1, x2 - bottom[1]) - bottom_left[1], y2),
    ]


def _compose(
    tiles: Sequence[Tile], corners_xy: Sequence[tuple[int, int]], canvas_size: int, centre_xy_px: tuple[float, float]
) -> Scene:
    """Paint tiles with their top left corners at ``corners_xy``, cut off at the canvas."""
    canvas = np.full((canvas_size, canvas_size, 3), PAD_VALUE, dtype=np.uint8)
    full, visible = [], []
    for tile, (x, y) in zip(tiles, corners_xy, strict=True):
        height, width = tile.image_rgb.shape[:2]
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + width, canvas_size), min(y + height, canvas_size)
        if x1 < x2 and y1 < y2:
            canvas[y1:y2, x1:x2] = tile.image_rgb[y1 - y : y2 - y, x1 - x : x2 - x]
        placed = tile.boxes_xyxy_px + np.array([x, y, x, y])
        full.append(placed)
        visible.append(np.clip(placed, 0, canvas_size))
    labels = np.concatenate([tile.labels for tile in tiles])
    return Scene(canvas, np.concatenate(full), np.concatenate(visible), labels, centre_xy_px)
