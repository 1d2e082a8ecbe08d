"""Measure a trained model on a split: ``python tools/evaluate.py --weights best.pt --data coco --split val``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.config.loader import load_data_config
from detect.config.schema import DataConfig
from detect.data.class_datasets import open_class_split
from detect.data.datasets import open_split
from detect.errors import InputError
from detect.evaluation.class_outputs import write_class_outputs
from detect.evaluation.class_report import metrics_table
from detect.evaluation.classification import evaluate_classifier
from detect.evaluation.engine import evaluate
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import coco_table, speed_line
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.classifier import ClassificationModel
from detect.runtime.cli import ToolParser, run_tool
from detect.runtime.device import select_device


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser(
        "Measure a trained model: a detector by the COCO metrics, a classifier by top-1 and top-5 accuracy."
    )
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="a checkpoint that tools/train.py wrote")
    add("--data", required=True, metavar="FILE", help="a data config's file, or its name in configs/data")
    add("--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config")
    add("--split", default="val", help="split of the data config (default: val)")
    add("--image-size", type=int, metavar="S", help="long side of the network input in pixels (default: as trained)")
    add("--batch-size", type=int, default=16, metavar="B", help="images per batch (default: 16)")
    add("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the network")
    add("--metrics-json", type=Path, metavar="F", help="write the metrics")
    add("--results-json", type=Path, metavar="F", help="write the detections (COCO results), or each image's top 5")
    add("--out", type=Path, metavar="DIR", help="draw what was found there: curves, the confusion matrix, examples")
    add("--coco-engine", choices=("pycocotools", "hotcoco"), help="what computes AP (default: pycocotools)")
    add("--strict", action="store_true", help="refuse data with damaged images or boxes instead of skipping them")
    return parser.parse_args()


def main() -> None:
    """Evaluate, print the table of metrics and write what was asked for."""
    args = parse_arguments()
    outputs = EvaluationOutputs(args.metrics_json, args.results_json, args.out)
    device = select_device(args.device)
    checkpoint = load_checkpoint(args.weights)
    checkpoint.model.to(device)
    data = load_data_config(args.data, args.data_root)
    settings: dict[str, Any] = {
        "image_size": checkpoint.image_size if args.image_size is None else args.image_size,
        "batch_size": args.batch_size,
        "workers": args.workers,
        "device": device,
        "precision": args.precision,
        "names": checkpoint.names,
        "strict": args.strict,
    }
    measure = _measure_classifier if isinstance(checkpoint.model, ClassificationModel) else _measure_detector
    for line in measure(args, checkpoint, data, settings, outputs):
        print(line)


def _measure_detector(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Iterator[str]:
    table = open_split(data, args.split, args.strict)
    outputs.check(table)
    evaluation = evaluate(checkpoint.detector, table, engine=args.coco_engine or "pycocotools", **settings)
    if evaluation.metrics is not None:
        yield coco_table(evaluation.metrics)
    yield speed_line(evaluation.speed_ms)
    yield from outputs.write(evaluation, _about(args, settings))


def _measure_classifier(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    data: DataConfig,
    settings: dict[str, Any],
    outputs: EvaluationOutputs,
) -> Iterator[str]:
    if args.coco_engine is not None:
        raise InputError(f"--coco-engine: is for detectors; {args.weights} is a classifier")
    table = open_class_split(data, args.split, args.strict)
    model, crop = checkpoint.classifier, checkpoint.center_crop
    evaluation = evaluate_classifier(model, table, center_crop=crop, **settings)
    yield metrics_table(evaluation.metrics)
    yield speed_line(evaluation.speed_ms)
    about = {**_about(args, settings), "center_crop": crop}
    yield from write_class_outputs(outputs, evaluation, model, settings["device"], about)


def _about(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Where the numbers come from."""
    about = {"weights": str(args.weights), "data": args.data, "split": args.split}
    return {**about, **{key: settings[key] for key in ("image_size", "precision")}, "device": str(settings["device"])}


if __name__ == "__main__":
    run_tool(main)
