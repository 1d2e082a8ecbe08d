"""Measure a trained model on a split: ``python tools/evaluate.py --weights best.pt --data coco --split val``."""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.config.loader import load_data_config
from detect.data.datasets import open_split
from detect.evaluation.engine import evaluate
from detect.evaluation.outputs import EvaluationOutputs
from detect.evaluation.report import coco_table, speed_line
from detect.models.checkpoint import load_checkpoint
from detect.runtime.cli import ToolParser, run_tool
from detect.runtime.device import select_device


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser("Measure a trained model by the COCO metrics.")
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
    add("--results-json", type=Path, metavar="F", help="write the detections in the COCO results format")
    add("--out", type=Path, metavar="DIR", help="draw precision-recall curves and the confusion matrix there")
    add("--coco-engine", choices=("pycocotools", "hotcoco"), default="pycocotools", help="what computes the metrics")
    add("--strict", action="store_true", help="refuse data with damaged images or boxes instead of skipping them")
    return parser.parse_args()


def main() -> None:
    """Evaluate, print the COCO table and write what was asked for."""
    args = parse_arguments()
    outputs = EvaluationOutputs(args.metrics_json, args.results_json, args.out)
    device = select_device(args.device)
    checkpoint = load_checkpoint(args.weights)
    table = open_split(load_data_config(args.data, args.data_root), args.split, args.strict)
    outputs.check(table)
    image_size = checkpoint.image_size if args.image_size is None else args.image_size
    evaluation = evaluate(
        checkpoint.model.to(device),
        table,
        image_size=image_size,
        batch_size=args.batch_size,
        workers=args.workers,
        device=device,
        precision=args.precision,
        engine=args.coco_engine,
        names=checkpoint.names,
        strict=args.strict,
    )
    about = {"weights": str(args.weights), "data": args.data, "split": args.split, "image_size": image_size}
    if evaluation.metrics is not None:
        print(coco_table(evaluation.metrics))
    print(speed_line(evaluation.speed_ms))
    for line in outputs.write(evaluation, {**about, "precision": args.precision, "device": str(device)}):
        print(line)


if __name__ == "__main__":
    run_tool(main)
