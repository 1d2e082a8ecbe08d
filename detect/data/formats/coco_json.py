"""COCO's JSON, parsed without the outlines of objects, which are most of a file.

An outline is replaced by its box and area where those are needed, else by True; outlines never fill the memory.

Letters: M annotations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeGuard

import msgspec
import numpy as np

from detect.errors import InputError, unreadable

MAX_FILE_BYTES = 2 * 10**9
"""Larger annotation files are refused; COCO's largest, with all its polygons, has 0.5 GB."""

MAX_RUNS = 10**6  # of a mask
MIN_SHARE = 0.01
"""Smallest possible area as a share of the box, unless the outline is as small: a thin diagonal object. Without an
outline, which may have been left out, only an area of at most a pixel is impossible."""

_SHORT = 64
"""Bytes; a longer outline is not empty."""

Hook = Callable[[dict[str, Any]], dict[str, Any]]


def load_coco(path: Path, hook: Hook | None = None) -> dict[str, Any]:
    """Load an annotation file with non-empty ``images``, with ``categories`` and perhaps ``annotations``.

    Args:
        path: the file.
        hook: replaces every mapping while it is parsed; default, outlines are dropped but for an ``Outline`` where it
            is needed.

    Raises:
        InputError: it cannot be read, or is not an annotation file.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: has {size / 1e9:.1f} GB; at most {MAX_FILE_BYTES / 1e9:.0f} GB is read: split it")
    content = read_json(path, hook) if hook else _read_short(path)
    if isinstance(content, list):
        raise InputError(f"{path}: is a list, as detection results are; an annotation file has images and categories")
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a COCO annotation file: must be a mapping with images and categories")
    for key in ("images", "categories", "annotations"):
        if key not in content and key != "annotations":
            found = ", ".join(sorted(content)[:10]) or "nothing"
            raise InputError(f"{path}: is not a COCO annotation file: {key!r} is missing, found {found}")
        if not isinstance(content.get(key, []), list):
            raise InputError(f"{path}: is not a COCO annotation file: {key!r} must be a list")
    if not content["images"]:
        raise InputError(f"{path}: lists no images")
    return content


def read_json(path: Path, hook: Hook | None = None) -> Any:
    """Read a JSON file; ``hook`` replaces every mapping while it is parsed.

    Raises:
        InputError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_hook=hook)
    except OSError as error:
        raise unreadable(path, error) from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply to be an annotation file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not JSON: it is no text in UTF-8 or UTF-16; save it as UTF-8 ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from None


class _Annotation(TypedDict, total=False):
    """Keys of an annotation that ``detect.data.formats.coco_annotations`` reads; msgspec skips all others."""

    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    area: Any
    iscrowd: Any
    ignore: Any
    truncated: Any
    occluded: Any
    segmentation: msgspec.Raw


class _Content(TypedDict, total=False):
    images: list[Any]
    categories: list[Any]
    annotations: list[_Annotation]


def _read_short(path: Path) -> Any:
    """Read an annotation file with short outlines.

    msgspec takes half the time of json, which parses all outlines, but refuses NaN, lone surrogates, UTF-16 and a
    byte-order mark; json reads those, and says what is wrong with all other files.
    """
    try:
        content: Any = msgspec.json.decode(path.read_bytes(), type=_Content)
        for entry in content.get("annotations", ()):
            outline = entry.get("segmentation")
            if outline is not None:
                is_read = len(outline) < _SHORT or _needs_outline(entry)
                entry["segmentation"] = msgspec.json.decode(outline) if is_read else True
                _shorten_outline(entry)
        if {"images", "categories"} <= content.keys():
            return content
    except (OSError, RecursionError, msgspec.MsgspecError):
        pass
    return read_json(path, _shorten_outline)


def _shorten_outline(item: dict[str, Any]) -> dict[str, Any]:
    """Replace ``segmentation`` by an ``Outline`` or None where the box or the area needs it, else by True."""
    segmentation = item.pop("segmentation", None)
    if segmentation:
        item["segmentation"] = outline_of(segmentation) if _needs_outline(item) else True
    return item


def _needs_outline(item: dict[str, Any]) -> bool:
    box = item.get("bbox")
    return not is_box(box) or is_far_smaller(item.get("area"), box[2], box[3])


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Tell whether a JSON value is a bbox; four zeros are none."""
    is_numbers = isinstance(value, list) and len(value) == 4 and all(type(one) in (int, float) for one in value)
    return is_numbers and any(value)


def is_far_smaller(area: Any, width: float, height: float) -> bool:
    """Tell whether an area can only be right if the outline is as small."""
    return type(area) in (int, float) and area < MIN_SHARE * width * height


class Outline(NamedTuple):
    """An object's outline.

    Args:
        box_xywh_px: left, top, width, height.
        area_px: sum of the polygons' areas, or number of pixels of the mask.
    """

    box_xywh_px: tuple[float, float, float, float]
    area_px: float


def outline_of(segmentation: Any) -> Outline | None:
    """Return the outline of a ``segmentation``: polygons or a run-length mask; None if it is invalid or empty.

    Run-length masks come from strangers: they are decoded here, not in C, and one whose runs do not fill its image is
    invalid.
    """
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
    """Return the area of a polygon, by the shoelace formula."""
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
    """Return the outline of runs of pixels in column-major order; ``last`` is the last pixel of each run."""
    left, right = first.min() // height, last.max() // height
    spans_columns = (first // height < last // height).any()
    top = 0 if spans_columns else (first % height).min()
    bottom = height - 1 if spans_columns else (last % height).max()
    box = (float(left), float(top), float(right - left + 1), float(bottom - top + 1))
    return Outline(box, float((last - first + 1).sum()))


def _decoded_counts(text: str) -> list[int] | None:
    """Return the runs of a compressed mask; None if it is invalid.

    Each number is in characters from 48 on, five bits each, the lowest first; 32 marks that more follow, and 16 of the
    last one is the sign. From the fourth number on it is the difference from the last but one. Source: pycocotools,
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
