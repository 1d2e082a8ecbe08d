"""Generated scenes for pretraining: objects of many families on many backgrounds, seen by many sensors.

A scene is a function of (seed, index): drawn in memory, endlessly many, with exact boxes and free of photographs. All
arithmetic on pixels is in integers and geometry is rounded to 1/16 px, so it is the same on every machine.

Letters: S side of a scene in pixels, C channels (1 where the sensor sees one colour), M objects.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from detect.data.scenes.outlines import FAMILIES
from detect.data.scenes.painting import MIN_SIDE_PX, Canvas, draw_style
from detect.data.scenes.sensor import colour_table, expose
from detect.data.scenes.textures import TEXTURES
from detect.data.scenes.traces import DEFECTS, draw_traces
from detect.runtime.reproducibility import generator

CLASSES = (*sorted(FAMILIES), *sorted(DEFECTS))
"""Names of the classes, in index order: families of drawn objects, then defects of line patterns."""
SCENE_STREAM = 103
"""First word of the random keys of the scenes."""
MAX_SIDE_PX = 200.0
"""Longer side of the largest object, half of S at most; sizes are log-uniform from ``MIN_SIDE_PX``."""
MAX_OBJECTS = 200
EMPTY_SHARE = 0.04
TRACES_SHARE = 0.15
"""Share of scenes that are a pattern of lines with defects."""
GREY_SHARE = 0.35
"""Share of scenes in one colour."""
MAX_COVERED = 0.5
"""Share of a scene that the boxes of its objects cover together, at most."""

_FAMILY_NAMES = tuple(FAMILIES)
_CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}


class Scene(NamedTuple):
    """A scene with its ground truth.

    Args:
        image_rgb: (S, S, 3) uint8.
        boxes_xyxy_px: (M, 4) float64, extent of each object's visible pixels.
        labels: (M,) int64, index in ``CLASSES``.
        areas: (M,) float64, visible pixels.
    """

    image_rgb: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    areas: np.ndarray


def draw_scene(side: int, seed: int, index: int) -> Scene:
    """Draw scene ``index`` of the stream ``seed``, ``side`` pixels wide and high."""
    rng = generator(SCENE_STREAM, seed, index)
    channels = 1 if rng.random() < GREY_SHARE else 3
    if rng.random() < TRACES_SHARE:
        return _board_scene(side, channels, rng)
    canvas = Canvas(_background(side, channels, rng))
    if rng.random() >= EMPTY_SHARE:
        _populate(canvas, rng)
    boxes, labels, areas = canvas.objects()
    return Scene(expose(canvas.image, rng), boxes, labels, areas)


def _background(side: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S, C) uint8: one texture, or two with half the contrast each, in the colours of a palette."""
    names = list(TEXTURES)
    first, second = (TEXTURES[names[i]] for i in rng.integers(0, len(names), 2).tolist())
    amount = first(side, rng)
    if rng.random() < 0.5:
        amount = amount // 2 + second(side, rng) // 2
    return coloured(amount, colour_table(channels, rng))


def _populate(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint one to six populations, each of one family, with sizes, colours and places that are alike."""
    side = len(canvas.image)
    budget = MAX_COVERED * side * side
    room = min(MAX_OBJECTS, max(round(MAX_OBJECTS * side / 640), 8))
    wanted = math.exp(rng.uniform(math.log(4), math.log(room)))
    count = int(rng.integers(1, 7))
    families = rng.integers(0, len(_FAMILY_NAMES), count).tolist()
    largest = math.log(min(MAX_SIDE_PX, side / 2))
    sizes = np.exp(rng.uniform(math.log(MIN_SIDE_PX), largest, count))
    shares = rng.random(count)
    shares *= wanted / shares.sum()
    for number in np.argsort(-sizes).tolist():  # small objects lie on large ones
        size, name = float(sizes[number]), _FAMILY_NAMES[families[number]]
        most = min(int(budget / size**2) + 1, MAX_OBJECTS - canvas.num_objects)
        if most > 0:
            wish = min(max(round(float(shares[number])), 1), most)
            budget -= canvas.paint(draw_style(name, size, rng), _CLASS_INDEX[name], wish, rng)


def _board_scene(side: int, channels: int, rng: np.random.Generator) -> Scene:
    wanted = math.exp(rng.uniform(math.log(3), math.log(30)))
    pattern, defects = draw_traces(side, rng, int(wanted))
    softness = int(rng.integers(3))
    if softness:
        pattern = cv2.GaussianBlur(pattern, (2 * softness + 1,) * 2, 0)
    image = coloured(pattern, colour_table(channels, rng, min_contrast=60))
    labels = np.array([_CLASS_INDEX[name] for name in defects.families], np.int64)
    boxes = defects.boxes_xyxy_px.astype(float)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return Scene(expose(image, rng), boxes, labels, areas)


def coloured(amount: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look up each value of (S, S) uint8 in a table (256, C): (S, S) or (S, S, 3) uint8."""
    if table.shape[1] == 1:
        return cv2.LUT(amount, table[:, 0])
    return cv2.applyColorMap(amount, table[:, None])
