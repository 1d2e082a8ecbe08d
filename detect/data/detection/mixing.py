"""Two training images in one: mixup (blended) and cutmix (a rectangle of one pasted on the other)."""

from __future__ import annotations

import cv2
import numpy as np

from detect.boxes.convert import box_areas
from detect.data.detection.geometry import Sample, worth_learning

MIXUP_BETA = 32.0
"""Both parameters of mixup's weight: Beta(32, 32) has a standard deviation of 0.06 about 0.5, so both images stay
visible. Source: mixup for detection is from Zhang et al., arXiv:1902.04103."""
MAX_COVERED = 0.9
"""A base box of which more than this lies under the pasted rectangle is gone."""


def mixup(rng: np.random.Generator, base: Sample, second: Sample) -> Sample:
    """Blend two images of the same size; the objects of both are targets.

    Args:
        rng: draws the weight.
        base: keeps the drawn weight.
        second: gets the rest.
    """
    weight = rng.beta(MIXUP_BETA, MIXUP_BETA)
    image = cv2.addWeighted(base.image_rgb, weight, second.image_rgb, 1 - weight, 0)
    boxes = np.concatenate([base.boxes_xyxy_px, second.boxes_xyxy_px])
    return Sample(image, boxes, np.concatenate([base.labels, second.labels]))


def cutmix(rng: np.random.Generator, base: Sample, second: Sample) -> Sample:
    """Paste a rectangle of ``second`` at the same place on ``base``.

    Args:
        rng: draws the share of the area, uniform in [0, 1] (Beta(1, 1)), and the rectangle's centre.
        base: its boxes that are covered by more than ``MAX_COVERED`` are dropped, the others stay as they are.
        second: its boxes are clipped to the rectangle; those that are hardly in it are dropped.

    Source: Yun et al., CutMix, arXiv:1905.04899, section 3.1.
    """
    height, width = base.image_rgb.shape[:2]
    side = np.sqrt(rng.beta(1, 1))
    centre_x, centre_y = rng.uniform(0, (width, height))
    x1, y1 = round(max(centre_x - width * side / 2, 0)), round(max(centre_y - height * side / 2, 0))
    x2, y2 = round(min(centre_x + width * side / 2, width)), round(min(centre_y + height * side / 2, height))
    return paste(base, second, (x1, y1, x2, y2))


def paste(base: Sample, second: Sample, rectangle_xyxy_px: tuple[int, int, int, int]) -> Sample:
    """``cutmix`` with a given rectangle, which lies inside both images."""
    x1, y1, x2, y2 = rectangle_xyxy_px
    image = base.image_rgb.copy()
    image[y1:y2, x1:x2] = second.image_rgb[y1:y2, x1:x2]
    covered = box_areas(_clip(base.boxes_xyxy_px, rectangle_xyxy_px))
    stays = covered <= MAX_COVERED * box_areas(base.boxes_xyxy_px)
    pasted = _clip(second.boxes_xyxy_px, rectangle_xyxy_px)
    comes = worth_learning(second.boxes_xyxy_px, pasted)
    return Sample(
        image,
        np.concatenate([base.boxes_xyxy_px[stays], pasted[comes]]),
        np.concatenate([base.labels[stays], second.labels[comes]]),
    )


def _clip(boxes_xyxy_px: np.ndarray, rectangle_xyxy_px: tuple[int, int, int, int]) -> np.ndarray:
    x1, y1, x2, y2 = rectangle_xyxy_px
    return np.clip(boxes_xyxy_px, (x1, y1, x1, y1), (x2, y2, x2, y2))
