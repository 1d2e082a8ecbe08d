"""Non-maximum suppression of arrays, with the results of ``detect.boxes.nms``, for programs without PyTorch.

Letters: B batch, P predictions of an image, K classes, N candidates, n detections.
"""

from __future__ import annotations

import numpy as np

from detect.boxes.convert import box_areas, cxcywh_to_xyxy

MIN_CANDIDATES = 8192
"""Best-scoring candidates of an image that enter the suppression, for up to 512 detections. At a score threshold of
0.001 an untrained model has hundreds of thousands, of which later ones could not become detections."""

CANDIDATES_PER_DETECTION = 16
"""Candidates per detection beyond: three anchors of at least five cells predict the same object."""

FoundArrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes (n, 4) xyxy, scores (n,), labels (n,) int64, best first."""


def non_max_suppression(
    predictions: np.ndarray,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    multi_label: bool,
    class_agnostic: bool = False,
    classes: tuple[int, ...] | None = None,
) -> list[FoundArrays]:
    """Select boxes, scores and labels of each image; see ``detect.boxes.nms.non_max_suppression``."""
    return [
        suppress(
            *_candidates(image, score_threshold, multi_label, classes, max_candidates(max_detections)),
            iou_threshold,
            max_detections,
            class_agnostic,
        )
        for image in predictions.astype(np.float32, copy=False)
    ]


def max_candidates(max_detections: int) -> int:
    """Limit of the candidates of an image that enter the suppression."""
    return max(MIN_CANDIDATES, CANDIDATES_PER_DETECTION * max_detections)


@np.errstate(invalid="ignore", over="ignore")
def _candidates(
    image: np.ndarray, score_threshold: float, multi_label: bool, classes: tuple[int, ...] | None, count: int
) -> FoundArrays:
    """Boxes, scores and labels above the threshold, best first, at most ``count``."""
    image = _likely(image, score_threshold)
    scores = image[:, 5:] * image[:, 4:5]
    if classes is not None:
        scores[:, np.setdiff1d(np.arange(scores.shape[1]), classes)] = 0
    if multi_label:
        rows, labels = (scores > score_threshold).nonzero()
        scores = scores[rows, labels]
    else:
        labels = scores.argmax(axis=1)
        scores = scores[np.arange(len(scores)), labels]
        rows = (scores > score_threshold).nonzero()[0]
        scores, labels = scores[rows], labels[rows]
    order = np.argsort(-scores, kind="stable")[:count]
    boxes = cxcywh_to_xyxy(image[rows[order], :4])
    return boxes, scores[order], labels[order]


def _likely(image: np.ndarray, score_threshold: float) -> np.ndarray:
    """Rows that may be candidates; see ``detect.boxes.nms``."""
    is_object = image[:, 4] > score_threshold
    if not is_object.all():
        image = image[is_object]
    return image[(image[:, 5:] > score_threshold).any(axis=1)]


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    iou_threshold: float,
    max_detections: int,
    class_agnostic: bool,
) -> FoundArrays:
    """Drop candidates that overlap a better one, as ``non_max_suppression`` does.

    ``boxes`` are (N, 4) xyxy, best score first; ``scores`` and ``labels`` are (N,).
    """
    if not len(boxes):
        return boxes, scores, labels
    if class_agnostic:
        shifted = boxes
    else:
        # Classes are moved apart so that one pass serves them all; float64 keeps the overlaps exact.
        span = np.float64(boxes.max() - boxes.min() + 1)
        shifted = boxes.astype(np.float64) + (labels * span)[:, None]
    keep = _best(shifted, iou_threshold, max_detections)
    return boxes[keep], scores[keep], labels[keep]


def _best(boxes: np.ndarray, iou_threshold: float, count: int) -> np.ndarray:
    """Indices of the first ``count`` boxes that remain, boxes in the order of their scores.

    A box is suppressed by better ones only. So the best candidates are processed first, and all only if too few remain.
    """
    looked_at = 2 * count
    while True:
        keep = _greedy(boxes[:looked_at], iou_threshold, count)
        if len(keep) >= count or looked_at >= len(boxes):
            return keep
        looked_at *= 4


@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def _greedy(boxes: np.ndarray, iou_threshold: float, count: int) -> np.ndarray:
    """Indices of at most ``count`` boxes (N, 4), each of which overlaps no kept one before it."""
    areas = box_areas(boxes)
    left, top, right, bottom = np.ascontiguousarray(boxes.T)
    keep: list[int] = []
    rest = np.arange(len(boxes))
    while len(rest) and len(keep) < count:
        best, rest = int(rest[0]), rest[1:]
        keep.append(best)
        widths = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        heights = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = np.maximum(widths, 0) * np.maximum(heights, 0)
        iou = shared / (areas[best] + areas[rest] - shared)
        rest = rest[~(iou.astype(np.float64) > iou_threshold)]  # a box without area, NaN, stays
    return np.array(keep, dtype=np.int64)
