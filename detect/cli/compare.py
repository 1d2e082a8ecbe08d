"""Draw images at several costs side by side, with the network's milliseconds and the detections of each instance.

detect compare --weights best.pt --source photo.jpg --costs 1.0 0.6 0.3

The model must be trained with SDPoint and measured (detect val --instances). Milliseconds are the network's alone for
the image, the median of several interleaved runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_lines
from detect.cli.parser import add_computing
from detect.errors import InputError
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="a checkpoint with measured instances")
    add("--source", required=True, nargs="+", metavar="IMAGE|FOLDER|GLOB", help="images; several are allowed")
    add(
        "--costs",
        nargs="+",
        type=float,
        default=[1.0, 0.6, 0.3],
        metavar="SHARE",
        help="shares of the full cost, a panel each",
    )
    add("--out", type=Path, default=Path("runs/costs"), metavar="DIR", help="where pictures go (default: runs/costs)")
    add("--image-size", type=int, metavar="S", help="long side of the network input in pixels (default: as trained)")
    add("--conf", type=float, metavar="T", help="of detectors: minimum score, from 0 to 1 (default: 0.25)")
    add_computing(parser)


def run(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.inference.classifier import Classifier
        from detect.inference.run import open_predictor
        from detect.inference.sources import expand_sources, image_paths
        from detect.runtime.files import locked_folder
        from detect.runtime.plugins import require_plugin
        from detect.runtime.threads import use_threads

        write_cost_sheets = require_plugin("cost_sheets", "images", "detect compare")
    use_threads(args.threads)
    paths = image_paths(expand_sources(args.source))
    predictor = open_predictor(args.weights, args.device, args.precision)
    if args.conf is not None and isinstance(predictor, Classifier):
        raise InputError(f"--conf: of detectors only; {args.weights} is a classifier")
    given = {"image_size": args.image_size, "conf": args.conf}
    options = {name: value for name, value in given.items() if value is not None}
    with locked_folder(args.out):
        print_lines(write_cost_sheets(predictor, paths, args.costs, args.out, **options))
