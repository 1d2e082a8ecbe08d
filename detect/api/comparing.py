"""Comparisons on a split, with a list and a sheet: of two models, and of a detector with the labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detect.api.class_evaluation import open_class_evaluation
from detect.api.evaluation import evaluate_split
from detect.api.evaluation_request import EvaluationRequest
from detect.curation.review import find_disagreements, write_review
from detect.drawing.text import spreadsheet_text
from detect.errors import InputError
from detect.evaluation import class_differences, differences
from detect.evaluation.activation_pairs import check_sizes, draw_activation_pairs
from detect.evaluation.class_differences import ClassifierPair, draw_class_differences
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.confusion import SCORE
from detect.evaluation.differences import MODELS, draw_differences, pair_detectors
from detect.evaluation.examples import match_and_show
from detect.inference.opening import open_network
from detect.runtime.files import atomic_path, write_json

LIST, RECORD, SHEET, ACTIVATIONS = "compare.csv", "compare.json", "sheet.jpg", "activations.jpg"
"""Files of a comparison."""

BOX_COLUMNS = ("rank", "image", "kind", "model", "class", "score", "left", "top", "right", "bottom")
CLASS_COLUMNS = ("rank", "image", "right", "class", "predicted A", "score A", "predicted B", "score B")


@dataclass(frozen=True)
class _Compared:
    """A comparison to write; ``metrics`` are AP or top-1 of A and of B."""

    metric: str
    metrics: tuple[float, float]
    totals: dict[str, int]
    line: str
    columns: Sequence[str]
    records: list[dict[str, Any]]


def compare(
    request: EvaluationRequest,
    weights: tuple[Path, Path],
    out: Path,
    min_score: float | None,
    count: int,
    activation_px: Sequence[int] = (),
) -> Iterator[str]:
    """Compare two detectors, or two classifiers, on a split with annotations.

    Args:
        request: data, split and the conditions of prediction; its ``weights`` do not count.
        weights: A and B.
        out: folder of the files.
        min_score: of a detection that counts, from 0 to 1; None: 0.25.
        count: images on the sheet.
        activation_px: image sizes at which class activation maps of two classifiers are drawn.

    Yields:
        Lines of the report.

    Raises:
        InputError: one is a detector and the other a classifier, the split has no annotations, or a value is outside
            its range.
    """
    if min_score is not None and not 0 <= min_score <= 1:
        raise InputError(f"--conf: must be from 0 to 1, found {min_score:g}")
    is_classifier = [open_network(path, request.device, request.precision).is_classifier for path in weights]
    if is_classifier[0] != is_classifier[1]:
        one, other = weights if is_classifier[0] else reversed(weights)
        raise InputError(f"--weights: {one} is a classifier and {other} a detector; compare two of a kind")
    if is_classifier[0] and min_score is not None:
        raise InputError(f"--conf: of detectors only; {weights[0]} is a classifier")
    if not is_classifier[0] and activation_px:
        raise InputError(f"--activations: of classifiers only; {weights[0]} is a detector")
    requests = [replace(request, weights=path) for path in weights]
    if is_classifier[0]:
        compared, drawn = _compare_classifiers(requests, out, count, activation_px)
    else:
        compared, drawn = _compare_detectors(requests, out, SCORE if min_score is None else min_score, count)
    for model, path, value in zip(MODELS, weights, compared.metrics, strict=True):
        yield f"{model}: {path}, {compared.metric} {value:.3f}"
    yield compared.line
    yield from _write(out, weights, compared)
    yield f"sheet of the {drawn} images that differ most: {out / SHEET}"
    if activation_px:
        yield f"class activation maps of them at {', '.join(map(str, activation_px))} px: {out / ACTIVATIONS}"


def _compare_detectors(
    requests: Sequence[EvaluationRequest], out: Path, min_score: float, count: int
) -> tuple[_Compared, int]:
    first, second = (evaluate_split(request)[0] for request in requests)
    assert first.metrics is not None, "the split has annotations"
    assert second.metrics is not None, "the split has annotations"
    pair = pair_detectors(match_and_show(first, min_score), match_and_show(second, min_score))
    drawn = draw_differences(out / SHEET, pair, count)
    records = [one.record(pair.table) for one in pair.differences]
    line = differences.summary_line(pair.totals)
    metrics = (first.metrics["AP"], second.metrics["AP"])
    return _Compared("AP", metrics, pair.totals, line, BOX_COLUMNS, records), drawn


def _compare_classifiers(
    requests: Sequence[EvaluationRequest], out: Path, count: int, activation_px: Sequence[int]
) -> tuple[_Compared, int]:
    opened = [open_class_evaluation(request) for request in requests]
    models = opened[0][0].classifier, opened[1][0].classifier
    check_sizes(models, activation_px)
    first, second = (
        evaluate_classifier(checkpoint.classifier, table, conditions, checkpoint.center_crop)
        for checkpoint, table, conditions in opened
    )
    pair = ClassifierPair((first, second))
    if activation_px:
        draw_activation_pairs(out / ACTIVATIONS, pair, models, activation_px, count)
    drawn = draw_class_differences(out / SHEET, pair, count)
    metrics = (first.metrics["top1"], second.metrics["top1"])
    line = class_differences.summary_line(pair.totals)
    return _Compared("top-1", metrics, pair.totals, line, CLASS_COLUMNS, pair.records()), drawn


def _write(out: Path, weights: tuple[Path, Path], compared: _Compared) -> Iterator[str]:
    ranks: dict[str, int] = {}
    records = [{"rank": ranks.setdefault(one["image"], len(ranks) + 1), **one} for one in compared.records]
    with atomic_path(out / LIST) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, compared.columns)
        writer.writeheader()
        for record in records:
            writer.writerow({key: spreadsheet_text(value) for key, value in record.items()})
    models = {
        model: {"weights": str(path), compared.metric: value}
        for model, path, value in zip(MODELS, weights, compared.metrics, strict=True)
    }
    write_json(out / RECORD, {"models": models, "totals": compared.totals, "differences": records})
    yield f"list of {len(records)} differences in {len(ranks)} images: {out / LIST}, {out / RECORD}"


def review(request: EvaluationRequest, out: Path, min_score: float, count: int) -> Iterator[str]:
    """Compare a detector's predictions with the labels of a split, and write list and sheet.

    Args:
        request: weights, data, split and the conditions of prediction.
        out: folder of the files.
        min_score: of a prediction that speaks against a label.
        count: pictures on the sheet.

    Raises:
        InputError: the weights are a classifier's, the split has no annotations, or a value is outside its range.
    """
    if not 0 < min_score <= 1:
        raise InputError(f"--conf: must be above 0 and at most 1, found {min_score:g}")
    evaluation, names = evaluate_split(request)
    places = find_disagreements(evaluation.table, evaluation.found, min_score, names)
    yield from write_review(out, evaluation.table, places, count)
