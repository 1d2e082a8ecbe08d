"""Write a trained model as ONNX and check it in ONNX Runtime: ``python tools/export.py --weights best.pt``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from detect.errors import InputError
from detect.export.masks import Masks, masks_note
from detect.export.onnx import DEFAULT_OPSET, export_onnx
from detect.export.parity import ExportError
from detect.models.checkpoint import load_checkpoint
from detect.runtime.cli import ToolParser, positive_int, run_tool

EXIT_NOT_THE_MODEL = 3


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser("Write a trained model as ONNX and check it in ONNX Runtime.")
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="a checkpoint that tools/train.py wrote")
    add("--format", choices=("onnx",), default="onnx", help="format of the file (default: onnx)")
    add("--out", type=Path, metavar="FILE", help="the file (default: model.onnx beside the weights)")
    add("--image-size", type=positive_int, metavar="S", help="side of the network input (default: as trained)")
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
    return parser.parse_args()


def main() -> None:
    """Export, compare, say where it is."""
    args = parse_arguments()
    out = args.out or args.weights.with_name("model.onnx")
    if out.resolve() == args.weights.resolve():
        raise InputError(f"--out {out}: is the checkpoint itself")
    checkpoint = load_checkpoint(args.weights)
    try:
        parity = export_onnx(checkpoint, out, args.image_size, args.opset, args.masks)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_THE_MODEL)
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, opset {args.opset}, any batch size, height and width")
    note = masks_note(checkpoint.model, args.masks)
    if note:
        print(note)
    print(parity.line())


if __name__ == "__main__":
    run_tool(main)
