"""Outlines of objects in generated scenes, as polygons and strokes in a square of half-side 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SHIFT = 4
"""Fractional bits of OpenCV's drawing coordinates."""

Points = np.ndarray
"""(P, 2) float64, x and y."""


def to_fixed(points: np.ndarray) -> np.ndarray:
    """Convert pixels to OpenCV's drawing coordinates, int32 in sixteenths of a pixel."""
    return np.round(points * (1 << SHIFT)).astype(np.int32)


class Layer(NamedTuple):
    """Part of an object that has one colour.

    Args:
        lines: polygons, where two overlap is a hole; or polylines, if there is a ``width``.
        width: of strokes, as a share of the object's half-side; 0 fills the polygons.
        tone: colour of the object's palette: 0, 1 or 2.
    """

    lines: list[Points]
    width: float = 0.0
    tone: int = 0


Outline = tuple[Layer, ...]
"""An object's layers, from the lowest; the first one covers the others."""


def polar(radii: np.ndarray, start: float = 0.0) -> Points:
    angles = start + np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def polygon(corners: int, start_degrees: float = -90.0) -> Points:
    return polar(np.ones(corners), math.radians(start_degrees))


CIRCLE = polygon(24)


def star(tips: int, inner: float) -> Points:
    return polar(np.tile([1.0, inner], tips), -math.pi / 2)


def rectangle(width: float, height: float, x: float = 0.0, y: float = 0.0) -> Points:
    """Rectangle of these half-sides about a centre."""
    return np.array(
        [[x - width, y - height], [x + width, y - height], [x + width, y + height], [x - width, y + height]]
    )


def disc(radius: float, x: float = 0.0, y: float = 0.0) -> Points:
    return radius * CIRCLE + np.array([x, y])


def arc(start_degrees: float, end_degrees: float, radius: float = 1.0, points: int = 12) -> Points:
    angles = np.radians(np.linspace(start_degrees, end_degrees, points))
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def blob(rng: np.random.Generator, roughness: float, harmonics: int = 5, points: int = 36) -> Points:
    """Closed curve whose radius varies by ``roughness``, in ``harmonics`` waves of falling amplitude."""
    angles = np.arange(points) * (2 * math.pi / points)
    orders = np.arange(2, harmonics + 2)
    phases = rng.uniform(0, 2 * math.pi, harmonics)
    amplitudes = rng.uniform(-1, 1, harmonics) / np.sqrt(orders - 1)
    wave = (amplitudes[:, None] * np.cos(orders[:, None] * angles + phases[:, None])).sum(axis=0)
    return polar(np.clip(1 + roughness * wave, 0.15, None))


def fractal(corners: Points, rng: np.random.Generator, roughness: float, depth: int) -> Points:
    """Midpoint displacement of each side, ``depth`` times."""
    for _ in range(depth):
        following = np.roll(corners, -1, axis=0)
        side = following - corners
        shift = rng.uniform(-roughness, roughness, (len(corners), 1))
        middle = (corners + following) / 2 + shift * side[:, ::-1] * (-1, 1)
        corners = np.stack([corners, middle], axis=1).reshape(-1, 2)
    return corners


def mirrored(half: Sequence[tuple[float, float]]) -> Points:
    """Close the right half of a shape, listed from top to bottom, with its mirror image."""
    right = np.array(half)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def filled(*lines: Points) -> Outline:
    return (Layer(list(lines)),)


def stroked(width: float, *lines: Points) -> Outline:
    return (Layer(list(lines), width),)
