"""Prepare a checkpoint for publication: half precision, no training state, no paths of the machine.

detect ship --weights runs/mine/best.pt --out weights/mine.pt
detect ship --weights runs/mine/best.pt --out mine.safetensors

Every command reads both forms; the second has no pickle in it, and other programs can open it too.
It prints the rows of the model card that the file provides; weights/README.md lists the others. Evaluate the written
file: detect val --weights weights/mine.pt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detect.runtime.startup import heavy_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE", help="a checkpoint of detect train")
    add("--out", required=True, type=Path, metavar="FILE", help="the file to write: NAME.pt or NAME.safetensors")


def run(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.exporting.ship import ship_checkpoint
    rows = ship_checkpoint(args.weights, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB\n")
    print("\n".join(rows))
