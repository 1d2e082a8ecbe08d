"""Look after data sets: convert their format, divide them, draw their ground truth.

python tools/data.py convert --data mine --to yolo --out mine-yolo
python tools/data.py split --data mine.yaml --ratios 0.8 0.1 0.1 --out mine-split
python tools/data.py view --data mine.yaml --split val --out runs/view
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from detect.curation.convert import FORMATS, Conversion, convert
from detect.data.recognition import open_data
from detect.runtime.cli import ToolParser, run_tool

Commands = Any
"""What ``add_subparsers`` gives."""


def main() -> None:
    """Parse, run the command."""
    parser = ToolParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_convert(commands)
    args = parser.parse_args()
    args.run(args)


def add_convert(commands: Commands) -> None:
    """``convert``."""
    parser = commands.add_parser("convert", description="Write a data set in another format, nothing lost silently.")
    _add_data(parser)
    add = parser.add_argument
    add("--to", required=True, choices=FORMATS, help="the format")
    add("--out", required=True, type=Path, metavar="DIR", help="a new folder, with data.yaml for --data")
    add(
        "--images",
        choices=("copy", "link", "none"),
        default="copy",
        help="copy them (default), make hard links, which use no space but share their content, or leave them there",
    )
    add("--split", nargs="+", default=(), metavar="NAME", help="these splits (default: all)")
    _add_strict(parser)
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> None:
    wanted = Conversion(args.to, args.out, args.images, tuple(args.split), args.strict)
    for line in convert(open_data(args.data, args.data_root), wanted):
        print(line)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE|DIR",
        help="a data config's file, its name in configs/data, a YOLO data.yaml, or a data set's folder",
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config"
    )


def _add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strict", action="store_true", help="refuse damaged images and boxes instead of leaving them out"
    )


if __name__ == "__main__":
    run_tool(main)
