"""Measure accuracy and speed of detectors or classifiers in one run, each from the file that is shipped.

detect bench --weights yolov5n-spd-bccd bccd.onnx bccd-int8.onnx --data bccd
detect bench --weights bccd-int8.onnx --data bccd --batch 1 --threads 2 --out runs/bench
detect bench --weights runs/parts/best.pt parts.onnx --data parts.yaml

AP, or top1 and top5, are those of detect val. Each file runs in a fresh process; the processes work in turn.
Milliseconds are those of the wall, from the image file to the boxes, or to the classes' probabilities; compare files of
one run, not of two machines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_lines
from detect.cli.parser import add_data, positive_int
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        nargs="+",
        default=[],
        metavar="FILE|NAME",
        help="checkpoints, exported files, names in weights/",
    )
    add(
        "--compare",
        nargs="+",
        default=[],
        metavar="FILE",
        help="ONNX files of other toolkits with the output of a YOLO before suppression; the shape of the output says "
        "how it is read. Their classes are those that they name, or the data's",
    )
    add_data(parser)
    add("--split", default="val", help="split of the data (default: val)")
    add("--batch", nargs="+", type=positive_int, default=[1, 8], metavar="B", help="batch sizes (default: 1 8)")
    add("--threads", type=positive_int, default=1, metavar="N", help="computing threads (default: 1)")
    add("--images", type=positive_int, default=64, metavar="N", help="images that are timed (default: 64)")
    add("--out", type=Path, metavar="DIR", help="write the table, bench.csv with all percentiles, and a picture there")


def run(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.bench.run import BenchRequest, run_bench
    print_lines(run_bench(BenchRequest(**vars(args))))
