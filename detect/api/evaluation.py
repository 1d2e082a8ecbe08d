"""The measurement of a trained model as a function."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable
from detect.data.classification.datasets import open_class_split
from detect.data.classification.table import ClassTable
from detect.data.datasets import open_split
from detect.data.pixel_values import MAX_TILED_PIXELS
from detect.data.recognition import open_data
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.class_outputs import write_class_outputs
from detect.evaluation.class_report import class_metrics_record, metrics_table
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.coco import Engine, warn_of_nothing_to_measure
from detect.evaluation.crowding import warn_of_crowding
from detect.evaluation.engine import Evaluation, evaluate_network, tell_classes
from detect.evaluation.engine import evaluate as evaluate_detector
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import coco_table, metrics_record, speed_line
from detect.evaluation.tile_report import tiles_table
from detect.evaluation.tiling import TILED_COCO_SETTINGS, Tiling
from detect.inference.network import is_exported, open_network
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.classifier import ClassificationModel
from detect.runtime.cpu import use_threads
from detect.runtime.device import Precision, select_device
from detect.runtime.distributed import is_main_process, num_processes
from detect.runtime.reproducibility import collect_provenance

Lines = Generator[str, None, dict[str, Any]]
"""Lines for people, as they come; returns the record of the metrics file."""


@dataclass(frozen=True)
class EvaluationRequest:
    """A measurement as a user asks for it; the names are those of the flags of ``detect val``, which explain them.

    Raises:
        InputError: wishes that contradict each other.
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
    coco_engine: Engine | None = None
    areas: str | None = None
    max_det: int | None = None
    strict: bool = False
    tile: int | None = None
    overlap: float | None = None
    instances: bool = False
    cost: float | None = None
    baseline: Path | None = None

    def __post_init__(self) -> None:
        if self.baseline is not None and not self.instances:
            raise InputError("--baseline: belongs to --instances")
        if self.instances and self.results_json is not None:
            raise InputError("--results-json: is of one network, not of --instances; --cost chooses one")
        if self.instances and num_processes() > 1:
            raise InputError("--instances: are measured, and timed, by one process; run it without torchrun")
        if self.instances and self.tile is not None:
            raise InputError("--tile: is of one network, not of --instances; --cost chooses one")
        if self.instances and self.max_det is not None:
            raise InputError("--max-det: is of one network, not of --instances; --cost chooses one")
        if self.max_det is not None and self.max_det < 1:
            raise InputError(f"--max-det: must be at least 1, found {self.max_det}")
        if self.overlap is not None and self.tile is None:
            raise InputError("--overlap: belongs to --tile")


@dataclass(frozen=True)
class Metrics(Mapping[str, Any]):
    """The result of a measurement.

    A detector has ``AP``, ``AP50``, ``AP75``, ``AP_S``, ``AP_M``, ``AP_L``, ``AR1``, ... as pycocotools computes them
    (-1: no such object in the ground truth), a classifier ``top1``, ``top5`` and ``loss``; both have ``per_class``,
    ``images``, ``speed_ms`` and the settings that were measured with, as in ``detect val --metrics-json``.

    Args:
        record: of all of them.
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
    """Measure a detector by the COCO metrics, a classifier by its accuracy. As ``detect val``.

    ``evaluate("yolov5n-spd-bccd", "bccd", "test")["AP50"]``

    Args:
        weights: a checkpoint, an exported detector, or a shipped name.
        data: a data config's file or name, a YOLO data.yaml, or a data set's folder.
        split: of the data, with annotations.
        image_size: long side of the network input in pixels; default, as trained.
        batch_size: images per batch.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        tile: measure in tiles of this many pixels of the image.

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
    """Measure, and write the files that are asked for.

    Processes of torchrun share out the images; the first one writes.
    """
    use_threads(request.threads)
    wanted = (request.metrics_json, request.results_json, request.out) if is_main_process() else (None, None, None)
    outputs = EvaluationOutputs(*wanted)
    lines = _measure_exported if is_exported(request.weights) else _measure_checkpoint
    return (yield from lines(request, open_data(request.data, request.data_root), outputs))


def _measure_checkpoint(request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs) -> Lines:
    device = select_device(request.device)
    checkpoint = load_checkpoint(request.weights)
    checkpoint.model.to(device)
    data = as_trained(data, checkpoint.value_range)
    settings = _settings(request, checkpoint.image_size, device, checkpoint.names)
    if request.cost is not None:
        yield choose_instance(checkpoint, request.cost)
    if request.instances:
        return (yield from _compare_instances(request, checkpoint, data, settings, outputs))
    if isinstance(checkpoint.model, ClassificationModel):
        return (yield from _measure_classifier(request, checkpoint, data, settings, outputs))
    look = partial(evaluate_detector, checkpoint.detector, precision=request.precision)
    return (yield from _measure_detector(request, look, data, settings, outputs))


def _measure_exported(request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs) -> Lines:
    """The metrics of the file itself, as it will be used."""
    for option, value in (("--instances", request.instances or None), ("--cost", request.cost)):
        if value is not None:
            raise InputError(f"{option}: is for checkpoints; {request.weights} is an exported file")
    network = open_network(request.weights, request.device, request.precision)
    if network.is_classifier:
        raise InputError(f"{request.weights}: exported classifiers are not measured; measure the checkpoint")
    if request.max_det is not None and request.max_det > (network.max_detections or request.max_det):
        raise InputError(
            f"--max-det: {request.weights} keeps {network.max_detections} detections of an image, "
            f"found {request.max_det}; export it with a larger --max-det"
        )
    data = as_trained(data, network.value_range)
    settings = _settings(request, network.check_size(request.image_size), network.device, network.names)
    look = partial(evaluate_network, network.predictions, network.multiple)
    return (yield from _measure_detector(request, look, data, settings, outputs))


def _settings(
    request: EvaluationRequest, image_size: int, device: torch.device, names: tuple[str, ...]
) -> dict[str, Any]:
    """The keywords that all evaluations have."""
    return {
        "image_size": image_size if request.image_size is None else request.image_size,
        "batch_size": request.batch_size,
        "workers": request.workers,
        "device": device,
        "names": names,
        "strict": request.strict,
    }


def _measure_detector(
    request: EvaluationRequest,
    look: Callable[..., Evaluation],
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Lines:
    table = _open_boxes(request, data, outputs)
    tell_classes(settings["names"], table.names)
    look = partial(look, table, engine=_engine(request), limit=request.max_det, **settings)
    if request.tile is not None:
        return (yield from _measure_in_tiles(request, look, table, _about(request, settings), outputs))
    evaluation = look()
    if evaluation.metrics is not None:
        yield coco_table(evaluation.metrics)
    yield from _other_limit(evaluation)
    yield speed_line(evaluation.speed_ms)
    about = _about(request, settings)
    yield from outputs.write(evaluation, about)
    return _record(evaluation, about)


def _measure_in_tiles(
    request: EvaluationRequest,
    look: Callable[..., Evaluation],
    table: AnnotationTable,
    about: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Lines:
    """The detections are those with tiles; of a labelled split the metrics without them stand beside."""
    assert request.tile is not None, "tiles were asked for"
    tiling = Tiling(request.tile) if request.overlap is None else Tiling(request.tile, request.overlap)
    tiled = look(tiling=tiling, settings=TILED_COCO_SETTINGS)
    about = {**about, **asdict(tiling)}
    if table.is_labelled:
        without = look()
        yield tiles_table(without, tiled, tiling)
        yield from _other_limit(tiled)
        about["without_tiles"] = metrics_record(without, {"settings": asdict(without.settings)})
    else:
        yield speed_line(tiled.speed_ms)
    yield from outputs.write(tiled, about)
    return _record(tiled, about)


def _record(evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """The content of the metrics file; of an unlabelled split only where it comes from."""
    about = {**about, "settings": asdict(evaluation.settings)}
    return about if evaluation.metrics is None else metrics_record(evaluation, about)


def _other_limit(evaluation: Evaluation) -> Iterator[str]:
    """The table of ``--max-det``, if it was asked for."""
    if evaluation.other_limit is not None:
        yield coco_table(evaluation.other_limit)


def _measure_classifier(
    request: EvaluationRequest,
    checkpoint: Checkpoint,
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Lines:
    table = _open_classes(request, data)
    tell_classes(settings["names"], table.names)
    model = checkpoint.classifier
    evaluation = evaluate_classifier(
        model, table, center_crop=checkpoint.center_crop, precision=request.precision, **settings
    )
    yield metrics_table(evaluation.metrics)
    yield speed_line(evaluation.speed_ms)
    about = {**_about(request, settings), "center_crop": checkpoint.center_crop}
    yield from write_class_outputs(outputs, evaluation, model, settings["device"], about)
    return class_metrics_record(evaluation, about)


def _compare_instances(
    request: EvaluationRequest,
    checkpoint: Checkpoint,
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Lines:
    from detect.papers.sdpoint import comparison as sdpoint  # a paper, which plain evaluations do without
    from detect.papers.sdpoint.metrics import ClassificationSplit, Conditions, DetectionSplit
    from detect.papers.sdpoint.outputs import file_stamp, store_records, write_comparison
    from detect.papers.sdpoint.report import comparison_record, comparison_table

    count = len(sdpoint.instances_of(checkpoint, str(request.weights)).members)
    stamp = file_stamp(request.weights)
    baseline = None if request.baseline is None else (str(request.baseline), load_checkpoint(request.baseline))
    about = {**_about(request, settings), **collect_provenance()}
    split: ClassificationSplit | DetectionSplit
    if isinstance(checkpoint.model, ClassificationModel):
        split = ClassificationSplit(_open_classes(request, data), checkpoint.center_crop)
        about["center_crop"] = split.center_crop
    else:
        split = DetectionSplit(_open_boxes(request, data, outputs), _engine(request))
    tell_classes(checkpoint.names, split.table.names)
    conditions = Conditions(
        **{key: value for key, value in settings.items() if key != "names"}, precision=request.precision
    )
    comparison = sdpoint.compare_instances((str(request.weights), checkpoint), split, conditions, baseline, about)
    yield comparison_table(comparison)
    where = f"{data.name} {request.split} at {conditions.image_size} px"
    title = f"{checkpoint.model.definition.name}, {count} instances: {where}"
    yield store_records(request.weights, checkpoint, comparison, stamp)
    yield from write_comparison(outputs, comparison, title)
    return comparison_record(comparison)


def choose_instance(checkpoint: Checkpoint, cost: float) -> str:
    """Make the best instance that has at most this share of the cost the model's network.

    Args:
        checkpoint: with measured instances.
        cost: share of the full cost, in (0, 1].

    Returns:
        A line that says which one it is.

    Raises:
        InputError: there is none.
    """
    from detect.papers.sdpoint.network import InstanceMenu
    from detect.papers.sdpoint.transform import use_instance

    choice = InstanceMenu(checkpoint).within_share(cost)
    use_instance(checkpoint.model, choice.instance)
    return choice.line()


def _engine(request: EvaluationRequest) -> Engine:
    return request.coco_engine or "pycocotools"


def _open_boxes(request: EvaluationRequest, data: DataConfig, outputs: EvaluationOutputs) -> AnnotationTable:
    if request.tile is not None:
        data = replace(data, max_pixels=max(data.max_pixels, MAX_TILED_PIXELS))
    table = open_split(data, request.split, request.strict)
    outputs.check(table)
    warn_of_nothing_to_measure(f"{request.data} {request.split}", table)
    if request.areas == "boxes":
        table = table.with_box_areas()
    if table.is_labelled:
        warn_of_crowding(f"{request.data} {request.split}", table, request.max_det)
    return table


def _open_classes(request: EvaluationRequest, data: DataConfig) -> ClassTable:
    for option, value in (
        ("--coco-engine", request.coco_engine),
        ("--tile", request.tile),
        ("--max-det", request.max_det),
        ("--areas", request.areas),
    ):
        if value is not None:
            raise InputError(f"{option}: is for detectors; {request.weights} is a classifier")
    return open_class_split(data, request.split, request.strict)


def _about(request: EvaluationRequest, settings: dict[str, Any]) -> dict[str, Any]:
    """The origin of the numbers."""
    about: dict[str, Any] = {"weights": str(request.weights), "data": request.data, "split": request.split}
    if request.cost is not None:
        about["cost"] = request.cost
    if request.areas is not None:
        about["areas"] = request.areas
    about |= {"image_size": settings["image_size"], "precision": request.precision, "device": str(settings["device"])}
    return about
