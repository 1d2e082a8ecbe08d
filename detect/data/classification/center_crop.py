"""The middle of an image as a square: what a classifier looks at.

Letters: H W pixels of the image, S side of the network input, R side of the square that S x S pixels are cut from.
"""

from __future__ import annotations

import cv2
import numpy as np

MAX_ASPECT = 8
"""Of longer images only the middle is resized, so that one row of a million pixels does not become gigabytes."""


def center_crop(image_rgb: np.ndarray, image_size: int, share: float) -> np.ndarray:
    """Resize the short side to R = round(S / share) pixels and take the middle S x S.

    Evaluation, prediction and training with ``crop: none`` all see an image like this.

    Args:
        image_rgb: (H, W, 3) uint8, at least one pixel.
        image_size: S.
        share: how much of the short side is seen, in (0, 1].

    Returns:
        (S, S, 3) uint8; a view of ``image_rgb`` if its short side has R pixels already.
    """
    return _middle(resize_short_side(image_rgb, resized_side(image_size, share)), image_size, image_size)


def center_square(image_rgb: np.ndarray, image_size: int, share: float) -> np.ndarray:
    """Resize the short side to R = round(S / share) pixels and take a square of it, whose middle is ``center_crop``.

    Args:
        image_rgb: (H, W, 3) uint8, at least one pixel.
        image_size: S.
        share: as of ``center_crop``.

    Returns:
        (R, R, 3) uint8; a view of ``image_rgb`` if its short side has R pixels already.
    """
    side = resized_side(image_size, share)
    return _middle(resize_short_side(image_rgb, side), side, image_size)


def middle_of_square(squares: np.ndarray, image_size: int) -> np.ndarray:
    """The middle S x S pixels of (..., R, R, 3) squares; a view."""
    start = (squares.shape[-2] - image_size) // 2
    return squares[..., start : start + image_size, start : start + image_size, :]


def resized_side(image_size: int, share: float) -> int:
    """R, what the short side is resized to so that S pixels are ``share`` of it."""
    return max(image_size, round(image_size / share))


def resize_short_side(image_rgb: np.ndarray, side: int) -> np.ndarray:
    """Scale an image so that its short side has ``side`` pixels; the long side rounds.

    Args:
        image_rgb: (H, W, 3) uint8, at least one pixel. Beyond ``MAX_ASPECT`` the ends of the long side are cut off.
        side: pixels.

    Returns:
        (h, w, 3) uint8, min(h, w) = ``side``; a view of ``image_rgb`` if that needs no scaling.
    """
    image_rgb = _without_ends(image_rgb)
    height, width = image_rgb.shape[:2]
    short = min(height, width)
    if short == side:
        return image_rgb
    # Averaging over areas keeps all pixels' light when shrinking; linear sampling would skip pixels.
    interpolation = cv2.INTER_AREA if side < short else cv2.INTER_LINEAR
    new_width, new_height = round(width * side / short), round(height * side / short)
    return cv2.resize(image_rgb, (new_width, new_height), interpolation=interpolation)


def _without_ends(image_rgb: np.ndarray) -> np.ndarray:
    height, width = image_rgb.shape[:2]
    longest = MAX_ASPECT * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return image_rgb[top : top + longest, left : left + longest]


def _middle(image_rgb: np.ndarray, side: int, image_size: int) -> np.ndarray:
    """``side`` x ``side`` pixels whose own middle S x S pixels are the image's, also where halves are rounded."""
    inset = (side - image_size) // 2
    top, left = ((length - image_size) // 2 - inset for length in image_rgb.shape[:2])
    return image_rgb[top : top + side, left : left + side]
