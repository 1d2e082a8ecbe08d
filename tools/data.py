"""Look at a data set for detection before training on it.

python tools/data.py check --data mine.yaml                      what is wrong with it; 0 clean, 1 warnings, 2 errors
python tools/data.py stats --data mine.yaml --image-size 640     how large its boxes are, and what follows from that
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from detect.config.loader import load_data_config
from detect.config.schema import DataConfig, DetectionRecipe
from detect.curation.advice import advise
from detect.curation.check import check_data, require_detection
from detect.curation.check_report import check_json, check_text
from detect.curation.statistics import figures, measure
from detect.curation.statistics_picture import draw_statistics
from detect.curation.statistics_report import statistics_text
from detect.data.datasets import open_split
from detect.runtime.cli import ToolParser, non_negative_int, positive_int, run_tool
from detect.runtime.files import write_json


def main() -> None:
    """Parse, and run the command."""
    parser = ToolParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_check(commands)
    add_stats(commands)
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
    config = load_data_config(args.data, args.data_root)
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
    config = load_data_config(args.data, args.data_root)
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


def _add_data(parser: ToolParser) -> None:
    add = parser.add_argument
    add("--data", required=True, metavar="NAME|FILE", help="a data config's file, or its name in configs/data")
    add("--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config")


if __name__ == "__main__":
    run_tool(main)
