"""Measure a trained model on a split: ``python tools/evaluate.py --weights best.pt --data coco --split val``."""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from detect.config.data import DataConfig
from detect.data.class_datasets import open_class_split
from detect.data.datasets import open_split
from detect.data.pixel_values import MAX_TILED_PIXELS
from detect.data.recognition import open_data
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.class_outputs import write_class_outputs
from detect.evaluation.class_report import metrics_table
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.coco import warn_of_nothing_to_measure
from detect.evaluation.crowding import warn_of_crowding
from detect.evaluation.engine import Evaluation, evaluate, evaluate_network, tell_classes
from detect.evaluation.instance_metrics import ClassificationSplit, Conditions, DetectionSplit
from detect.evaluation.instance_outputs import file_stamp, store_records, write_comparison
from detect.evaluation.instance_report import comparison_table
from detect.evaluation.instances import compare_instances, instances_of
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import coco_table, metrics_record, speed_line
from detect.evaluation.tile_report import tiles_table
from detect.evaluation.tiling import TILED_COCO_SETTINGS, Tiling
from detect.inference.budget import InstanceMenu
from detect.inference.network import is_exported, open_network
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.classifier import ClassificationModel
from detect.runtime.cli import THREADS_HELP, ToolParser, non_negative_int, run_tool
from detect.runtime.device import select_device
from detect.runtime.processes import is_first, joined, num_processes
from detect.runtime.provenance import made_with
from detect.runtime.threads import use_threads


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser(
        "Measure a trained model: a detector by the COCO metrics, a classifier by top-1 and top-5 accuracy."
    )
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE|NAME",
        help="a checkpoint, an exported detector, or a name in weights/",
    )
    add(
        "--data",
        required=True,
        metavar="FILE",
        help="a data config's file or name, a YOLO data.yaml, or a data set's folder",
    )
    add("--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config")
    add("--split", default="val", help="split of the data config (default: val)")
    add("--image-size", type=int, metavar="S", help="long side of the network input in pixels (default: as trained)")
    add("--batch-size", type=int, default=16, metavar="B", help="images per batch (default: 16)")
    add("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the network")
    add("--threads", type=non_negative_int, default=0, metavar="N", help=THREADS_HELP)
    add("--metrics-json", type=Path, metavar="F", help="write the metrics")
    add("--results-json", type=Path, metavar="F", help="write the detections (COCO results), or each image's top 5")
    add("--out", type=Path, metavar="DIR", help="draw what was found there: curves, the confusion matrix, examples")
    add("--coco-engine", choices=("pycocotools", "hotcoco"), help="what computes AP (default: pycocotools)")
    add(
        "--areas",
        choices=("file", "boxes"),
        help="what AP_S, AP_M and AP_L go by: COCO's area as in the file (default, as pycocotools), or width x height",
    )
    add(
        "--max-det",
        type=int,
        metavar="N",
        help="a second table, with up to N detections of a class and image; COCO's metrics count 100",
    )
    add("--strict", action="store_true", help="refuse data with damaged images or boxes instead of skipping them")
    add("--tile", type=int, metavar="SIZE", help="measure without and with tiles of SIZE pixels of the image")
    add("--overlap", type=float, metavar="F", help="share of a tile in common with the next (default: 0.2)")
    sdpoint = parser.add_argument_group("of models that were trained with SDPoint")
    which = sdpoint.add_mutually_exclusive_group()
    which.add_argument(
        "--instances",
        action="store_true",
        help="measure all instances and the plain network at lower image sizes, and keep the table in the checkpoint",
    )
    which.add_argument(
        "--cost", type=float, metavar="SHARE", help="measure the best instance that has at most this share of the cost"
    )
    sdpoint.add_argument(
        "--baseline", type=Path, metavar="FILE", help="with --instances: compare with this checkpoint, trained without"
    )
    return parser.parse_args()


@joined()
def main() -> None:
    """Evaluate, print the table of metrics and write what was asked for.

    Processes of torchrun share out the images, and the first writes and prints.
    """
    args = parse_arguments()
    use_threads(args.threads)
    _check_options(args)
    wanted = (args.metrics_json, args.results_json, args.out) if is_first() else (None, None, None)
    outputs = EvaluationOutputs(*wanted)
    lines = _measure_exported if is_exported(args.weights) else _measure_checkpoint
    for line in lines(args, open_data(args.data, args.data_root), outputs):
        if is_first():
            print(line)


def _measure_checkpoint(args: argparse.Namespace, data: DataConfig, outputs: EvaluationOutputs) -> Iterator[str]:
    device = select_device(args.device)
    checkpoint = load_checkpoint(args.weights)
    checkpoint.model.to(device)
    data = as_trained(data, checkpoint.value_range)
    settings = _settings(args, checkpoint.image_size, device, checkpoint.names)
    if args.cost is not None:
        choice = InstanceMenu(checkpoint).within_share(args.cost)
        checkpoint.model.use_instance(choice.instance)
        yield choice.line()
    if args.instances:
        yield from _compare_instances(args, checkpoint, data, settings, outputs)
    elif isinstance(checkpoint.model, ClassificationModel):
        yield from _measure_classifier(args, checkpoint, data, settings, outputs)
    else:
        look = partial(evaluate, checkpoint.detector, precision=args.precision)
        yield from _measure_detector(args, look, data, settings, outputs)


def _measure_exported(args: argparse.Namespace, data: DataConfig, outputs: EvaluationOutputs) -> Iterator[str]:
    """The metrics of the file itself, as it will be used."""
    for option, value in (("--instances", args.instances or None), ("--cost", args.cost)):
        if value is not None:
            raise InputError(f"{option}: is for checkpoints; {args.weights} is an exported file")
    network = open_network(args.weights, args.device, args.precision)
    if network.is_classifier:
        raise InputError(f"{args.weights}: exported classifiers are not measured; measure the checkpoint")
    if args.max_det is not None and args.max_det > (network.max_detections or args.max_det):
        raise InputError(
            f"--max-det: {args.weights} keeps {network.max_detections} detections of an image, found {args.max_det}; "
            "export it with a larger --max-det"
        )
    data = as_trained(data, network.value_range)
    settings = _settings(args, network.check_size(args.image_size), network.device, network.names)
    look = partial(evaluate_network, network.predictions, network.multiple)
    yield from _measure_detector(args, look, data, settings, outputs)


def _settings(
    args: argparse.Namespace, image_size: int, device: torch.device, names: tuple[str, ...]
) -> dict[str, Any]:
    """The keywords that all evaluations have."""
    return {
        "image_size": image_size if args.image_size is None else args.image_size,
        "batch_size": args.batch_size,
        "workers": args.workers,
        "device": device,
        "names": names,
        "strict": args.strict,
    }


def _check_options(args: argparse.Namespace) -> None:
    if args.baseline is not None and not args.instances:
        raise InputError("--baseline: belongs to --instances")
    if args.instances and args.results_json is not None:
        raise InputError("--results-json: is of one network, not of --instances; --cost chooses one")
    if args.instances and num_processes() > 1:
        raise InputError("--instances: are measured, and timed, by one process; run it without torchrun")
    if args.instances and args.tile is not None:
        raise InputError("--tile: is of one network, not of --instances; --cost chooses one")
    if args.instances and args.max_det is not None:
        raise InputError("--max-det: is of one network, not of --instances; --cost chooses one")
    if args.max_det is not None and args.max_det < 1:
        raise InputError(f"--max-det: must be at least 1, found {args.max_det}")
    if args.overlap is not None and args.tile is None:
        raise InputError("--overlap: belongs to --tile")


def _measure_detector(
    args: argparse.Namespace,
    look: Callable[..., Evaluation],
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Iterator[str]:
    split = _open_boxes(args, data, outputs)
    tell_classes(settings["names"], split.table.names)
    look = partial(look, split.table, engine=split.engine, limit=args.max_det, **settings)
    if args.tile is not None:
        yield from _measure_in_tiles(args, look, split, _about(args, settings), outputs)
        return
    evaluation = look()
    if evaluation.metrics is not None:
        yield coco_table(evaluation.metrics)
    yield from _other_limit(evaluation)
    yield speed_line(evaluation.speed_ms)
    yield from outputs.write(evaluation, _about(args, settings))


def _measure_in_tiles(
    args: argparse.Namespace,
    look: Callable[..., Evaluation],
    split: DetectionSplit,
    about: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Iterator[str]:
    """The detections are those with tiles; of a labelled split the metrics without them stand beside."""
    tiling = Tiling(args.tile) if args.overlap is None else Tiling(args.tile, args.overlap)
    tiled = look(tiling=tiling, settings=TILED_COCO_SETTINGS)
    about = {**about, **asdict(tiling)}
    if split.table.is_labelled:
        without = look()
        yield tiles_table(without, tiled, tiling)
        yield from _other_limit(tiled)
        about["without_tiles"] = metrics_record(without, {"settings": asdict(without.settings)})
    else:
        yield speed_line(tiled.speed_ms)
    yield from outputs.write(tiled, about)


def _other_limit(evaluation: Evaluation) -> Iterator[str]:
    """The table of ``--max-det``, if it was asked for."""
    if evaluation.other_limit is not None:
        yield coco_table(evaluation.other_limit)


def _measure_classifier(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Iterator[str]:
    split = _open_classes(args, checkpoint, data)
    tell_classes(settings["names"], split.table.names)
    model = checkpoint.classifier
    evaluation = evaluate_classifier(
        model, split.table, center_crop=split.center_crop, precision=args.precision, **settings
    )
    yield metrics_table(evaluation.metrics)
    yield speed_line(evaluation.speed_ms)
    about = {**_about(args, settings), "center_crop": split.center_crop}
    yield from write_class_outputs(outputs, evaluation, model, settings["device"], about)


def _compare_instances(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Iterator[str]:
    count = len(instances_of(checkpoint, str(args.weights)).members)
    stamp = file_stamp(args.weights)
    baseline = None if args.baseline is None else (str(args.baseline), load_checkpoint(args.baseline))
    is_classifier = isinstance(checkpoint.model, ClassificationModel)
    split = _open_classes(args, checkpoint, data) if is_classifier else _open_boxes(args, data, outputs)
    tell_classes(checkpoint.names, split.table.names)
    conditions = Conditions(
        **{key: value for key, value in settings.items() if key != "names"}, precision=args.precision
    )
    about = {**_about(args, settings), **made_with()}
    if isinstance(split, ClassificationSplit):
        about["center_crop"] = split.center_crop
    comparison = compare_instances((str(args.weights), checkpoint), split, conditions, baseline, about)
    yield comparison_table(comparison)
    title = (
        f"{checkpoint.model.definition.name}, {count} instances: {data.name} {args.split} at {conditions.image_size} px"
    )
    yield store_records(args.weights, checkpoint, comparison, stamp)
    yield from write_comparison(outputs, comparison, title)


def _open_boxes(args: argparse.Namespace, data: DataConfig, outputs: EvaluationOutputs) -> DetectionSplit:
    if args.tile is not None:
        data = replace(data, max_pixels=max(data.max_pixels, MAX_TILED_PIXELS))
    table = open_split(data, args.split, args.strict)
    outputs.check(table)
    warn_of_nothing_to_measure(f"{args.data} {args.split}", table)
    if args.areas == "boxes":
        table = table.with_box_areas()
    if table.is_labelled:
        warn_of_crowding(f"{args.data} {args.split}", table, args.max_det)
    return DetectionSplit(table, args.coco_engine or "pycocotools")


def _open_classes(args: argparse.Namespace, checkpoint: Checkpoint, data: DataConfig) -> ClassificationSplit:
    for option, value in (
        ("--coco-engine", args.coco_engine),
        ("--tile", args.tile),
        ("--max-det", args.max_det),
        ("--areas", args.areas),
    ):
        if value is not None:
            raise InputError(f"{option}: is for detectors; {args.weights} is a classifier")
    return ClassificationSplit(open_class_split(data, args.split, args.strict), checkpoint.center_crop)


def _about(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Where the numbers come from."""
    about: dict[str, Any] = {"weights": str(args.weights), "data": args.data, "split": args.split}
    if args.cost is not None:
        about["cost"] = args.cost
    if args.areas is not None:
        about["areas"] = args.areas
    about |= {"image_size": settings["image_size"], "precision": args.precision, "device": str(settings["device"])}
    return about


if __name__ == "__main__":
    run_tool(main)
