"""Confusion matrix of a detector.

Letters: K classes, N detections and M objects of one image.
"""

from __future__ import annotations

import numpy as np

from detect.boxes.convert import box_areas, xywh_to_xyxy
from detect.boxes.intersections import intersection_areas, iou_matrix
from detect.data.annotations import AnnotationTable
from detect.evaluation.coco import FoundBoxes

SCORE = 0.25
"""Minimum score of a detection that is counted: that at which predictions are shown by default."""

IOU = 0.5
"""Minimum IoU of a detection with its object."""


def confusion_matrix(table: AnnotationTable, found: FoundBoxes) -> np.ndarray:
    """Count pairs of true and predicted class.

    In each image, detections of at least ``SCORE`` are matched, best score first, with the free object of the highest
    IoU, whatever its class, if the IoU is at least ``IOU``. A detection that matches no object and lies by at least
    half in a crowd region is not counted.

    Args:
        table: the ground truth.
        found: the detections in its images.

    Returns:
        (K + 1, K + 1) int64, rows true class, columns predicted class. The last row counts false positives
        (background), the last column missed objects.
    """
    background = len(table.names)
    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    counted = found.scores >= SCORE
    corners = xywh_to_xyxy(found.boxes_xywh_px)
    limits = np.searchsorted(found.rows, np.arange(len(table) + 1))
    for row in range(len(table)):
        here = np.flatnonzero(counted[limits[row] : limits[row + 1]]) + limits[row]
        boxes, labels, is_crowd = table.boxes(row)
        object_of = match(corners[here], boxes[~is_crowd])
        objects = labels[~is_crowd]
        true = np.where(object_of >= 0, np.append(objects, background)[object_of], background)
        keep = (object_of >= 0) | ~_in_crowd(corners[here], boxes[is_crowd])
        np.add.at(matrix, (true[keep], found.labels[here][keep]), 1)
        missed = np.setdiff1d(np.arange(len(objects)), object_of)
        np.add.at(matrix, (objects[missed], background), 1)
    return matrix


def match(found_xyxy: np.ndarray, objects_xyxy: np.ndarray) -> np.ndarray:
    """Match (N, 4) detections, best score first, with (M, 4) objects greedily by IoU.

    Returns:
        (N,) int64, the object of each detection, -1 for none.
    """
    object_of = np.full(len(found_xyxy), -1, dtype=np.int64)
    if not len(objects_xyxy):
        return object_of
    overlaps = iou_matrix(found_xyxy, objects_xyxy)
    for detection, overlap in enumerate(overlaps):
        best = int(overlap.argmax())
        if overlap[best] >= IOU:
            object_of[detection] = best
            overlaps[:, best] = -1.0  # taken
    return object_of


def _in_crowd(found_xyxy: np.ndarray, crowds_xyxy: np.ndarray) -> np.ndarray:
    """(N,) bool: half of the detection lies in one crowd region; COCO measures overlap with crowds like this."""
    shared = intersection_areas(found_xyxy, crowds_xyxy)
    inside: np.ndarray = np.any(shared >= IOU * box_areas(found_xyxy)[:, None], axis=1)
    return inside
