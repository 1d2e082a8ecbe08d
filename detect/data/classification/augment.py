"""Training images of a classifier: cut out, mirrored, coloured, covered; a whole batch at a time.

Letters: B images of a batch, R side of the squares, S side of the network input.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from detect.config.recipe import ClassAugmentConfig
from detect.data.classification.geometry import (
    Window,
    area_window,
    cut,
    flip,
    middle_of_square,
    pad_crop,
    resize_crop,
    starts,
    turn,
)
from detect.data.classification.images import ImageSource
from detect.data.letterbox import PAD_VALUE
from detect.data.mixing import choose_mix, cutmix_rectangle
from detect.data.workers import Failure

GREY = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in a pixel's grey. Source: ITU-R BT.601."""

AREA_TRIES = 10
"""Rectangles that are drawn before the middle is taken, as is usual in the field."""

_HUE_STEPS = 180  # the circle in OpenCV's 8-bit HSV


class Draws(NamedTuple):
    """Random numbers for a batch, (B,) each, uniform in [0, 1). All are drawn, whatever the settings.

    ``areas`` and ``ratios`` are (B, ``AREA_TRIES``).
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    turn: np.ndarray
    left_right: np.ndarray
    up_down: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    cutout_x: np.ndarray
    cutout_y: np.ndarray
    areas: np.ndarray
    ratios: np.ndarray

    def of(self, places: np.ndarray) -> Draws:
        """Those for some images of the batch."""
        return Draws(*(numbers[places] for numbers in self))


def draw(rng: np.random.Generator, count: int) -> Draws:
    """The random numbers for a batch of ``count`` images."""
    single = rng.random((len(Draws._fields) - 2, count))
    return Draws(*single, *rng.random((2, count, AREA_TRIES)))


class Augmentation:
    """Makes augmented images of rows; what mixes images is not its part.

    Args:
        source: the images.
        augment: the settings.
        image_size: S.
    """

    def __init__(self, source: ImageSource, augment: ClassAugmentConfig, image_size: int) -> None:
        self.source = source
        self.augment = augment
        self.image_size = image_size

    def images(self, draws: Draws, rows: np.ndarray, failures: list[Failure]) -> np.ndarray:
        """A batch of augmented images.

        Args:
            draws: for each of the rows.
            rows: (B,) int64.
            failures: gets those that could not be read; they start as grey.

        Returns:
            (B, S, S, 3) uint8, contiguous.
        """
        augment = self.augment
        if augment.degrees or augment.crop in ("resize", "area"):
            images = self._cut_one_by_one(rows, draws, failures)
        else:
            images = self._cut_together(rows, draws, failures)
        flip(images, draws.left_right < augment.flip_left_right, draws.up_down < augment.flip_up_down)
        if augment.brightness or augment.contrast or augment.saturation:
            change_colour(
                images,
                1 + _both_ways(augment.brightness, draws.brightness),
                1 + _both_ways(augment.contrast, draws.contrast),
                1 + _both_ways(augment.saturation, draws.saturation),
            )
        if augment.hue:
            turn_hue(images, _both_ways(augment.hue, draws.hue))
        if augment.cutout:
            cutout(images, augment.cutout, np.stack([draws.cutout_x, draws.cutout_y]))
        return images

    def _cut_together(self, rows: np.ndarray, draws: Draws, failures: list[Failure]) -> np.ndarray:
        squares = self.source.squares(rows, failures)
        if self.augment.crop == "pad":
            return pad_crop(squares, self.image_size, self.augment.padding, np.stack([draws.x, draws.y]))
        return np.ascontiguousarray(middle_of_square(squares, self.image_size))

    def _cut_one_by_one(self, rows: np.ndarray, draws: Draws, failures: list[Failure]) -> np.ndarray:
        """Where images have sizes of their own, or are turned."""
        is_whole = self.augment.crop in ("resize", "area")
        sources = self.source.wholes(rows, failures) if is_whole else self.source.squares(rows, failures)
        degrees = _both_ways(self.augment.degrees, draws.turn)
        images = np.empty((len(rows), self.image_size, self.image_size, 3), dtype=np.uint8)
        for index, source in enumerate(sources):
            image, window = self._window(source, draws, index)
            if self.augment.degrees:
                images[index] = turn(image, window, self.image_size, degrees[index])
            else:
                images[index] = cut(image, window, self.image_size)
        return images

    def _window(self, image: np.ndarray, draws: Draws, index: int) -> tuple[np.ndarray, Window]:
        """Image ``index`` of the batch, resized if the crop says so, and what is taken of it."""
        augment, size = self.augment, self.image_size
        height, width = image.shape[:2]
        position_xy = (float(draws.x[index]), float(draws.y[index]))
        if augment.crop == "area":
            smallest, largest = augment.area
            areas = smallest + (largest - smallest) * draws.areas[index]
            ratios = augment.aspect ** _both_ways(1, draws.ratios[index])
            return image, area_window((height, width), areas.tolist(), ratios.tolist(), position_xy)
        if augment.crop == "resize":
            low, high = augment.resize_px
            return resize_crop(image, size, low + int(starts(draws.size[index], high - low)), position_xy)
        if augment.crop == "none":
            start = (width - size) // 2
            return image, Window(start, start, size, size)
        x, y = (starts(np.array(position_xy), width + 2 * augment.padding - size) - augment.padding).tolist()
        return image, Window(x, y, size, size)


def change_colour(images: np.ndarray, brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray) -> None:
    """Scale brightness, then contrast, then saturation, in place, in one step: only the result is rounded and clipped.

    One level of error is possible, because OpenCV counts with 10 fractional bits.

    Args:
        images: (B, S, S, 3) uint8.
        brightness: (B,) factor on all.
        contrast: (B,) factor on the distance from the image's mean grey.
        saturation: (B,) factor on the distance from each pixel's grey.
    """
    # With the factors b, c, s and the image's mean grey m, brightness and contrast make c b x + (1 - c) b m of a pixel.
    # The second term is grey, which saturation leaves alone; of a pixel x with grey g it makes s x + (1 - s) g.
    keep = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * GREY
    matrices = np.zeros((len(images), 3, 4))
    matrices[:, :, :3] = (contrast * brightness)[:, None, None] * keep
    for image, matrix, of_mean in zip(images, matrices, (1 - contrast) * brightness, strict=True):
        if of_mean:
            matrix[:, 3] = of_mean * GREY.dot(cv2.mean(image)[:3])
        image[:] = cv2.transform(image, matrix)


def turn_hue(images: np.ndarray, turns: np.ndarray) -> None:
    """Turn the hue, in place; it has 180 steps.

    Args:
        images: (B, S, S, 3) uint8, contiguous.
        turns: (B,) shares of the circle; 1/3 turns red into green.
    """
    size = images.shape[2]
    # One on top of the other they are one image to OpenCV.
    hsv = cv2.cvtColor(images.reshape(-1, size, 3), cv2.COLOR_RGB2HSV).reshape(images.shape)
    steps = np.rint(_HUE_STEPS * turns).astype(np.int64) % _HUE_STEPS
    hue = hsv[..., 0] + steps.astype(np.uint16)[:, None, None]
    np.subtract(hue, _HUE_STEPS, out=hue, where=hue >= _HUE_STEPS)
    hsv[..., 0] = hue
    images[:] = cv2.cvtColor(hsv.reshape(-1, size, 3), cv2.COLOR_HSV2RGB).reshape(images.shape)


def cutout(images: np.ndarray, side: int, position_xy: np.ndarray) -> None:
    """Cover a square of each image with grey, in place; the part outside the image is lost.

    Args:
        images: (B, S, S, 3) uint8.
        side: of the square, in pixels.
        position_xy: (2, B) in [0, 1), where its centre is: at any of the pixels with equal probability. A square of
            even side reaches one pixel further to the left (top) of it.

    Source: DeVries and Taylor, Cutout, arXiv:1708.04552, section 3.
    """
    size = images.shape[1]
    first = starts(position_xy, size - 1) - side // 2
    pixels = np.arange(size)
    covered_x, covered_y = (pixels >= first[..., None]) & (pixels < first[..., None] + side)
    images[covered_y[:, :, None] & covered_x[:, None, :]] = PAD_VALUE


# ------------------------------------------------------------------------------------------------ mixup and CutMix


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
    kind = choose_mix(rng.random(), augment.mixup, augment.cutmix)
    if kind == "mixup":
        return mixup(images, shares, rng.beta(augment.mixup_alpha, augment.mixup_alpha))
    if kind == "cutmix":
        weight = rng.beta(augment.cutmix_alpha, augment.cutmix_alpha)
        size = images.shape[1]
        centre_x, centre_y = rng.uniform(0, size, size=2)
        return cutmix(images, shares, cutmix_rectangle((size, size), 1 - weight, (centre_x, centre_y)))
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


def _blend(shares: np.ndarray, weight: float) -> np.ndarray:
    own = np.float32(weight)
    blended: np.ndarray = own * shares + (1 - own) * np.roll(shares, 1, axis=0)
    return blended


def _both_ways(reach: float, draw: np.ndarray) -> np.ndarray:
    """Uniform in +-``reach``, from numbers uniform in [0, 1)."""
    return reach * (2 * draw - 1)
