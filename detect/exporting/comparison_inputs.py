"""Inputs on which an exported file and its model are compared: tensors of noise, and pictures of odd shapes.

Letters: B images, H W pixels.
"""

from __future__ import annotations

import numpy as np

from detect.data.shapes import draw_scene

Shape = tuple[int, int, int]
"""B, H, W."""

IMAGE_SHAPES = ((97, 33), (33, 97), (61, 61), (120, 161), (213, 320), (480, 101), (375, 500), (719, 403))
"""(H, W) of the images: odd, smaller and larger than the network input, wide and tall."""

BATCHES = ((2, 0), (5, 3))
"""Batches of images of one shape: their size, and the index of the shape in ``IMAGE_SHAPES``."""


def comparison_shapes(multiple: int, image_size: int) -> list[Shape]:
    """(B, H, W) of the inputs, in multiples: a single cell, wide, tall, square, batches, the size of the training."""
    in_cells = ((1, 1, 1), (2, 3, 2), (1, 2, 7), (3, 5, 1), (1, 4, 5), (5, 2, 2), (2, 6, 3))
    small = [(batch, multiple * rows, multiple * columns) for batch, rows, columns in in_cells]
    side = -(-image_size // multiple) * multiple
    return [*small, (1, side, side)]


def noise(shape: Shape, seed: int) -> np.ndarray:
    """(B, 3, H, W) float32 in [0, 1], as 8-bit images: blocks of noise, so that it has more than one scale."""
    batch, height, width = shape
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (batch, 3, -(-height // 8), -(-width // 8)))
    fine = rng.integers(-32, 33, (batch, 3, height, width))
    blocks = coarse.repeat(8, axis=2).repeat(8, axis=3)[:, :, :height, :width]
    return np.clip(blocks + fine, 0, 255).astype(np.float32) / np.float32(255)


def comparison_images() -> list[np.ndarray]:
    """Pictures of shapes, an image (H, W, 3) uint8 RGB for each of ``IMAGE_SHAPES``; always the same."""
    images = []
    for seed, (height, width) in enumerate(IMAGE_SHAPES):
        scene = draw_scene(max(height, width), np.random.default_rng(seed))[0]
        images.append(np.ascontiguousarray(scene[:height, :width]))
    return images


def comparison_batches(same_shape: bool) -> list[list[np.ndarray]]:
    """The pictures alone, and with ``same_shape`` also batches of several that have one shape."""
    images = comparison_images()
    batches = [[image] for image in images]
    if same_shape:
        batches += [[_shifted(images[which], number) for number in range(count)] for count, which in BATCHES]
    return batches


def _shifted(image: np.ndarray, number: int) -> np.ndarray:
    return np.ascontiguousarray(np.roll(image, 17 * number, axis=1))
