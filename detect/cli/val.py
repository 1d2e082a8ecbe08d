"""Evaluate a trained model: a detector by the COCO metrics, a classifier by top-1 and top-5 accuracy.

detect val --weights runs/mine/best.pt --data my-data.yaml
detect val weights=yolov5n-spd-bccd data=bccd split=test
detect val --weights runs/mine/best.pt --data my-data.yaml --report runs/mine/report
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.cli.output import print_all, print_json
from detect.cli.parser import add_computing, add_data, add_json
from detect.errors import InputError
from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE|NAME",
        help="a checkpoint, an exported file, or a name in weights/",
    )
    add_data(parser)
    add("--split", default="val", help="split of the data config (default: val)")
    add(
        "--image-size",
        type=int,
        nargs="+",
        metavar="S",
        help="long side of the network input in pixels (default: as trained); of several, a curve as CSV and picture",
    )
    add(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="with several --image-size or with --instances: compare with this checkpoint, trained otherwise",
    )
    add("--batch-size", type=int, default=16, metavar="B", help="images per batch (default: 16)")
    add("--workers", type=int, default=2, metavar="N", help="processes that load images (default: 2)")
    add_computing(parser)
    _add_files(parser)
    _add_detector_options(parser)
    _add_classifier_options(parser)
    add_json(parser, "the metrics")
    _add_instances(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--metrics-json", type=Path, metavar="F", help="write the metrics")
    add("--results-json", type=Path, metavar="F", help="write the detections (COCO results), or each image's top 5")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="draw curves, the confusion matrix and examples of what was right and wrong there",
    )
    add(
        "--report",
        type=Path,
        metavar="DIR",
        help="of a detector: write DIR/index.html, with numbers by size and class, kinds of errors, the worst images",
    )


def _add_detector_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--coco-engine", choices=("pycocotools", "hotcoco"), help="AP implementation (default: pycocotools)")
    add(
        "--areas",
        choices=("file", "boxes"),
        help="area for AP_S, AP_M and AP_L: the annotation's (default, as pycocotools), or width x height of the box",
    )
    add(
        "--max-det",
        type=int,
        metavar="N",
        help="a second table with up to N detections per class and image; COCO's metrics count 100",
    )
    add("--strict", action="store_true", help="refuse data with damaged images or boxes instead of skipping them")
    add("--tile", type=int, metavar="SIZE", help="evaluate without and with tiles of SIZE pixels of the image")
    add(
        "--overlap",
        type=float,
        metavar="F",
        help="overlap of neighbouring tiles, as a share of the tile (default: 0.2)",
    )


def _add_classifier_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--crops",
        type=int,
        choices=(1, 10),
        help="of a classifier: mean of 10 crops, corners, middle and mirrored (default: 1)",
    )
    add(
        "--pre-crop",
        type=int,
        nargs="+",
        metavar="S",
        help="of a classifier: crops from images of several short sides, and how alike the answers are",
    )
    add("--exits", action="store_true", help="of a classifier with early exits: all of them, with their costs")


def _add_instances(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of models trained with SDPoint")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--instances",
        action="store_true",
        help="evaluate all instances and the plain network at lower image sizes, and store the table in the checkpoint",
    )
    which.add_argument(
        "--cost", type=float, metavar="SHARE", help="evaluate the best instance with at most this share of the cost"
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the table of metrics and write the files; only the main process prints."""
    with heavy_imports():
        from detect.api.evaluation import measure
        from detect.api.evaluation_request import EvaluationRequest
        from detect.api.evaluation_series import measure_exits, measure_pre_crops, measure_sizes
        from detect.runtime.distributed import init_distributed, is_main_process
    given = {
        name: value for name, value in vars(args).items() if name not in ("json", "image_size", "pre_crop", "exits")
    }
    sizes = args.image_size or [None]
    special = {"--pre-crop": args.pre_crop, "--exits": args.exits, "--instances": args.instances}
    chosen = [option for option, value in special.items() if value]
    if len(chosen) > 1:
        raise InputError(f"{chosen[0]}: does not go with {chosen[1]}")
    if chosen and len(sizes) > 1:
        raise InputError(f"{chosen[0]}: goes with one --image-size, found {len(sizes)}")
    request = EvaluationRequest(**given, image_size=sizes[0])
    with init_distributed():
        if args.pre_crop:
            lines = measure_pre_crops(request, args.pre_crop)
        elif args.exits:
            lines = measure_exits(request)
        else:
            lines = measure(request) if len(sizes) == 1 else measure_sizes(request, sizes)
        record = print_all(lines, is_json=args.json, is_silent=not is_main_process())
        if args.json and is_main_process():
            print_json(record)
