"""Matches of detections with objects as pycocotools finds them, and AP of a weighted selection of images.

AP of other images, of other sizes, or with errors mended needs no second matching, only another sum.
Letters: N images, K classes, D matched detections, M objects, T IoU thresholds (0.50, 0.55 ... 0.95), R recall points.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detect.data.annotations import AnnotationTable
from detect.evaluation.coco import ABSENT, COCO_LIMIT, FoundBoxes, pycocotools_evaluator

RECALLS = np.linspace(0, 1, 101)
"""Recalls at which AP reads the precision."""

AreaRange = tuple[float, float]
"""Smallest area, and the area that is too large, in square pixels of the original image."""

ALL_AREAS: AreaRange = (0, 1e10)


@dataclass(frozen=True)
class Matches:
    """Detections that AP counts, by class and then by descending score, in pycocotools' order.

    Args:
        detections: (D,) int64 index in the ``FoundBoxes``.
        rows: (D,) int64 image.
        labels: (D,) int64 class.
        scores: (D,) float64.
        hits: (T, D) bool: has an object of its class.
        ignored: (T, D) bool: counts neither as right nor as wrong.
        object_of: (D,) int64 object at IoU 0.5, index of the table's box; -1 for none.
        objects: (N, K) int64 number of objects that count.
    """

    detections: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    object_of: np.ndarray
    objects: np.ndarray

    def from_score(self, score: float) -> Matches:
        """Return the matches of detections of at least this score; matching is greedy, so the others do not matter."""
        keep = self.scores >= score
        return Matches(
            detections=self.detections[keep],
            rows=self.rows[keep],
            labels=self.labels[keep],
            scores=self.scores[keep],
            hits=self.hits[:, keep],
            ignored=self.ignored[:, keep],
            object_of=self.object_of[keep],
            objects=self.objects,
        )


@dataclass(frozen=True)
class Averages:
    """Numbers of a selection of images; -1 without objects.

    Args:
        ap: mean AP over classes and IoU thresholds.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75; -1 where only IoU 0.5 was matched.
        ar: mean highest recall.
    """

    ap: float
    ap50: float
    ap75: float
    ar: float


def match_by_coco(table: AnnotationTable, found: FoundBoxes, ranges: Sequence[AreaRange]) -> list[Matches]:
    """Match detections with the objects of each range of areas; objects outside a range are ignored in it."""
    evaluator = pycocotools_evaluator(table, found)
    evaluator.params.maxDets = [COCO_LIMIT]
    # pycocotools' ranges include both ends.
    evaluator.params.areaRng = [[low, float(np.nextafter(high, 0))] for low, high in ranges]
    evaluator.params.areaRngLbl = [str(number) for number in range(len(ranges))]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluator.evaluate()
    shape = (len(table.names), len(ranges), -1)
    entries = np.array(evaluator.evalImgs, dtype=object).reshape(shape) if len(table) else np.empty((*shape[:2], 0))
    return [_flat(entries[:, number].ravel(), table, found) for number in range(len(ranges))]


def _flat(entries: np.ndarray, table: AnnotationTable, found: FoundBoxes) -> Matches:
    present: list[dict[str, Any]] = [entry for entry in entries if entry is not None]
    row_of, label_of = _positions(table.image_ids), _positions(table.category_ids)
    objects = np.zeros((len(table), len(table.names)), dtype=np.int64)
    for entry in present:
        place = row_of[entry["image_id"]], label_of[entry["category_id"]]
        objects[place] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
    ids = np.concatenate([[], *(entry["dtIds"] for entry in present)]).astype(np.int64)
    empty = np.zeros((10, 0))
    object_ids = np.concatenate([empty, *(entry["dtMatches"] for entry in present)], axis=1).astype(np.int64)
    ignored = np.concatenate([empty, *(entry["dtIgnore"] for entry in present)], axis=1).astype(bool)
    detections = ids - 1
    order = np.lexsort((-found.scores[detections], found.labels[detections]))  # stable, as pycocotools' sort is
    detections = detections[order]
    return Matches(
        detections=detections,
        rows=found.rows[detections],
        labels=found.labels[detections],
        scores=found.scores[detections],
        hits=(object_ids > 0)[:, order],
        ignored=ignored[:, order],
        object_of=object_ids[0, order] - 1,
        objects=objects,
    )


def _positions(ids: np.ndarray) -> dict[int, int]:
    return {number: position for position, number in enumerate(ids.tolist())}


def averages(matches: Matches, weights: np.ndarray | None = None) -> Averages:
    """Average precision and recall, each image counting ``weights`` (N,) times; None: once."""
    weights = np.ones(len(matches.objects)) if weights is None else weights
    totals = weights @ matches.objects
    limits = np.searchsorted(matches.labels, np.arange(len(totals) + 1))
    precisions, recalls = [], []
    for label in np.flatnonzero(totals).tolist():
        here = slice(limits[label], limits[label + 1])
        counted = ~matches.ignored[:, here] * weights[matches.rows[here]]
        precision, recall = class_curves(matches.hits[:, here], counted, float(totals[label]))
        precisions.append(precision.mean(axis=1))
        recalls.append(recall)
    if not precisions:
        return Averages(ABSENT, ABSENT, ABSENT, ABSENT)
    by_threshold = np.mean(precisions, axis=0)
    ap75 = float(by_threshold[5]) if len(by_threshold) > 5 else ABSENT
    return Averages(float(by_threshold.mean()), float(by_threshold[0]), ap75, float(np.mean(recalls)))


def class_curves(hits: np.ndarray, counted: np.ndarray, objects: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision (T, R) at each recall point, and the highest recall (T,), of a class.

    Args:
        hits: (T, D) bool, best score first.
        counted: (T, D) number of times that each detection counts.
        objects: number of objects, above 0.
    """
    right = np.cumsum(hits * counted, axis=1, dtype=np.float64)
    wrong = np.cumsum(~hits * counted, axis=1, dtype=np.float64)
    recall = right / objects
    precision = right / (right + wrong + np.spacing(1))
    # The highest precision at this recall or a larger one; 0 for recalls that are not reached.
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    read = [values[np.searchsorted(reached, RECALLS)] for values, reached in zip(best, recall, strict=True)]
    return np.array(read), recall[:, -1] if recall.shape[1] else np.zeros(len(recall))
