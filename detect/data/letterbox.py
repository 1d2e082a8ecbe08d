"""Letterboxing: scale an image, put it in the top left corner, pad right and below; and the way back.

Letters: B images of a batch, H W pixels, N boxes. Coordinates are continuous: pixel i covers [i, i + 1], so the whole
image is the box (0, 0, W, H) and a resize multiplies coordinates, with no half-pixel shift.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detect.structures import Letterbox

PAD_VALUE = 114
"""Grey level of the padding (ImageNet's mean is (124, 116, 104)): about zero after normalisation."""

STRIDE = 32
"""Default divisor of network inputs: the coarsest level has 32 x 32 pixels per cell."""


def letterbox(image_rgb: np.ndarray, image_size: int) -> tuple[np.ndarray, Letterbox]:
    """Scale an image (H, W, 3) uint8 to a long side of ``image_size``; nothing is padded here.

    Returns:
        The scaled image (the same array if it has this size already), and its placement.
    """
    height, width = image_rgb.shape[:2]
    new_height, new_width = letterboxed_hw((height, width), image_size)
    placement = letterbox_placement((height, width), image_size)
    if (new_height, new_width) == (height, width):
        return image_rgb, placement
    # Averaging over areas keeps small objects when shrinking; linear sampling would skip pixels.
    interpolation = cv2.INTER_AREA if new_height * new_width < height * width else cv2.INTER_LINEAR
    resized = cv2.resize(image_rgb, (new_width, new_height), interpolation=interpolation)
    return resized, placement


def letterboxed_hw(image_hw: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Height and width after ``letterbox``; no side is less than 1 pixel."""
    height, width = image_hw
    scale = image_size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def letterbox_placement(image_hw: tuple[int, int], image_size: int) -> Letterbox:
    """Placement by ``letterbox`` of an image of this height and width."""
    (height, width), (new_height, new_width) = image_hw, letterboxed_hw(image_hw, image_size)
    return Letterbox((new_width / width, new_height / height), (height, width))


def padded_hw(image_hw: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Round height and width up to multiples of ``multiple``."""
    return -(-image_hw[0] // multiple) * multiple, -(-image_hw[1] // multiple) * multiple


def letterbox_boxes(boxes_xyxy_px: np.ndarray, placement: Letterbox) -> np.ndarray:
    """Transform boxes (N, 4) from original-image to network-input pixels, clipped to the image."""
    height, width = placement.image_hw
    clipped = np.clip(boxes_xyxy_px, 0, np.array([width, height, width, height], dtype=np.float64))
    return clipped * np.array([*placement.scale_xy, *placement.scale_xy])


def unletterbox(boxes_xyxy_px: np.ndarray, placement: Letterbox) -> np.ndarray:
    """Transform boxes (N, 4) from network-input to original-image pixels, clipped to the image."""
    height, width = placement.image_hw
    boxes = boxes_xyxy_px / np.array([*placement.scale_xy, *placement.scale_xy], dtype=boxes_xyxy_px.dtype)
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=boxes.dtype))


def pad_batch(
    images: Sequence[np.ndarray], multiple: int = STRIDE, shape_hw: tuple[int, int] | None = None
) -> np.ndarray:
    """Copy images of different sizes into one array, each in the top left corner.

    Args:
        images: at least one (h, w, 3) uint8.
        multiple: height and width of the result are multiples of it.
        shape_hw: height and width of the result; default, the smallest multiples that hold every image.

    Returns:
        (B, H, W, 3) uint8, ``PAD_VALUE`` right of and below each image.
    """
    if shape_hw is None:
        tallest, widest = (max(image.shape[axis] for image in images) for axis in (0, 1))
        shape_hw = padded_hw((tallest, widest), multiple)
    batch = np.empty((len(images), *shape_hw, 3), dtype=np.uint8)
    for place, image in zip(batch, images, strict=True):
        height, width = image.shape[:2]
        place[:height, :width] = image
        place[height:] = PAD_VALUE
        place[:height, width:] = PAD_VALUE
    return batch
