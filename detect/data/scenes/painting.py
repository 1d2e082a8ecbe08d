"""Painting of objects onto a scene, with occlusion, and the boxes of what stays visible.

Letters: S side of a scene in pixels, h w window of an object, n objects of a population, m objects of one outline,
P points of an outline, M objects of the scene. Images are (S, S) or (S, S, 3).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from detect.data.scenes.families import NUM_MEMBERS, Member, members
from detect.data.scenes.outlines import Layer
from detect.data.scenes.textures import noise

MIN_SIDE_PX = 3.0
"""Longer side of the smallest object."""
MIN_VISIBLE_SHARE = 0.15
"""Share of an object's area below which it counts as hidden and has no box."""
_MIN_VISIBLE_PX = 3
_MIN_INSIDE = 0.45  # share of an object's width and height inside the scene
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_MARGIN = 2  # pixels around an object for its soft edge
_INSIDE = 127  # coverage above which a pixel belongs to an object

Lines = list[tuple[Layer, list[np.ndarray]]]
"""Layers of an object with their points, int32 in sixteenths of a pixel."""


class Style(NamedTuple):
    """Style that the objects of a population share.

    Args:
        members: outlines that they have.
        size: longer side in pixels, about.
        spread: of the sizes, as a share.
        heading: direction in radians.
        turn: largest angle from it.
        stretch: logarithm of the largest ratio of the sides, added to the outlines' own.
        tones: (3, 3) float, colours of the layers; a grey scene takes the first channel.
        jitter: grey levels by which the colours of objects differ.
        contrast: grey levels between an object and the pixels under it.
        paint: ``flat``, ``speckled``, ``shaded`` or ``camouflage``.
        opacity: eighths.
        is_soft: edges are blurred.
        shadow: offset in pixels, if there is one.
    """

    members: list[Member]
    size: float
    spread: float
    heading: float
    turn: float
    stretch: float
    tones: np.ndarray
    jitter: float
    contrast: float
    paint: str
    opacity: int
    is_soft: bool
    shadow: tuple[int, int] | None


_PAINTS = ("flat", "flat", "speckled", "shaded", "camouflage")


def draw_style(family: str, size: float, rng: np.random.Generator) -> Style:
    draw = rng.random(16).tolist()
    chosen = rng.integers(0, NUM_MEMBERS, 1 + int(draw[0] * 2)).tolist()
    base = 255 * draw[1] + (15, 90)[draw[2] < 0.5] * rng.uniform(-1, 1, 3)
    steps = rng.uniform(0.5, 1, (2, 3)) * [[_signed(draw[3], 25, 110)], [_signed(draw[4], 25, 110)]]
    return Style(
        members=[members()[family][i] for i in chosen],
        size=size,
        spread=(0.05, 0.2, 0.45)[int(draw[5] * 3)],
        heading=2 * math.pi * draw[6],
        turn=(0.1, math.pi)[draw[7] < 0.5],
        stretch=0.35 * draw[8],
        tones=np.stack([base, base + steps[0], base + steps[1]]),
        jitter=(4.0, 25.0)[draw[9] < 0.5],
        contrast=math.exp(math.log(14) + draw[10] * math.log(8)),
        paint=_PAINTS[int(draw[11] * len(_PAINTS))],
        opacity=5 + int(draw[12] * 10) if draw[12] < 0.3 else 8,
        is_soft=draw[13] < 0.25,
        shadow=(int(draw[14] * 40) - 3, int(draw[15] * 7) - 3) if draw[14] < 0.15 else None,
    )


def plain(style: Style) -> Style:
    """Return a style without textures, soft edges, translucency and shadows."""
    return style._replace(paint="flat", opacity=8, is_soft=False, shadow=None)


class _Places(NamedTuple):
    """Geometry of m objects of one outline.

    Args:
        windows: (m, 4) int, left, top, right, bottom, inside the scene.
        points: (m, P, 2) int32 in sixteenths of a pixel of the windows.
        scales: (m,) pixels per unit of the outline.
        colours: (m, 3, 3) int of the three tones.
    """

    windows: np.ndarray
    points: np.ndarray
    scales: np.ndarray
    colours: np.ndarray


class Canvas:
    """A scene while it is painted.

    Args:
        image: (S, S) or (S, S, 3) uint8; is painted on.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self._owner = np.zeros(image.shape[:2], np.uint8)  # number of the object that a pixel shows; 0 is background
        self._windows: list[list[int]] = []
        self._labels: list[int] = []
        self._areas: list[int] = []  # whole, before others cover them

    @property
    def num_objects(self) -> int:
        return len(self._labels)

    def paint(self, style: Style, label: int, number: int, rng: np.random.Generator) -> float:
        """Paint a population of ``number`` objects; return the area of their boxes in pixels, about."""
        before = self.num_objects
        centres = draw_centres(len(self.image), number, style.size, rng)
        draws = rng.uniform(-1, 1, (number, 5))
        which = rng.integers(0, len(style.members), number)
        for index in np.unique(which).tolist():
            member, rows = style.members[index], which == index
            places = self._place(style, member, centres[rows], draws[rows])
            for row in range(len(places.windows)):
                self._paint_one(style, member, places, row, rng)
            self._labels += [label] * (self.num_painted - self.num_objects)
        return (self.num_objects - before) * style.size**2

    @property
    def num_painted(self) -> int:
        return len(self._windows)

    def objects(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes_xyxy_px (M, 4) float64 of the visible pixels, labels (M,) int64, areas (M,) float64."""
        boxes, labels, areas = [], [], []
        for number, (window, label, area) in enumerate(zip(self._windows, self._labels, self._areas, strict=True)):
            left, top, right, bottom = window
            shown = (self._owner[top:bottom, left:right] == number + 1).view(np.uint8)
            visible = cv2.countNonZero(shown)
            if visible >= max(_MIN_VISIBLE_PX, MIN_VISIBLE_SHARE * area):
                x, y, width, height = cv2.boundingRect(shown)
                boxes.append((left + x, top + y, left + x + width, top + y + height))
                labels.append(label)
                areas.append(visible)
        return np.array(boxes, float).reshape(-1, 4), np.array(labels, np.int64), np.array(areas, float)

    def _place(self, style: Style, member: Member, centres: np.ndarray, draws: np.ndarray) -> _Places:
        """Turn, stretch, scale and colour the objects of an outline; leave out those that lie mostly outside.

        Args:
            style: of the population.
            member: their outline.
            centres: (m, 2) x y, pixels.
            draws: (m, 5) in [-1, 1] for angle, stretch, mirror, size and shade.
        """
        angles = style.heading + style.turn * draws[:, 0]
        wide = np.exp(style.stretch * draws[:, 1])
        cos, sin, mirror = np.cos(angles), np.sin(angles), np.where(draws[:, 2] > 0, -wide, wide)
        matrices = np.stack([cos * mirror, -sin / wide, sin * mirror, cos / wide], axis=1).reshape(-1, 2, 2)
        points = matrices @ member.points.T  # (m, 2, P)
        low, high = points.min(axis=2), points.max(axis=2)
        sizes = np.maximum(style.size * (1 + style.spread * draws[:, 3]), MIN_SIDE_PX)
        scales = (sizes / ((high - low).max(axis=1) + member.stroke))[:, None]
        reach = member.stroke / 2 * scales + _MARGIN
        first = np.floor(centres + low * scales - reach)
        last = np.ceil(centres + high * scales + reach)
        start, end = np.maximum(first, 0), np.minimum(last, len(self.image))
        fixed = (points * scales[..., None] + (centres - start - 0.5)[..., None]) * (1 << _SHIFT)
        at = np.clip(centres, 0, len(self.image) - 1).astype(int)
        colours = _colours(style, self.image[at[:, 1], at[:, 0]], draws[:, 4])
        windows = np.concatenate([start, end], axis=1).astype(int)
        keep = (end - start >= _MIN_INSIDE * (last - first)).all(axis=1)
        fixed = np.ascontiguousarray(np.round(fixed[keep]).astype(np.int32).transpose(0, 2, 1))  # (m, P, 2)
        return _Places(windows[keep], fixed, scales[keep, 0], colours[keep])

    def _paint_one(self, style: Style, member: Member, places: _Places, row: int, rng: np.random.Generator) -> None:
        window = places.windows[row].tolist()
        left, top, right, bottom = window
        points, scale, tones = places.points[row], places.scales[row], places.colours[row].tolist()
        lines: Lines = [(layer, [points[a:b] for a, b in spans]) for layer, spans in member.parts]
        mask = np.zeros((bottom - top, right - left), np.uint8)
        for layer, parts in lines:
            _draw(mask, parts, layer.width * scale, 255)
        inside = mask > _INSIDE
        view = self.image[top:bottom, left:right]
        before = view.copy() if style.opacity < 8 else None
        if style.shadow is not None:
            shifted = points + np.array(style.shadow, np.int32) * (1 << _SHIFT)
            layer, spans = member.parts[0]
            _draw(view, [shifted[a:b] for a, b in spans], layer.width * scale, [value // 3 for value in tones[0]])
        for layer, parts in lines:
            _draw(view, parts, layer.width * scale, tones[layer.tone])
        if style.paint == "shaded":
            middle = np.round((points - points.mean(axis=0)) * 0.6 + points.mean(axis=0)).astype(np.int32)
            layer, spans = member.parts[0]
            _draw(view, [middle[a:b] for a, b in spans], layer.width * scale, tones[1])
        elif style.paint != "flat":
            self._texture(style, view, inside.view(np.uint8), rng)
        if style.is_soft:
            cv2.GaussianBlur(view, (3, 3), 0, dst=view)
        if before is not None:  # eighths, so that floats are exact
            cv2.addWeighted(view, style.opacity / 8, before, 1 - style.opacity / 8, 0, dst=view)
        np.copyto(self._owner[top:bottom, left:right], np.uint8(self.num_painted + 1), where=inside)
        self._windows.append(window)
        self._areas.append(int(np.count_nonzero(inside)))

    def _texture(self, style: Style, view: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> None:
        """Give an object noise, or the pixels of another place, where ``inside`` (h, w) is not 0."""
        height, width = view.shape[:2]
        if style.paint == "speckled":
            grains = noise(view.shape, rng) >> 1
            cv2.add(view, grains, view, inside)
            cv2.subtract(view, _scalar(64), view, inside)
            return
        top, left = (rng.random(2) * (len(self.image) - height + 1, len(self.image) - width + 1)).astype(int).tolist()
        change = cv2.add if style.heading < math.pi else cv2.subtract
        level = round(style.contrast / 2)
        cv2.copyTo(self.image[top : top + height, left : left + width].copy(), inside, view)
        change(view, _scalar(level), view, inside)


def _scalar(value: float) -> np.ndarray:
    """A number for each channel, as OpenCV takes it."""
    return np.full(4, float(value))


def _signed(draw: float, low: float, high: float) -> float:
    """Spread a draw from [0, 1) over [-high, -low] and [low, high]."""
    return low + (high - low) * (2 * draw) if draw < 0.5 else -(low + (high - low) * (2 * draw - 1))


def _colours(style: Style, under: np.ndarray, shades: np.ndarray) -> np.ndarray:
    """(m, 3, C) int colours of the tones, at least ``contrast`` levels from the pixels (m,) or (m, C) under them."""
    under = under.reshape(len(under), -1).astype(float)
    colours = style.tones[None, :, : under.shape[1]] + style.jitter * shades[:, None, None]  # (m, 3, C)
    difference = colours[:, 0] - under
    missing = np.maximum(style.contrast - np.abs(difference).max(axis=1), 0)
    side = np.where(difference.mean(axis=1) >= 0, 1.0, -1.0)
    level = under.mean(axis=1)
    side = np.where(level + style.contrast > 255, -1.0, np.where(level < style.contrast, 1.0, side))
    return np.clip(np.round(colours + (side * missing)[:, None, None]), 0, 255).astype(int)


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


def _draw(image: np.ndarray, lines: list[np.ndarray], width_px: float, colour: int | list[int]) -> None:
    """Fill polygons, or stroke polylines of a width above 0."""
    if width_px > 0:
        cv2.polylines(image, lines, False, colour, max(round(width_px), 1), cv2.LINE_AA, _SHIFT)
    else:
        cv2.fillPoly(image, lines, colour, cv2.LINE_AA, _SHIFT)
