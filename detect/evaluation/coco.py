"""The COCO metrics: one definition of AP for training, evaluation and tests, computed by pycocotools.

Letters: N detections, K classes, T IoU thresholds (0.50, 0.55 ... 0.95), R recall points (0, 0.01 ... 1).
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.runtime.processes import gather
from detect.structures import Detections

Engine = Literal["pycocotools", "hotcoco"]

ABSENT = -1.0
"""What pycocotools says where the ground truth has no such object, and so do we."""

METRICS: dict[str, tuple[str, str | None, str, int]] = {
    "AP": ("precision", None, "all", 100),
    "AP50": ("precision", "0.50", "all", 100),
    "AP75": ("precision", "0.75", "all", 100),
    "AP_S": ("precision", None, "small", 100),
    "AP_M": ("precision", None, "medium", 100),
    "AP_L": ("precision", None, "large", 100),
    "AR_1": ("recall", None, "all", 1),
    "AR_10": ("recall", None, "all", 10),
    "AR_100": ("recall", None, "all", 100),
    "AR_S": ("recall", None, "small", 100),
    "AR_M": ("recall", None, "medium", 100),
    "AR_L": ("recall", None, "large", 100),
}
"""Our name of each COCO number, in COCO's order, to (precision or recall, IoU; None is the mean of T, area, detections
counted per class and image). Areas in square pixels of the original image: small < 32², medium, large > 96²."""

CLASS_METRICS = ("AP", "AP50", "AP_S", "AP_M", "AP_L", "AR_100")

_IOUS = {"0.50": 0, "0.75": 5}
_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}
_COUNTED = {1: 0, 10: 1, 100: 2}


@dataclass(frozen=True)
class FoundBoxes:
    """The detections of a whole data set in flat arrays, in the numbers that the results file has.

    Args:
        rows: (N,) int64, the image's row in the ``AnnotationTable``, ascending.
        labels: (N,) int64 class index of the table.
        boxes_xywh_px: (N, 4) float64, original-image pixels, rounded to 0.001.
        scores: (N,) float64, rounded to 0.00001, descending within an image.
    """

    rows: np.ndarray
    labels: np.ndarray
    boxes_xywh_px: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def gathered(self) -> FoundBoxes:
        """Those of all processes, whose images are not the same."""
        columns = [gather(column) for column in (self.rows, self.labels, self.boxes_xywh_px, self.scores)]
        rows, *others = (np.concatenate(parts) for parts in columns)
        order = np.argsort(rows, kind="stable")
        return FoundBoxes(rows[order], *(column[order] for column in others))


def collect(found: dict[int, Detections], label_of: np.ndarray) -> FoundBoxes:
    """Gather the detections of many images.

    Args:
        found: row of the table to the image's detections.
        label_of: (K,) int64, the table's class index of each class of the model that was found.
    """
    rows = sorted(found)
    none = [np.zeros((0, 4))]
    boxes = np.concatenate(none + [found[row].boxes_xyxy_px.astype(np.float64) for row in rows])
    labels = np.concatenate([np.zeros(0, np.int64)] + [found[row].labels for row in rows]).astype(np.int64)
    scores = np.concatenate([np.zeros(0)] + [found[row].scores.astype(np.float64) for row in rows])
    return FoundBoxes(
        rows=np.repeat(np.array(rows, dtype=np.int64), [len(found[row]) for row in rows]),
        labels=label_of[labels],
        boxes_xywh_px=np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).round(3),
        scores=scores.round(5),
    )


def to_results(table: AnnotationTable, found: FoundBoxes) -> list[dict[str, Any]]:
    """The COCO results format, with the ids of the annotation file.

    Args:
        table: where the images and their ids are.
        found: detections in it.

    Returns:
        N entries ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``. A data set without ids of its own
        (VOC) adds ``"file_name"``.
    """
    image_ids = table.image_ids[found.rows].tolist()
    category_ids = table.category_ids[found.labels].tolist()
    entries = zip(image_ids, category_ids, found.boxes_xywh_px.tolist(), found.scores.tolist(), strict=True)
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}
        for image_id, category_id, bbox, score in entries
    ]
    if not table.has_own_ids:
        for result, row in zip(results, found.rows.tolist(), strict=True):
            result["file_name"] = table.path(row).name
    return results


@dataclass(frozen=True)
class CocoMetrics:
    """What COCO measures. -1 means that there is no such ground truth.

    Args:
        values: the twelve numbers by the names of ``METRICS``, each in [0, 1] or -1.
        per_class: class name to ``CLASS_METRICS`` and ``objects``, the number of (not crowd) objects.
        precision: (T, R, K) interpolated precision for all areas; -1 for classes without ground truth.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]]
    precision: np.ndarray

    def __getitem__(self, key: str) -> float:
        return self.values[key]


def coco_metrics(table: AnnotationTable, found: FoundBoxes, engine: Engine = "pycocotools") -> CocoMetrics:
    """Compare detections with the ground truth as COCO does.

    Args:
        table: the ground truth.
        found: the detections in its images.
        engine: ``pycocotools`` is the reference; ``hotcoco`` gives the same numbers some fifty times faster.

    Raises:
        InputError: hotcoco is asked for and not installed.
    """
    run = {"pycocotools": _run_pycocotools, "hotcoco": _run_hotcoco}[engine]
    arrays = run(table, found)
    values = {name: _mean(_part(arrays, name)) for name in METRICS}
    # The engines order classes by category id, the table by class index.
    position = np.argsort(np.argsort(table.category_ids))
    objects = np.bincount(table.labels[~table.is_crowd], minlength=len(table.names))
    per_class = {
        key: {
            **{name: _mean(_part(arrays, name)[..., position[label]]) for name in CLASS_METRICS},
            "objects": int(objects[label]),
        }
        for label, key in enumerate(_class_keys(table))
    }
    precision = arrays["precision"][:, :, position, _AREAS["all"], _COUNTED[100]]
    return CocoMetrics(values, per_class, precision)


def _part(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The entries that one of ``METRICS`` averages, classes last."""
    kind, iou, area, counted = METRICS[name]
    entries = arrays[kind] if iou is None else arrays[kind][[_IOUS[iou]]]
    return entries[..., _AREAS[area], _COUNTED[counted]]


def _mean(entries: np.ndarray) -> float:
    present = entries[entries > ABSENT]
    return float(np.mean(present)) if present.size else ABSENT


def _class_keys(table: AnnotationTable) -> list[str]:
    # Two categories of an annotation file may share a name; a report must not lose one of them.
    count = Counter(table.names)
    ids = table.category_ids.tolist()
    return [f"{name} (id {i})" if count[name] > 1 else name for name, i in zip(table.names, ids, strict=True)]


def _run_pycocotools(table: AnnotationTable, found: FoundBoxes) -> dict[str, np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth, detected = COCO(), COCO()
        truth.dataset = table.to_coco()
        truth.createIndex()
        # Not loadRes: that fails on an empty list, and makes a polygon for every box.
        detected.dataset = {**truth.dataset, "annotations": _as_annotations(table, found)}
        detected.createIndex()
        evaluator = COCOeval(truth, detected, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    return {key: np.asarray(evaluator.eval[key]) for key in ("precision", "recall")}


def _as_annotations(table: AnnotationTable, found: FoundBoxes) -> list[dict[str, Any]]:
    annotations = to_results(table, found)
    for number, annotation in enumerate(annotations, start=1):
        _, _, width, height = annotation["bbox"]
        annotation.update(id=number, area=width * height, iscrowd=0)
    return annotations


def _run_hotcoco(table: AnnotationTable, found: FoundBoxes) -> dict[str, np.ndarray]:
    try:
        import hotcoco
    except ImportError:
        raise InputError("hotcoco is not installed; pip install hotcoco, or use --coco-engine pycocotools") from None

    truth = hotcoco.COCO(table.to_coco())
    columns = (table.image_ids[found.rows], found.boxes_xywh_px, found.scores, table.category_ids[found.labels])
    detected = truth.load_res(np.column_stack(columns).astype(np.float64).reshape(-1, 7))
    evaluator = hotcoco.COCOeval(truth, detected, "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    curves = evaluator.eval
    assert curves is not None, "accumulate() fills it"
    return {key: np.asarray(curves[key]) for key in ("precision", "recall")}
