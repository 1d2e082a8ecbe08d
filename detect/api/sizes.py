"""The evaluation of a trained model at several image sizes: a table, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detect.api.evaluation import EvaluationRequest, Lines, measure
from detect.errors import InputError
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.pictures import draw_curves
from detect.runtime.distributed import is_main_process
from detect.runtime.files import write_json, write_text

METRICS = ("top1", "top5", "AP", "AP50", "AP_S", "AP_M", "AP_L")
"""Columns, as far as the model's task has them."""


def measure_sizes(request: EvaluationRequest, sizes: Sequence[int]) -> Lines:
    """Evaluate at each of several image sizes; write ``sizes.csv`` and ``sizes.png`` to ``request.out``.

    Returns, after its lines, the metrics of each size under ``sizes``.

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
        lines = measure(replace(request, image_size=size, metrics_json=None, out=None))
        while True:  # its own lines are of one size
            try:
                next(lines)
            except StopIteration as ended:
                records[size] = ended.value
                break
        yield f"{size:>5} px  " + "  ".join(f"{name} {value:.3f}" for name, value in _curve(records[size]).items())
    if is_main_process():
        yield from _write(outputs, records)
    return {"sizes": list(records.values())}


def _curve(record: dict[str, Any]) -> dict[str, float]:
    return {name: record[name] for name in METRICS if name in record}


def _write(outputs: EvaluationOutputs, records: dict[int, dict[str, Any]]) -> Lines:
    curves = {size: _curve(record) for size, record in records.items()}
    if outputs.metrics_json is not None:
        write_json(outputs.metrics_json, {"sizes": list(records.values())})
        yield f"metrics: {outputs.metrics_json}"
    if outputs.pictures is not None:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["image_size", *next(iter(curves.values()))])
        rows.writerows([size, *values.values()] for size, values in curves.items())
        files: list[Path] = [outputs.pictures / "sizes.csv", outputs.pictures / "sizes.png"]
        write_text(files[0], table.getvalue())
        draw_curves(files[1], curves, "image size in px")
        yield f"curve: {files[0]}, {files[1]}"
    return {}
