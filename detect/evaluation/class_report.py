"""A classifier's metrics as text for people and as JSON for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detect.drawing.text import columns, pad, shorten
from detect.evaluation.classification import TOP, ClassEvaluation, ClassMetrics, most_confused
from detect.evaluation.coco import ABSENT
from detect.evaluation.report import MAX_NAME, absent_line, number
from detect.runtime.files import write_json

MAX_PAIRS = 10
"""Pairs of mixed up classes that are told."""


def metrics_table(metrics: ClassMetrics) -> str:
    """The metrics, a row for each class with images, the classes that are mixed up most often, and the meaning of -1.

    Returns:
        Lines without a newline at the end.
    """
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
    lines += absent_line(len(names) - len(present), "images")
    lines += _confused_lines(metrics, names, width)
    if ABSENT in metrics.values.values():
        lines += ["", "-1: there is no such image"]
    return "\n".join(lines)


def write_class_metrics(path: Path, evaluation: ClassEvaluation, about: dict[str, Any]) -> None:
    """Write ``metrics.json``: what ``class_metrics_record`` holds."""
    write_json(path, class_metrics_record(evaluation, about))


def class_metrics_record(evaluation: ClassEvaluation, about: dict[str, Any]) -> dict[str, Any]:
    """What ``metrics.json`` holds.

    Args:
        evaluation: what was measured.
        about: where the numbers come from: weights, data, split, settings.

    Returns:
        ``top1``, ``top5``, ``loss``, ``per_class``, ``confused`` (the pairs of the table), ``images``, ``unanswered``
        (images that could not be read, or that the network gave no finite numbers for), ``speed_ms`` and ``about``'s
        entries. No NaN.
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


def _confused_lines(metrics: ClassMetrics, names: list[str], width: int) -> list[str]:
    pairs = most_confused(metrics.confusion, MAX_PAIRS)
    if not pairs:
        return []
    second = max(width, len("taken for"))
    lines = ["", f"{pad('true', width)}  {pad('taken for', second)}   images"]
    for true, predicted, images in pairs:
        lines.append(f"{pad(names[true], width)}  {pad(names[predicted], second)}{images:9}")
    return lines
