"""Sound patterns of conducting lines, pads and areas, as on a printed circuit board.

Letters: S side of a pattern in pixels, N places on its lines.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np

from detect.data.scenes.outlines import SHIFT, to_fixed
from detect.runtime.reproducibility import generator

BOARD, CONDUCTOR = 0, 255
BOARD_STREAM = 105
"""First word of the random keys of the boards."""
_NUM_BOARDS, _BOARD_SIDE = 64, 640
_DIRECTIONS = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)], float)
_SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
ROUND = np.stack([np.cos(np.arange(12) * math.pi / 6), np.sin(np.arange(12) * math.pi / 6)], axis=1)
"""(12, 2) corners of a disc of radius 1."""


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
