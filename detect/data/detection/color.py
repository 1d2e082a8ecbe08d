"""Random hue, saturation and value by look-up tables."""

from __future__ import annotations

import cv2
import numpy as np

from detect.config.recipe import AugmentConfig


def random_hsv(rng: np.random.Generator, augment: AugmentConfig, image_rgb: np.ndarray) -> np.ndarray:
    """Shift the hue, scale saturation and value by random amounts.

    Args:
        rng: always drawn from equally often, whatever the settings.
        augment: the ranges ``hsv_hue``, ``hsv_saturation``, ``hsv_value``.
        image_rgb: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8; the same array if all ranges are zero.
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
    """Shift the hue by a share of the circle; scale saturation and value, saturating at 255.

    Args:
        image_rgb: (H, W, 3) uint8.
        hue_shift: share of the circle; 1/3 turns red into green.
        saturation_factor: 0 makes it grey.
        value_factor: 0 makes it black.

    Returns:
        (H, W, 3) uint8.
    """
    levels = np.arange(256, dtype=np.float64)
    table = np.empty((256, 1, 3), dtype=np.uint8)
    # OpenCV's 8-bit hue has 180 steps. Its FULL conversions have 256 one way and 255 back: that would turn every hue.
    table[:, 0, 0] = np.rint(levels + 180 * hue_shift).astype(np.int64) % 180
    table[:, 0, 1] = np.rint(np.clip(levels * saturation_factor, 0, 255))
    table[:, 0, 2] = np.rint(np.clip(levels * value_factor, 0, 255))
    hsv = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)
