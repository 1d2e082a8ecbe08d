"""Metrics as text for people and as JSON for programs: of detectors, also with tiles, and of classifiers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from detect.drawing.text import columns, pad, shorten
from detect.evaluation.classification import TOP, ClassEvaluation, ClassMetrics, most_confused
from detect.evaluation.coco import ABSENT, COCO_LIMIT, METRICS, CocoMetrics, class_metrics_at, metrics_at

if TYPE_CHECKING:
    from detect.evaluation.detection import Evaluation
    from detect.evaluation.tiling import Tiling

MAX_NAME = 32
"""Characters of a class name in a table."""

MAX_PAIRS = 10
"""Pairs of confused classes in a report."""

ABSENT_LINES = ["", "-1: there is no such object in the ground truth"]


def coco_table(metrics: CocoMetrics) -> str:
    """COCO metrics, a row for each class that has objects, and the meaning of -1 where it occurs."""
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
    lines += _hidden_classes(len(metrics.per_class) - len(present), "objects")
    shown = [*metrics.values.values(), *(row[key] for _, row in present for key in columns_of_class)]
    if ABSENT in shown:
        lines += ABSENT_LINES
    return "\n".join(lines)


def _title(limit: int) -> str:
    if limit == COCO_LIMIT:
        return "COCO metrics"
    return f"Metrics with up to {limit} detections of a class and image, which COCO limits to {COCO_LIMIT}"


def tiles_table(without: Evaluation, tiled: Evaluation, tiling: Tiling) -> str:
    """COCO metrics, AP of each class that has objects and time per image, without and with tiles."""
    both = [evaluation.metrics for evaluation in (without, tiled) if evaluation.metrics is not None]
    assert len(both) == 2, "an unlabelled split has no metrics"
    sizes = without.table.sizes_hw.tolist()
    views = sum(len(tiling.windows((height, width))) for height, width in sizes) / max(1, len(sizes))
    rows = [(name, [metrics[name] for metrics in both]) for name in METRICS]
    present = [name for name, row in both[0].per_class.items() if row["objects"]]
    classes = [(shorten(name, MAX_NAME), [m.per_class[name]["AP"] for m in both]) for name in present]
    times = [(part, (without.speed_ms[part], tiled.speed_ms[part])) for part in without.speed_ms]
    width = max([10, *(columns(name) for name, _ in classes)])

    lines = [f"tiles of {tiling.tile} px, overlap {tiling.overlap:g}; with the whole image {views:.1f} views per image"]
    lines += ["", f"  {pad('', width)}{'without':>9}{'with':>9}"]
    lines += [f"  {pad(name, width)}   {number(first)}   {number(second)}" for name, (first, second) in rows]
    lines += ["", "AP of each class"]
    lines += [f"  {pad(name, width)}   {number(first)}   {number(second)}" for name, (first, second) in classes]
    lines += _hidden_classes(len(both[0].per_class) - len(present), "objects")
    lines += ["", "ms per image"]
    lines += [f"  {pad(part, width)}{first:9.1f}{second:9.1f}" for part, (first, second) in times]
    if any(ABSENT in values for _, values in rows + classes):
        lines += ABSENT_LINES
    return "\n".join(lines)


def class_table(metrics: ClassMetrics) -> str:
    """Accuracy and loss, a row for each class that has images, the most confused classes, and the meaning of -1."""
    keys = list(metrics.per_class)
    meanings = {
        "top1": "share of the images whose class is the most probable one",
        "top5": f"share of the images whose class is among the {min(TOP, len(keys))} most probable",
        "loss": "mean cross-entropy of the images that have an answer",
    }
    lines = ["Classification metrics"]
    lines += [f"  {key:6}{number(metrics[key])}   {meaning}" for key, meaning in meanings.items()]
    names = [shorten(key, MAX_NAME) for key in keys]
    width = max([5, *map(columns, names)])
    lines += ["", f"{pad('class', width)}    top1    top5   images"]
    present = [(name, row) for name, row in zip(names, metrics.per_class.values(), strict=True) if row["images"]]
    for name, row in present:
        lines.append(f"{pad(name, width)}  {number(row['top1'])}  {number(row['top5'])}{row['images']:9}")
    lines += _hidden_classes(len(names) - len(present), "images")
    lines += _confused_lines(metrics, names, width)
    if ABSENT in metrics.values.values():
        lines += ["", "-1: there is no such image"]
    return "\n".join(lines)


def _confused_lines(metrics: ClassMetrics, names: list[str], width: int) -> list[str]:
    pairs = most_confused(metrics.confusion, MAX_PAIRS)
    if not pairs:
        return []
    second = max(width, len("predicted"))
    lines = ["", f"{pad('true', width)}  {pad('predicted', second)}   images"]
    for true, predicted, images in pairs:
        lines.append(f"{pad(names[true], width)}  {pad(names[predicted], second)}{images:9}")
    return lines


def _hidden_classes(count: int, things: str) -> list[str]:
    return [f"classes without {things} in the split, not shown: {count}"] * bool(count)


def speed_line(speed_ms: dict[str, float]) -> str:
    """Milliseconds per image of each part in one line."""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in speed_ms.items())
    return f"ms per image: {parts}"


def number(value: float) -> str:
    """A metric in six columns."""
    return "    -1" if value == ABSENT else f"{value:6.3f}"


def metrics_record(evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """Content of a detector's ``metrics.json``.

    Args:
        evaluation: of a labelled split.
        about: weights, data, split, settings; added as they are.

    Returns:
        The twelve numbers, ``per_class``, ``images``, ``detections``, ``speed_ms``, with another limit of detections
        ``other_limit``, and the entries of ``about``. No NaN.
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


def class_metrics_record(evaluation: ClassEvaluation, about: dict[str, Any]) -> dict[str, Any]:
    """Content of a classifier's ``metrics.json``.

    Args:
        evaluation: of a split.
        about: weights, data, split, settings; added as they are.

    Returns:
        ``top1``, ``top5``, ``loss``, ``per_class``, ``confused`` (the pairs of the table), ``images``, ``unanswered``
        (images without an answer), ``speed_ms`` and the entries of ``about``. No NaN.
    """
    metrics = evaluation.metrics
    keys = list(metrics.per_class)
    return {
        **metrics.values,
        "per_class": metrics.per_class,
        "confused": [
            {"true": keys[true], "predicted": keys[predicted], "images": images}
            for true, predicted, images in most_confused(metrics.confusion, MAX_PAIRS)
        ],
        "images": evaluation.images,
        "unanswered": int((~evaluation.is_answered).sum()),
        "speed_ms": {key: round(value, 3) for key, value in evaluation.speed_ms.items()},
        **about,
    }


def _numbers(metrics: CocoMetrics) -> dict[str, Any]:
    assert all(map(math.isfinite, metrics.values.values())), "a metric is a number"
    return {**metrics.values, "per_class": metrics.per_class}
