"""The evaluation of a classifier on a split."""

from __future__ import annotations

from detect.api.evaluation_request import (
    EvaluationRequest,
    Lines,
    open_checkpoint,
    origin_of,
)
from detect.config.data import DataConfig
from detect.data.classification.datasets import open_class_split
from detect.data.classification.table import ClassTable
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.evaluation.classification import (
    ClassEvaluation,
    evaluate_class_network,
    evaluate_classifier,
    logits_of_probabilities,
)
from detect.evaluation.loop import Conditions, log_class_differences
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import (
    class_metrics_record,
    class_table,
    speed_line,
)
from detect.inference.network import InferenceNetwork
from detect.inference.opening import is_exported
from detect.models.checkpoint import Checkpoint
from detect.models.model import ClassificationModel
from detect.runtime.threads import use_threads


def open_class_evaluation(request: EvaluationRequest) -> tuple[Checkpoint, ClassTable, Conditions]:
    """Open a classifier's checkpoint, a split and the conditions of an evaluation.

    Raises:
        InputError: the weights are a detector's, or an exported file.
    """
    if is_exported(request.weights):
        raise InputError(f"{request.weights}: is an exported file; here a classifier's checkpoint is needed")
    use_threads(request.threads)
    checkpoint, data, conditions = open_checkpoint(request, open_data(request.data, request.data_root))
    if not isinstance(checkpoint.model, ClassificationModel):
        raise InputError(f"{request.weights}: is a detector; here a classifier is needed")
    return checkpoint, open_classes(request, data, conditions), conditions


def open_classes(request: EvaluationRequest, data: DataConfig, conditions: Conditions) -> ClassTable:
    """Open a classifier's split; raise ``InputError`` for options of detectors."""
    for option, value in (
        ("--coco-engine", request.coco_engine),
        ("--tile", request.tile),
        ("--max-det", request.max_det),
        ("--areas", request.areas),
        ("--report", request.report),
    ):
        if value is not None:
            raise InputError(f"{option}: is for detectors; {request.weights} is a classifier")
    table = open_class_split(data, request.split, request.strict)
    log_class_differences(conditions.names or table.names, table.names)
    return table


def measure_classifier(
    request: EvaluationRequest,
    checkpoint: Checkpoint,
    data: DataConfig,
    conditions: Conditions,
    outputs: EvaluationOutputs,
) -> Lines:
    """Evaluate a checkpoint, and write the requested files."""
    table = open_classes(request, data, conditions)
    model, crops = checkpoint.classifier, request.crops or 1
    evaluation = evaluate_classifier(model, table, conditions, checkpoint.center_crop, crops)
    return (yield from _class_results(request, evaluation, conditions, outputs, model))


def measure_exported_classifier(
    request: EvaluationRequest,
    network: InferenceNetwork,
    data: DataConfig,
    conditions: Conditions,
    outputs: EvaluationOutputs,
) -> Lines:
    """Evaluate an exported file, and write the requested files."""
    table = open_classes(request, data, conditions)
    forward, crops = logits_of_probabilities(network.probabilities), request.crops or 1
    evaluation = evaluate_class_network(forward, network.multiple, table, conditions, network.center_crop, crops)
    return (yield from _class_results(request, evaluation, conditions, outputs))


def _class_results(
    request: EvaluationRequest,
    evaluation: ClassEvaluation,
    conditions: Conditions,
    outputs: EvaluationOutputs,
    model: ClassificationModel | None = None,
) -> Lines:
    """Write the results of a classifier; ``model`` is None for an exported file."""
    yield class_table(evaluation.metrics)
    yield speed_line(evaluation.speed_ms)
    about = {**origin_of(request, conditions), "center_crop": evaluation.center_crop, "crops": request.crops or 1}
    yield from outputs.write_classes(evaluation, model, conditions.device, about)
    return class_metrics_record(evaluation, about)
