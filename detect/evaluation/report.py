"""The metrics as text for people and as JSON for programs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detect.drawing.text import columns, pad, shorten
from detect.evaluation.coco import ABSENT, COCO_LIMIT, CocoMetrics, class_metrics_at, metrics_at
from detect.runtime.files import write_json

if TYPE_CHECKING:
    from detect.evaluation.engine import Evaluation

MAX_NAME = 32
"""Characters of a class name in a table."""


def coco_table(metrics: CocoMetrics) -> str:
    """The numbers, a row for each class that has objects, and what -1 means where it occurs.

    Returns:
        Lines without a newline at the end.
    """
    columns_of_class = class_metrics_at(metrics.limit)
    lines = [_title(metrics.limit)]
    for name, (kind, iou, area, counted) in metrics_at(metrics.limit).items():
        meaning = f"{kind}, IoU {iou or '0.50:0.95'}, {area} objects, {counted} detections per class and image"
        lines.append(f"  {name:7}{number(metrics[name])}   {meaning}")
    present = [(shorten(name, MAX_NAME), row) for name, row in metrics.per_class.items() if row["objects"]]
    width = max([5, *(columns(name) for name, _ in present)])
    lines += ["", pad("class", width) + "".join(f"{name:>8}" for name in columns_of_class) + " objects"]
    for name, row in present:
        numbers = "".join(f"  {number(row[key])}" for key in columns_of_class)
        lines.append(f"{pad(name, width)}{numbers}{row['objects']:8}")
    lines += absent_line(len(metrics.per_class) - len(present), "objects")
    shown = [*metrics.values.values(), *(row[key] for _, row in present for key in columns_of_class)]
    if ABSENT in shown:
        lines += ["", "-1: there is no such object in the ground truth"]
    return "\n".join(lines)


def _title(limit: int) -> str:
    if limit == COCO_LIMIT:
        return "COCO metrics"
    return f"Metrics with up to {limit} detections of a class and image, which COCO limits to {COCO_LIMIT}"


def absent_line(count: int, things: str) -> list[str]:
    """The line about classes that a table does not show, where there are some.

    Args:
        count: of these classes.
        things: what they have none of.
    """
    return [f"classes without {things} in the split, not shown: {count}"] * bool(count)


def speed_line(speed_ms: dict[str, float]) -> str:
    """The parts of the time per image in one line."""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in speed_ms.items())
    return f"ms per image: {parts}"


def metrics_record(evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """What ``metrics.json`` holds.

    Args:
        evaluation: of a labelled split.
        about: where the numbers come from: weights, data, split, settings.

    Returns:
        The twelve numbers, ``per_class``, ``images``, ``detections``, ``speed_ms`` and ``about``'s entries; where
        another limit of detections was asked for, ``other_limit`` with its numbers. No NaN.
    """
    assert evaluation.metrics is not None, "an unlabelled split has no metrics"
    other = evaluation.other_limit
    return {
        **_numbers(evaluation.metrics),
        **({} if other is None else {"other_limit": {"max_det": other.limit, **_numbers(other)}}),
        "images": evaluation.images,
        "detections": len(evaluation.found),
        "speed_ms": {key: round(value, 3) for key, value in evaluation.speed_ms.items()},
        **about,
    }


def write_metrics_json(path: Path, evaluation: Evaluation, about: dict[str, Any]) -> None:
    """Write ``metrics_record`` to a file."""
    write_json(path, metrics_record(evaluation, about))


def number(value: float) -> str:
    """A share in six columns."""
    return "    -1" if value == ABSENT else f"{value:6.3f}"


def _numbers(metrics: CocoMetrics) -> dict[str, Any]:
    return {**{key: _finite(value) for key, value in metrics.values.items()}, "per_class": metrics.per_class}


def _finite(value: float) -> float:
    assert math.isfinite(value), "a metric is a number"
    return value
