"""The evaluation of a trained model as a function."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from detect.analysis.profile import MacCounter
from detect.config.data import DataConfig
from detect.curation.check.content import check_content
from detect.data.annotations import AnnotationTable, Problems
from detect.data.classification.datasets import open_class_split
from detect.data.classification.table import ClassTable
from detect.data.datasets import open_split
from detect.data.detection.classes import OBJECT, as_single_class
from detect.data.pixel_values import MAX_TILED_PIXELS
from detect.data.recognition import open_data
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation import detection
from detect.evaluation.classification import (
    ClassEvaluation,
    evaluate_class_network,
    evaluate_classifier,
    logits_of_probabilities,
)
from detect.evaluation.coco import Engine, warn_of_nothing_to_measure
from detect.evaluation.crowding import warn_of_crowding
from detect.evaluation.detection import DetectionOptions, Evaluation, evaluate_network
from detect.evaluation.html.report import Background, write_report
from detect.evaluation.loop import Conditions, log_class_differences
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import (
    class_metrics_record,
    class_table,
    coco_table,
    metrics_record,
    speed_line,
    tiles_table,
)
from detect.evaluation.tiling import TILED_COCO_SETTINGS, Tiling
from detect.inference.formats import num_bytes
from detect.inference.network import InferenceNetwork, is_exported, open_network
from detect.inference.tiles import warn_of_tiles
from detect.models.catalog import shipped_weights
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.model import ClassificationModel, DetectionModel
from detect.runtime.device import Precision, select_device
from detect.runtime.distributed import is_main_process, num_processes
from detect.runtime.logs import LOGGER
from detect.runtime.plugins import require_plugin
from detect.runtime.reproducibility import collect_provenance
from detect.runtime.threads import use_threads

Lines = Generator[str, None, dict[str, Any]]
"""Lines for people as they come; returns the content of the metrics file."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Arguments of an evaluation, named like the options of ``detect val``, where they are explained.

    Raises:
        InputError: options that exclude each other.
    """

    weights: Path
    data: str
    data_root: str | None = None
    split: str = "val"
    image_size: int | None = None
    batch_size: int = 16
    workers: int = 2
    device: str = "auto"
    precision: Precision = "fp32"
    threads: int = 0
    metrics_json: Path | None = None
    results_json: Path | None = None
    out: Path | None = None
    report: Path | None = None
    coco_engine: Engine | None = None
    areas: str | None = None
    max_det: int | None = None
    strict: bool = False
    tile: int | None = None
    overlap: float | None = None
    instances: bool = False
    cost: float | None = None
    baseline: Path | None = None
    crops: int | None = None

    def __post_init__(self) -> None:
        if self.baseline is not None and not self.instances:
            raise InputError("--baseline: belongs to --instances")
        if self.instances and num_processes() > 1:
            raise InputError("--instances: are measured, and timed, by one process; run it without torchrun")
        options = {
            "--results-json": self.results_json,
            "--report": self.report,
            "--tile": self.tile,
            "--max-det": self.max_det,
            "--crops": self.crops,
        }
        for option, value in options.items():
            if self.instances and value is not None:
                raise InputError(f"{option}: is of one network, not of --instances; --cost chooses one")
        if self.max_det is not None and self.max_det < 1:
            raise InputError(f"--max-det: must be at least 1, found {self.max_det}")
        if self.overlap is not None and self.tile is None:
            raise InputError("--overlap: belongs to --tile")

    @property
    def engine(self) -> Engine:
        """Library that computes AP."""
        return self.coco_engine or "pycocotools"


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
    device: str = "auto",
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
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        tile: evaluate with tiles of this side, in pixels of the image; the metrics without are in ``without_tiles``.

    Returns:
        The metrics by name, for example ``["AP"]`` or ``["top1"]``.

    Raises:
        InputError: an argument, a file or the data is wrong.
    """
    request = EvaluationRequest(
        Path(weights), fspath(data), split=split, image_size=image_size, batch_size=batch_size, device=device, tile=tile
    )
    lines = measure(request)
    while True:
        try:
            next(lines)
        except StopIteration as ended:
            return Metrics(ended.value)


def measure(request: EvaluationRequest) -> Lines:
    """Evaluate, and write the requested files.

    Processes of torchrun share out the images; the main one writes.
    """
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
        network, data, conditions = _open_exported(request, data)
        measured = _exported_detector(request, network)
    else:
        checkpoint, data, conditions = _checkpoint(request, data)
        if isinstance(checkpoint.model, ClassificationModel):
            raise InputError(f"{request.weights}: is a classifier, which finds no boxes")
        measured = _measured(checkpoint, conditions, request)
    table = open_split(data, request.split, request.strict)
    if not table.is_labelled:
        raise InputError(f"{request.data} {request.split}: has no annotations to compare with")
    names = conditions.names or table.names
    log_class_differences(names, table.names)
    return measured.evaluate(table, conditions, DetectionOptions(engine=request.engine)), names


def open_class_evaluation(request: EvaluationRequest) -> tuple[Checkpoint, ClassTable, Conditions]:
    """Open a classifier's checkpoint, a split and the conditions of an evaluation.

    Raises:
        InputError: the weights are a detector's, or an exported file.
    """
    if is_exported(request.weights):
        raise InputError(f"{request.weights}: is an exported file; here a classifier's checkpoint is needed")
    use_threads(request.threads)
    checkpoint, data, conditions = _checkpoint(request, open_data(request.data, request.data_root))
    if not isinstance(checkpoint.model, ClassificationModel):
        raise InputError(f"{request.weights}: is a detector; here a classifier is needed")
    return checkpoint, _open_classes(request, data, conditions), conditions


def _checkpoint(request: EvaluationRequest, data: DataConfig) -> tuple[Checkpoint, DataConfig, Conditions]:
    """Open a checkpoint on its device, with the data as it was trained on."""
    device = select_device(request.device)
    checkpoint = load_checkpoint(request.weights)
    checkpoint.model.to(device)
    data = as_trained(data, checkpoint.value_range)
    return checkpoint, data, _conditions(request, checkpoint.image_size, device, checkpoint.names)


def _measured(checkpoint: Checkpoint, conditions: Conditions, request: EvaluationRequest) -> _Measured:
    return _Measured(
        partial(detection.evaluate, checkpoint.detector),
        partial(_costs, checkpoint.detector, conditions.image_size, request.weights),
        checkpoint.tile_px,
    )


def _measure_checkpoint(request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs) -> Lines:
    checkpoint, data, conditions = _checkpoint(request, data)
    if request.cost is not None:
        checkpoint, line = choose_instance(checkpoint, request.cost)
        yield line
        conditions = _conditions(request, checkpoint.image_size, conditions.device, checkpoint.names)
    if request.instances:
        return (yield from _measure_instances(request, checkpoint, data, conditions, outputs))
    if isinstance(checkpoint.model, ClassificationModel):
        return (yield from _measure_classifier(request, checkpoint, data, conditions, outputs))
    measured = _measured(checkpoint, conditions, request)
    return (yield from _measure_detector(request, measured, data, conditions, outputs))


def _measure_exported(request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs) -> Lines:
    """Evaluate an exported file itself, as it will be used."""
    network, data, conditions = _open_exported(request, data)
    if network.is_classifier:
        return (yield from _measure_exported_classifier(request, network, data, conditions, outputs))
    measured = _exported_detector(request, network)
    return (yield from _measure_detector(request, measured, data, conditions, outputs))


def _open_exported(request: EvaluationRequest, data: DataConfig) -> tuple[InferenceNetwork, DataConfig, Conditions]:
    """Open an exported file, with the data as it was trained on."""
    for option, value in (("--instances", request.instances or None), ("--cost", request.cost)):
        if value is not None:
            raise InputError(f"{option}: is for checkpoints; {request.weights} is an exported file")
    network = open_network(request.weights, request.device, request.precision)
    data, device = as_trained(data, network.value_range), torch.device(network.device_name)
    return network, data, _conditions(request, network.check_size(request.image_size), device, network.names)


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


def _conditions(
    request: EvaluationRequest, image_size: int, device: torch.device, names: tuple[str, ...]
) -> Conditions:
    return Conditions(
        image_size=image_size if request.image_size is None else request.image_size,
        batch_size=request.batch_size,
        workers=request.workers,
        device=device,
        precision=request.precision,
        names=names,
        strict=request.strict,
    )


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
    about = _about(request, conditions)
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


def _measure_classifier(
    request: EvaluationRequest,
    checkpoint: Checkpoint,
    data: DataConfig,
    conditions: Conditions,
    outputs: EvaluationOutputs,
) -> Lines:
    table = _open_classes(request, data, conditions)
    model, crops = checkpoint.classifier, request.crops or 1
    evaluation = evaluate_classifier(model, table, conditions, checkpoint.center_crop, crops)
    return (yield from _class_results(request, evaluation, conditions, outputs, model))


def _measure_exported_classifier(
    request: EvaluationRequest,
    network: InferenceNetwork,
    data: DataConfig,
    conditions: Conditions,
    outputs: EvaluationOutputs,
) -> Lines:
    table = _open_classes(request, data, conditions)
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
    about = {**_about(request, conditions), "center_crop": evaluation.center_crop, "crops": request.crops or 1}
    yield from outputs.write_classes(evaluation, model, conditions.device, about)
    return class_metrics_record(evaluation, about)


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
        table = _open_classes(request, data, conditions)
    else:
        table = _open_boxes(request, data, outputs, conditions)
    about = {**_about(request, conditions), **collect_provenance()}
    title = f"{data.name} {request.split} at {conditions.image_size} px"
    record: dict[str, Any]
    record = yield from report.run(table, conditions, outputs, about, title=title, engine=request.engine)
    return record


def choose_instance(checkpoint: Checkpoint, cost: float) -> tuple[Checkpoint, str]:
    """Use the best instance of at most ``cost``, a share of the full cost, as the network.

    Returns the checkpoint with the image size of the instance, and a line about it.
    """
    chosen: tuple[Checkpoint, str] = require_plugin("cost_choices", "cost", "--cost")(checkpoint, cost)
    return chosen


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


def _open_classes(request: EvaluationRequest, data: DataConfig, conditions: Conditions) -> ClassTable:
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


def _about(request: EvaluationRequest, conditions: Conditions) -> dict[str, Any]:
    """Origin of the numbers."""
    about: dict[str, Any] = {"weights": str(request.weights), "data": request.data, "split": request.split}
    if request.cost is not None:
        about["cost"] = request.cost
    if request.areas is not None:
        about["areas"] = request.areas
    return about | {
        "image_size": conditions.image_size,
        "precision": request.precision,
        "device": str(conditions.device),
    }
