"""Augmentation of training samples besides warps: mosaic, mixup, CutMix and colour.

Letters: S side of the square network input, H W pixels, N boxes. Boxes are xyxy in pixels, continuous coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detect.boxes.convert import box_areas
from detect.config.augment import AugmentConfig
from detect.data.detection.geometry import Sample, Scene, are_trainable
from detect.data.letterbox import PAD_VALUE
from detect.data.mixing import cutmix_rectangle

MIXUP_BETA = 32.0
"""Both parameters of mixup's weight: Beta(32, 32) has a standard deviation of 0.06 about 0.5, so both images stay
visible. Source: mixup for detection is from Zhang et al., arXiv:1902.04103."""
MAX_COVERED = 0.9
"""A base box is dropped when the pasted rectangle covers more than this share of it."""


# --------------------------------------------------------------------------------------------------------------- mosaic


def single_scene(sample: Sample) -> Scene:
    height, width = sample.image_rgb.shape[:2]
    boxes = sample.boxes_xyxy_px
    return Scene(sample.image_rgb, boxes, boxes, sample.labels, (width / 2, height / 2))


def mosaic4(rng: np.random.Generator, tiles: Sequence[Sample], image_size: int) -> Scene:
    """Four images around a random point of a 2S x 2S canvas, in [S/2, 3S/2]; each touches the point with one corner.

    Source: Bochkovskiy et al., YOLOv4, arXiv:2004.10934, section 3.3.
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


def mosaic9(rng: np.random.Generator, tiles: Sequence[Sample], image_size: int) -> Scene:
    """Nine images on a 3S x 3S canvas, one in the middle, eight around it; the warp's centre is random in [S, 2S]."""
    centre_x, centre_y = rng.uniform(image_size, 2 * image_size, size=2)
    shuffled = [tiles[i] for i in rng.permutation(9)]
    corners = _pinwheel([tile.image_rgb.shape[:2] for tile in shuffled], 3 * image_size)
    return _compose(shuffled, corners, 3 * image_size, (float(centre_x), float(centre_y)))


def _pinwheel(sizes_hw: Sequence[tuple[int, ...]], canvas_size: int) -> list[tuple[int, int]]:
    """Top left corners (x, y) of nine images that touch but never overlap, whatever their sizes.

    Each edge image starts at one corner of the middle one and may reach beyond the next corner (the top one to the
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
    tiles: Sequence[Sample],
    corners_xy: Sequence[tuple[int, int]],
    canvas_size: int,
    centre_xy_px: tuple[float, float],
) -> Scene:
    """Draw tiles with their top left corners at ``corners_xy``, clipped to the canvas."""
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


# ----------------------------------------------------------------------------------------------------- mixup and CutMix


def mixup(rng: np.random.Generator, base: Sample, second: Sample) -> Sample:
    """Blend two images of the same size, with the objects of both."""
    weight = rng.beta(MIXUP_BETA, MIXUP_BETA)
    image = cv2.addWeighted(base.image_rgb, weight, second.image_rgb, 1 - weight, 0)
    boxes = np.concatenate([base.boxes_xyxy_px, second.boxes_xyxy_px])
    return Sample(image, boxes, np.concatenate([base.labels, second.labels]))


def cutmix(rng: np.random.Generator, base: Sample, second: Sample) -> Sample:
    """Paste a rectangle of ``second``, its area uniform in [0, 1], at the same place on ``base``."""
    height, width = base.image_rgb.shape[:2]
    share = rng.beta(1, 1)
    centre_x, centre_y = rng.uniform(0, (width, height))
    return paste(base, second, cutmix_rectangle((height, width), share, (centre_x, centre_y)))


def paste(base: Sample, second: Sample, rectangle_xyxy_px: tuple[int, int, int, int]) -> Sample:
    """Paste a rectangle, which lies inside both images.

    Boxes of ``base`` covered by more than ``MAX_COVERED`` are dropped, those of ``second`` clipped and filtered.
    """
    x1, y1, x2, y2 = rectangle_xyxy_px
    image = base.image_rgb.copy()
    image[y1:y2, x1:x2] = second.image_rgb[y1:y2, x1:x2]
    covered = box_areas(_clip(base.boxes_xyxy_px, rectangle_xyxy_px))
    stays = covered <= MAX_COVERED * box_areas(base.boxes_xyxy_px)
    pasted = _clip(second.boxes_xyxy_px, rectangle_xyxy_px)
    comes = are_trainable(second.boxes_xyxy_px, pasted)
    return Sample(
        image,
        np.concatenate([base.boxes_xyxy_px[stays], pasted[comes]]),
        np.concatenate([base.labels[stays], second.labels[comes]]),
    )


def _clip(boxes_xyxy_px: np.ndarray, rectangle_xyxy_px: tuple[int, int, int, int]) -> np.ndarray:
    x1, y1, x2, y2 = rectangle_xyxy_px
    return np.clip(boxes_xyxy_px, (x1, y1, x1, y1), (x2, y2, x2, y2))


# --------------------------------------------------------------------------------------------------------------- colour


def random_hsv(rng: np.random.Generator, augment: AugmentConfig, image_rgb: np.ndarray) -> np.ndarray:
    """Shift the hue, scale saturation and value by random amounts; return the same array if all ranges are zero.

    ``rng`` is drawn from equally often, whatever the settings.
    """
    draw = rng.uniform(-1, 1, size=3)
    if not any((augment.hsv_hue, augment.hsv_saturation, augment.hsv_value)):
        return image_rgb
    return shift_hsv(
        image_rgb,
        hue_shift=augment.hsv_hue * draw[0],
        saturation_factor=1 + augment.hsv_saturation * draw[1],
        value_factor=1 + augment.hsv_value * draw[2],
    )


def shift_hsv(image_rgb: np.ndarray, hue_shift: float, saturation_factor: float, value_factor: float) -> np.ndarray:
    """Shift the hue by a share of the circle (1/3: red to green); scale saturation and value, saturating at 255."""
    levels = np.arange(256, dtype=np.float64)
    table = np.empty((256, 1, 3), dtype=np.uint8)
    # OpenCV's 8-bit hue has 180 steps. Its FULL conversions have 256 one way and 255 back: that would turn every hue.
    table[:, 0, 0] = np.rint(levels + 180 * hue_shift).astype(np.int64) % 180
    table[:, 0, 1] = np.rint(np.clip(levels * saturation_factor, 0, 255))
    table[:, 0, 2] = np.rint(np.clip(levels * value_factor, 0, 255))
    hsv = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)
