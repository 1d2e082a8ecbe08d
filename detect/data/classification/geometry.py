"""Crops of a classifier's images: the centre for evaluation; windows for training, and their rotation.

Letters: B images of a batch, H W pixels of an image, S side of the network input, R side of the square from which S x S
pixels are cut. Coordinates are continuous: pixel i covers [i, i + 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

MAX_ASPECT = 8
"""Length over width above which only the middle is resized: a row of a million pixels must not become gigabytes."""


def center_crop(image_rgb: np.ndarray, image_size: int, share: float) -> np.ndarray:
    """Resize the short side to R = round(S / share) and take the middle S x S: what evaluation and prediction see."""
    return _middle(resize_short_side(image_rgb, resized_side(image_size, share)), image_size, image_size)


def ten_crops(image_rgb: np.ndarray, image_size: int, share: float) -> np.ndarray:
    """Resize the short side to R and take S x S at the corners and in the middle, then mirrored: (10, S, S, 3).

    Source: AlexNet (Krizhevsky et al., 2012), section 4.1.
    """
    image = resize_short_side(image_rgb, resized_side(image_size, share))
    bottom, right = image.shape[0] - image_size, image.shape[1] - image_size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = np.stack([image[top : top + image_size, left : left + image_size] for top, left in places])
    return np.concatenate([crops, crops[:, :, ::-1]])


def center_square(image_rgb: np.ndarray, image_size: int, share: float) -> np.ndarray:
    """Resize the short side to R and take a square (R, R, 3) whose middle is ``center_crop``."""
    side = resized_side(image_size, share)
    return _middle(resize_short_side(image_rgb, side), side, image_size)


def middle_of_square(squares: np.ndarray, image_size: int) -> np.ndarray:
    """Middle S x S pixels of (..., R, R, 3) squares; a view."""
    start = (squares.shape[-2] - image_size) // 2
    return squares[..., start : start + image_size, start : start + image_size, :]


def resized_side(image_size: int, share: float) -> int:
    """Return R, the short side of which S pixels are ``share``."""
    return max(image_size, round(image_size / share))


def resize_short_side(image_rgb: np.ndarray, side: int) -> np.ndarray:
    """Scale an image to a short side of ``side`` pixels; beyond ``MAX_ASPECT`` the ends of the long side are cut off.

    Returns:
        (h, w, 3) uint8; a view if that needs no scaling.
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
    """Cut ``side`` x ``side`` pixels whose own middle S x S pixels are the image's, also if halves are rounded."""
    inset = (side - image_size) // 2
    top, left = ((length - image_size) // 2 - inset for length in image_rgb.shape[:2])
    return image_rgb[top : top + side, left : left + side]


# --------------------------------------------------------------------------------------------------------- training


class Window(NamedTuple):
    """Rectangle of an image, in whole pixels; outside of the image it is black."""

    x: int
    y: int
    width: int
    height: int


def pad_crop(squares: np.ndarray, image_size: int, padding: int, position_xy: np.ndarray) -> np.ndarray:
    """Crop S x S pixels of images with a black border.

    Args:
        squares: (B, R, R, 3) uint8, R >= S.
        image_size: S.
        padding: width of the border, in pixels.
        position_xy: (2, B) in [0, 1): 0 is at the left (top) edge of the border, 1 would be at the right (bottom) one.

    Returns:
        (B, S, S, 3) uint8.

    Source: ResNet (He et al., arXiv:1512.03385), section 4.2.
    """
    num_images, side = squares.shape[:2]
    padded = np.zeros((num_images, side + 2 * padding, side + 2 * padding, 3), dtype=np.uint8)
    padded[:, padding : padding + side, padding : padding + side] = squares
    left, top = starts(position_xy, padded.shape[1] - image_size)
    # Every S x S window as a view, its rows in one piece: the gather then copies rows instead of pixels.
    num_starts = padded.shape[1] - image_size + 1
    per_image, per_row, per_pixel, _ = padded.strides
    windows = np.lib.stride_tricks.as_strided(
        padded,
        shape=(num_images, num_starts, num_starts, image_size, image_size * 3),
        strides=(per_image, per_row, per_pixel, per_row, 1),
    )
    return windows[np.arange(num_images), top, left].reshape(num_images, image_size, image_size, 3)


def starts(position: np.ndarray, room: int) -> np.ndarray:
    """Map positions in [0, 1) to whole pixels in [0, room], each equally likely; int64."""
    return (position * (room + 1)).astype(np.int64)


def resize_crop(
    image_rgb: np.ndarray, image_size: int, side: int, position_xy: Sequence[float]
) -> tuple[np.ndarray, Window]:
    """Resize the short side to ``side``, and choose a window of S x S pixels by ``position_xy`` in [0, 1).

    Source: BDSC (2018), section 4.1.
    """
    resized = resize_short_side(image_rgb, side)
    height, width = resized.shape[:2]
    x, y = int(position_xy[0] * (width - image_size + 1)), int(position_xy[1] * (height - image_size + 1))
    return resized, Window(x, y, image_size, image_size)


def area_window(
    image_hw: tuple[int, int], areas: Sequence[float], ratios: Sequence[float], position_xy: Sequence[float]
) -> Window:
    """Choose the first rectangle that fits into the image; if none does, a largest centred one of a ratio in between.

    ``areas`` are shares of the image's, in (0, 1], ``ratios`` width / height, ``position_xy`` in [0, 1).

    Source: GoogLeNet (Szegedy et al., arXiv:1409.4842), section 6, which draws share and ratio; the treatment of a
        rectangle that does not fit is this project's.
    """
    height, width = image_hw
    for area, ratio in zip(areas, ratios, strict=True):
        pixels = area * height * width
        new_width, new_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < new_width <= width and 0 < new_height <= height:
            x, y = int(position_xy[0] * (width - new_width + 1)), int(position_xy[1] * (height - new_height + 1))
            return Window(x, y, new_width, new_height)
    new_width = min(width, max(1, round(height * max(ratios))))
    new_height = min(height, max(1, round(width / min(ratios))))
    return Window((width - new_width) // 2, (height - new_height) // 2, new_width, new_height)


def cut(image_rgb: np.ndarray, window: Window, image_size: int) -> np.ndarray:
    """Crop a window, which lies inside the image, and resize it to S x S: by areas if it gets smaller, else linearly.

    Returns:
        (S, S, 3) uint8; a view if nothing has to be resized.
    """
    x, y, width, height = window
    part = image_rgb[y : y + height, x : x + width]
    if (height, width) == (image_size, image_size):
        return part
    interpolation = cv2.INTER_AREA if height * width > image_size**2 else cv2.INTER_LINEAR
    return cv2.resize(part, (image_size, image_size), interpolation=interpolation)


def turn(image_rgb: np.ndarray, window: Window, image_size: int, degrees: float) -> np.ndarray:
    """Crop a window, resized to S x S and rotated about its middle; new corners are the image around it, or black.

    Args:
        image_rgb: (H, W, 3) uint8.
        window: may reach over the edges.
        image_size: S.
        degrees: counter-clockwise.

    Returns:
        (S, S, 3) uint8.
    """
    part, (x, y, width, height) = _surroundings(image_rgb, window)
    if part.size == 0:
        return np.zeros((image_size, image_size, 3), dtype=np.uint8)
    # The warp samples linearly, so what gets smaller is averaged first.
    new_width = max(1, round(part.shape[1] * min(1, image_size / width)))
    new_height = max(1, round(part.shape[0] * min(1, image_size / height)))
    scale_x, scale_y = new_width / part.shape[1], new_height / part.shape[0]
    if (new_height, new_width) != part.shape[:2]:
        part = cv2.resize(part, (new_width, new_height), interpolation=cv2.INTER_AREA)
    # From a pixel of the result to where it comes from: turned about the middle, then scaled. Pixel centres are at .5.
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    per_pixel = np.array([[width * scale_x], [height * scale_y]]) / image_size
    linear = per_pixel * np.array([[cos, -sin], [sin, cos]])
    middle = np.array([(x + width / 2) * scale_x, (y + height / 2) * scale_y])
    offset = middle - 0.5 - linear @ np.full(2, (image_size - 1) / 2)
    matrix = np.column_stack([linear, offset])
    return cv2.warpAffine(part, matrix, (image_size, image_size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def flip(images: np.ndarray, left_right: np.ndarray, up_down: np.ndarray) -> None:
    """Mirror some images in place.

    Args:
        images: (B, S, S, 3) uint8, contiguous.
        left_right: (B,) bool.
        up_down: (B,) bool.
    """
    size = images.shape[2]
    if left_right.any():
        # One on top of the other they are one image to OpenCV, which mirrors pixels faster than NumPy does.
        chosen = images[left_right]
        images[left_right] = cv2.flip(chosen.reshape(-1, size, 3), 1).reshape(chosen.shape)
    if up_down.any():
        images[up_down] = images[up_down][:, ::-1]


def _surroundings(image_rgb: np.ndarray, window: Window) -> tuple[np.ndarray, Window]:
    """Part of the image that a rotated window may reach, and the window in it."""
    x, y, width, height = window
    # A turn brings the corners to sqrt(2) times half the side from the middle: 0.21 sides more; the rest is sampling's.
    reach_x, reach_y = math.ceil(0.25 * width) + 2, math.ceil(0.25 * height) + 2
    left, top = max(0, x - reach_x), max(0, y - reach_y)
    right, bottom = max(0, x + width + reach_x), max(0, y + height + reach_y)
    return image_rgb[top:bottom, left:right], Window(x - left, y - top, width, height)
