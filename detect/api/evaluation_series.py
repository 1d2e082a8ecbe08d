"""Evaluations in series: at several image sizes, at each early exit of a classifier, on its crops of several scales.

Letters: N images, C sizes before the crop, K classes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from detect.analysis.profile import profile_graph
from detect.api.class_evaluation import open_class_evaluation
from detect.api.evaluation import record_of
from detect.api.evaluation_request import EvaluationRequest, Lines
from detect.errors import InputError
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.pictures import draw_curves
from detect.models.class_heads import ClassifyExits
from detect.models.graph import Graph
from detect.models.model import ClassificationModel
from detect.runtime.distributed import is_main_process
from detect.runtime.files import write_json, write_text

METRICS = ("top1", "top5", "AP", "AP50", "AP_S", "AP_M", "AP_L")
"""Columns, as far as the model's task has them."""


def measure_sizes(request: EvaluationRequest, sizes: Sequence[int]) -> Lines:
    """Evaluate at each of several image sizes; write ``sizes.csv`` and ``sizes.png`` to ``request.out``.

    Returns, after its lines, the metrics of each size under ``sizes``, with those of ``request.baseline`` under
    ``baseline``.

    Raises:
        InputError: a size is a duplicate, or an option belongs to the evaluation at one size.
    """
    if len(set(sizes)) < len(sizes):
        raise InputError(f"--image-size: has a size twice: {' '.join(map(str, sizes))}")
    options = {"--results-json": request.results_json, "--report": request.report, "--tile": request.tile}
    for option, value in {**options, "--instances": request.instances or None}.items():
        if value is not None:
            raise InputError(f"{option}: is for one --image-size, found {len(sizes)}")
    outputs = EvaluationOutputs(request.metrics_json, None, request.out)
    records: dict[int, dict[str, Any]] = {}
    for size in sorted(sizes):
        records[size] = _measure_size(request, size)
        line = f"{size:>5} px  {_numbers(records[size])}"
        if request.baseline is not None:
            other = _measure_size(replace(request, weights=request.baseline, cost=None), size)
            records[size] |= {"baseline": other}
            line += f"  baseline: {_numbers(other)}"
        yield line
    if is_main_process():
        curves = {size: _curve(record) for size, record in records.items()}
        rows = [{"image_size": size, **curve} for size, curve in curves.items()]
        yield from _write(outputs, "sizes", list(records.values()), rows, curves, "image size in px")
    return {"sizes": list(records.values())}


def _measure_size(request: EvaluationRequest, size: int) -> dict[str, Any]:
    return record_of(replace(request, image_size=size, metrics_json=None, out=None, baseline=None))


def _numbers(record: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in _curve(record).items())


def _curve(record: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a size by column, the baseline's behind the model's own."""
    own = {name: record[name] for name in METRICS if name in record}
    other = _curve(record["baseline"]) if "baseline" in record else {}
    return own | {f"baseline {name}": value for name, value in other.items()}


def measure_exits(request: EvaluationRequest) -> Lines:
    """Evaluate a classifier with all images leaving at the same exit, for each exit.

    Writes ``exits.csv`` and ``exits.png`` to ``request.out``. Returns, after its lines, a record of each exit under
    ``exits``: ``exit`` (from 1, the last is the network's own), ``macs``, ``share`` of the network's own, ``top1``,
    ``top5``, ``loss``.

    Raises:
        InputError: the weights have no early exits.
    """
    options = {"--results-json": request.results_json, "--crops": request.crops, "--baseline": request.baseline}
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option}: does not go with --exits")
    checkpoint, table, conditions = open_class_evaluation(request)
    model, head = checkpoint.classifier, checkpoint.classifier.head
    if not isinstance(head, ClassifyExits):
        raise InputError(f"--exits: {model.definition.name} has no early exits; resnet20-exits is a model with some")
    macs = exit_macs(model, conditions.image_size)
    records: list[dict[str, Any]] = []
    for number, count in enumerate(macs):
        head.active = number
        metrics = evaluate_classifier(model, table, conditions, checkpoint.center_crop).metrics.values
        records.append({"exit": number + 1, "macs": count, "share": count / macs[-1], **metrics})
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        yield f"exit {number + 1}  {count / 1e6:8.2f} M multiply-adds ({count / macs[-1]:.3f})  {numbers}"
    head.active = len(head.exits)
    outputs = EvaluationOutputs(request.metrics_json, None, request.out)
    # Of exits of one cost the best is drawn: it comes last and takes the place of the others.
    drawn = sorted(records, key=lambda one: (one["macs"], one["top1"]))
    curves = {round(100 * one["share"]): {"top1": one["top1"], "top5": one["top5"]} for one in drawn}
    yield from _write(outputs, "exits", records, records, curves, "multiply-adds, % of the network's own")
    return {"exits": records}


def exit_macs(model: ClassificationModel, image_size: int) -> list[int]:
    """Count the multiply-adds of one image up to each exit of a model whose head is ``ClassifyExits``."""
    with torch.device("meta"):
        graph = Graph(model.definition, model.num_classes)
    head, rows = graph.last, {row.name: row for row in model.definition.rows}
    assert isinstance(head, ClassifyExits), "the caller has checked it"
    last = model.definition.rows[-1]
    counts = []
    for head.active, end in enumerate(last.inputs):
        profile = profile_graph(graph, image_size, model.num_classes, memory=False)
        needed, left = {last.name}, [end]
        while left:
            name = left.pop()
            if name in rows and name not in needed:
                needed.add(name)
                left += rows[name].inputs
        counts.append(sum(row.macs for row in profile.rows if row.name in needed))
    return counts


def measure_pre_crops(request: EvaluationRequest, sizes: Sequence[int]) -> Lines:
    """Evaluate a classifier on crops of one size from images whose short side is brought to each of several sizes.

    Returns, after its lines, the accuracy of each size under ``pre_crops``, and the ``mean_cosine`` of each two sizes'
    probabilities: 1 where the size makes no difference.

    Source: SDPoint (Kuen et al., 2018), section 6.2.3, with crops of 224 px from 256, 272, ... 352 px.

    Raises:
        InputError: fewer than two sizes, a duplicate, one below the crop, or the weights are a detector's.
    """
    if len(set(sizes)) < max(len(sizes), 2):
        raise InputError(f"--pre-crop: must be at least two different sizes, found {' '.join(map(str, sizes))}")
    options = {
        "--results-json": request.results_json,
        "--out": request.out,
        "--crops": request.crops,
        "--baseline": request.baseline,
    }
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option}: does not go with --pre-crop")
    checkpoint, table, conditions = open_class_evaluation(request)
    if min(sizes) < conditions.image_size:
        raise InputError(f"--pre-crop: must be at least the crop of {conditions.image_size} px, found {min(sizes)}")
    probabilities, accuracy = [], {}
    for size in sorted(sizes):
        share = conditions.image_size / size
        evaluation = evaluate_classifier(checkpoint.classifier, table, conditions, share)
        probabilities.append(evaluation.probabilities)
        accuracy[size] = dict(evaluation.metrics.values)
        yield f"{size:>5} px  " + "  ".join(f"{name} {value:.3f}" for name, value in accuracy[size].items())
    cosine = mean_cosine(np.stack(probabilities))
    pairs = len(sizes) * (len(sizes) - 1) // 2
    yield f"mean cosine of the probabilities of {pairs} pairs of sizes: {cosine:.3f}"
    record = {
        "weights": str(request.weights),
        "image_size": conditions.image_size,
        "pre_crops": accuracy,
        "mean_cosine": cosine,
    }
    if request.metrics_json is not None:
        write_json(request.metrics_json, record)
        yield f"metrics: {request.metrics_json}"
    return record


def mean_cosine(probabilities: np.ndarray) -> float:
    """Return the mean cosine of each two of (C, N, K) probabilities, over images that have an answer at all sizes; 1
    without such images.
    """
    lengths = np.linalg.norm(probabilities.astype(np.float64), axis=2, keepdims=True)  # (C, N, 1)
    answered = (lengths > 0).all(axis=(0, 2))
    unit = probabilities[:, answered] / lengths[:, answered]
    count = len(unit)
    # The square of the sum of C unit vectors is C, and twice the cosine of each pair.
    squares = (unit.sum(axis=0) ** 2).sum(axis=1)
    return float(((squares - count) / (count * (count - 1))).mean()) if answered.any() else 1.0


def _write(
    outputs: EvaluationOutputs,
    name: str,
    records: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    curves: dict[int, dict[str, float]],
    xlabel: str,
) -> Iterator[str]:
    """Write the records as JSON under ``name``, the rows as CSV, the curves as a picture: what of it was asked for."""
    if outputs.metrics_json is not None:
        write_json(outputs.metrics_json, {name: records})
        yield f"metrics: {outputs.metrics_json}"
    if outputs.pictures is not None:
        table = io.StringIO()
        writer = csv.DictWriter(table, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files = outputs.pictures / f"{name}.csv", outputs.pictures / f"{name}.png"
        write_text(files[0], table.getvalue())
        draw_curves(files[1], curves, xlabel)
        yield f"curve: {files[0]}, {files[1]}"
