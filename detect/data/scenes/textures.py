"""Textures of generated scenes: (S, S) uint8 maps, from which a palette makes colours.

All arithmetic on pixels is in integers, so that a scene is the same on every machine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np

from detect.runtime.reproducibility import generator

Texture = Callable[[int, np.random.Generator], np.ndarray]
"""Draws a map of a side in pixels."""

POOL_STREAM = 102
"""Stream number of the random generators of the pool of noise."""
POOL_SIGMA = 32
_POOL_SIZE = 2**21
_WAVE = np.round(127.5 + 127.5 * np.sin(np.arange(256) * (2 * math.pi / 256))).astype(np.uint8)
_SAW = np.arange(256, dtype=np.uint8)
_TRIANGLE = np.concatenate([_SAW[::2], _SAW[::-2]])


@functools.cache
def _noise_pool() -> np.ndarray:
    """(2 ** 21,) uint8 noise around 128 with a standard deviation of ``POOL_SIGMA``, always the same."""
    parts = generator(POOL_STREAM).integers(0, 56, (4, _POOL_SIZE), dtype=np.uint8)
    return (parts.sum(axis=0, dtype=np.uint16) + 18).astype(np.uint8)


@functools.cache
def _scaled_pool(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative parts of the pool with another standard deviation, each (2 ** 21,) uint8."""
    scaled = np.round((np.arange(256) - 128) * (sigma / POOL_SIGMA))
    return tuple(np.clip(part, 0, 255).astype(np.uint8)[_noise_pool()] for part in (scaled, -scaled))


def noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a view of the pool in this shape, from a random place."""
    return _cut(_noise_pool(), shape, int(rng.integers(_POOL_SIZE)))


def with_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise of a standard deviation in grey levels, of which there should be few different ones, to uint8."""
    place = int(rng.integers(_POOL_SIZE))
    brighter, darker = (_cut(part, image.shape, place) for part in _scaled_pool(sigma))
    return cv2.subtract(cv2.add(image, brighter), darker)


def _cut(pool: np.ndarray, shape: tuple[int, ...], place: int) -> np.ndarray:
    size = math.prod(shape)
    if size > _POOL_SIZE:
        return np.resize(pool, size).reshape(shape)
    start = place % (_POOL_SIZE - size + 1)
    return pool[start : start + size].reshape(shape)


def flat(side: int, _: np.random.Generator) -> np.ndarray:
    return np.full((side, side), 128, np.uint8)


def ramp(side: int, rng: np.random.Generator) -> np.ndarray:
    """Gradient between four corners."""
    return enlarged(rng.integers(0, 256, (2, 2), dtype=np.uint8), side)


def clouds(side: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of one to six octaves, each with half the amplitude of the coarser one."""
    cells = int(rng.integers(2, 10))
    amount = rng.integers(0, 256, (cells, cells), dtype=np.uint8)
    for octave in range(1, int(rng.integers(1, 7))):
        cells = 2 * cells
        if cells > side // 2:
            break
        finer = rng.integers(0, 256 >> octave, (cells, cells), dtype=np.uint8)
        amount = enlarged(amount, cells) // 2 + 64 - (64 >> octave) + finer // 2
    return _stretched(enlarged(amount, side))


def waves(side: int, rng: np.random.Generator) -> np.ndarray:
    """Parallel waves of 3 px up to a third of the side, smooth or sharp."""
    return cv2.LUT(_phase(side, rng), _profile(rng))


def grain(side: int, rng: np.random.Generator) -> np.ndarray:
    """Waves bent by clouds, as in wood and marble."""
    return cv2.LUT(_phase(side, rng, longest=2.0) + clouds(side, rng), _profile(rng))


def weave(side: int, rng: np.random.Generator) -> np.ndarray:
    """Two crossed waves: checks, meshes, fabrics."""
    first, second = waves(side, rng), waves(side, rng)
    choice = rng.integers(4)
    if choice == 0:
        return np.maximum(first, second)
    if choice == 1:
        return np.minimum(first, second)
    return first ^ second if choice == 2 else first // 2 + second // 2


def terrain(side: int, rng: np.random.Generator) -> np.ndarray:
    """Clouds in two to five levels with clear borders."""
    levels = np.sort(rng.integers(0, 256, 256)) if rng.random() < 0.3 else _steps(int(rng.integers(2, 6)), rng)
    return cv2.LUT(clouds(side, rng), levels.astype(np.uint8))


def fields(side: int, rng: np.random.Generator) -> np.ndarray:
    """Half-planes of random levels over one another."""
    amount = np.full((side, side), int(rng.integers(0, 256)), np.uint8)
    count = int(rng.integers(3, 12))
    angles, distances = rng.uniform(0, 2 * math.pi, count), rng.uniform(-0.4, 0.6, count) * side
    normals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    along = normals[:, ::-1] * (-2 * side, 2 * side)
    edges = side / 2 + normals * distances[:, None]
    far = normals * 4 * side
    corners = np.stack([edges + along, edges - along, edges - along + far, edges + along + far], axis=1)
    for polygon, level in zip(np.round(corners).astype(np.int32), rng.integers(0, 256, count).tolist(), strict=True):
        cv2.fillConvexPoly(amount, polygon, level, cv2.LINE_AA)
    return amount


def blocks(side: int, rng: np.random.Generator) -> np.ndarray:
    """Overlapping upright rectangles, as roofs or panels."""
    amount = np.full((side, side), int(rng.integers(0, 256)), np.uint8)
    count = int(rng.integers(5, 40))
    corners = rng.integers(-side // 8, side, (count, 2))
    sizes = rng.integers(side // 24 + 2, side // 3, (count, 2))
    for (x, y), (width, height), level in zip(
        corners.tolist(), sizes.tolist(), rng.integers(0, 256, count).tolist(), strict=True
    ):
        cv2.rectangle(amount, (x, y), (x + width, y + height), level, -1)
    return amount


def fibres(side: int, rng: np.random.Generator) -> np.ndarray:
    """Many long thin lines of little contrast."""
    amount = np.full((side, side), 128, np.uint8)
    count = int(rng.integers(20, 120))
    starts = rng.integers(0, side, (count, 2))
    ends = starts + rng.integers(-side // 2, side // 2, (count, 2))
    for start, end, level in zip(starts.tolist(), ends.tolist(), rng.integers(0, 256, count).tolist(), strict=True):
        cv2.line(amount, start, end, level, 1, cv2.LINE_AA)
    return amount


def tissue(side: int, rng: np.random.Generator) -> np.ndarray:
    """Cells about random points: a map of the distance to the nearest one."""
    small = max(side // 2, 8)
    points = np.ones((small, small), np.uint8)
    count = int(math.exp(rng.uniform(math.log(10), math.log(300))))
    points[tuple(rng.integers(0, small, (2, count)))] = 0
    distance = cv2.distanceTransform(points, cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    factor = int(2 * math.sqrt(count) * 128 / small) + 1
    stretched = np.minimum(distance, 255 // factor) * np.uint8(factor)
    return enlarged(cv2.GaussianBlur(stretched, (5, 5), 1.0), side)


def speckle(side: int, rng: np.random.Generator) -> np.ndarray:
    """Coarse noise, as gravel or asphalt."""
    cells = max(int(side / math.exp(rng.uniform(0, math.log(4)))), 4)
    return enlarged(noise((cells, cells), rng), side)


TEXTURES: dict[str, Texture] = {
    "flat": flat,
    "ramp": ramp,
    "clouds": clouds,
    "waves": waves,
    "grain": grain,
    "weave": weave,
    "terrain": terrain,
    "fields": fields,
    "blocks": blocks,
    "fibres": fibres,
    "tissue": tissue,
    "speckle": speckle,
}


def enlarged(amount: np.ndarray, side: int) -> np.ndarray:
    """Resize to (side, side), by OpenCV's bit-exact bilinear interpolation."""
    if amount.shape == (side, side):
        return amount
    return cv2.resize(amount, (side, side), interpolation=cv2.INTER_LINEAR_EXACT)


def _stretched(amount: np.ndarray) -> np.ndarray:
    """Spread the values over 0 to 255."""
    low, high, *_ = cv2.minMaxLoc(amount)
    table = (np.arange(256) - int(low)) * 255 // max(int(high - low), 1)
    return cv2.LUT(amount, np.clip(table, 0, 255).astype(np.uint8))


def _steps(count: int, rng: np.random.Generator) -> np.ndarray:
    """(256,) table with ``count`` constant pieces, a few levels wide at their borders."""
    levels = rng.integers(0, 256, count)
    borders = np.sort(rng.integers(40, 216, count - 1))
    return levels[np.searchsorted(borders, np.arange(256))]


def _profile(rng: np.random.Generator) -> np.ndarray:
    """(256,) uint8 table from the phase of a wave to its height."""
    choice = rng.integers(4)
    if choice == 0:
        return _WAVE
    if choice == 1:
        return _TRIANGLE
    width = int(rng.integers(24, 200))  # lines with soft sides
    return np.clip((np.abs(np.arange(256) - 128) - width // 2) * 16 + 128, 0, 255).astype(np.uint8)


def _phase(side: int, rng: np.random.Generator, longest: float = 1 / 3) -> np.ndarray:
    """(S, S) uint8 phase of parallel waves, 256 a period; the longest is a share of the side."""
    period = math.exp(rng.uniform(math.log(3), math.log(max(longest * side, 4))))
    angle = rng.uniform(0, math.pi) if rng.random() < 0.6 else int(rng.integers(4)) * math.pi / 4
    step = 65536 / period
    along = np.arange(side, dtype=np.int64)
    x = (along * round(step * math.cos(angle)) & 0xFFFF).astype(np.uint16)
    y = (along * round(step * math.sin(angle)) & 0xFFFF).astype(np.uint16)
    return (np.add.outer(y, x) >> np.uint16(8)).astype(np.uint8)
