"""The evaluation of a classifier at each of its early exits: a table, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
from typing import Any

import torch

from detect.analysis.profile import profile_graph
from detect.api.evaluation import EvaluationRequest, Lines, open_class_evaluation
from detect.errors import InputError
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.pictures import draw_curves
from detect.models.graph import Graph
from detect.models.heads import ClassifyExits
from detect.models.model import ClassificationModel
from detect.runtime.files import write_json, write_text


def measure_exits(request: EvaluationRequest) -> Lines:
    """Evaluate a classifier with all images leaving at the same exit, for each exit.

    Writes ``exits.csv`` and ``exits.png`` to ``request.out``. Returns, after its lines, a record of each exit under
    ``exits``: ``exit`` (from 1, the last is the network's own), ``macs``, ``share`` of the network's own, ``top1``,
    ``top5``, ``loss``.

    Raises:
        InputError: the weights have no early exits.
    """
    for option, value in {"--results-json": request.results_json, "--crops": request.crops}.items():
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
    yield from _write(EvaluationOutputs(request.metrics_json, None, request.out), records)
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


def _write(outputs: EvaluationOutputs, records: list[dict[str, Any]]) -> Lines:
    if outputs.metrics_json is not None:
        write_json(outputs.metrics_json, {"exits": records})
        yield f"metrics: {outputs.metrics_json}"
    if outputs.pictures is not None:
        table = io.StringIO()
        writer = csv.DictWriter(table, records[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        files = outputs.pictures / "exits.csv", outputs.pictures / "exits.png"
        write_text(files[0], table.getvalue())
        # Of exits of one cost the best is drawn: it comes last and takes the place of the others.
        drawn = sorted(records, key=lambda one: (one["macs"], one["top1"]))
        curves = {round(100 * one["share"]): {"top1": one["top1"], "top5": one["top5"]} for one in drawn}
        draw_curves(files[1], curves, "multiply-adds, % of the network's own")
        yield f"curve: {files[0]}, {files[1]}"
    return {}
