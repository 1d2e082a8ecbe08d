"""Write a trained model as ONNX, or in another format, and check it in the runtime of the format.

detect export --weights runs/mine/best.pt
detect export weights=yolov5n-spd-bccd out=bccd.onnx nms=true
detect export --weights yolov5n-spd-bccd --int8 --data bccd --out bccd-int8.onnx
detect export --weights yolov5n-spd-bccd --format web --runtime onnxruntime-web-1.30.0.tgz --out page
detect export --weights yolov5n-spd-bccd --format openvino --out bccd.xml

The exit code is 3 if the outputs of the file differ from the model's, or if an INT8 file loses more than 0.01 AP.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detect.cli.output import print_json, print_lines
from detect.cli.parser import THREADS_HELP, add_json, non_negative_int, positive_int
from detect.errors import InputError
from detect.inference.runtimes.formats import FORMATS, ONNX
from detect.runtime.startup import heavy_imports

WEB = "web"
"""Format of a folder around an ONNX file."""
NOT_THE_MODEL = 3
"""Exit code of a parity failure."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE|NAME", help="a checkpoint: a file, or one of weights/")
    _add_format(parser)
    add("--image-size", type=positive_int, metavar="S", help="side of the network input (default: as trained)")
    add(
        "--dynamic",
        action=argparse.BooleanOptionalAction,
        help="any batch size, height and width (default); --no-dynamic: one square image",
    )
    add("--threads", type=non_negative_int, default=0, metavar="N", help=THREADS_HELP)
    add("--half", action="store_true", help="the network in half precision: half the size, for GPUs and NPUs")
    add("--opset", type=positive_int, default=18, metavar="N", help="ONNX operator set (default: %(default)s)")
    _add_paper_options(parser)
    add("--data", metavar="FILE|DIR", help="a data set: compare AP in ONNX Runtime with AP in PyTorch")
    add("--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config")
    add("--split", default="val", help="split of the data config (default: val)")
    add_json(parser, "the file and its parity with the model")
    _add_int8(parser)
    _add_outputs(parser)


def _add_format(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--format",
        choices=(*FORMATS, WEB),
        default=ONNX.name,
        help="format of the file, or web: a folder with a page that runs the detector in the browser (default: onnx)",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="the file (default: model.onnx, model.xml, ... beside the weights); with --instances or --format web a "
        "new folder (default: instances, web)",
    )
    add(
        "--runtime",
        type=Path,
        metavar="FILE|DIR",
        help="for --format web: the npm package onnxruntime-web, its folder or the .tgz of npm pack",
    )


def _add_paper_options(parser: argparse.ArgumentParser) -> None:
    """Options of models with a paper's method."""
    add = parser.add_argument
    add(
        "--masks",
        choices=("folded", "packed"),
        default="folded",
        help="storage of the binary weights of a model with bdsc: folded, as ordinary weights, or packed, 1 bit each: "
        "a smaller file, not a faster one; the runtime unpacks them on loading or at each run and computes the same "
        "convolutions (default: %(default)s)",
    )
    add(
        "--cost",
        type=float,
        metavar="SHARE",
        help="of a model trained with SDPoint: the best instance with at most this share of the full cost, for one "
        "square image",
    )
    add(
        "--instances",
        nargs="+",
        metavar="NAME",
        help="or several instances, or all of the Pareto fronts, as files of a folder that share their weights",
    )


def _add_int8(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("of INT8 files").add_argument
    add(
        "--int8",
        action="store_true",
        help="the network in 8 bits: a quarter of the size, faster on CPUs; needs --data, whose training images give "
        "the ranges of values, and on whose --split the file may lose 0.01 AP (a classifier: top-1) at most",
    )
    add("--calibration", type=positive_int, metavar="N", help="training images for the ranges (default: 64)")
    add(
        "--calibration-method",
        choices=("minmax", "entropy", "percentile"),
        help="choice of the ranges (default: minmax)",
    )
    add(
        "--weights-only",
        action="store_true",
        help="8 bits for the weights alone: a quarter of the size, as fast as in float; nothing is calibrated",
    )
    add("--report", action="store_true", help="list each layer with what it costs in 8 bits")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("of detectors only")
    add = group.add_argument
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--nms", action="store_true", help="include non-maximum suppression: the outputs are detections")
    kinds.add_argument(
        "--raw",
        action="store_true",
        help="raw maps of the head, one for each level, without decoding to boxes; the metadata describe the decoding",
    )
    add("--conf", type=float, metavar="T", help="with --nms: minimum score, from 0 to 1 (default: 0.25)")
    add("--iou", type=float, metavar="T", help="with --nms: IoU threshold (default: 0.6)")
    add("--max-det", type=int, metavar="N", help="with --nms: maximum detections per image (default: 300)")


def run(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.api.exporting import ExportRequest, run_export, run_web_export
        from detect.exporting.parity import ExportError
    if args.runtime is not None and args.format != WEB:
        raise InputError("--runtime: belongs to --format web")
    given = {name: value for name, value in vars(args).items() if name not in ("json", "runtime")}
    request = ExportRequest(**given | {"format": ONNX.name if args.format == WEB else args.format})
    try:
        exported = run_web_export(request, args.runtime) if args.format == WEB else run_export(request)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(NOT_THE_MODEL)
    print_lines(exported.lines, is_json=args.json)
    if args.json:
        print_json(exported.record)
