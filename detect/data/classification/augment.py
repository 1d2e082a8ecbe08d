"""Augmentation of a classifier's training images: crop, flip, AutoAugment, colour, cutout, mixup, CutMix, by batches.

Letters: B images of a batch, R side of the squares, S side of the network input, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from detect.config.augment import ClassAugmentConfig
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
"""Rectangles drawn before the middle is taken, as usual in the field."""

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
    policy: np.ndarray

    def of(self, places: np.ndarray) -> Draws:
        """Select the numbers of some images of the batch."""
        return Draws(*(numbers[places] for numbers in self))


def draw(rng: np.random.Generator, count: int) -> Draws:
    """Draw the random numbers of ``count`` images."""
    single = rng.random((len(Draws._fields) - 3, count))
    # The last ones come last, so that a seed draws what it drew before there were any.
    return Draws._make([*single, *rng.random((2, count, AREA_TRIES)), rng.random(count)])


class Augmentation:
    """Augmented images of rows, before any mixing.

    Args:
        source: the images.
        augment: the settings.
        image_size: S.
    """

    def __init__(self, source: ImageSource, augment: ClassAugmentConfig, image_size: int) -> None:
        self.source = source
        self.augment = augment
        self.image_size = image_size
        self._policy = None if augment.auto_augment == "none" else open_policy(augment.auto_augment)

    def images(self, draws: Draws, rows: np.ndarray, failures: list[Failure]) -> np.ndarray:
        """Make a batch of augmented images.

        Args:
            draws: for each of the rows.
            rows: (B,) int64.
            failures: images that could not be read are appended; they start as grey.

        Returns:
            (B, S, S, 3) uint8, contiguous.
        """
        augment = self.augment
        if augment.degrees or augment.crop in ("resize", "area"):
            images = self._cut_one_by_one(rows, draws, failures)
        else:
            images = self._cut_together(rows, draws, failures)
        flip(images, draws.left_right < augment.flip_left_right, draws.up_down < augment.flip_up_down)
        if self._policy is not None:
            auto_augment(images, self._policy, draws.policy)
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
        """Crop images of different sizes, or rotated ones."""
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
        """Image ``index`` of the batch, resized if the crop requires it, and its window."""
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


def open_policy(name: str) -> Callable[[Tensor], Tensor]:
    """Return torchvision's AutoAugment with the policy of a data set; what comes in from outside is grey."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes a while, and few trainings need it

    policy: Callable[[Tensor], Tensor] = AutoAugment(AutoAugmentPolicy(name), fill=[float(PAD_VALUE)] * 3)
    return policy


def auto_augment(images: np.ndarray, policy: Callable[[Tensor], Tensor], draws: np.ndarray) -> None:
    """Apply a policy to each of (B, S, S, 3) uint8 in place, with random numbers that follow from ``draws`` (B,).

    Source: Cubuk et al., AutoAugment, CVPR 2019.
    """
    for image, number in zip(images, draws.tolist(), strict=True):
        with torch.random.fork_rng(devices=[]):  # the library draws from PyTorch's own generator
            torch.manual_seed(int(number * 2**53))
            changed = policy(torch.from_numpy(image).permute(2, 0, 1))
        image[:] = changed.permute(1, 2, 0).numpy()


def change_colour(images: np.ndarray, brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray) -> None:
    """Scale brightness, then contrast, then saturation of (B, S, S, 3) uint8 in place; only the result is rounded.

    The factors (B,) are on all, on the distance from the image's mean grey, and on that from each pixel's grey. One
    level of error is possible, because OpenCV counts with 10 fractional bits.
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
    """Rotate the hue, in place, in 180 steps.

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
    """Cover a square of each image (B, S, S, 3) with grey, in place; its centre, ``position_xy`` (2, B), is any pixel.

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
    """Apply mixup or CutMix to images (B, S, S, 3) uint8 and shares (B, K), or neither.

    Each image is mixed with the one before it: batches are shuffled already, and no image meets itself unless it is
    alone. The images may be written to.
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
    """Blend each image with the one before it, which gets 1 - ``weight``; pixels are rounded."""
    flat = images.reshape(len(images), -1)
    blended = cv2.addWeighted(flat, weight, np.roll(flat, 1, axis=0), 1 - weight, 0)
    return blended.reshape(images.shape), _blend(shares, weight)


def cutmix(
    images: np.ndarray, shares: np.ndarray, rectangle_xyxy_px: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Replace a rectangle of each image by that of the image before it, in place; areas become shares."""
    x1, y1, x2, y2 = rectangle_xyxy_px
    images[:, y1:y2, x1:x2] = np.roll(images[:, y1:y2, x1:x2], 1, axis=0)
    return images, _blend(shares, 1 - (x2 - x1) * (y2 - y1) / images.shape[1] ** 2)


def _blend(shares: np.ndarray, weight: float) -> np.ndarray:
    own = np.float32(weight)
    blended: np.ndarray = own * shares + (1 - own) * np.roll(shares, 1, axis=0)
    return blended


def _both_ways(reach: float, draw: np.ndarray) -> np.ndarray:
    """Map numbers uniform in [0, 1) to +-``reach``."""
    return reach * (2 * draw - 1)
