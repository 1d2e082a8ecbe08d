"""Kinds of errors of a detector, and the AP50 that each costs.

Source: Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors" (arXiv:2008.08115),
section 2, with its thresholds.
Letters: D detections, M objects of all images, n detections and m objects of one image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from detect.boxes.convert import xywh_to_xyxy
from detect.boxes.intersections import iou_matrix
from detect.data.annotations import AnnotationTable
from detect.evaluation.coco import FoundBoxes
from detect.evaluation.matches import Matches, averages

FOREGROUND, BACKGROUND = 0.5, 0.1
"""IoU from which a detection has found an object, and below which it has found nothing."""

KINDS = {
    "class": "the place of an object, another class",
    "place": f"the class of an object, IoU from {BACKGROUND} to {FOREGROUND}",
    "both": f"another class and IoU from {BACKGROUND} to {FOREGROUND}",
    "duplicate": "right, but the object has a detection of a higher score",
    "background": f"no object with an IoU of {BACKGROUND}",
    "missed": "an object without any detection, not even of a wrong class or place",
}
"""Meaning of each kind of error. All but the last are of detections."""

CLASS, PLACE, BOTH, DUPLICATE, NOTHING = range(5)
RIGHT = -1


@dataclass(frozen=True)
class Errors:
    """Errors of a split at IoU 0.5.

    Args:
        kinds: (D,) int64 of each detection of ``Matches``: position in ``KINDS``, ``RIGHT`` if right or ignored.
        targets: (D,) int64, the object that a detection of the kind class or place was meant for; else -1.
        is_free: (M,) bool: a counted object without a right detection.
        is_missed: (M,) bool: free, and no detection's target.
    """

    kinds: np.ndarray
    targets: np.ndarray
    is_free: np.ndarray
    is_missed: np.ndarray


def find_errors(table: AnnotationTable, found: FoundBoxes, matches: Matches) -> Errors:
    """Find the kind of each wrong detection and the objects that were missed."""
    kinds = np.full(len(matches.rows), RIGHT, dtype=np.int64)
    targets = np.full(len(matches.rows), -1, dtype=np.int64)
    corners = xywh_to_xyxy(found.boxes_xywh_px)
    wrong = np.flatnonzero(~matches.hits[0] & ~matches.ignored[0])
    wrong = wrong[np.argsort(matches.rows[wrong], kind="stable")]
    limits = np.searchsorted(matches.rows[wrong], np.arange(len(table) + 1))
    for row in range(len(table)):
        here = wrong[limits[row] : limits[row + 1]]
        boxes, labels, is_crowd = table.boxes(row)
        objects = np.flatnonzero(~is_crowd)
        overlaps = iou_matrix(corners[matches.detections[here]], boxes[objects])
        kinds[here], nearest = error_kinds(overlaps, matches.labels[here][:, None] == labels[objects])
        targets[here] = np.where(nearest >= 0, np.append(objects, 0)[nearest] + table.box_offsets[row], -1)
    is_free = ~table.is_crowd
    is_free[matches.object_of[matches.object_of >= 0]] = False
    is_missed = is_free.copy()
    is_missed[targets[targets >= 0]] = False
    return Errors(kinds, targets, is_free, is_missed)


def error_kinds(overlaps: np.ndarray, is_same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind of each wrong detection of an image, and the object that it was meant for.

    Args:
        overlaps: (n, m) IoU with each object.
        is_same: (n, m) bool: the object is of the detection's class.

    Returns:
        kind (n,) int64, and object (n,) int64 in [0, m) of the kinds class and place, else -1.
    """
    none = np.zeros((len(overlaps), 1))  # an object that nothing overlaps, so that there is one
    same = np.concatenate([overlaps * is_same, none], axis=1)
    other = np.concatenate([overlaps * ~is_same, none], axis=1)
    best_same, best_other = same.max(axis=1), other.max(axis=1)
    conditions = [
        (best_same >= BACKGROUND) & (best_same < FOREGROUND),
        best_other >= FOREGROUND,
        best_same >= FOREGROUND,
        best_other < BACKGROUND,
    ]
    kinds = np.select(conditions, [PLACE, CLASS, DUPLICATE, NOTHING], BOTH)
    objects = np.select([kinds == PLACE, kinds == CLASS], [same.argmax(axis=1), other.argmax(axis=1)], -1)
    return kinds, objects


def gains(table: AnnotationTable, matches: Matches, errors: Errors) -> list[float]:
    """Compute the AP50 that mending all errors of a kind would add, for each of ``KINDS``.

    A detection of the wrong class or place becomes right if it is the best one that was meant for its object and the
    object is free. Others are left out, as are those of the other kinds; missed objects are no longer counted.
    """
    at50 = replace(matches, hits=matches.hits[:1], ignored=matches.ignored[:1])
    before = averages(at50).ap50
    after = [averages(_mended(at50, errors, kind, table.labels)).ap50 for kind in range(len(KINDS) - 1)]
    after.append(averages(_without_missed(at50, errors, table)).ap50)
    return [max(value - before, 0.0) for value in after]


def _mended(at50: Matches, errors: Errors, kind: int, object_labels: np.ndarray) -> Matches:
    is_kind = errors.kinds == kind
    becomes_right = np.zeros(len(is_kind), dtype=bool)
    if kind in (CLASS, PLACE):
        meant = np.flatnonzero(is_kind & np.append(errors.is_free, False)[errors.targets])
        meant = meant[np.argsort(-at50.scores[meant], kind="stable")]
        becomes_right[meant[np.unique(errors.targets[meant], return_index=True)[1]]] = True
    labels = np.where(becomes_right, np.append(object_labels, -1)[errors.targets], at50.labels)
    order = np.lexsort((-at50.scores, labels))
    return replace(
        at50,
        rows=at50.rows[order],
        labels=labels[order],
        scores=at50.scores[order],
        hits=(at50.hits | becomes_right)[:, order],
        ignored=(at50.ignored | (is_kind & ~becomes_right))[:, order],
    )


def _without_missed(at50: Matches, errors: Errors, table: AnnotationTable) -> Matches:
    objects = at50.objects.copy()
    np.subtract.at(objects, (table.image_of_box[errors.is_missed], table.labels[errors.is_missed]), 1)
    return replace(at50, objects=objects)
