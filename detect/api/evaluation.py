"""The evaluation of a trained model as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from detect.analysis.profile import MacCounter
from detect.api.class_evaluation import measure_classifier, measure_exported_classifier, open_classes
from detect.api.evaluation_request import (
    EvaluationRequest,
    Lines,
    choose_instance,
    open_checkpoint,
    open_exported,
    origin_of,
)
from detect.config.data import DataConfig
from detect.curation.check.content import check_content
from detect.data.annotations import AnnotationTable, Problems
from detect.data.classification.table import ClassTable
from detect.data.datasets import open_split
from detect.data.detection.classes import OBJECT, as_single_class
from detect.data.pixel_values import MAX_TILED_PIXELS
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.evaluation import detection
from detect.evaluation.coco import warn_of_nothing_to_measure
from detect.evaluation.crowding import warn_of_crowding
from detect.evaluation.detection import DetectionOptions, Evaluation, evaluate_network
from detect.evaluation.html.report import Background, write_report
from detect.evaluation.loop import Conditions, log_class_differences
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import (
    coco_table,
    metrics_record,
    speed_line,
    tiles_table,
)
from detect.evaluation.tiling import TILED_COCO_SETTINGS, Tiling
from detect.inference.inputs import warn_of_tiles
from detect.inference.network import InferenceNetwork
from detect.inference.opening import is_exported
from detect.inference.runtimes.formats import num_bytes
from detect.models.catalog import shipped_weights
from detect.models.checkpoint import Checkpoint
from detect.models.model import ClassificationModel, DetectionModel
from detect.runtime.distributed import is_main_process
from detect.runtime.logs import LOGGER
from detect.runtime.plugins import require_plugin
from detect.runtime.reproducibility import collect_provenance
from detect.runtime.threads import use_threads


@dataclass(frozen=True)
class Metrics(Mapping[str, Any]):
    """Metrics of an evaluation, a mapping from their names.

    A detector has ``AP``, ``AP50``, ``AP75``, ``AP_S``, ``AP_M``, ``AP_L``, ``AR_1``, ... as pycocotools computes them
    (-1: no such object in the ground truth), a classifier ``top1``, ``top5`` and ``loss``; both have ``per_class``,
    ``images``, ``speed_ms`` and the settings of the evaluation, as in ``detect val --metrics-json``.

    Args:
        record: the content of the metrics file.
    """

    record: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.record[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.record)

    def __len__(self) -> int:
        return len(self.record)


def evaluate(
    weights: str | PathLike[str],
    data: str | PathLike[str],
    split: str = "val",
    *,
    image_size: int | None = None,
    batch_size: int = 16,
    device: str | int = "auto",
    tile: int | None = None,
) -> Metrics:
    """Evaluate a detector by the COCO metrics, a classifier by its accuracy. As ``detect val``.

    Example:
        ``evaluate("yolov5n-spd-bccd", "bccd", "test")["AP50"]``

    Args:
        weights: a checkpoint, an exported file, or a shipped name.
        data: a data config's file or name, a YOLO data.yaml, or a data set's folder.
        split: name of a split with annotations.
        image_size: long side of the network input in pixels; None: the training's.
        batch_size: images per batch.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, N or ``mps``.
        tile: evaluate with tiles of this side, in pixels of the image; the metrics without are in ``without_tiles``.

    Returns:
        The metrics by name, for example ``["AP"]`` or ``["top1"]``.

    Raises:
        InputError: an argument, a file or the data is wrong.
    """
    request = EvaluationRequest(
        Path(weights),
        fspath(data),
        split=split,
        image_size=image_size,
        batch_size=batch_size,
        device=str(device),
        tile=tile,
    )
    return Metrics(record_of(request))


def record_of(request: EvaluationRequest) -> dict[str, Any]:
    """Evaluate; return the record without its lines."""
    lines = measure(request)
    while True:
        try:
            next(lines)
        except StopIteration as ended:
            record: dict[str, Any] = ended.value
            return record


def measure(request: EvaluationRequest) -> Lines:
    """Evaluate, and write the requested files.

    Processes of torchrun share out the images; the main one writes.
    """
    if request.baseline is not None and not request.instances:
        raise InputError("--baseline: belongs to --instances or to several --image-size")
    use_threads(request.threads)
    places = (request.metrics_json, request.results_json, request.out, request.report)
    outputs = EvaluationOutputs(*places) if is_main_process() else EvaluationOutputs()
    measured = _measure_exported if is_exported(request.weights) else _measure_checkpoint
    return (yield from measured(request, open_data(request.data, request.data_root), outputs))


def evaluate_split(request: EvaluationRequest) -> tuple[Evaluation, tuple[str, ...]]:
    """Evaluate a detector on a split with annotations without any output; return the classes of the model as well.

    Raises:
        InputError: the weights are a classifier's, or the split has no annotations.
    """
    use_threads(request.threads)
    data = open_data(request.data, request.data_root)
    if is_exported(request.weights):
        network, data, conditions = open_exported(request, data)
        measured = _exported_detector(request, network)
    else:
        checkpoint, data, conditions = open_checkpoint(request, data)
        if isinstance(checkpoint.model, ClassificationModel):
            raise InputError(f"{request.weights}: is a classifier, which finds no boxes")
        measured = _measured(checkpoint, conditions, request)
    table = open_split(data, request.split, request.strict)
    if not table.is_labelled:
        raise InputError(f"{request.data} {request.split}: has no annotations to compare with")
    names = conditions.names or table.names
    log_class_differences(names, table.names)
    return measured.evaluate(table, conditions, DetectionOptions(engine=request.engine)), names


def _measured(checkpoint: Checkpoint, conditions: Conditions, request: EvaluationRequest) -> _Measured:
    return _Measured(
        partial(detection.evaluate, checkpoint.detector),
        partial(_costs, checkpoint.detector, conditions.image_size, request.weights),
        checkpoint.tile_px,
    )


def _measure_checkpoint(request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs) -> Lines:
    checkpoint, data, conditions = open_checkpoint(request, data)
    if request.cost is not None:
        checkpoint, line = choose_instance(checkpoint, request.cost, request.image_size)
        yield line
        conditions = replace(conditions, image_size=checkpoint.image_size)
    if request.instances:
        return (yield from _measure_instances(request, checkpoint, data, conditions, outputs))
    if isinstance(checkpoint.model, ClassificationModel):
        return (yield from measure_classifier(request, checkpoint, data, conditions, outputs))
    measured = _measured(checkpoint, conditions, request)
    return (yield from _measure_detector(request, measured, data, conditions, outputs))


def _measure_exported(request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs) -> Lines:
    """Evaluate an exported file itself, as it will be used."""
    network, data, conditions = open_exported(request, data)
    if network.is_classifier:
        return (yield from measure_exported_classifier(request, network, data, conditions, outputs))
    measured = _exported_detector(request, network)
    return (yield from _measure_detector(request, measured, data, conditions, outputs))


def _exported_detector(request: EvaluationRequest, network: InferenceNetwork) -> _Measured:
    if network.is_classifier:
        raise InputError(f"{request.weights}: is a classifier, which finds no boxes")
    if request.max_det is not None and request.max_det > (network.max_detections or request.max_det):
        raise InputError(
            f"--max-det: {request.weights} keeps {network.max_detections} detections of an image, "
            f"found {request.max_det}; export it with a larger --max-det"
        )
    evaluate_file = partial(evaluate_network, network.predictions, network.multiple)
    return _Measured(evaluate_file, partial(_file_size, request.weights), network.tile_px)


@dataclass(frozen=True)
class _Measured:
    """A detector to measure.

    Args:
        evaluate: evaluates a table.
        costs: names and values of its costs, for a report.
        tile_px: side of the tiles that it was trained on; 0: whole images.
    """

    evaluate: Callable[[AnnotationTable, Conditions, DetectionOptions], Evaluation]
    costs: Callable[[], dict[str, str]]
    tile_px: int


def _costs(model: DetectionModel, image_size: int, weights: Path) -> dict[str, str]:
    """Costs of a network as it is evaluated, on a square image."""
    counter = MacCounter(model.graph, model.head.num_classes)
    macs = counter.macs(model.graph.transform, (image_size, image_size))
    return {
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        f"multiply-adds at {image_size} x {image_size} px": f"{macs / 1e9:.3f} billion",
        **_file_size(weights),
    }


def _file_size(weights: Path) -> dict[str, str]:
    path = shipped_weights().get(str(weights), weights)
    return {"file": f"{num_bytes(path) / 1e6:.2f} MB"}


def _report(
    folder: Path, evaluation: Evaluation, about: dict[str, Any], data: DataConfig, costs: dict[str, str]
) -> str:
    """Write the report; return the line about it."""
    problems = Problems()
    problems.merge(evaluation.table.problems.found())
    check_content(evaluation.table, data, about["split"], problems)
    return f"report: {write_report(folder, evaluation, Background(about, costs, problems.summary()))}"


def _measure_detector(
    request: EvaluationRequest,
    measured: _Measured,
    data: DataConfig,
    conditions: Conditions,
    outputs: EvaluationOutputs,
) -> Lines:
    table = _open_boxes(request, data, outputs, conditions)
    warn_of_tiles(measured.tile_px, request.tile)
    options = DetectionOptions(engine=request.engine, limit=request.max_det)
    about = origin_of(request, conditions)
    if request.tile is None:
        evaluation = measured.evaluate(table, conditions, options)
        if evaluation.metrics is not None:
            yield coco_table(evaluation.metrics)
    else:
        tiling = Tiling(request.tile) if request.overlap is None else Tiling(request.tile, request.overlap)
        tiled_options = replace(options, tiling=tiling, settings=TILED_COCO_SETTINGS)
        evaluation = measured.evaluate(table, conditions, tiled_options)
        about |= asdict(tiling)
        if table.is_labelled:
            without = measured.evaluate(table, conditions, options)
            about["without_tiles"] = metrics_record(without, {"settings": asdict(without.settings)})
            yield tiles_table(without, evaluation, tiling)
    if evaluation.other_limit is not None:
        yield coco_table(evaluation.other_limit)
    if request.tile is None or not table.is_labelled:  # the table of tiles has the times
        yield speed_line(evaluation.speed_ms)
    yield from outputs.write(evaluation, about)
    if outputs.report is not None and evaluation.metrics is not None:
        yield _report(outputs.report, evaluation, about, data, measured.costs())
    about["settings"] = asdict(evaluation.settings)
    return about if evaluation.metrics is None else metrics_record(evaluation, about)


def _measure_instances(
    request: EvaluationRequest,
    checkpoint: Checkpoint,
    data: DataConfig,
    conditions: Conditions,
    outputs: EvaluationOutputs,
) -> Lines:
    report = require_plugin("instance_reports", "instances", "--instances")(
        request.weights, checkpoint, request.baseline
    )
    table: AnnotationTable | ClassTable
    if isinstance(checkpoint.model, ClassificationModel):
        table = open_classes(request, data, conditions)
    else:
        table = _open_boxes(request, data, outputs, conditions)
    about = {**origin_of(request, conditions), **collect_provenance()}
    title = f"{data.name} {request.split} at {conditions.image_size} px"
    record: dict[str, Any]
    record = yield from report.run(table, conditions, outputs, about, title=title, engine=request.engine)
    return record


def _open_boxes(
    request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs, conditions: Conditions
) -> AnnotationTable:
    if request.crops is not None:
        raise InputError(f"--crops: is for classifiers; {request.weights} is a detector")
    if request.tile is not None:
        data = replace(data, max_pixels=max(data.max_pixels, MAX_TILED_PIXELS))
    table = open_split(data, request.split, request.strict)
    if conditions.names == (OBJECT,) and OBJECT not in table.names:
        LOGGER.info("the detector has one class, %r: those of the data count as one", OBJECT)
        table = as_single_class(table)
    outputs.check(table)
    warn_of_nothing_to_measure(f"{request.data} {request.split}", table)
    if request.areas == "boxes":
        table = table.with_box_areas()
    if table.is_labelled:
        warn_of_crowding(f"{request.data} {request.split}", table, request.max_det)
    log_class_differences(conditions.names or table.names, table.names)
    return table
