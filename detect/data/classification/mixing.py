"""Batches of images mixed with themselves in another order: mixup (blended) and CutMix (a rectangle replaced).

Letters: B images of a batch, S side of the network input, K classes. The other order is the same one, moved on by one
place: batches are shuffled already, and no image meets itself unless it is alone.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from detect.config.recipe import ClassAugmentConfig


def mix(
    rng: np.random.Generator, augment: ClassAugmentConfig, images: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mix a batch one way, the other, or not at all.

    Args:
        rng: draws which, and how much.
        augment: the probabilities ``mixup`` and ``cutmix``, and their ``alpha``.
        images: (B, S, S, 3) uint8, contiguous; may be written to.
        shares: (B, K) float32, how much of each image each class is.

    Returns:
        The images and shares afterwards.
    """
    draw = rng.random()
    if draw < augment.mixup:
        return mixup(images, shares, rng.beta(augment.mixup_alpha, augment.mixup_alpha))
    if draw < augment.mixup + augment.cutmix:
        weight = rng.beta(augment.cutmix_alpha, augment.cutmix_alpha)
        centre_x, centre_y = rng.uniform(0, images.shape[1], size=2)
        return cutmix(images, shares, cutmix_rectangle(images.shape[1], weight, (centre_x, centre_y)))
    return images, shares


def mixup(images: np.ndarray, shares: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Blend each image with the one before it; pixels are rounded.

    Args:
        images: (B, S, S, 3) uint8, contiguous.
        shares: (B, K) float32.
        weight: of the image itself, in [0, 1].

    Source: Zhang et al., mixup, arXiv:1710.09412, equation 1 and figure 1.
    """
    flat = images.reshape(len(images), -1)
    blended = cv2.addWeighted(flat, weight, np.roll(flat, 1, axis=0), 1 - weight, 0)
    return blended.reshape(images.shape), _blend(shares, weight)


def cutmix(
    images: np.ndarray, shares: np.ndarray, rectangle_xyxy_px: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Replace a rectangle of each image by that of the image before it, in place.

    Args:
        images: (B, S, S, 3) uint8.
        shares: (B, K) float32.
        rectangle_xyxy_px: inside the images. Each image keeps the share of its own area that is outside.

    Source: Yun et al., CutMix, arXiv:1905.04899, equation 1.
    """
    x1, y1, x2, y2 = rectangle_xyxy_px
    images[:, y1:y2, x1:x2] = np.roll(images[:, y1:y2, x1:x2], 1, axis=0)
    return images, _blend(shares, 1 - (x2 - x1) * (y2 - y1) / images.shape[1] ** 2)


def cutmix_rectangle(image_size: int, weight: float, centre_xy_px: tuple[float, float]) -> tuple[int, int, int, int]:
    """A square with a share 1 - ``weight`` of the image's area, clipped to the image; xyxy in whole pixels.

    Source: CutMix, equation 2: both sides are sqrt(1 - weight) of the image's.
    """
    half = image_size * math.sqrt(1 - weight) / 2
    x, y = centre_xy_px
    low_x, low_y = round(max(x - half, 0)), round(max(y - half, 0))
    return low_x, low_y, round(min(x + half, image_size)), round(min(y + half, image_size))


def _blend(shares: np.ndarray, weight: float) -> np.ndarray:
    own = np.float32(weight)
    blended: np.ndarray = own * shares + (1 - own) * np.roll(shares, 1, axis=0)
    return blended
