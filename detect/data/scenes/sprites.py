"""Sprites: drawn members of each family in many sizes and directions, from which scenes are put together.

Drawing an outline takes several times as long as pasting it, so each process draws a family's sprites once, always the
same.

Letters: h w pixels of a sprite, P points of an outline.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np

from detect.data.scenes.families import FAMILIES, NUM_MEMBERS, members
from detect.data.scenes.outlines import SHIFT, Layer, to_fixed
from detect.runtime.reproducibility import generator

NUM_SPRITES = 128
"""Sprites of each family."""
MIN_SIDE_PX, MAX_SIDE_PX = 3.0, 200.0
"""Longer side of the smallest and the largest sprite; they are spaced evenly in the logarithm."""
SPRITE_STREAM = 104
"""Stream number of the random generators of the sprites."""

_MARGIN = 1  # pixels around a sprite, for its soft edge


class Sprite(NamedTuple):
    """A drawn object, without colours.

    Args:
        inside: (h, w) uint8, 1 where at least half of a pixel is covered, else 0.
        parts: layers with their lines, int32 in sixteenths of a pixel from the corner.
        widths: of the layers' strokes, pixels.
        area: pixels of ``inside``.
    """

    inside: np.ndarray
    parts: list[tuple[Layer, list[np.ndarray]]]
    widths: list[int]
    area: int

    def draw(self, image: np.ndarray, left: int, top: int, tones: list[list[int]]) -> None:
        """Draw the sprite with its corner at ``left`` and ``top``, in colours of its tones."""
        corner = np.array([left << SHIFT, top << SHIFT], np.int32)
        for (layer, lines), width in zip(self.parts, self.widths, strict=True):
            draw_lines(image, [line + corner for line in lines], width, tones[layer.tone])


@functools.cache
def sprites(family: str) -> list[Sprite]:
    """Return the sprites of a family, from the smallest."""
    number = list(FAMILIES).index(family)
    return [_draw_sprite(family, generator(SPRITE_STREAM, number, index), index) for index in range(NUM_SPRITES)]


@functools.cache
def turned_sprite(family: str, index: int, turn: int) -> Sprite:
    """Return a sprite mirrored and turned by quarters, in one of eight ways."""
    sprite = sprites(family)[index]
    if turn == 0:
        return sprite
    height, width = sprite.inside.shape
    sign = np.array([1 - 2 * (turn & 1), 1 - (turn & 2)], np.int32)
    end = ((np.array([width, height], np.int32) - 1) << SHIFT) * (sign < 0)  # the last pixel becomes the first
    columns = [1, 0] if turn & 4 else [0, 1]
    parts = [(layer, [(line * sign + end)[:, columns] for line in lines]) for layer, lines in sprite.parts]
    return _finished(parts, sprite.widths, (width, height) if turn & 4 else (height, width))


def nearest_sprite(size: float) -> int:
    """Return the index of the sprites of about this size in pixels."""
    share = math.log(size / MIN_SIDE_PX) / math.log(MAX_SIDE_PX / MIN_SIDE_PX)
    return min(max(round(share * (NUM_SPRITES - 1)), 0), NUM_SPRITES - 1)


def draw_lines(image: np.ndarray, lines: list[np.ndarray], width_px: int, colour: int | list[int]) -> None:
    """Fill polygons, or stroke polylines of a width above 0; points are int32 in sixteenths of a pixel."""
    if width_px > 0:
        cv2.polylines(image, lines, False, colour, width_px, cv2.LINE_AA, SHIFT)
    else:
        cv2.fillPoly(image, lines, colour, cv2.LINE_AA, SHIFT)


def _draw_sprite(family: str, rng: np.random.Generator, index: int) -> Sprite:
    """Turn, stretch and scale a member at random, and draw it."""
    member = members()[family][int(rng.integers(NUM_MEMBERS))]
    size = MIN_SIDE_PX * (MAX_SIDE_PX / MIN_SIDE_PX) ** (index / (NUM_SPRITES - 1))
    angle, wide = rng.uniform(0, 2 * math.pi), math.exp(rng.uniform(-0.3, 0.3))
    cos, sin = math.cos(angle), math.sin(angle)
    points = member.points @ np.array([[cos * wide, sin * wide], [-sin / wide, cos / wide]])  # (P, 2)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    scale = size / (extent.max() + member.stroke)
    width, height = (math.ceil(side) + 2 * _MARGIN for side in ((extent + member.stroke) * scale).tolist())
    place = (member.stroke / 2 - low) * scale + _MARGIN + rng.uniform(-0.5, 0, 2)  # edges lie between pixels
    fixed = to_fixed(points * scale + place)
    parts = [(layer, [fixed[start:end] for start, end in spans]) for layer, spans in member.parts]
    widths = [max(round(layer.width * scale), 1) if layer.width > 0 else 0 for layer, _ in parts]
    return _finished(parts, widths, (height, width))


def _finished(parts: list[tuple[Layer, list[np.ndarray]]], widths: list[int], size_hw: tuple[int, int]) -> Sprite:
    """Draw the mask. OpenCV's edges of a mirrored line are not the mirrored edges, so each turn has a mask."""
    coverage = np.zeros(size_hw, np.uint8)
    for (_, lines), width_px in zip(parts, widths, strict=True):
        draw_lines(coverage, lines, width_px, 255)
    inside = (coverage > 127).view(np.uint8)
    return Sprite(inside, parts, widths, int(np.count_nonzero(inside)))
