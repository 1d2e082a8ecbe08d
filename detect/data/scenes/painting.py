"""Painting of sprites onto a scene, with occlusion, and the boxes of what stays visible.

Letters: S side of a scene in pixels, h w pixels of an object, n objects of a population, C channels, M objects of the
scene. Images are (S, S) or (S, S, 3).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np

from detect.data.scenes.sprites import NUM_SPRITES, Sprite, nearest_sprite, turned_sprite
from detect.data.scenes.textures import noise

MIN_VISIBLE_SHARE = 0.15
"""Share of an object's pixels below which it counts as hidden and has no box."""
_MIN_VISIBLE_PX = 3
_MIN_INSIDE = 0.45  # share of an object's width and height inside the scene
_PAINTS = ("flat", "flat", "speckled", "shaded", "camouflage")


class Style(NamedTuple):
    """Style that the objects of a population share.

    Args:
        family: of the sprites.
        size: longer side in pixels.
        reach: by which the number of a sprite differs from that of ``size``, at most.
        is_upright: sprites are not mirrored and turned.
        tones: (3, 3) float, colours of the layers; a grey scene takes the first channel.
        jitter: grey levels by which the colours of objects differ, at most.
        contrast: grey levels between an object and the pixels under it.
        paint: ``flat``, ``speckled``, ``shaded`` or ``camouflage``.
        opacity: eighths.
        is_soft: edges are blurred.
        shadow: offset x y in pixels, if there is one.
    """

    family: str
    size: float
    reach: int
    is_upright: bool
    tones: np.ndarray
    jitter: float
    contrast: float
    paint: str
    opacity: int
    is_soft: bool
    shadow: tuple[int, int] | None


def draw_style(family: str, size: float, rng: np.random.Generator) -> Style:
    draw = rng.random(11).tolist()
    colours = rng.uniform(-1, 1, (3, 3))
    base = 255 * draw[0] + (15, 90)[draw[1] < 0.5] * colours[0]
    steps = (colours[1:] * 0.25 + 0.75) * [[_signed(draw[2], 25, 110)], [_signed(draw[3], 25, 110)]]
    return Style(
        family=family,
        size=size,
        reach=(0, 1, 4, 12)[int(draw[4] * 4)],
        is_upright=draw[5] < 0.3,
        tones=np.stack([base, base + steps[0], base + steps[1]]),
        jitter=(4.0, 25.0)[draw[6] < 0.5],
        contrast=28 * math.exp(draw[7] * math.log(4)),
        paint=_PAINTS[int(draw[8] * len(_PAINTS))],
        opacity=5 + int(draw[9] * 10) if draw[9] < 0.3 else 8,
        is_soft=draw[10] < 0.25,
        shadow=tuple(rng.integers(1, 4, 2).tolist()) if draw[10] > 0.85 else None,
    )


def plain(style: Style) -> Style:
    """Return a style without textures, soft edges, translucency and shadows."""
    return style._replace(paint="flat", opacity=8, is_soft=False, shadow=None)


class Canvas:
    """A scene while it is painted.

    Args:
        image: (S, S) or (S, S, 3) uint8; is painted on.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self._owner = np.zeros(image.shape[:2], np.uint8)  # number of the object that a pixel shows; 0 is background
        self._windows: list[tuple[int, int, int, int]] = []  # left, top, right, bottom
        self._labels: list[int] = []
        self._areas: list[int] = []  # whole, before others cover them

    @property
    def num_objects(self) -> int:
        return len(self._labels)

    def paint(self, style: Style, label: int, number: int, rng: np.random.Generator) -> None:
        """Paint a population of ``number`` objects, less those that would lie mostly outside."""
        side, middle = len(self.image), nearest_sprite(style.size)
        centres = draw_centres(side, number, style.size, rng)
        chosen = np.clip(middle + rng.integers(-style.reach, style.reach + 1, number), 0, NUM_SPRITES - 1).tolist()
        turns = [0] * number if style.is_upright else rng.integers(0, 8, number).tolist()
        at = np.clip(centres, 0, side - 1).astype(int)
        colours = _colours(style, self.image[at[:, 1], at[:, 0]], rng.uniform(-1, 1, number)).tolist()
        for (x, y), index, turn, tones in zip(centres.tolist(), chosen, turns, colours, strict=True):
            sprite = turned_sprite(style.family, index, turn)
            height, width = sprite.inside.shape
            if self._paste(style, sprite, (round(x - width / 2), round(y - height / 2)), tones, rng):
                self._labels.append(label)

    def objects(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes_xyxy_px (M, 4) float64 of the visible pixels, labels (M,) int64, areas (M,) float64."""
        boxes, labels, areas = [], [], []
        for number, (left, top, right, bottom) in enumerate(self._windows):
            shown = (self._owner[top:bottom, left:right] == number + 1).view(np.uint8)
            visible = cv2.countNonZero(shown)
            if visible >= max(_MIN_VISIBLE_PX, MIN_VISIBLE_SHARE * self._areas[number]):
                x, y, width, height = cv2.boundingRect(shown)
                boxes.append((left + x, top + y, left + x + width, top + y + height))
                labels.append(self._labels[number])
                areas.append(visible)
        return np.array(boxes, float).reshape(-1, 4), np.array(labels, np.int64), np.array(areas, float)

    def _paste(
        self, style: Style, sprite: Sprite, corner: tuple[int, int], tones: list[list[int]], rng: np.random.Generator
    ) -> bool:
        """Draw a sprite with its left and top at ``corner``, in colours of its tones; False if most lies outside."""
        side, (height, width) = len(self.image), sprite.inside.shape
        left, top = max(corner[0], 0), max(corner[1], 0)
        right, bottom = min(corner[0] + width, side), min(corner[1] + height, side)
        if right - left < _MIN_INSIDE * width or bottom - top < _MIN_INSIDE * height:
            return False
        view, inside = self.image[top:bottom, left:right], sprite.inside
        if right - left < width or bottom - top < height:
            # OpenCV draws other edges where the image cuts an object off.
            coverage = np.zeros(self.image.shape[:2], np.uint8)
            sprite.draw(coverage, *corner, [[255]] * 3)
            inside = (coverage[top:bottom, left:right] > 127).view(np.uint8)
        before = view.copy() if style.opacity < 8 else None
        if style.shadow is not None:
            dark = [[value // 3 for value in tone] for tone in tones]
            sprite.draw(self.image, corner[0] + style.shadow[0], corner[1] + style.shadow[1], dark)
        sprite.draw(self.image, *corner, tones)
        if style.paint != "flat":
            self._texture(style, view, inside, rng)
        if style.is_soft:
            cv2.GaussianBlur(view, (3, 3), 0, dst=view)
        if before is not None:  # eighths, so that floats are exact
            cv2.addWeighted(view, style.opacity / 8, before, 1 - style.opacity / 8, 0, dst=view)
        np.copyto(self._owner[top:bottom, left:right], np.uint8(len(self._windows) + 1), where=inside.view(bool))
        self._windows.append((left, top, right, bottom))
        self._areas.append(sprite.area)
        return True

    def _texture(self, style: Style, view: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> None:
        """Give an object noise, a gradient, or the pixels of another place, where ``inside`` (h, w) is 1."""
        if style.paint == "camouflage":
            free = len(self.image) - view.shape[0] + 1, len(self.image) - view.shape[1] + 1
            top, left = (rng.random(2) * free).astype(int).tolist()
            copy = self.image[top : top + view.shape[0], left : left + view.shape[1]].copy()
            shift = cv2.add if cv2.mean(copy)[0] < 128 else cv2.subtract
            shift(copy, _scalar(round(style.contrast)), view, inside)
            return
        if style.paint == "speckled":
            amount = noise(view.shape, rng)
        else:
            amount = np.empty(view.shape, np.uint8)
            amount[:] = _ramp(view.shape[1]) if view.ndim == 2 else _ramp(view.shape[1])[:, None]
        cv2.add(view, amount >> 1, view, inside)
        cv2.subtract(view, _scalar(64), view, inside)


def draw_centres(side: int, number: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """(number, 2) centres x y: anywhere, in clusters, in rows, or along a line."""
    layout = rng.integers(4)
    if layout == 1:
        centres = rng.uniform(0.1, 0.9, (int(rng.integers(1, 4)), 2)) * side
        reach = size * math.sqrt(number) * rng.uniform(0.4, 1.2)
        offsets = rng.uniform(-1, 1, (number, 2)) + rng.uniform(-1, 1, (number, 2))
        return centres[rng.integers(0, len(centres), number)] + offsets * reach
    if layout == 2:
        columns = max(round(math.sqrt(number)), 1)
        step = size * rng.uniform(1.0, 2.5)
        cells = np.stack([np.arange(number) % columns, np.arange(number) // columns], axis=1) * step
        return rng.uniform(0, 0.7, 2) * side + cells + rng.uniform(-0.15, 0.15, (number, 2)) * size
    if layout == 3:
        ends = rng.uniform(0, side, (2, 2))
        return ends[0] + rng.random((number, 1)) * (ends[1] - ends[0]) + rng.uniform(-0.5, 0.5, (number, 2)) * size
    return rng.uniform(0, side, (number, 2))


def _signed(draw: float, low: float, high: float) -> float:
    """Spread a draw from [0, 1) over [-high, -low] and [low, high]."""
    return low + (high - low) * (2 * draw) if draw < 0.5 else -(low + (high - low) * (2 * draw - 1))


def _colours(style: Style, under: np.ndarray, shades: np.ndarray) -> np.ndarray:
    """(n, 3, C) int colours of the tones, ``contrast`` levels from the pixels (n,) or (n, C) under them."""
    under = under.reshape(len(under), -1).astype(float)
    colours = style.tones[None, :, : under.shape[1]] + style.jitter * shades[:, None, None]
    difference = colours[:, 0] - under
    missing = np.maximum(style.contrast - np.abs(difference).max(axis=1), 0)
    level = under.mean(axis=1)
    brighter = np.where(level + style.contrast > 255, False, (level < style.contrast) | (difference.mean(axis=1) >= 0))
    shift = np.where(brighter, missing, -missing)
    return np.clip(np.round(colours + shift[:, None, None]), 0, 255).astype(int)


@functools.cache
def _ramp(width: int) -> np.ndarray:
    """(w,) uint8 from dark to bright."""
    return np.linspace(48, 208, width).astype(np.uint8)


@functools.cache
def _scalar(value: int) -> np.ndarray:
    """A number for each channel, as OpenCV takes it."""
    return np.full(4, float(value))
