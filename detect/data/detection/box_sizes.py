"""Sizes of boxes in the network input.

Letters: M boxes.
"""

from __future__ import annotations

import numpy as np

from detect.boxes.convert import box_sizes
from detect.data.annotations import AnnotationTable

SMALL_PX = 8
"""Boxes whose shorter side is below this many network-input pixels are reported: strides and pools lose them. It is the
cell of most detectors' finest level."""

MANY_SMALL = 0.1
"""Share of small boxes, and of the recall, from which advice is logged."""


def is_trained_on(table: AnnotationTable) -> np.ndarray:
    """Boxes that are trained on, (M,) bool: no crowd regions, and with an area."""
    return ~table.is_crowd & (box_sizes(table.boxes_xyxy_px) > 0).all(axis=1)


def training_sizes_px(table: AnnotationTable, image_size: int) -> np.ndarray:
    """Widths and heights (M, 2) of the boxes that are trained on, in network-input pixels."""
    factor = np.repeat(image_size / table.sizes_hw.max(axis=1), np.diff(table.box_offsets))
    sizes = box_sizes(table.boxes_xyxy_px) * factor[:, None]
    return sizes[is_trained_on(table)]


def share_under(sizes_px: np.ndarray, limit_px: float) -> float:
    """Share of boxes, (M, 2) widths and heights, whose shorter side is below ``limit_px``; 0 of no boxes."""
    return float((sizes_px.min(axis=1) < limit_px).mean()) if len(sizes_px) else 0.0
