"""Write a trained model as ONNX and check it in ONNX Runtime: ``python tools/export.py --weights best.pt``."""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import argparse
import sys
from pathlib import Path
from typing import get_args

from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.recognition import open_data
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.engine import tell_classes
from detect.evaluation.predict import PredictSettings
from detect.export.onnx import export_onnx
from detect.export.options import DEFAULT_OPSET, ExportOptions, Masks
from detect.export.parity import ExportError
from detect.export.ship import ship_runner
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.papers.bdsc.onnx_masks import masks_note
from detect.papers.sdpoint.network import InstanceMenu
from detect.papers.sdpoint.transform import use_instance
from detect.runtime.cli import THREADS_HELP, ToolParser, non_negative_int, positive_int, run_tool
from detect.runtime.threads import use_threads

EXIT_NOT_THE_MODEL = 3


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser("Write a trained model as ONNX and check it in ONNX Runtime.")
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE|NAME", help="a checkpoint: a file, or one of weights/")
    add("--format", choices=("onnx",), default="onnx", help="format of the file (default: onnx)")
    add("--out", type=Path, metavar="FILE", help="the file (default: model.onnx beside the weights)")
    add("--image-size", type=positive_int, metavar="S", help="side of the network input (default: as trained)")
    add(
        "--dynamic",
        action=argparse.BooleanOptionalAction,
        help="any batch size, height and width, which is the default, or with --no-dynamic one square image",
    )
    add("--threads", type=non_negative_int, default=0, metavar="N", help=THREADS_HELP)
    add("--half", action="store_true", help="the network in half precision: half the size, for GPUs and NPUs")
    add(
        "--opset",
        type=positive_int,
        default=DEFAULT_OPSET,
        metavar="N",
        help="ONNX operator set (default: %(default)s)",
    )
    add(
        "--masks",
        choices=get_args(Masks),
        default="folded",
        help="how the binary weights of a model with bdsc are stored: folded, as ordinary ones, or packed, 1 bit each: "
        "a smaller file to keep and to send, not a faster one; the runtime unpacks them when it loads the file or at "
        "each run, and computes the same ordinary convolutions (default: %(default)s)",
    )
    add(
        "--cost",
        type=float,
        metavar="SHARE",
        help="of a model that was trained with SDPoint, the best instance with at most this share of the full cost, "
        "for one square image",
    )
    add("--data", metavar="FILE", help="a data config, to compare AP in ONNX Runtime with that in PyTorch as well")
    add("--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config")
    add("--split", default="val", help="split of the data config (default: val)")
    suppression = parser.add_argument_group("of detectors only")
    add = suppression.add_argument
    kinds = suppression.add_mutually_exclusive_group()
    kinds.add_argument(
        "--nms", action="store_true", help="non-maximum suppression inside the file, which then gives detections"
    )
    kinds.add_argument(
        "--raw",
        action="store_true",
        help="what the head says, a map for each level, not decoded to boxes; the metadata say how to decode it",
    )
    add("--conf", type=float, metavar="T", help="with --nms: least score, from 0 to 1 (default: 0.25)")
    add("--iou", type=float, metavar="T", help="with --nms: boxes of a class that overlap more are one (default: 0.6)")
    add("--max-det", type=int, metavar="N", help="with --nms: most detections per image (default: 300)")
    return parser.parse_args()


def main() -> None:
    """Export, compare, say where it is."""
    args = parse_arguments()
    use_threads(args.threads)
    out = args.out or args.weights.with_name("model.onnx")
    if out.resolve() == args.weights.resolve():
        raise InputError(f"--out {out}: is the checkpoint itself")
    suppression = _suppression(args)
    checkpoint = load_checkpoint(args.weights)
    if args.cost is not None:
        choice = InstanceMenu(checkpoint).within_share(args.cost)
        use_instance(checkpoint.model, choice.instance)
        print(choice.line())
    dynamic = not checkpoint.model.graph.transform.fixed_sizes if args.dynamic is None else args.dynamic
    options = ExportOptions(args.image_size, args.opset, args.masks, suppression, dynamic, args.half, args.raw)
    try:
        parity = export_onnx(checkpoint, out, options, _table(args, checkpoint))
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_THE_MODEL)
    size = args.image_size or checkpoint.image_size
    inputs = "any batch size, height and width" if dynamic else f"one image of {size} x {size} pixels"
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, opset {args.opset}, {inputs}")
    if note := masks_note(checkpoint.model, args.masks):
        print(note)
    print(parity.line())
    print(ship_runner(out))


def _table(args: argparse.Namespace, checkpoint: Checkpoint) -> AnnotationTable | None:
    """The split on which AP is compared."""
    if args.data is None:
        return None
    checkpoint.detector  # noqa: B018  # a classifier is refused before its images are looked for as boxes
    data = as_trained(open_data(args.data, args.data_root), checkpoint.value_range)
    table = open_split(data, args.split)
    tell_classes(checkpoint.names, table.names)
    if not table.is_labelled:
        raise InputError(f"--split {args.split}: has no annotations, so that there is no AP to compare")
    return table


def _suppression(args: argparse.Namespace) -> PredictSettings | None:
    names = {"conf": "score_threshold", "iou": "iou_threshold", "max_det": "max_detections"}
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if given and not args.nms:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: belongs to --nms; without it the file gives all predictions")
    return PredictSettings(**{names[name]: value for name, value in given.items()}) if args.nms else None


if __name__ == "__main__":
    run_tool(main)
