"""Families of objects in generated scenes: functions that draw another outline from each generator.

``members`` draws a fixed number of outlines of each family once.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from detect.data.scenes.outlines import (
    CIRCLE,
    Layer,
    Outline,
    Points,
    arc,
    blob,
    disc,
    filled,
    fractal,
    mirrored,
    polar,
    polygon,
    rectangle,
    star,
    stroked,
)
from detect.runtime.reproducibility import generator

NUM_MEMBERS = 16
"""Members of each family; each object is one of them, turned, stretched and mirrored."""
FAMILY_STREAM = 101
"""Stream number of the random generators of the members."""


def _cross(rng: np.random.Generator) -> Outline:
    arm = rng.uniform(0.15, 0.45)
    quarter = np.array([[-arm, -1], [arm, -1], [arm, -arm], [1, -arm], [1, arm], [arm, arm]])
    return filled(np.concatenate([quarter, -quarter]))


def _ring(rng: np.random.Generator) -> Outline:
    return filled(CIRCLE, disc(rng.uniform(0.3, 0.8)))


def _crescent(rng: np.random.Generator) -> Outline:
    inner = rng.uniform(0.2, 0.7)
    back = arc(90, -90, 1.0) * (inner, 1)
    return filled(np.concatenate([arc(-90, 90), back]))


def _sector(rng: np.random.Generator) -> Outline:
    gap = rng.uniform(20, 110)
    return filled(np.concatenate([[[0, 0]], arc(gap / 2, 360 - gap / 2, points=24)]))


def _rectangle(rng: np.random.Generator) -> Outline:
    return filled(rectangle(1, rng.uniform(0.3, 1)))


def _bar(rng: np.random.Generator) -> Outline:
    return filled(rectangle(1, rng.uniform(0.06, 0.2)))


def _frame(rng: np.random.Generator) -> Outline:
    height, share = rng.uniform(0.5, 1), rng.uniform(0.4, 0.85)
    return filled(rectangle(1, height), rectangle(share, share * height))


def _triangle(rng: np.random.Generator) -> Outline:
    return filled(np.array([[rng.uniform(-0.8, 0.8), -1], [1, 0.8], [-1, 0.8]]))


def _hollow_triangle(rng: np.random.Generator) -> Outline:
    outer = polygon(3)
    return filled(outer, rng.uniform(0.3, 0.65) * outer)


def _many_sided(rng: np.random.Generator) -> Outline:
    return filled(polygon(int(rng.integers(5, 9))))


def _pointed_star(rng: np.random.Generator) -> Outline:
    return filled(star(int(rng.integers(4, 8)), rng.uniform(0.3, 0.6)))


def _gear(rng: np.random.Generator) -> Outline:
    tooth = np.repeat(np.tile([1.0, rng.uniform(0.7, 0.85)], int(rng.integers(7, 12))), 2)
    return filled(polar(tooth), disc(rng.uniform(0.15, 0.4)))


def _arrow(rng: np.random.Generator) -> Outline:
    shaft, head = rng.uniform(0.12, 0.35), rng.uniform(-0.4, 0.3)
    return filled(mirrored([(0, -1), (0.8, head), (shaft, head), (shaft, 1)]))


def _chevron(rng: np.random.Generator) -> Outline:
    return stroked(rng.uniform(0.2, 0.5), np.array([[-0.9, 0.6], [0, -0.6], [0.9, 0.6]]))


def _angle(rng: np.random.Generator) -> Outline:
    thick = rng.uniform(0.25, 0.7)
    return filled(np.array([[-1, -1], [-1 + thick, -1], [-1 + thick, 1 - thick], [1, 1 - thick], [1, 1], [-1, 1]]))


def _tee(rng: np.random.Generator) -> Outline:
    thick, shaft = rng.uniform(0.2, 0.5), rng.uniform(0.15, 0.35)
    return filled(mirrored([(0, -1), (1, -1), (1, -1 + thick), (shaft, -1 + thick), (shaft, 1)]))


def _horseshoe(rng: np.random.Generator) -> Outline:
    return stroked(rng.uniform(0.2, 0.5), arc(rng.uniform(-60, -10), rng.uniform(190, 240), 0.8))


def _heart(rng: np.random.Generator) -> Outline:
    dip = rng.uniform(-0.5, -0.2)
    return filled(mirrored([(0, dip), (0.3, -0.85), (0.7, -0.85), (1, -0.45), (0.9, 0), (0.5, 0.5), (0, 1)]))


def _drop(rng: np.random.Generator) -> Outline:
    belly = rng.uniform(0.4, 0.8)
    return filled(mirrored([(0, -1), (belly * 0.5, -0.2), (belly, 0.35), (belly * 0.75, 0.8), (0, 1)]))


def _bow(rng: np.random.Generator) -> Outline:
    waist = rng.uniform(0.08, 0.35)
    return filled(np.array([[-1, -0.8], [0, -waist], [1, -0.8], [1, 0.8], [0, waist], [-1, 0.8]]))


def _kite(rng: np.random.Generator) -> Outline:
    return filled(mirrored([(0, -1), (rng.uniform(0.35, 0.8), rng.uniform(-0.4, 0.2)), (0, 1)]))


def _trapezium(rng: np.random.Generator) -> Outline:
    left, right = rng.uniform(-1, 0), rng.uniform(0, 1)
    return filled(np.array([[left, -0.7], [right, -0.7], [1, 0.7], [-1, 0.7]]))


def _curve(rng: np.random.Generator) -> Outline:
    return stroked(rng.uniform(0.08, 0.25), arc(0, rng.uniform(80, 170), 0.9))


def _wave(rng: np.random.Generator) -> Outline:
    x = np.linspace(-1, 1, 24)
    return stroked(rng.uniform(0.08, 0.25), np.stack([x, rng.uniform(0.2, 0.6) * np.sin(rng.uniform(3, 8) * x)], 1))


def _zigzag(rng: np.random.Generator) -> Outline:
    count = int(rng.integers(4, 8))
    points = np.stack([np.linspace(-1, 1, count), rng.uniform(0.3, 0.7) * (-1.0) ** np.arange(count)], axis=1)
    return stroked(rng.uniform(0.08, 0.22), points)


def _spiral(rng: np.random.Generator) -> Outline:
    turns = rng.uniform(1.5, 2.8)
    share = np.linspace(0.12, 1, 32)
    angles = 2 * math.pi * turns * share
    return stroked(rng.uniform(0.08, 0.18), 0.9 * share[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))


def _branch(rng: np.random.Generator) -> Outline:
    lines = [np.array([[0.0, 1.0], [0.0, -0.9]])]
    for height in rng.uniform(-0.7, 0.5, int(rng.integers(2, 5))):
        side = 1.0 if rng.random() < 0.5 else -1.0
        lines.append(np.array([[0, height], [side * rng.uniform(0.4, 0.9), height - rng.uniform(0.2, 0.6)]]))
    return stroked(rng.uniform(0.08, 0.2), *lines)


def _scribble(rng: np.random.Generator) -> Outline:
    steps = rng.uniform(-1, 1, (int(rng.integers(5, 9)), 2))
    return stroked(rng.uniform(0.06, 0.15), steps)


def _smooth_blob(rng: np.random.Generator) -> Outline:
    return filled(blob(rng, rng.uniform(0.05, 0.25)))


def _rough_blob(rng: np.random.Generator) -> Outline:
    return filled(blob(rng, rng.uniform(0.15, 0.35), harmonics=14, points=64))


def _holed_blob(rng: np.random.Generator) -> Outline:
    outer = blob(rng, rng.uniform(0.05, 0.2))
    return filled(outer, outer * rng.uniform(0.3, 0.6) + rng.uniform(-0.15, 0.15, 2))


def _coast(rng: np.random.Generator) -> Outline:
    return filled(fractal(polygon(int(rng.integers(3, 7))), rng, rng.uniform(0.15, 0.35), depth=4))


def _flake(rng: np.random.Generator) -> Outline:
    """Fractal with the same displacement on every arm."""
    arms = int(rng.integers(4, 8))
    arm = np.concatenate([[1.0], rng.uniform(0.3, 0.95, 5)])
    return filled(polar(np.tile(np.concatenate([arm, arm[:0:-1]]), arms)))


def _crown(rng: np.random.Generator) -> Outline:
    """Tree from above: a rough disc with lighter parts."""
    parts = [0.45 * blob(rng, 0.25, 8) + rng.uniform(-0.4, 0.4, 2) for _ in range(3)]
    return (Layer([blob(rng, 0.15, 14, 64)]), *(Layer([part], tone=1) for part in parts))


def _dots(rng: np.random.Generator) -> Outline:
    """Few dots that belong together."""
    count = int(rng.integers(3, 7))
    centres = rng.uniform(-0.75, 0.75, (count, 2))
    return tuple(Layer([disc(rng.uniform(0.2, 0.35), *centre)]) for centre in centres)


def _cell(rng: np.random.Generator) -> Outline:
    """Disc with a pale middle."""
    edge = blob(rng, 0.06)
    return Layer([edge]), Layer([edge * rng.uniform(0.35, 0.65)], tone=1)


def _nucleus(rng: np.random.Generator) -> Outline:
    """Disc with one to three dark lobes."""
    lobes = [blob(rng, 0.2) * rng.uniform(0.3, 0.55) + rng.uniform(-0.35, 0.35, 2) for _ in range(rng.integers(1, 4))]
    return (Layer([blob(rng, 0.08)]), *(Layer([lobe], tone=1) for lobe in lobes))


def _target(rng: np.random.Generator) -> Outline:
    middle = rng.uniform(0.5, 0.8)
    return Layer([CIRCLE]), Layer([disc(middle)], tone=1), Layer([disc(middle * 0.5)], tone=2)


def _car(rng: np.random.Generator) -> Outline:
    """Vehicle from above: a rounded body with two windows."""
    half = rng.uniform(0.38, 0.5)
    body = np.array([[0.9, -half], [1, -half * 0.6], [1, half * 0.6], [0.9, half], [-0.9, half], [-1, half * 0.7]])
    windows = [
        rectangle(0.12, half * 0.75, rng.uniform(0.25, 0.45)),
        rectangle(0.09, half * 0.7, rng.uniform(-0.75, -0.5)),
    ]
    return Layer([np.concatenate([body, [[-1, -half * 0.7], [-0.9, -half]]])]), Layer(windows, tone=1)


def _lorry(rng: np.random.Generator) -> Outline:
    """Vehicle of two boxes."""
    half = rng.uniform(0.22, 0.35)
    gap = rng.uniform(0.45, 0.6)
    load = [rectangle((gap + 0.94) / 2 - 0.04, half * 0.85, (gap - 1.0) / 2)]
    return Layer([rectangle(1, half)]), Layer(load, tone=1), Layer([rectangle(0.07, half * 0.8, 0.8)], tone=2)


def _boat(rng: np.random.Generator) -> Outline:
    half = rng.uniform(0.22, 0.42)
    hull = mirrored([(0, -1), (half * 0.8, -0.4), (half, 0.2), (half * 0.8, 1)])
    return Layer([hull]), Layer([rectangle(half * 0.5, rng.uniform(0.15, 0.3), 0, rng.uniform(0, 0.5))], tone=1)


def _plane(rng: np.random.Generator) -> Outline:
    sweep, body = rng.uniform(0, 0.5), rng.uniform(0.08, 0.14)
    half = [(0, -1), (body, -0.8), (body, -0.25), (0.95, -0.25 + sweep), (0.95, -0.05 + sweep), (body, 0.15)]
    return filled(mirrored([*half, (body, 0.7), (0.4, 0.9), (0.4, 1), (0, 0.92)]))


def _person(rng: np.random.Generator) -> Outline:
    """Head, body, legs."""
    shoulder, hip = rng.uniform(0.25, 0.4), rng.uniform(0.15, 0.3)
    body = mirrored([(0.1, -0.6), (shoulder, -0.5), (shoulder * 0.9, 0.1), (hip, 0.15), (hip, 1), (0.04, 1), (0, 0.3)])
    return Layer([body]), Layer([disc(0.2, 0, -0.8)]), Layer([rectangle(hip, 0.4, 0, 0.58)], tone=1)


def _insect(rng: np.random.Generator) -> Outline:
    legs = [
        np.array([[-0.9, y + rng.uniform(-0.3, 0.3)], [0, y], [0.9, y + rng.uniform(-0.3, 0.3)]])
        for y in (-0.4, 0.0, 0.4)
    ]
    body = CIRCLE * (rng.uniform(0.22, 0.4), 0.85)
    return Layer([body]), Layer(legs, width=0.07), Layer([disc(0.2, 0, -0.7)], tone=1)


def _digit(rng: np.random.Generator) -> Outline:
    """Some of the seven segments of a display."""
    ends = [((-1, -1), (1, -1)), ((1, -1), (1, 0)), ((1, 0), (1, 1)), ((-1, 1), (1, 1)), ((-1, 0), (-1, 1))]
    ends += [((-1, -1), (-1, 0)), ((-1, 0), (1, 0))]
    chosen = rng.permutation(7)[: rng.integers(3, 7)]
    return stroked(rng.uniform(0.15, 0.35), *(np.array(ends[i]) * (0.5, 0.85) for i in chosen.tolist()))


def _letter(rng: np.random.Generator) -> Outline:
    """Two to four straight strokes between the points of a 3 x 3 lattice."""
    lattice = np.array([(x, y) for x in (-0.65, 0, 0.65) for y in (-0.85, 0, 0.85)])
    strokes = [lattice[rng.permutation(9)[:2]] for _ in range(rng.integers(2, 5))]
    return stroked(rng.uniform(0.12, 0.35), *strokes)


def _rune(rng: np.random.Generator) -> Outline:
    """A stem with one or two bows."""
    lines = [np.array([[-0.5, -0.9], [-0.5, 0.9]])]
    for centre in (-0.45, 0.45)[: rng.integers(1, 3)]:
        lines.append(arc(-90, rng.uniform(60, 90), 0.45) * (2.0, 1.0) + (-0.5, centre))
    return stroked(rng.uniform(0.12, 0.3), *lines)


def _disc_family(_: np.random.Generator) -> Outline:
    return filled(CIRCLE)


FAMILIES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "angle": _angle,
    "arrow": _arrow,
    "bar": _bar,
    "boat": _boat,
    "bow": _bow,
    "branch": _branch,
    "car": _car,
    "cell": _cell,
    "chevron": _chevron,
    "coast": _coast,
    "crescent": _crescent,
    "cross": _cross,
    "crown": _crown,
    "curve": _curve,
    "digit": _digit,
    "disc": _disc_family,
    "dots": _dots,
    "drop": _drop,
    "flake": _flake,
    "frame": _frame,
    "gear": _gear,
    "heart": _heart,
    "hollow triangle": _hollow_triangle,
    "holed blob": _holed_blob,
    "horseshoe": _horseshoe,
    "insect": _insect,
    "kite": _kite,
    "letter": _letter,
    "lorry": _lorry,
    "nucleus": _nucleus,
    "person": _person,
    "plane": _plane,
    "polygon": _many_sided,
    "rectangle": _rectangle,
    "ring": _ring,
    "rough blob": _rough_blob,
    "rune": _rune,
    "scribble": _scribble,
    "sector": _sector,
    "smooth blob": _smooth_blob,
    "spiral": _spiral,
    "star": _pointed_star,
    "target": _target,
    "tee": _tee,
    "trapezium": _trapezium,
    "triangle": _triangle,
    "wave": _wave,
    "zigzag": _zigzag,
}
"""Families of drawn objects. ``detect.data.scenes.boards`` has those that are defects of a pattern of lines."""


class Member(NamedTuple):
    """An outline whose points lie in one array, so that one product turns all of them.

    Args:
        points: (P, 2) float64.
        parts: the layers, each with the first and the last row of its lines.
        stroke: width of the widest layer, by which the object is larger than its points.
    """

    points: Points
    parts: list[tuple[Layer, list[tuple[int, int]]]]
    stroke: float


@functools.cache
def members() -> dict[str, list[Member]]:
    """Return the members of each family, always the same."""
    return {
        name: [_member(draw(generator(FAMILY_STREAM, number, index))) for index in range(NUM_MEMBERS)]
        for number, (name, draw) in enumerate(FAMILIES.items())
    }


def _member(outline: Outline) -> Member:
    """Flatten an outline; its box, strokes included, is scaled to a longer half-side of 1 about the centre."""
    lows = [line.min(axis=0) - layer.width / 2 for layer in outline for line in layer.lines]
    highs = [line.max(axis=0) + layer.width / 2 for layer in outline for line in layer.lines]
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    scale = 2 / (high - low).max()
    lines = [line for layer in outline for line in layer.lines]
    ends = np.cumsum([0, *map(len, lines)]).tolist()
    spans = itertools.pairwise(ends)
    scaled = [layer._replace(width=layer.width * scale) for layer in outline]
    parts = [(layer, [next(spans) for _ in layer.lines]) for layer in scaled]
    points = (np.concatenate(lines) - (low + high) / 2) * scale
    return Member(points, parts, max(layer.width for layer in scaled))
