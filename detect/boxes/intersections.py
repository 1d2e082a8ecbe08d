"""Overlap of boxes as arrays: intersections and IoU.

Letters: N boxes, M other boxes.
"""

from __future__ import annotations

import numpy as np

from detect.boxes.convert import box_areas


def intersection_areas(first_xyxy: np.ndarray, second_xyxy: np.ndarray) -> np.ndarray:
    """Areas (N, M) of the intersections of boxes (N, 4) with boxes (M, 4)."""
    low = np.maximum(first_xyxy[:, None, :2], second_xyxy[:, :2])
    high = np.minimum(first_xyxy[:, None, 2:], second_xyxy[:, 2:])
    areas: np.ndarray = (high - low).clip(min=0).prod(axis=2)
    return areas


def iou_matrix(first_xyxy: np.ndarray, second_xyxy: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (N, 4) and (M, 4), in one unit; 0 for two boxes without area."""
    shared = intersection_areas(first_xyxy, second_xyxy)
    union = box_areas(first_xyxy)[:, None] + box_areas(second_xyxy) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
