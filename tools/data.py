"""Look after a data set for detection.

python tools/data.py check --data mine.yaml                                      what is wrong (exit code 0, 1 or 2)
python tools/data.py stats --data mine.yaml --image-size 640                     how large its boxes are; what follows
python tools/data.py convert --data mine.yaml --to yolo --out mine-yolo          another format; says what is lost
python tools/data.py split --data mine.yaml --ratios 0.8 0.1 0.1 --out parts     train, val and test with equal shares
python tools/data.py view --data mine.yaml --split val --out runs/view           its ground truth, drawn
"""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import argparse
import shlex
import sys
from pathlib import Path

from detect.config.data import DataConfig
from detect.config.recipe import DetectionRecipe
from detect.curation.advice import advise
from detect.curation.check import check_data, require_detection
from detect.curation.check_report import check_json, check_text
from detect.curation.convert import FORMATS, Conversion, convert
from detect.curation.split import Division, split_data
from detect.curation.statistics import figures, measure
from detect.curation.statistics_picture import draw_statistics
from detect.curation.statistics_report import statistics_text
from detect.curation.view import view_data
from detect.data.datasets import open_split
from detect.data.recognition import open_data
from detect.runtime.cli import ToolParser, non_negative_int, positive_int, run_tool
from detect.runtime.files import write_json


def main() -> None:
    """Parse, run the command."""
    parser = ToolParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_check(commands)
    add_stats(commands)
    add_convert(commands)
    add_split(commands)
    add_view(commands)
    args = parser.parse_args()
    args.run(args)


def add_check(commands: argparse._SubParsersAction[ToolParser]) -> None:
    """``check``: every problem of the annotations and the images."""
    about = "list every problem of the annotations and the images"
    parser = commands.add_parser("check", help=about, description=f"{about}; 0 clean, 1 warnings, 2 errors")
    add = parser.add_argument
    _add_data(parser)
    add("--split", nargs="+", metavar="S", help="splits of the data config (default: all)")
    add("--quick", action="store_true", help="look at the first and last bytes of images instead of decoding them")
    add("--workers", type=non_negative_int, default=2, metavar="N", help="processes that decode images (default: 2)")
    add("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> None:
    config = open_data(args.data, args.data_root)
    splits = list(dict.fromkeys(args.split or config.splits))
    report = check_data(config, splits, decode=not args.quick, workers=args.workers)
    if args.json:
        write_json(args.json, check_json(report))
    print(check_text(report), flush=True)
    sys.exit(report.exit_code)


def add_stats(commands: argparse._SubParsersAction[ToolParser]) -> None:
    """``stats``: sizes, classes and shapes, and what follows from them."""
    about = "measure the boxes and images of a split, and say what follows for training"
    parser = commands.add_parser("stats", help=about, description=about)
    add = parser.add_argument
    _add_data(parser)
    add("--split", metavar="S", help="split of the data config (default: train, if there is one)")
    size = DetectionRecipe.image_size
    add(
        "--image-size", type=positive_int, default=size, metavar="S", help=f"to be trained at, pixels (default: {size})"
    )
    add("--out", type=Path, metavar="DIR", help="draw the figures: DIR/stats.png")
    add("--json", type=Path, metavar="FILE", help="write figures and advice as JSON")
    parser.set_defaults(run=_stats)


def _stats(args: argparse.Namespace) -> None:
    config = open_data(args.data, args.data_root)
    require_detection(config)
    split = args.split or _first_split(config)
    statistics = measure(open_split(config, split), config.name, split, args.image_size)
    root = f" --data-root {shlex.quote(args.data_root)}" if args.data_root else ""
    advice = advise(statistics, f"--data {shlex.quote(args.data)}{root}")
    if args.out:
        draw_statistics(args.out / "stats.png", statistics)
    if args.json:
        write_json(args.json, {**figures(statistics), "advice": [one._asdict() for one in advice]})
    print(statistics_text(statistics, advice))


def _first_split(config: DataConfig) -> str:
    return "train" if "train" in config.splits else next(iter(config.splits))


def add_convert(commands: argparse._SubParsersAction[ToolParser]) -> None:
    """``convert``."""
    about = "write a data set in another format, and say what that cannot hold"
    parser = commands.add_parser("convert", help=about, description=about)
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


def add_split(commands: argparse._SubParsersAction[ToolParser]) -> None:
    """``split``."""
    about = "divide a split into train, val and test, every class in the same share"
    parser = commands.add_parser(
        "split", help=about, description=f"{about}; written as COCO JSON, images stay where they are"
    )
    _add_data(parser)
    add = parser.add_argument
    add("--from-split", default="train", metavar="NAME", help="what is divided (default: train)")
    add(
        "--ratios",
        nargs="+",
        type=float,
        required=True,
        metavar="R",
        help="shares of train and val, or train, val, test",
    )
    add("--seed", type=non_negative_int, default=0, metavar="N", help="decides among equals (default: 0)")
    add("--out", required=True, type=Path, metavar="DIR", help="a new folder, with data.yaml for --data")
    add(
        "--group",
        metavar="REGEX",
        help="images in whose names it finds the same stay together, such as '^[^_]+' for frames of a video",
    )
    _add_strict(parser)
    parser.set_defaults(run=_split)


def _split(args: argparse.Namespace) -> None:
    wanted = Division(args.from_split, tuple(args.ratios), args.out, args.seed, args.group, args.strict)
    for line in split_data(open_data(args.data, args.data_root), wanted):
        print(line)


def add_view(commands: argparse._SubParsersAction[ToolParser]) -> None:
    """``view``."""
    about = "draw the ground truth of some images, and a sheet of them all"
    parser = commands.add_parser("view", help=about, description=about)
    _add_data(parser)
    add = parser.add_argument
    add("--split", default="train", metavar="NAME", help="split of the data config (default: train)")
    add("--out", required=True, type=Path, metavar="DIR", help="where the pictures go; sheet.jpg shows all")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--count", type=positive_int, default=24, metavar="N", help="so many at random (default: 24)")
    which.add_argument("--images", nargs="+", default=(), metavar="NAME", help="these, with or without suffix")
    add("--seed", type=non_negative_int, default=0, metavar="N", help="chooses the images (default: 0)")
    parser.set_defaults(run=_view)


def _view(args: argparse.Namespace) -> None:
    config = open_data(args.data, args.data_root)
    for line in view_data(config, args.split, args.out, count=args.count, wanted=args.images, seed=args.seed):
        print(line)


def _add_data(parser: ToolParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE|DIR",
        help="a data config's file, its name in configs/data, a YOLO data.yaml, or a data set's folder",
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config"
    )


def _add_strict(parser: ToolParser) -> None:
    parser.add_argument(
        "--strict", action="store_true", help="refuse damaged images and boxes instead of leaving them out"
    )


if __name__ == "__main__":
    run_tool(main)
