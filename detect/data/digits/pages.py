"""The demo's data set: scans of handwritten digits, 8 to 24 px, scattered over paper, grass and gravel, with clutter.

Training, validation and test have scans of writers of their own. All arithmetic on pixels is in integers, so a page is
the same on every machine.

Letters: S side of a page in pixels, M digits of a page.
"""

from __future__ import annotations

import functools
import gzip
import math
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from detect.data.embedded import SPLIT_KEYS, Picture, generate_set
from detect.data.scenes.textures import Texture, clouds, fibres, ramp, speckle, tissue, with_noise
from detect.runtime.reproducibility import generator

DIGITS = tuple("0123456789")
PAGE_STREAM = 104
"""Stream number of the random generators of the pages."""
MIN_SIDE_PX, MAX_SIDE_PX = 8, 24
"""Longer side of a digit's box."""
MAX_DIGITS = 28
EMPTY_SHARE = 0.04
MAX_CLUTTER = 8
MIN_CONTRAST = 70
"""Grey levels between a digit and the mean of what it covers."""
SCANS = {"train": (0, 1287), "val": (1287, 1415), "test": (1415, 1797)}
"""Rows of the file for each split. A writer's rows follow one another, and begin with 0 to 9 three times, as these."""

_INK = 3  # of 16: least value of a scan that belongs to the digit
_MARGIN_PX = 2  # around a digit, so that boxes of two do not touch
_NUM_TRIES = 30
_SHARPER = np.clip((np.arange(256) - 64) * 2, 0, 255).astype(np.uint8)


def generate_digits(root: Path, num_train: int = 480, num_val: int = 40, num_test: int = 60, side: int = 160) -> None:
    """Generate the data set in COCO's format, as ``generate_set`` does; a box is the extent of a digit's ink."""
    sizes = {"train": num_train, "val": num_val, "test": num_test}
    generate_set(root, sizes, DIGITS, functools.partial(draw_page, side))


def draw_page(side: int, split: str, number: int) -> Picture:
    """Draw page ``number`` of a split, ``side`` pixels wide and high."""
    rng = generator(PAGE_STREAM, SPLIT_KEYS[split], number)
    image = _background(side, rng)
    for _ in range(int(rng.integers(MAX_CLUTTER + 1))):
        _draw_clutter(image, rng)
    taken = np.zeros((side, side), bool)
    boxes, labels, areas = [], [], []
    count = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, MAX_DIGITS + 1))
    scans, digits = _scans()
    for row in rng.integers(*SCANS[split], count).tolist():
        coverage = _enlarged(scans[row], rng.uniform(MIN_SIDE_PX, MAX_SIDE_PX))
        place = _find_place(taken, coverage, rng)
        if place is not None:
            left, top = place
            height, width = coverage.shape
            _paint(image[top : top + height, left : left + width], coverage, rng)
            boxes.append((left, top, width, height))
            labels.append(digits[row])
            areas.append(np.count_nonzero(coverage > 127))
    image = with_noise(image, float(rng.choice([1.5, 3.0, 6.0])), rng)
    return Picture(
        image, np.array(boxes, np.int64).reshape(-1, 4), np.array(labels, np.int64), np.array(areas, np.int64)
    )


@functools.cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 8, 8) uint8 scans from 0 to 16, and (1797,) digits."""
    packed = (files(__package__) / "digits.csv.gz").read_bytes()
    rows = [line.split(",") for line in gzip.decompress(packed).decode("ascii").split()]
    table = np.array(rows, np.uint8)
    return table[:, :64].reshape(-1, 8, 8), table[:, 64]


def _enlarged(scan: np.ndarray, longer_side_px: float) -> np.ndarray:
    """(H, W) uint8 coverage of a digit, cropped to its ink; its longer side is ``longer_side_px``, about."""
    rows, columns = np.nonzero(scan >= _INK)
    ink = scan[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    levels = (ink.astype(np.uint16) * 255 // 16).astype(np.uint8)
    scale = longer_side_px / max(levels.shape)
    width, height = (max(round(n * scale), 2) for n in levels.shape[::-1])
    coverage = cv2.LUT(cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR_EXACT), _SHARPER)
    left, top, width, height = cv2.boundingRect((coverage > 127).astype(np.uint8))
    return coverage[top : top + height, left : left + width]


def _find_place(taken: np.ndarray, coverage: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """Left and top of a free place, which is taken then; None if there is none in some tries."""
    height, width = coverage.shape
    for _ in range(_NUM_TRIES):
        left, top = rng.integers(0, (len(taken) - width + 1, len(taken) - height + 1)).tolist()
        around = (
            slice(max(top - _MARGIN_PX, 0), top + height + _MARGIN_PX),
            slice(max(left - _MARGIN_PX, 0), left + width + _MARGIN_PX),
        )
        if not taken[around].any():
            taken[top : top + height, left : left + width] = True
            return left, top
    return None


def _paint(window: np.ndarray, coverage: np.ndarray, rng: np.random.Generator) -> None:
    """Blend a dark or bright colour onto a window (H, W, 3) of the page."""
    under = int(window.mean())
    is_dark = under >= 255 - MIN_CONTRAST or (under > MIN_CONTRAST and rng.random() < 0.5)
    low, high = (0, under - MIN_CONTRAST) if is_dark else (under + MIN_CONTRAST, 255)
    level = int(rng.integers(low, high + 1))
    colour = np.clip(level + rng.integers(-25, 26, 3), 0, 255)
    share = coverage[..., None].astype(np.int64)
    window[:] = (window * (255 - share) + colour * share + 127) // 255


def _draw_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a dot, a stroke or a rectangle that is no digit, 2 to 24 px."""
    colour = rng.integers(0, 256, 3).tolist()
    x, y = rng.integers(0, len(image), 2).tolist()
    size = round(math.exp(rng.uniform(math.log(2), math.log(MAX_SIDE_PX))))
    kind = rng.integers(3)
    if kind == 0:
        cv2.circle(image, (x, y), max(size // 3, 1), colour, -1)
    elif kind == 1:
        dx, dy = rng.integers(-size, size + 1, 2).tolist()
        cv2.line(image, (x, y), (x + dx, y + dy), colour, 1 + size // 12)
    else:
        cv2.rectangle(image, (x, y), (x + size, y + max(size // 2, 1)), colour, 1 if rng.random() < 0.5 else -1)


def _background(side: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) uint8 RGB of paper, grass or gravel."""
    textures, low, high = _GROUNDS[int(rng.integers(len(_GROUNDS)))]
    first, second = (texture(side, rng) for texture in textures)
    amount = first // 2 + second // 2
    shift = rng.integers(-20, 21, 3)
    ends = [np.clip(np.array(end) + shift, 0, 255) for end in (low, high)]
    values = np.arange(256)[:, None]
    table = ((ends[0] * (255 - values) + ends[1] * values + 127) // 255).astype(np.uint8)
    return cv2.applyColorMap(amount, table[:, None])


_Ground = tuple[tuple[Texture, Texture], tuple[int, int, int], tuple[int, int, int]]
_GROUNDS: tuple[_Ground, ...] = (
    ((ramp, fibres), (215, 210, 195), (250, 248, 240)),  # paper
    ((clouds, speckle), (45, 80, 30), (125, 160, 75)),  # grass
    ((tissue, speckle), (90, 85, 80), (180, 175, 165)),  # gravel
)
"""Two textures each, and the RGB colours between which their mean lies."""
