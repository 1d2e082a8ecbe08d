"""Areas of COCO files that cannot be: placeholders such as 0 or 1, shares of the image, areas of another scale.

pycocotools sorts objects into small, medium and large by the file's ``area``: such areas falsify AP_S, AP_M and AP_L.

Letters: M annotations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

IMPOSSIBLE_AREA = (
    "annotations whose area cannot be that of their box or outline (AP_S, AP_M and AP_L follow it nevertheless; "
    "evaluate.py --areas boxes takes width * height)"
)

MIN_SHARE = 0.01
"""Smaller shares of the box are impossible, unless the outline is as small: a thin object that lies diagonally. Where
there is no outline, it may have been left out; then only an area of at most a pixel is impossible."""

MIN_FACTOR = 0.3
"""Without outlines areas are usually width * height, or of outlines that are not in the file. These fill their boxes
differently; a circle 0.79, a triangle 0.5. The same smaller share for all is a scale: 0.25 where images grew by 2."""

MIN_SAME = 4
"""So many equal areas, or equal shares of boxes, are no chance."""


def is_far_below(area: Any, width: float, height: float) -> bool:
    """Tell whether an area can only be right if the outline is as small."""
    return type(area) in (int, float) and area < MIN_SHARE * width * height


def impossible_areas(
    areas_px: np.ndarray, boxes_xywh_px: np.ndarray, outline_areas_px: np.ndarray, has_outline: np.ndarray
) -> np.ndarray:
    """Find the areas that cannot be.

    Args:
        areas_px: (M,) as the file says; NaN where it says nothing.
        boxes_xywh_px: (M, 4) left, top, width, height, finite and positive.
        outline_areas_px: (M,) of the outlines, for areas that ``is_far_below`` says; else NaN.
        has_outline: (M,) bool.

    Returns:
        (M,) bool.
    """
    width, height = boxes_xywh_px[:, 2], boxes_xywh_px[:, 3]
    is_known = np.isfinite(areas_px)
    with np.errstate(invalid="ignore"):  # comparisons with NaN are False, as wanted
        is_too_large = areas_px > (width + 2) * (height + 2)  # a mask has whole pixels on every side
        is_no_outlines = np.where(has_outline, ~(areas_px >= outline_areas_px / 2), areas_px <= 1)
        is_too_small = (areas_px < MIN_SHARE * width * height) & is_no_outlines
    is_wrong = is_too_large | is_too_small
    known, boxes = areas_px[is_known], (width * height)[is_known]
    if len(known) >= MIN_SAME and (
        _is_placeholder(known, boxes) or (not has_outline.any() and _is_scaled(known, boxes))
    ):
        is_wrong |= is_known
    return is_wrong


def _is_placeholder(areas_px: np.ndarray, boxes_px: np.ndarray) -> bool:
    """The same area for all boxes, which differ."""
    return bool(np.ptp(areas_px) == 0 and boxes_px.max() > 1.5 * boxes_px.min())


def _is_scaled(areas_px: np.ndarray, boxes_px: np.ndarray) -> bool:
    """The same share of each box, and not one that a shape has."""
    shares = areas_px / boxes_px
    return bool(shares.max() <= 1.02 * shares.min() and not MIN_FACTOR <= shares.min() <= 1.02)
