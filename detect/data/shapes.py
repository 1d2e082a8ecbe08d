"""The embedded data set: coloured shapes on textured backgrounds, generated in seconds, for first steps and tests.

It has the difficulties of a real set of small objects: six classes, objects from 6 px to half the image, occlusion,
distractors of texture, colours that are independent of the class, and images without objects. The same seed gives the
same files.

Letters: H W pixels of an image, M objects of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from detect.data.embedded import SPLIT_KEYS, Picture, generate_set
from detect.runtime.reproducibility import generator

MIN_SIZE_PX = 6.0
"""Side of the smallest object; a smaller star or ring has no recognisable form."""

_EMPTY_SHARE = 0.08
_MAX_OBJECTS = 10
_MIN_VISIBLE_SHARE = 0.3
_MIN_CONTRAST = 60.0  # grey levels between an object and the pixels under it
_NUM_TRIES = 20
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: brightness of red, green and blue


def _regular(num_points: int, inner_radius: float, start_degrees: float) -> np.ndarray:
    """(2 * num_points, 2) x y of a star with tips of radius 1; ``inner_radius`` 1 makes it a regular polygon."""
    angles = np.radians(start_degrees + np.arange(2 * num_points) * 180 / num_points)
    radii = np.tile([1.0, inner_radius], num_points)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


_CIRCLE = _regular(16, 1.0, 0)
_SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.9
_TRIANGLE = np.array([[0, -1], [1, 0.8], [-1, 0.8]])
_ARM = 0.32
_CROSS = np.array([[-_ARM, -1], [_ARM, -1], [_ARM, -_ARM], [1, -_ARM], [1, _ARM], [_ARM, _ARM]])

OUTLINES: dict[str, list[np.ndarray]] = {
    "cross": [np.concatenate([_CROSS, -_CROSS])],
    "disc": [_CIRCLE],
    "ring": [_CIRCLE, 0.55 * _CIRCLE],
    "square": [_SQUARE],
    "star": [_regular(5, 0.42, -90)],
    "triangle": [_TRIANGLE],
}
"""Polygons (P, 2) of each class, x y in a square of half-side 1; where two overlap is a hole."""


def generate_shapes(
    root: Path,
    num_train: int = 320,
    num_val: int = 80,
    num_test: int = 80,
    image_size: int = 192,
    seed: int = 0,
) -> None:
    """Generate the data set in COCO's format, as ``generate_set`` does; ``InputError`` if the folder exists already.

    A box is the extent of the visible pixels of the object; of every object at least 30 % of the pixels are visible.
    """

    def draw(split: str, number: int) -> Picture:
        return Picture(*draw_scene(image_size, generator(seed, SPLIT_KEYS[split], number)))

    generate_set(root, {"train": num_train, "val": num_val, "test": num_test}, sorted(OUTLINES), draw)


def draw_scene(image_size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw one image with its ground truth.

    Args:
        image_size: height and width, pixels.
        rng: for all random numbers.

    Returns:
        image (H, W, 3) uint8 RGB; boxes_xywh_px (M, 4) int64, extent of the visible pixels; labels (M,) int64, index in
        the sorted names of ``OUTLINES``; areas (M,) int64, number of visible pixels.
    """
    image = _background(image_size, rng)
    owner = np.zeros((image_size, image_size), np.int32)  # the object that each pixel shows, from 1; 0 is background
    full_areas: list[int] = []
    labels: list[int] = []
    num_objects = 0 if rng.random() < _EMPTY_SHARE else int(rng.integers(1, _MAX_OBJECTS + 1))
    for _ in range(num_objects):
        label = int(rng.integers(len(OUTLINES)))
        mask = _place(image, owner, full_areas, sorted(OUTLINES)[label], rng)
        if mask is not None:
            labels.append(label)
            full_areas.append(int(np.count_nonzero(mask > 127)))
            _paint(image, mask, rng)
            owner[mask > 127] = len(labels)
    image = _with_noise(image, rng)
    boxes, areas = _visible(owner, len(labels))
    return image, boxes, np.array(labels, np.int64), areas


def _place(
    image: np.ndarray, owner: np.ndarray, full_areas: list[int], name: str, rng: np.random.Generator
) -> np.ndarray | None:
    """Draw a new object that leaves every earlier one visible enough: (H, W) uint8 coverage; None without a place."""
    size_range = math.log(MIN_SIZE_PX), math.log(image.shape[0] / 2)
    for _ in range(_NUM_TRIES):
        mask = _rasterise(name, math.exp(rng.uniform(*size_range)), image.shape[0], rng)
        hidden = np.bincount(owner[mask > 127], minlength=len(full_areas) + 1)[1:]
        visible = np.bincount(owner.ravel(), minlength=len(full_areas) + 1)[1:] - hidden
        if np.all(visible >= _MIN_VISIBLE_SHARE * np.array(full_areas)):
            return mask
    return None


def _rasterise(name: str, size_px: float, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8 coverage of a shape wholly inside the image; the larger side of its box is ``size_px``."""
    angle = math.radians(rng.uniform(-20, 20))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = np.exp(rng.uniform(-0.15, 0.15, size=2))
    outlines = [(points * stretch) @ turn.T for points in OUTLINES[name]]
    extent = outlines[0].max(axis=0) - outlines[0].min(axis=0)
    scale = size_px / extent.max()
    low = -outlines[0].min(axis=0) * scale + 1
    centre = rng.uniform(low, image_size - 1 - outlines[0].max(axis=0) * scale)
    mask = np.zeros((image_size, image_size), np.uint8)
    fixed = [np.round((points * scale + centre - 0.5) * 16).astype(np.int32) for points in outlines]
    cv2.fillPoly(mask, fixed, 255, lineType=cv2.LINE_AA, shift=4)
    return mask


def _paint(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Blend an object of a random colour onto the image (H, W, 3) float32, in contrast to the pixels under it."""
    under = image[mask > 127].mean(axis=0) @ _LUMA
    for _ in range(_NUM_TRIES):
        colour = rng.uniform(0, 255, size=3)
        if abs(colour @ _LUMA - under) >= _MIN_CONTRAST:
            break
    else:
        colour = np.full(3, 0.0 if under > 127 else 255.0)
    left, top, width, height = cv2.boundingRect(mask)
    window = image[top : top + height, left : left + width]
    share = mask[top : top + height, left : left + width, None].astype(np.float32) / 255
    gradient = _ramp(max(width, height), rng)[:height, :width, None] * np.float32(rng.uniform(0, 30))
    window += (np.clip(colour.astype(np.float32) + gradient, 0, 255) - window) * share


def _visible(owner: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (M, 4) xywh and counts (M,) of the visible pixels of each object, both int64."""
    boxes = np.zeros((num_objects, 4), np.int64)
    areas = np.zeros(num_objects, np.int64)
    for index in range(num_objects):
        rows, columns = np.nonzero(owner == index + 1)
        left, top = columns.min(), rows.min()
        boxes[index] = left, top, columns.max() + 1 - left, rows.max() + 1 - top
        areas[index] = len(rows)
    return boxes, areas


# --------------------------------------------------------------------------------------------- backgrounds


def _background(image_size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 in [0, 255]: one or two textures between two muted colours."""
    amount = _TEXTURES[int(rng.integers(len(_TEXTURES)))](image_size, rng)
    if rng.random() < 0.5:
        amount = 0.5 * amount + 0.5 * _TEXTURES[int(rng.integers(len(_TEXTURES)))](image_size, rng)
    first = rng.uniform(40, 215, size=3)
    second = np.clip(first + rng.uniform(-60, 60, size=3), 0, 255)
    return first.astype(np.float32) + (second - first).astype(np.float32) * amount[..., None]


def _ramp(image_size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in [0, 1], a gradient in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    axis = np.linspace(-0.5, 0.5, image_size, dtype=np.float32) / np.float32(math.sqrt(2))
    return np.float32(0.5) + axis * np.float32(math.cos(angle)) + axis[:, None] * np.float32(math.sin(angle))


def _stripes(image_size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in [0, 1], waves of 8 px up to a third of the image."""
    waves = math.sqrt(2) * image_size / rng.uniform(8, max(9, image_size / 3))
    return 0.5 + 0.5 * np.sin(np.float32(2 * math.pi * waves) * _ramp(image_size, rng))


def _clouds(image_size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in [0, 1], noise of one random scale."""
    cells = int(rng.integers(4, 25))
    noise = cv2.resize(
        rng.random((cells, cells), dtype=np.float32), (image_size, image_size), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(noise, 0, 1)


def _checks(image_size: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in [0, 1], a chessboard with soft edges."""
    return np.clip(0.5 + 8 * (_stripes(image_size, rng) - 0.5) * (_stripes(image_size, rng) - 0.5), 0, 1)


_TEXTURES: tuple[Callable[[int, np.random.Generator], np.ndarray], ...] = (_ramp, _stripes, _clouds, _checks)


def _with_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 with sensor noise of a standard deviation up to 8 grey levels."""
    noise = np.float32(rng.uniform(0, 8)) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
