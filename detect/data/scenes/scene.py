"""Generated scenes for pretraining: objects of many families on many backgrounds, seen by many sensors.

A scene is a function of (seed, index): drawn in memory, endlessly many, with exact boxes and free of photographs. All
arithmetic on pixels is in integers and geometry is rounded to 1/16 px, so it is the same on every machine.

Letters: S side of a scene in pixels, C channels (1 where the sensor sees one colour), M objects.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import cv2
import numpy as np

from detect.config.data import Ingredient
from detect.data.scenes.boards import DEFECTS, draw_traces
from detect.data.scenes.families import FAMILIES
from detect.data.scenes.painting import Canvas, draw_style, plain
from detect.data.scenes.sensor import colour_table, expose, to_rgb
from detect.data.scenes.sprites import MAX_SIDE_PX, MIN_SIDE_PX
from detect.data.scenes.textures import TEXTURES, Texture, flat
from detect.runtime.reproducibility import generator

CLASSES = (*sorted(FAMILIES), *sorted(DEFECTS))
"""Names of the classes, in index order: families of drawn objects, then defects of line patterns."""
SCENE_STREAM = 103
"""Stream number of the random generators of the scenes."""
MAX_OBJECTS = 200
EMPTY_SHARE = 0.04
BOARD_SHARE = 0.2
"""Share of scenes that are a pattern of lines with defects."""
GREY_SHARE = 0.35
"""Share of scenes in one colour."""
BARE_BOARD_SHARE = 0.4
"""Share of boards that no sensor blurs or makes noisy: a pattern in two levels, as inspection compares it."""
TINY_SHARE, TINY_SIDE_PX = 0.1, 8.0
"""Share of populations whose objects are smaller than this."""
MAX_TINY, MAX_CLEAR = 200, 16
"""Objects of a population."""
MAX_COVERED = 0.35
"""Share of a scene that the boxes of a population cover together, at most."""

MAX_SIDE = 0.6
"""Longer side of the largest objects, as a share of the scene's."""
BLACK_AND_WHITE = np.arange(256, dtype=np.uint8)[:, None]
"""(256, 1) palette of the values as they are."""

_FAMILIES = tuple(FAMILIES)
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


def draw_scene(side: int, seed: int, index: int, without: Collection[Ingredient] = ()) -> Scene:
    """Draw scene ``index`` of the stream ``seed``, ``side`` pixels wide and high.

    Args:
        side: S.
        seed: of the stream.
        index: of the scene.
        without: ingredients that are left out; another set is another stream.
    """
    rng = generator(SCENE_STREAM, seed, index)
    channels = 1 if rng.random() < GREY_SHARE else 3
    is_board = rng.random() < BOARD_SHARE and "boards" not in without
    is_bare = "sensors" in without
    if is_board:
        image, boxes, labels, areas = _draw_board(side, channels, rng)
        is_bare |= rng.random() < BARE_BOARD_SHARE
    else:
        canvas = Canvas(_background(side, channels, flat if "textures" in without else None, rng))
        if rng.random() >= EMPTY_SHARE:
            _populate(canvas, without, rng)
        image, (boxes, labels, areas) = canvas.image, canvas.objects()
    return Scene(to_rgb(image) if is_bare else expose(image, rng), boxes, labels, areas)


def _background(side: int, channels: int, only: Texture | None, rng: np.random.Generator) -> np.ndarray:
    """(S, S) or (S, S, 3) uint8: one texture, or two with half the contrast each, in the colours of a palette."""
    names = list(TEXTURES)
    first, second = (only or TEXTURES[names[i]] for i in rng.integers(0, len(names), 2).tolist())
    amount = first(side, rng)
    if rng.random() < 0.5:
        amount = amount // 2 + second(side, rng) // 2
    return coloured(amount, colour_table(channels, rng))


def _populate(canvas: Canvas, without: Collection[Ingredient], rng: np.random.Generator) -> None:
    """Paint one to three populations, each of one family, with sizes, colours and places that are alike."""
    side = len(canvas.image)
    known = ("disc", "rectangle") if "families" in without else _FAMILIES
    populations = [_draw_population(side, rng) for _ in range(int(rng.integers(1, 4)))]
    for size, wanted in sorted(populations, reverse=True):  # small objects lie on large ones
        number = min(wanted, MAX_OBJECTS - canvas.num_objects)
        alone = "populations" in without
        for _ in range(number if alone else min(number, 1)):
            name = known[int(rng.integers(len(known)))]
            style = draw_style(name, size, rng)
            style = plain(style) if "paints" in without else style
            canvas.paint(style, _CLASS_INDEX[name], 1 if alone else number, rng)


def _draw_population(side: int, rng: np.random.Generator) -> tuple[float, int]:
    """Draw the size of a population's objects in pixels and their number up to what fits, both log-uniformly."""
    is_tiny = rng.random() < TINY_SHARE
    largest = max(min(MAX_SIDE_PX, MAX_SIDE * side), TINY_SIDE_PX)
    low, high = (MIN_SIDE_PX, TINY_SIDE_PX) if is_tiny else (TINY_SIDE_PX, largest)
    size = math.exp(rng.uniform(math.log(low), math.log(high)))
    most = min(MAX_COVERED * (side / size) ** 2, MAX_TINY if is_tiny else MAX_CLEAR)
    return size, round(math.exp(rng.uniform(0, math.log(max(most, 1)))))


def _draw_board(
    side: int, channels: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw a pattern of lines with defects: image, boxes, labels and areas."""
    wanted = math.exp(rng.uniform(math.log(2), math.log(16)))
    pattern, defects = draw_traces(side, rng, int(wanted))
    softness = max(int(rng.integers(4)) - 1, 0)
    if softness:
        pattern = cv2.GaussianBlur(pattern, (2 * softness + 1,) * 2, 0)
    table = BLACK_AND_WHITE[:: (-1, 1)[rng.random() < 0.5]]
    if rng.random() < 0.6:
        table = colour_table(channels, rng, min_contrast=60)
    image = coloured(pattern, table)
    labels = np.array([_CLASS_INDEX[name] for name in defects.families], np.int64)
    boxes = defects.boxes_xyxy_px.astype(float)
    return image, boxes, labels, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def coloured(amount: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look up each value of (S, S) uint8 in a table (256, C): (S, S) or (S, S, 3) uint8."""
    if table.shape[1] == 1:
        return cv2.LUT(amount, table[:, 0])
    return cv2.applyColorMap(amount, table[:, None])
