"""Outlines of COCO files (``segmentation``): polygons and run-length masks, as their boxes and areas.

Run-length masks come from strangers: they are decoded here, not in C, and one whose runs do not fill its image is none.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

MAX_RUNS = 10**6
"""Runs of a mask; more are refused."""


class Outline(NamedTuple):
    """An object's outline.

    Args:
        box_xywh_px: left, top, width, height.
        area_px: of the polygons together, or the pixels of the mask.
    """

    box_xywh_px: tuple[float, float, float, float]
    area_px: float


def outline_of(segmentation: Any) -> Outline | None:
    """The outline that a JSON value is; None if it is not one, or encloses nothing."""
    if isinstance(segmentation, dict):
        return _of_mask(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    if _is_numbers(segmentation):
        segmentation = [segmentation]
    elif all(_is_numbers(point) and len(point) == 2 for point in segmentation):
        segmentation = [[side for point in segmentation for side in point]]
    return _of_polygons([polygon for polygon in segmentation if _is_numbers(polygon) and len(polygon) >= 6])


def _is_numbers(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(type(one) in (int, float) and abs(one) < 1e9 for one in value)
    )


def _of_polygons(polygons: list[list[float]]) -> Outline | None:
    points = [list(zip(polygon[::2], polygon[1::2], strict=False)) for polygon in polygons]
    xs, ys = [x for polygon in points for x, _ in polygon], [y for polygon in points for _, y in polygon]
    if not xs:
        return None
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return Outline(box, sum(_enclosed(polygon) for polygon in points))


def _enclosed(points: list[tuple[float, float]]) -> float:
    """The area of a polygon, by the shoelace formula."""
    return abs(math.fsum(x * v - u * y for (x, y), (u, v) in pairwise([*points, points[0]]))) / 2


def _of_mask(mask: dict[str, Any]) -> Outline | None:
    size, counts = mask.get("size"), mask.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**20 for side in size)):
        return None
    if isinstance(counts, str):
        counts = _decoded_counts(counts)
    if not isinstance(counts, list) or not 1 < len(counts) <= MAX_RUNS:
        return None
    if not all(type(count) is int and 0 <= count < 2**40 for count in counts) or sum(counts) != size[0] * size[1]:
        return None
    ends = np.cumsum(np.array(counts, np.int64))
    starts, ends = ends[: len(ends) // 2 * 2 : 2], ends[1::2]  # runs alternate: outside, inside, outside, ...
    starts, ends = starts[ends > starts], ends[ends > starts]
    return _of_runs(starts, ends - 1, size[0]) if len(starts) else None


def _of_runs(first: np.ndarray, last: np.ndarray, height: int) -> Outline:
    """The outline of runs of pixels, column by column; ``last`` belongs to its run."""
    left, right = first.min() // height, last.max() // height
    spans_columns = (first // height < last // height).any()
    top = 0 if spans_columns else (first % height).min()
    bottom = height - 1 if spans_columns else (last % height).max()
    box = (float(left), float(top), float(right - left + 1), float(bottom - top + 1))
    return Outline(box, float((last - first + 1).sum()))


def _decoded_counts(text: str) -> list[int] | None:
    """The runs of a compressed mask; None if it is none.

    Each number is in characters from 48 on, five bits each, the lowest first; 32 says that more follow, and 16 of the
    last is the sign. From the fourth number on it is the difference from the last but one. Source: pycocotools,
    ``maskApi.c``, ``rleToString`` (BSD).
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40 or len(counts) >= MAX_RUNS:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts if shift == 0 else None
