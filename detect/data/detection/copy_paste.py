"""Copy-paste of small objects: each is pasted again at other places of its image.

Letters: H W pixels, N boxes, h w pixels of a patch. Boxes are xyxy in pixels, continuous coordinates.
Source: Kisantal et al., Augmentation for small object detection, arXiv:1902.07296; Ghiasi et al., arXiv:2012.07177.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from detect.boxes.convert import box_areas
from detect.boxes.intersections import intersection_areas
from detect.config.augment import AugmentConfig
from detect.data.detection.geometry import Sample, are_trainable

MARGIN_PX = 2
"""Pixels around a box that are copied with it and fade into the place, so that no sharp edge marks a copy."""
MAX_ZOOM = 0.2
"""A copy is zoomed by a factor uniform in 1 +- this. Source: Kisantal et al., section 4.2."""
NUM_PLACES = 20
"""Places that are tried for a copy; in a crowded image it is left out."""
MAX_SOURCES = 100
"""Objects of an image that are copied, drawn at random, so that images with thousands are not slow."""


class Patch(NamedTuple):
    """Part of an image around a box.

    Args:
        pixels: (h, w, 3) uint8.
        opacity: (h, w) float64, 1 in the box, less around it.
        box_xyxy_px: (4,) float64, the box in pixels of the patch.
    """

    pixels: np.ndarray
    opacity: np.ndarray
    box_xyxy_px: np.ndarray


def copy_paste(
    rng: np.random.Generator, sample: Sample, occupied_xyxy_px: np.ndarray, augment: AugmentConfig
) -> Sample:
    """Paste copies of the small objects, never over an object, another copy or an occupied place.

    Args:
        rng: drawn from.
        sample: is not changed. An object whose surroundings show another one is not copied.
        occupied_xyxy_px: (N, 4) further boxes to keep free, such as crowd regions.
        augment: ``copy_paste_px`` and ``copy_paste_copies``.
    """
    taken = np.concatenate([sample.boxes_xyxy_px, occupied_xyxy_px])
    sources = rng.permutation(_small_objects(sample, taken, augment.copy_paste_px))[:MAX_SOURCES]
    image, boxes, labels = sample.image_rgb.copy(), [sample.boxes_xyxy_px], [sample.labels]
    for source in np.repeat(sources, augment.copy_paste_copies).tolist():
        zoom = 1 + MAX_ZOOM * rng.uniform(-1, 1)
        patch = cut_patch(sample.image_rgb, sample.boxes_xyxy_px[source], zoom)
        place = _free_place(rng, patch.opacity.shape, image.shape[:2], taken)
        box = patch.box_xyxy_px[None]
        if place is None or not are_trainable(box, box)[0]:
            continue
        left, top = place
        blend(image, patch, left, top)
        placed = box + np.array([left, top, left, top])
        taken = np.concatenate([taken, placed])
        boxes.append(placed)
        labels.append(sample.labels[source : source + 1])
    return Sample(image, np.concatenate(boxes), np.concatenate(labels))


def _small_objects(sample: Sample, taken_xyxy_px: np.ndarray, limit_px: float) -> np.ndarray:
    """Indices of the objects whose area is below that of a square of ``limit_px``, and that stand alone."""
    boxes = sample.boxes_xyxy_px
    around = boxes + np.array([-MARGIN_PX, -MARGIN_PX, MARGIN_PX, MARGIN_PX])
    stands_alone = (intersection_areas(around, taken_xyxy_px) > 0).sum(axis=1) == 1  # with itself
    return np.flatnonzero((box_areas(boxes) < limit_px**2) & stands_alone)


def cut_patch(image_rgb: np.ndarray, box_xyxy_px: np.ndarray, zoom: float) -> Patch:
    """Cut a box (4,) out of an image (H, W, 3) uint8, with the pixels around it, and zoom it."""
    height, width = image_rgb.shape[:2]
    left, top = (max(math.floor(low) - MARGIN_PX, 0) for low in box_xyxy_px[:2])
    right = min(math.ceil(box_xyxy_px[2]) + MARGIN_PX, width)
    bottom = min(math.ceil(box_xyxy_px[3]) + MARGIN_PX, height)
    pixels = image_rgb[top:bottom, left:right]
    size = (max(1, round(zoom * (right - left))), max(1, round(zoom * (bottom - top))))
    scale = np.array([size[0] / (right - left), size[1] / (bottom - top)] * 2)
    if size != (right - left, bottom - top):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    return Patch(pixels, _opacity(size[1], size[0]), (box_xyxy_px - np.array([left, top, left, top])) * scale)


def _opacity(height: int, width: int) -> np.ndarray:
    """(h, w) opacity that rises from the border: 1/3, 2/3, then 1."""
    rises = [np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)) / (MARGIN_PX + 1) for side in (height, width)]
    return np.minimum(np.minimum(rises[0][:, None], rises[1][None]), 1.0)


def _free_place(
    rng: np.random.Generator, patch_hw: tuple[int, ...], image_hw: tuple[int, ...], taken_xyxy_px: np.ndarray
) -> tuple[int, int] | None:
    """Left and top pixel of a patch that lies in the image and touches no box (N, 4); None if none was found."""
    height, width = patch_hw
    room_x, room_y = image_hw[1] - width, image_hw[0] - height
    if min(room_x, room_y) < 0:
        return None
    corners = rng.integers((0, 0), (room_x, room_y), size=(NUM_PLACES, 2), endpoint=True)
    patches = np.concatenate([corners, corners + np.array([width, height])], axis=1).astype(np.float64)
    is_free = (intersection_areas(patches, taken_xyxy_px) == 0).all(axis=1)
    if not is_free.any():
        return None
    left, top = corners[is_free.argmax()].tolist()
    return left, top


def blend(image_rgb: np.ndarray, patch: Patch, left: int, top: int) -> None:
    """Draw a patch, in place, with its first pixel at (left, top)."""
    height, width = patch.opacity.shape
    place = image_rgb[top : top + height, left : left + width]
    opacity = patch.opacity[..., None]
    place[:] = np.rint(opacity * patch.pixels + (1 - opacity) * place).astype(np.uint8)
