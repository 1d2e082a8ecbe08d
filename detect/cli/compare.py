"""Draw predictions side by side: of two models beside the ground truth, or of one network at several costs.

detect compare --weights a.pt b.pt --data mine.yaml
detect compare --weights best.pt --source photo.jpg --costs 1.0 0.6 0.3

With --data: two detectors or two classifiers on a split with annotations. sheet.jpg shows the images where they differ
most, of detectors as the truth (blue), A (vermilion) and B (green): whole frames are right, dashed ones are wrong or,
in blue, objects that only the other model finds. compare.csv and compare.json list every difference.

With --source: a network that was trained with SDPoint and measured (detect val --instances). Milliseconds are the
network's alone for the image, the median of several interleaved runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_lines
from detect.cli.parser import add_computing, non_negative_int, positive_int
from detect.errors import InputError
from detect.runtime.startup import heavy_imports

DEFAULT_COSTS = (1.0, 0.6, 0.3)
DEFAULT_COUNT = 12
OF_A_SPLIT = ("data_root", "split", "count", "workers", "activations")
"""Options that belong to --data."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        nargs="+",
        type=Path,
        metavar="FILE|NAME",
        help="with --data two models, A and B; with --source a checkpoint with measured instances",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", metavar="FILE|DIR", help="compare two models: a data config or a data set's folder")
    what.add_argument("--source", nargs="+", metavar="IMAGE|FOLDER|GLOB", help="compare costs on these images")
    add("--data-root", metavar="DIR", help="with --data: the data set's folder, instead of the data config's")
    add("--split", metavar="NAME", help="with --data: split of the data config (default: val)")
    add("--count", type=positive_int, metavar="N", help="with --data: images on the sheet (default: 12)")
    add(
        "--activations",
        nargs="+",
        type=positive_int,
        metavar="S",
        help="with --data, of classifiers: draw class activation maps of both at these image sizes",
    )
    add("--workers", type=non_negative_int, metavar="N", help="with --data: processes that load images (default: 2)")
    add(
        "--costs",
        nargs="+",
        type=float,
        metavar="SHARE",
        help="with --source: shares of the full cost, a panel each (default: 1.0 0.6 0.3)",
    )
    add("--out", type=Path, metavar="DIR", help="where files go (default: runs/compare, with --source runs/costs)")
    add("--image-size", type=positive_int, metavar="S", help="long side of the network input (default: as trained)")
    add("--conf", type=float, metavar="T", help="of detectors: minimum score, from 0 to 1 (default: 0.25)")
    add_computing(parser)


def run(args: argparse.Namespace) -> None:
    (_compare_models if args.data else _compare_costs)(args)


def _compare_models(args: argparse.Namespace) -> None:
    if len(args.weights) != 2:
        raise InputError(f"--weights: --data compares two models, found {len(args.weights)}")
    if args.costs is not None:
        raise InputError("--costs: belongs to --source")
    with heavy_imports():
        from detect.api.comparing import compare
        from detect.api.evaluation_request import EvaluationRequest
        from detect.runtime.files import locked_folder
    optional = {name: getattr(args, name) for name in ("split", "workers") if getattr(args, name) is not None}
    names = ("data", "data_root", "image_size", "device", "precision", "threads")
    request = EvaluationRequest(args.weights[0], **{name: getattr(args, name) for name in names}, **optional)
    out = args.out or Path("runs/compare")
    weights = (args.weights[0], args.weights[1])
    with locked_folder(out):
        count = args.count or DEFAULT_COUNT
        print_lines(compare(request, weights, out, args.conf, count, args.activations or ()))


def _compare_costs(args: argparse.Namespace) -> None:
    if len(args.weights) != 1:
        raise InputError(f"--weights: --source compares the costs of one network, found {len(args.weights)} files")
    for name in OF_A_SPLIT:
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: belongs to --data")
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
    predictor = open_predictor(args.weights[0], args.device, args.precision)
    if args.conf is not None and isinstance(predictor, Classifier):
        raise InputError(f"--conf: of detectors only; {args.weights[0]} is a classifier")
    given = {"image_size": args.image_size, "conf": args.conf}
    options = {name: value for name, value in given.items() if value is not None}
    out = args.out or Path("runs/costs")
    with locked_folder(out):
        print_lines(write_cost_sheets(predictor, paths, args.costs or DEFAULT_COSTS, out, **options))
