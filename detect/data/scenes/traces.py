"""Patterns of conducting lines and pads with defects, as on a printed circuit board."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

BOARD, CONDUCTOR = 0, 255
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_MIN_CHANGED_PX = 4
_DIRECTIONS = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)], float)


class Defects(NamedTuple):
    """Defects of a pattern.

    Args:
        boxes_xyxy_px: (M, 4) int64, extent of the pixels that differ from the sound pattern.
        families: M names of ``DEFECTS``.
    """

    boxes_xyxy_px: np.ndarray
    families: list[str]


class Site(NamedTuple):
    """Place on a line.

    Args:
        point: x and y in pixels.
        along: unit vector in the direction of the line.
        width: of the line, pixels.
        pitch: distance to the next parallel line, pixels.
    """

    point: np.ndarray
    along: np.ndarray
    width: float
    pitch: float

    def at(self, along: float, across: float) -> np.ndarray:
        """Point at distances along and across the line, in pixels."""
        return self.point + along * self.along + across * np.array([-self.along[1], self.along[0]])


def draw_traces(side: int, rng: np.random.Generator, max_defects: int) -> tuple[np.ndarray, Defects]:
    """Draw a pattern (S, S) uint8 of ``BOARD`` and ``CONDUCTOR`` with up to ``max_defects`` defects."""
    pitch = math.exp(rng.uniform(math.log(8), math.log(36)))
    width = pitch * rng.uniform(0.3, 0.6)
    pattern = np.full((side, side), BOARD, np.uint8)
    sites: list[Site] = []
    for _ in range(int(min(rng.uniform(0.4, 1.2) * side / pitch, 24)) + 1):
        sites += _draw_bundle(pattern, pitch, width, rng)
    boxes: list[tuple[int, int, int, int]] = []
    families: list[str] = []
    names = list(DEFECTS)
    chosen = rng.integers(0, (len(names), max(len(sites), 1)), (max_defects if sites else 0, 2)).tolist()
    for name, site in ((names[i], sites[j]) for i, j in chosen):
        box = _draw_defect(pattern, name, site, boxes, rng)
        if box is not None:
            boxes.append(box)
            families.append(name)
    return pattern, Defects(np.array(boxes, np.int64).reshape(-1, 4), families)


def _draw_bundle(pattern: np.ndarray, pitch: float, width: float, rng: np.random.Generator) -> list[Site]:
    """Draw parallel lines with bends of 45 degrees and pads at their ends; return a place on each piece."""
    turns = rng.integers(-1, 2, int(rng.integers(1, 6)))
    directions = (int(rng.integers(8)) + np.cumsum(turns)) % 8
    steps = _DIRECTIONS[directions] * (pitch * rng.integers(1, 8, len(turns)))[:, None]
    start = rng.integers(0, max(int(len(pattern) / pitch), 1), 2) * pitch
    path = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])  # (pieces + 1, 2)
    offset = np.array([pitch, 0.0]) if directions[-1] % 4 > 1 else np.array([0.0, pitch])
    lines = path + np.arange(int(rng.integers(1, 7)))[:, None, None] * offset  # (lines, pieces + 1, 2)
    cv2.polylines(pattern, [*_fixed(lines)], False, CONDUCTOR, max(round(width), 1), cv2.LINE_8, _SHIFT)
    _draw_pads(pattern, lines[:, [0, -1]].reshape(-1, 2), pitch * rng.uniform(0.35, 0.55), int(rng.integers(4)))
    places = lines[:, :-1] + steps * rng.uniform(0.2, 0.8, (len(lines), len(steps), 1))
    inside = ((places > 2) & (places < len(pattern) - 2)).all(axis=2)
    along = steps / np.hypot(steps[:, 0], steps[:, 1])[:, None]
    return [Site(places[i, j], along[j], width, pitch) for i, j in np.argwhere(inside).tolist()]


_SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
_ROUND = np.stack([np.cos(np.arange(12) * math.pi / 6), np.sin(np.arange(12) * math.pi / 6)], axis=1)


def _draw_pads(pattern: np.ndarray, centres: np.ndarray, radius: float, kind: int) -> None:
    """Draw no pads, squares, discs or rings."""
    if kind == 0:
        return
    pads = centres[:, None] + radius * (_SQUARE if kind == 1 else _ROUND)
    cv2.fillPoly(pattern, [*_fixed(pads)], CONDUCTOR, cv2.LINE_8, _SHIFT)
    if kind == 3:
        cv2.fillPoly(pattern, [*_fixed(centres[:, None] + radius * 0.45 * _ROUND)], BOARD, cv2.LINE_8, _SHIFT)


# ------------------------------------------------------------------------------------------------ defects


def _open(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A gap in a line."""
    half = site.width * rng.uniform(0.3, 1.2)
    reach = site.width * 0.75
    corners = [site.at(x, y) for x, y in ((-half, -reach), (half, -reach), (half, reach), (-half, reach))]
    cv2.fillPoly(canvas, [_fixed(np.array(corners))], BOARD, cv2.LINE_8, _SHIFT)


def _short(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A bridge to the next line."""
    slant = rng.uniform(-0.3, 0.3) * site.pitch
    bridge = np.array([site.at(0, 0), site.at(slant, site.pitch)])
    thickness = max(round(site.width * rng.uniform(0.3, 0.9)), 1)
    cv2.polylines(canvas, [_fixed(bridge)], False, CONDUCTOR, thickness, cv2.LINE_8, _SHIFT)


def _mouse_bite(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A notch in the edge of a line."""
    for _ in range(int(rng.integers(1, 4))):
        place = site.at(rng.uniform(-0.4, 0.4) * site.width, site.width * rng.uniform(0.35, 0.6))
        _disc(canvas, place, site.width * rng.uniform(0.2, 0.4), BOARD)


def _spur(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A bump on the edge of a line."""
    length = site.width * 0.5 + (site.pitch - site.width) * rng.uniform(0.3, 0.8)
    half = site.width * rng.uniform(0.15, 0.4)
    tip = site.at(rng.uniform(-1, 1) * half, length)
    corners = [site.at(-half, 0), site.at(half, 0), tip + site.along * half * 0.6, tip - site.along * half * 0.6]
    cv2.fillPoly(canvas, [_fixed(np.array(corners))], CONDUCTOR, cv2.LINE_8, _SHIFT)


def _pin_hole(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A hole inside a line."""
    _disc(canvas, site.at(0, rng.uniform(-0.1, 0.1) * site.width), site.width * rng.uniform(0.15, 0.33), BOARD)


def _spurious_copper(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A piece of conductor between the lines."""
    place = site.at(0, site.pitch * rng.uniform(0.7, 1.5))
    for _ in range(int(rng.integers(1, 4))):
        shift = rng.uniform(-0.3, 0.3, 2) * site.width
        _disc(canvas, place + shift, site.width * rng.uniform(0.25, 0.6), CONDUCTOR)


DEFECTS: dict[str, Callable[[np.ndarray, Site, np.random.Generator], None]] = {
    "mouse bite": _mouse_bite,
    "open": _open,
    "pin hole": _pin_hole,
    "short": _short,
    "spur": _spur,
    "spurious copper": _spurious_copper,
}
"""Families of defects; each draws on the window about a site, in whose coordinates the site is given."""


def _draw_defect(
    pattern: np.ndarray, name: str, site: Site, boxes: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Draw a defect where it changes pixels and meets no other; return its box."""
    reach = int(2.5 * site.pitch) + 2
    left, top = (max(int(value) - reach, 0) for value in site.point)
    right, bottom = (min(int(value) + reach, len(pattern)) for value in site.point)
    before = pattern[top:bottom, left:right]
    canvas = before.copy()
    DEFECTS[name](canvas, site._replace(point=site.point - (left, top)), rng)
    changed = (canvas != before).view(np.uint8)
    x, y, width, height = cv2.boundingRect(changed)
    box = (left + x, top + y, left + x + width, top + y + height)
    if cv2.countNonZero(changed) < _MIN_CHANGED_PX or any(_meet(box, other) for other in boxes):
        return None
    before[:] = canvas
    return box


def _meet(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    """Test two boxes for less than 2 px between them."""
    return (
        first[0] < second[2] + 2 and second[0] < first[2] + 2 and first[1] < second[3] + 2 and second[1] < first[3] + 2
    )


def _disc(canvas: np.ndarray, centre: np.ndarray, radius: float, value: int) -> None:
    scale = 1 << _SHIFT
    at = np.round(centre * scale).astype(int).tolist()
    cv2.circle(canvas, at, max(round(radius * scale), scale // 2), value, -1, cv2.LINE_8, _SHIFT)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(points * (1 << _SHIFT)).astype(np.int32)
