"""Defects of patterns of conducting lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from detect.data.scenes.boards import BOARD, CONDUCTOR, ROUND, draw_board
from detect.data.scenes.outlines import SHIFT, to_fixed

_MIN_CHANGED_PX = 4


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
    board = draw_board(side, rng)
    boxes: list[tuple[int, int, int, int]] = []
    families: list[str] = []
    names, count = list(DEFECTS), len(board.points)
    for name, place in rng.integers(0, (len(names), max(count, 1)), (max_defects if count else 0, 2)).tolist():
        site = Site(board.points[place], board.along[place], board.width, board.pitch)
        if names[name] in _ANYWHERE and rng.random() < 0.5:
            site = site._replace(point=rng.uniform(4, side - 4, 2))
        box = _draw_defect(board.pattern, names[name], site, boxes, rng)
        if box is not None:
            boxes.append(box)
            families.append(names[name])
    return board.pattern, Defects(np.array(boxes, np.int64).reshape(-1, 4), families)


def _size(site: Site, rng: np.random.Generator) -> float:
    """Draw the size of a defect, log-uniformly from 5 to 20 px: it does not grow with the width of lines."""
    return min(math.exp(rng.uniform(math.log(5), math.log(20))), max(2 * site.width, 8.0))


def _open(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A gap in a line."""
    slant = rng.uniform(-0.5, 0.5) * site.width
    line = np.array([site.at(-slant, -0.75 * site.width), site.at(slant, 0.75 * site.width)])
    for _ in range(int(rng.integers(1, 4))):
        _brush(canvas, line + rng.uniform(-1, 1, 2), _size(site, rng), BOARD, rng)


def _short(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A bridge to the next line."""
    slant = rng.uniform(-0.3, 0.3) * site.pitch
    _brush(canvas, np.array([site.at(0, 0), site.at(slant, site.pitch)]), _size(site, rng) * 0.7, CONDUCTOR, rng)


def _mouse_bite(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A notch in the edge of a line."""
    size = _size(site, rng)
    for _ in range(int(rng.integers(1, 4))):
        place = site.at(rng.uniform(-0.5, 0.5) * size, site.width * 0.5 - size * rng.uniform(-0.1, 0.4))
        _blot(canvas, place, size * rng.uniform(0.3, 0.7), BOARD, rng)


def _spur(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A bump on the edge of a line."""
    size = min(_size(site, rng), 0.7 * (site.pitch - site.width) + 2)
    foot = site.at(0, site.width * 0.4)
    tip = site.at(rng.uniform(-0.6, 0.6) * size, site.width * 0.5 + size)
    _brush(canvas, np.array([foot, tip]), size * rng.uniform(0.3, 0.8), CONDUCTOR, rng)


def _pin_hole(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A hole inside a line."""
    size = min(_size(site, rng), 0.6 * site.width)
    _blot(canvas, site.at(0, rng.uniform(-0.15, 0.15) * site.width), size * 0.5, BOARD, rng)


def _spurious_copper(canvas: np.ndarray, site: Site, rng: np.random.Generator) -> None:
    """A piece of conductor between the lines."""
    place, size = site.at(0, site.pitch * rng.uniform(0.4, 1.5)), _size(site, rng)
    for _ in range(int(rng.integers(1, 4))):
        _blot(canvas, place + rng.uniform(-0.5, 0.5, 2) * size, size * rng.uniform(0.3, 0.6), CONDUCTOR, rng)


DEFECTS: dict[str, Callable[[np.ndarray, Site, np.random.Generator], None]] = {
    "mouse bite": _mouse_bite,
    "open": _open,
    "pin hole": _pin_hole,
    "short": _short,
    "spur": _spur,
    "spurious copper": _spurious_copper,
}
"""Families of defects; each draws on the window about a site, in whose coordinates the site is given."""

_ANYWHERE = ("pin hole", "spurious copper")
"""Defects that areas of conductor and of board have as well as lines."""


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


def _blot(canvas: np.ndarray, centre: np.ndarray, radius: float, value: int, rng: np.random.Generator) -> None:
    """Fill an uneven disc."""
    radii = max(radius, 1.0) * rng.uniform(0.5, 1.3, (len(ROUND), 1))
    stretch = math.exp(rng.uniform(-0.5, 0.5))
    points = centre + radii * ROUND * (stretch, 1 / stretch)
    cv2.fillPoly(canvas, [to_fixed(points)], value, cv2.LINE_8, SHIFT)


def _brush(canvas: np.ndarray, line: np.ndarray, width: float, value: int, rng: np.random.Generator) -> None:
    """Draw an uneven stroke along a line of two points."""
    share = np.linspace(0, 1, 6)[:, None]
    points = line[0] + share * (line[1] - line[0]) + rng.uniform(-0.25, 0.25, (6, 2)) * width
    cv2.polylines(canvas, [to_fixed(points)], False, value, max(round(width), 1), cv2.LINE_8, SHIFT)
