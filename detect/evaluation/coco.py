"""COCO metrics: one definition of AP for training, evaluation and tests, computed by pycocotools.

Letters: N detections, K classes, T IoU thresholds (0.50, 0.55 ... 0.95), R recall points (0, 0.01 ... 1).
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from detect.boxes.convert import xyxy_to_xywh
from detect.data.annotations import AnnotationTable
from detect.errors import InputError
from detect.runtime.distributed import all_gather
from detect.runtime.logs import LOGGER
from detect.structures import Detections

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

Engine = Literal["pycocotools", "hotcoco"]

ABSENT = -1.0
"""pycocotools' value of a metric where the ground truth has no such object."""

Metric = tuple[str, str | None, str, int]
"""Precision or recall, IoU (None is the mean of T), area, detections counted per class and image."""

COCO_LIMIT = 100
"""Detections of a class in an image that COCO's metrics count (pycocotools cuts the list of each class and image)."""

METRICS: dict[str, Metric] = {
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
"""COCO's numbers by name, in COCO's order. Areas in square pixels of the original image: small < 32², medium,
large > 96²."""

CLASS_METRICS = ("AP", "AP50", "AP_S", "AP_M", "AP_L", "AR_100")

_IOUS = {"0.50": 0, "0.75": 5}
_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}


@dataclass(frozen=True)
class FoundBoxes:
    """Detections of a whole data set in flat arrays, rounded as in the results file.

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

    def best(self, count: int) -> FoundBoxes:
        """Return the ``count`` best detections of each image."""
        keep = np.arange(len(self)) - np.searchsorted(self.rows, self.rows) < count
        return FoundBoxes(self.rows[keep], self.labels[keep], self.boxes_xywh_px[keep], self.scores[keep])

    def gathered(self) -> FoundBoxes:
        """Gather the detections of all processes, each of which has its own images."""
        columns = [all_gather(column) for column in (self.rows, self.labels, self.boxes_xywh_px, self.scores)]
        rows, *others = (np.concatenate(parts) for parts in columns)
        order = np.argsort(rows, kind="stable")
        return FoundBoxes(rows[order], *(column[order] for column in others))


def collect(found: dict[int, Detections], label_of: np.ndarray) -> FoundBoxes:
    """Concatenate the detections of many images.

    Args:
        found: row of the table to the image's detections.
        label_of: (K,) int64, the table's class index of each class of the model.
    """
    rows = sorted(found)
    none = [np.zeros((0, 4))]
    boxes = np.concatenate(none + [found[row].boxes_xyxy_px.astype(np.float64) for row in rows])
    labels = np.concatenate([np.zeros(0, np.int64)] + [found[row].labels for row in rows]).astype(np.int64)
    scores = np.concatenate([np.zeros(0)] + [found[row].scores.astype(np.float64) for row in rows])
    return FoundBoxes(
        rows=np.repeat(np.array(rows, dtype=np.int64), [len(found[row]) for row in rows]),
        labels=label_of[labels],
        boxes_xywh_px=xyxy_to_xywh(boxes).round(3),
        scores=scores.round(5),
    )


def to_results(table: AnnotationTable, found: FoundBoxes) -> list[dict[str, Any]]:
    """Convert detections to COCO results, ``{"image_id", "category_id", "bbox": [x, y, w, h], "score"}``.

    Ids are those of the annotation file; a data set without ids of its own (VOC) adds ``"file_name"``.
    """
    results = _entries(found, table.image_ids_of_file, table.category_ids_of_file)
    if not table.has_own_ids:
        for result, row in zip(results, found.rows.tolist(), strict=True):
            result["file_name"] = table.path(row).name
    return results


def _entries(found: FoundBoxes, image_ids: Sequence[Any], category_ids: Sequence[Any]) -> list[dict[str, Any]]:
    columns = (found.rows, found.labels, found.boxes_xywh_px, found.scores)
    return [
        {"image_id": image_ids[row], "category_id": category_ids[label], "bbox": bbox, "score": score}
        for row, label, bbox, score in zip(*(column.tolist() for column in columns), strict=True)
    ]


@dataclass(frozen=True)
class CocoMetrics:
    """COCO metrics of a split; -1 where the ground truth has no such object.

    Args:
        values: numbers by the names of ``metrics_at(limit)``, each in [0, 1] or -1.
        per_class: class name to ``class_metrics_at(limit)`` and ``objects``, the number of (not crowd) objects.
        precision: (T, R, K) interpolated precision for all areas; -1 for classes without ground truth.
        limit: maximum number of detections of a class and image that were counted.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]]
    precision: np.ndarray
    limit: int = COCO_LIMIT

    def __getitem__(self, key: str) -> float:
        return self.values[key]


def metrics_at(limit: int) -> dict[str, Metric]:
    """``METRICS``, or with another limit of detections than COCO's those that depend on it."""
    if limit == COCO_LIMIT:
        return METRICS
    return {
        _name_at(name, limit): (kind, iou, area, limit)
        for name, (kind, iou, area, counted) in METRICS.items()
        if counted == COCO_LIMIT
    }


def class_metrics_at(limit: int) -> tuple[str, ...]:
    """``CLASS_METRICS`` with another limit of detections."""
    return tuple(_name_at(name, limit) for name in CLASS_METRICS)


def _name_at(name: str, limit: int) -> str:
    return f"AR_{limit}" if name == f"AR_{COCO_LIMIT}" else name


def coco_metrics(
    table: AnnotationTable, found: FoundBoxes, engine: Engine = "pycocotools", limit: int = COCO_LIMIT
) -> CocoMetrics:
    """Compute the COCO metrics.

    Args:
        table: the ground truth.
        found: the detections in its images.
        engine: ``pycocotools`` is the reference; ``hotcoco`` gives the same numbers about fifty times faster.
        limit: maximum number of detections of a class and image that are counted.

    Raises:
        InputError: hotcoco is not installed.
    """
    run = {"pycocotools": _run_pycocotools, "hotcoco": _run_hotcoco}[engine]
    metrics = metrics_at(limit)
    limits = sorted({counted for *_, counted in metrics.values()})
    arrays = run(table, found, limits)
    values = {name: _mean(_part(arrays, metric, limits)) for name, metric in metrics.items()}
    # The engines order classes by category id, the table by class index.
    position = np.argsort(np.argsort(table.category_ids))
    objects = np.bincount(table.labels[~table.is_crowd], minlength=len(table.names))
    per_class = {
        key: {
            **{
                name: _mean(_part(arrays, metrics[name], limits)[..., position[label]])
                for name in class_metrics_at(limit)
            },
            "objects": int(objects[label]),
        }
        for label, key in enumerate(_class_keys(table))
    }
    precision = arrays["precision"][:, :, position, _AREAS["all"], limits.index(limit)]
    return CocoMetrics(values, per_class, precision, limit)


def _part(arrays: dict[str, np.ndarray], metric: Metric, limits: list[int]) -> np.ndarray:
    """Entries that a metric averages, classes last."""
    kind, iou, area, counted = metric
    entries = arrays[kind] if iou is None else arrays[kind][[_IOUS[iou]]]
    return entries[..., _AREAS[area], limits.index(counted)]


def _mean(entries: np.ndarray) -> float:
    present = entries[entries > ABSENT]
    return float(np.mean(present)) if present.size else ABSENT


def _class_keys(table: AnnotationTable) -> list[str]:
    # Two categories of an annotation file may share a name; a report must not lose one of them.
    count = Counter(table.names)
    ids = table.category_ids.tolist()
    return [f"{name} (id {i})" if count[name] > 1 else name for name, i in zip(table.names, ids, strict=True)]


def _run_pycocotools(table: AnnotationTable, found: FoundBoxes, limits: list[int]) -> dict[str, np.ndarray]:
    evaluator = pycocotools_evaluator(table, found)
    evaluator.params.maxDets = limits
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluator.evaluate()
        evaluator.accumulate()
    return {key: np.asarray(evaluator.eval[key]) for key in ("precision", "recall")}


def pycocotools_evaluator(table: AnnotationTable, found: FoundBoxes) -> COCOeval:
    """Return pycocotools' evaluator before its evaluation. Detection n has the id n + 1, and so has object n."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth, detected = COCO(), COCO()
        truth.dataset = table.to_coco()
        truth.createIndex()
        # Not loadRes: that fails on an empty list, and makes a polygon for every box.
        detected.dataset = {**truth.dataset, "annotations": _as_annotations(table, found)}
        detected.createIndex()
        return COCOeval(truth, detected, "bbox")


def _as_annotations(table: AnnotationTable, found: FoundBoxes) -> list[dict[str, Any]]:
    annotations = _entries(found, table.image_ids.tolist(), table.category_ids.tolist())
    for number, annotation in enumerate(annotations, start=1):
        _, _, width, height = annotation["bbox"]
        annotation.update(id=number, area=width * height, iscrowd=0)
    return annotations


def _run_hotcoco(table: AnnotationTable, found: FoundBoxes, limits: list[int]) -> dict[str, np.ndarray]:
    try:
        import hotcoco
    except ImportError:
        raise InputError("hotcoco is not installed; pip install hotcoco, or use --coco-engine pycocotools") from None

    truth = hotcoco.COCO(table.to_coco())
    columns = (table.image_ids[found.rows], found.boxes_xywh_px, found.scores, table.category_ids[found.labels])
    detected = truth.load_res(np.column_stack(columns).astype(np.float64).reshape(-1, 7))
    evaluator = hotcoco.COCOeval(truth, detected, "bbox")
    evaluator.params.max_dets = limits
    evaluator.evaluate()
    evaluator.accumulate()
    curves = evaluator.eval
    assert curves is not None, "accumulate() fills it"
    return {key: np.asarray(curves[key]) for key in ("precision", "recall")}


def warn_of_nothing_to_measure(where: str, table: AnnotationTable) -> None:
    """Warn before the evaluation that the metrics of a split will be -1.

    Args:
        where: data set and split, for the message.
        table: a split with annotations.
    """
    if table.is_labelled and table.is_crowd.all():
        found = f"only {len(table.labels)} crowd or ignored regions" if len(table.labels) else "no boxes"
        LOGGER.warning(
            "%s has %s, so that AP and AR cannot be measured: they will be %g, which says nothing of the model",
            where,
            found,
            ABSENT,
        )
