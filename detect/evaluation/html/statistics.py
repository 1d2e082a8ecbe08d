"""Statistics of a report: AP by the size of objects and of images, its spread over the images, and calibration.

Letters: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from detect.data.annotations import AnnotationTable
from detect.evaluation.coco import ABSENT
from detect.evaluation.matches import ALL_AREAS, AreaRange, Averages, Matches, averages

OBJECT_SIDES = (0, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Limits of the sizes of objects, sqrt(area) in pixels of the original image. COCO's 32 and 96 are among them."""

IMAGE_SIDES = (0, 128, 256, 384, 512, 640, 960, 1280, 1920, 2560, 3840)
"""Limits of the long sides of images in pixels."""

COCO_SIDES = (0, 32, 96)

MAX_RESAMPLES, MIN_RESAMPLES = 200, 20
RESAMPLING_WORK = 400_000_000
"""Detections times resamples beyond which fewer resamples are drawn: half a minute or so."""

PERCENTILES = (2.5, 97.5)
BINS = 10
"""Ranges of the score."""


@dataclass(frozen=True)
class SizeRow:
    """Numbers of the objects, or of the images, of a range of sizes.

    Args:
        low: smallest size in pixels.
        high: size that is too large; None for no limit.
        images: number of images; of a range of objects those that have one.
        objects: number of objects.
        numbers: of these.
    """

    low: int
    high: int | None
    images: int
    objects: int
    numbers: Averages


def area_ranges(sides: Sequence[int]) -> list[AreaRange]:
    """Convert limits of sqrt(area), ascending, to ranges of areas; the last has no limit."""
    return [(low**2, high**2) for low, high in pairwise(sides)] + [(sides[-1] ** 2, ALL_AREAS[1])]


def by_object_size(matches: Sequence[Matches]) -> list[SizeRow]:
    """Numbers of each size of ``OBJECT_SIDES`` that has objects, from the matches in its ``area_ranges``."""
    highs = (*OBJECT_SIDES[1:], None)
    rows = [
        SizeRow(low, high, int(of_size.objects.any(axis=1).sum()), int(of_size.objects.sum()), averages(of_size))
        for low, high, of_size in zip(OBJECT_SIDES, highs, matches, strict=True)
    ]
    return [row for row in rows if row.objects]


def by_image_size(table: AnnotationTable, matches: Matches) -> list[SizeRow]:
    """Numbers of the images of each size of ``IMAGE_SIDES`` that there is."""
    index_of = np.searchsorted(IMAGE_SIDES, table.sizes_hw.max(axis=1, initial=0), side="right") - 1
    rows = []
    for index in np.unique(index_of).tolist():
        is_here = index_of == index
        high = (*IMAGE_SIDES[1:], None)[index]
        objects = int(matches.objects[is_here].sum())
        numbers = averages(matches, is_here.astype(np.float64))
        rows.append(SizeRow(IMAGE_SIDES[index], high, int(is_here.sum()), objects, numbers))
    return rows


def spreads(matches: Sequence[Matches]) -> tuple[int, list[list[tuple[float, float] | None]]]:
    """Resample the images and return the 95 % interval of each number (percentile bootstrap).

    Args:
        matches: in each range of areas.

    Returns:
        Number of resamples, and for each range the intervals of ``Averages``; None where a number is not there.
    """
    num_images = len(matches[0].objects)
    work = sum(of_range.hits.size for of_range in matches)
    resamples = int(np.clip(RESAMPLING_WORK // max(work, 1), MIN_RESAMPLES, MAX_RESAMPLES))
    rng = np.random.default_rng(0)
    drawn = np.full((resamples, len(matches), 4), ABSENT)
    for number in range(resamples):
        weights = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images).astype(np.float64)
        drawn[number] = [astuple(averages(of_range, weights)) for of_range in matches]
    return resamples, [[_interval(drawn[:, k, n]) for n in range(4)] for k in range(len(matches))]


def _interval(drawn: np.ndarray) -> tuple[float, float] | None:
    present = drawn[drawn > ABSENT]
    if not present.size:
        return None
    low, high = np.percentile(present, PERCENTILES).tolist()
    return low, high


class ScoreRange(NamedTuple):
    """Detections of a range of scores.

    Args:
        low: smallest score.
        high: score that is too large, but for 1.
        detections: number of them.
        score: their mean score.
        right: share of them that has an object of its class at IoU 0.5.
    """

    low: float
    high: float
    detections: int
    score: float
    right: float


def calibration(matches: Matches) -> list[ScoreRange]:
    """Return the ranges of scores that have detections; ignored detections do not count."""
    counted = ~matches.ignored[0]
    scores, hits = matches.scores[counted], matches.hits[0, counted]
    # Scores have five decimals, so that 0.3 * 10 must not fall below 3.
    index = np.minimum(np.round(scores * BINS, 6).astype(np.int64), BINS - 1)
    rows = []
    for number in range(BINS):
        here = index == number
        if here.any():
            means = float(scores[here].mean()), float(hits[here].mean())
            rows.append(ScoreRange(number / BINS, (number + 1) / BINS, int(here.sum()), *means))
    return rows


def calibration_error(rows: list[ScoreRange]) -> float | None:
    """Return the mean distance of score and share, weighted by detections, of all ranges but the first.

    None where these have no detections.
    """
    shown = [row for row in rows if row.low > 0]
    total = sum(row.detections for row in shown)
    return sum(row.detections * abs(row.score - row.right) for row in shown) / total if total else None
