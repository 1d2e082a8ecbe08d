"""Patterns of conducting lines, pads and areas, as on a printed circuit board, and their defects.

Letters: S side of a pattern in pixels, N places on its lines.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from detect.data.scenes.outlines import SHIFT, to_fixed
from detect.runtime.reproducibility import generator

BOARD, CONDUCTOR = 0, 255
BOARD_STREAM = 105
"""Stream number of the random generators of the boards."""
_NUM_BOARDS, _BOARD_SIDE = 64, 640
_DIRECTIONS = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)], float)
_SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
ROUND = np.stack([np.cos(np.arange(12) * math.pi / 6), np.sin(np.arange(12) * math.pi / 6)], axis=1)
"""(12, 2) corners of a disc of radius 1."""
_MIN_CHANGED_PX = 4


class Board(NamedTuple):
    """A sound pattern.

    Args:
        pattern: (S, S) uint8 of ``BOARD`` and ``CONDUCTOR``.
        points: (N, 2) places on its lines, x y in pixels.
        along: (N, 2) unit vectors in the direction of the lines.
        width: of the lines, pixels.
        pitch: distance of parallel lines, pixels.
    """

    pattern: np.ndarray
    points: np.ndarray
    along: np.ndarray
    width: float
    pitch: float


def draw_board(side: int, rng: np.random.Generator) -> Board:
    """Cut a square out of one of the boards, mirrored at random."""
    board = _board(max(side, _BOARD_SIDE), int(rng.integers(_NUM_BOARDS)))
    left, top = rng.integers(0, len(board.pattern) - side + 1, 2).tolist()
    x, y = (-1 if draw < 0.5 else 1 for draw in rng.random(2).tolist())
    pattern = board.pattern[top : top + side, left : left + side][::y, ::x].copy()
    points = (board.points - (left, top)) * (x, y) + (side * np.array([x < 0, y < 0]))
    inside = ((points > 2) & (points < side - 2)).all(axis=1)
    return Board(pattern, points[inside], board.along[inside] * (x, y), board.width, board.pitch)


@functools.cache
def _board(side: int, number: int) -> Board:
    """Draw a whole board, always the same."""
    rng = generator(BOARD_STREAM, number)
    pitch = math.exp(rng.uniform(math.log(8), math.log(64)))
    width = pitch * rng.uniform(0.2, 0.6)
    pattern = np.full((side, side), BOARD, np.uint8)
    for _ in range(int(rng.integers(6))):
        _draw_area(pattern, rng)
    for _ in range(int(rng.integers(4))):
        _draw_pad_array(pattern, pitch, rng)
    density = math.exp(rng.uniform(math.log(0.15), math.log(1.4)))
    bundles = [_draw_bundle(pattern, pitch, width, rng) for _ in range(int(density * side / pitch) + 1)]
    points, along = (np.concatenate(parts) for parts in zip(*bundles, strict=True))
    return Board(pattern, points, along, width, pitch)


def _draw_area(pattern: np.ndarray, rng: np.random.Generator) -> None:
    """Draw an area of conductor with cut corners, and slots with round ends in it."""
    side = len(pattern)
    x, y = (rng.integers(-side // 8, side, 2) // 8 * 8).tolist()
    width, height = (rng.integers(side // 16, side // 3, 2) // 8 * 8).tolist()
    cut = min(width, height) * (0.0, 0.15, 0.3, 0.45)[int(rng.integers(4))]
    corners = [(x + cut, y), (x + width - cut, y), (x + width, y + cut), (x + width, y + height - cut)]
    corners += [(x + width - cut, y + height), (x + cut, y + height), (x, y + height - cut), (x, y + cut)]
    cv2.fillPoly(pattern, [to_fixed(np.array(corners, float))], CONDUCTOR, cv2.LINE_8, SHIFT)
    for _ in range(int(rng.integers(4))):
        start = np.array([x, y]) + rng.uniform(0.15, 0.85, 2) * (width, height)
        reach = rng.uniform(0, 0.5) * min(width, height) * _DIRECTIONS[int(rng.integers(8))]
        slot = max(round(rng.uniform(0.04, 0.2) * min(width, height)), 2)
        cv2.polylines(pattern, [to_fixed(np.array([start, start + reach]))], False, BOARD, slot, cv2.LINE_8, SHIFT)


def _draw_pad_array(pattern: np.ndarray, pitch: float, rng: np.random.Generator) -> None:
    """Draw one to six rows of one to six equal pads."""
    columns, rows = rng.integers(1, 7, 2).tolist()
    step = pitch * rng.uniform(1.2, 3)
    cells = np.stack([np.tile(np.arange(columns), rows), np.repeat(np.arange(rows), columns)], axis=1) * step
    centres = rng.uniform(0, 0.9, 2) * len(pattern) + cells
    _draw_pads(pattern, centres, step * rng.uniform(0.2, 0.45), int(rng.integers(1, 4)))


def _draw_bundle(
    pattern: np.ndarray, pitch: float, width: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw parallel lines with bends of 45 degrees and pads at their ends.

    Returns:
        A place on each piece and the unit vector along it, (pieces, 2) each.
    """
    turns = rng.integers(-1, 2, int(rng.integers(1, 6)))
    directions = (int(rng.integers(8)) + np.cumsum(turns)) % 8
    steps = _DIRECTIONS[directions] * (pitch * rng.integers(1, 8, len(turns)))[:, None]
    start = rng.integers(0, max(int(len(pattern) / pitch), 1), 2) * pitch
    path = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])  # (pieces + 1, 2)
    offset = np.array([pitch, 0.0]) if directions[-1] % 4 > 1 else np.array([0.0, pitch])
    lines = path + np.arange(int(rng.integers(1, 7)))[:, None, None] * offset  # (lines, pieces + 1, 2)
    cv2.polylines(pattern, [*to_fixed(lines)], False, CONDUCTOR, max(round(width), 1), cv2.LINE_8, SHIFT)
    _draw_pads(pattern, lines[:, [0, -1]].reshape(-1, 2), pitch * rng.uniform(0.35, 0.55), int(rng.integers(4)))
    places = lines[:, :-1] + steps * rng.uniform(0.2, 0.8, (len(lines), len(steps), 1))
    along = steps / np.hypot(steps[:, 0], steps[:, 1])[:, None]
    return places.reshape(-1, 2), np.tile(along, (len(lines), 1))


def _draw_pads(pattern: np.ndarray, centres: np.ndarray, radius: float, kind: int) -> None:
    """Draw no pads, squares, discs or rings."""
    if kind == 0:
        return
    pads = centres[:, None] + radius * (_SQUARE if kind == 1 else ROUND)
    cv2.fillPoly(pattern, [*to_fixed(pads)], CONDUCTOR, cv2.LINE_8, SHIFT)
    if kind == 3:
        cv2.fillPoly(pattern, [*to_fixed(centres[:, None] + radius * 0.45 * ROUND)], BOARD, cv2.LINE_8, SHIFT)


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
