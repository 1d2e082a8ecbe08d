"""Check, measure, convert, split and view a data set for detection.

detect data check --data mine.yaml                                      what is wrong (exit code 0, 1 or 2)
detect data stats --data mine.yaml --image-size 640                     sizes of its boxes; advice for training
detect data fix --data mine.yaml --out mended                           a copy without what can be mended for certain
detect data convert --data mine.yaml --to yolo --out mine-yolo          another format; lists the losses
detect data split --data mine.yaml --ratios 0.8 0.1 0.1 --out parts     train, val and test with equal shares
detect data review --weights best.pt --data mine.yaml --out review      labels that a model disagrees with
detect data view --data mine.yaml --split val --out runs/view           its ground truth, drawn
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from detect.cli.output import print_json, print_lines
from detect.cli.parser import STANDARD_OUTPUT, add_computing, add_data, non_negative_int, positive_int
from detect.runtime.startup import heavy_imports

FORMATS = ("coco", "yolo", "voc", "visdrone", "shards")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_check(commands)
    _add_fix(commands)
    _add_stats(commands)
    _add_convert(commands)
    _add_split(commands)
    _add_view(commands)
    _add_review(commands)


def run(args: argparse.Namespace) -> None:
    args.subcommand(args)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "list every problem of the annotations and the images"
    parser = commands.add_parser("check", help=about, description=f"{about}; 0 clean, 1 warnings, 2 errors")
    add = parser.add_argument
    add_data(parser)
    add("--split", nargs="+", metavar="S", help="splits of the data config (default: all)")
    add("--quick", action="store_true", help="look at the first and last bytes of images instead of decoding them")
    add("--workers", type=non_negative_int, default=2, metavar="N", help="processes that decode images (default: 2)")
    _add_json(parser, "the report")
    parser.set_defaults(subcommand=_check)


def _check(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.curation.check.run import check_data, check_json, check_text
        from detect.data.recognition import open_data
    config = open_data(args.data, args.data_root)
    splits = list(dict.fromkeys(args.split or config.splits))
    report = check_data(config, splits, decode=not args.quick, workers=args.workers)
    _write(args.json, check_text(report), check_json(report))
    sys.exit(report.exit_code)


def _add_fix(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "write a mended copy: only mends that are certain, in a table; the original stays as it is"
    parser = commands.add_parser("fix", help=about, description=about)
    add = parser.add_argument
    add_data(parser)
    add("--out", required=True, type=Path, metavar="DIR", help="a new folder, with data.yaml for --data")
    add("--images", choices=("copy", "link", "none"), default="copy", help="as of convert (default: copy)")
    add("--workers", type=non_negative_int, default=2, metavar="N", help="processes that decode images (default: 2)")
    parser.set_defaults(subcommand=_fix)


def _fix(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.curation.fix import Mending, fix_data
        from detect.data.recognition import open_data
    print_lines(fix_data(open_data(args.data, args.data_root), Mending(args.out, args.images, args.workers)))


def _add_stats(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "measure the boxes and images of a split, and give advice for training"
    parser = commands.add_parser("stats", help=about, description=about)
    add = parser.add_argument
    add_data(parser)
    add("--split", metavar="S", help="split of the data config (default: train, if there is one)")
    add("--image-size", type=positive_int, metavar="S", help="of the training, pixels (default: as recipes, 640)")
    add("--out", type=Path, metavar="DIR", help="draw the figures: DIR/stats.png")
    _add_json(parser, "figures and advice")
    parser.set_defaults(subcommand=_stats)


def _stats(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.config.recipe import DetectionRecipe
        from detect.curation.check.run import require_detection
        from detect.curation.stats.advice import advise
        from detect.curation.stats.report import draw_statistics, statistics_text
        from detect.curation.stats.statistics import figures, measure
        from detect.data.datasets import open_split
        from detect.data.recognition import open_data
    config = open_data(args.data, args.data_root)
    require_detection(config)
    split = args.split or ("train" if "train" in config.splits else next(iter(config.splits)))
    image_size = args.image_size or DetectionRecipe().image_size
    statistics = measure(open_split(config, split), config.name, split, image_size)
    root = f" --data-root {shlex.quote(args.data_root)}" if args.data_root else ""
    advice = advise(statistics, f"--data {shlex.quote(args.data)}{root}")
    if args.out:
        draw_statistics(args.out / "stats.png", statistics)
    record = {**figures(statistics), "advice": [one._asdict() for one in advice]}
    _write(args.json, statistics_text(statistics, advice), record)


def _add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "write a data set in another format, and list what that cannot hold"
    parser = commands.add_parser("convert", help=about, description=about)
    add_data(parser)
    add = parser.add_argument
    add("--to", required=True, choices=FORMATS, help="the format")
    add("--out", required=True, type=Path, metavar="DIR", help="a new folder, with data.yaml for --data")
    add(
        "--images",
        choices=("copy", "link", "none"),
        default="copy",
        help="copy them (default), make hard links, which use no space but share their content, or leave them in place",
    )
    add("--split", nargs="+", default=(), metavar="NAME", help="these splits (default: all)")
    _add_strict(parser)
    parser.set_defaults(subcommand=_convert)


def _convert(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.curation.convert import Conversion, convert
        from detect.data.recognition import open_data
    options = Conversion(args.to, args.out, args.images, tuple(args.split), args.strict)
    print_lines(convert(open_data(args.data, args.data_root), options))


def _add_split(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "divide a split into train, val and test, every class in the same share"
    parser = commands.add_parser(
        "split", help=about, description=f"{about}; written as COCO JSON, images stay where they are"
    )
    add_data(parser)
    add = parser.add_argument
    add("--from-split", default="train", metavar="NAME", help="the split to divide (default: train)")
    add(
        "--ratios",
        nargs="+",
        type=float,
        required=True,
        metavar="R",
        help="shares of train and val, or train, val, test",
    )
    add("--seed", type=non_negative_int, default=0, metavar="N", help="decides ties (default: 0)")
    add("--out", required=True, type=Path, metavar="DIR", help="a new folder, with data.yaml for --data")
    add(
        "--group",
        metavar="REGEX",
        help="images with the same match in their names stay together, such as '^[^_]+' for frames of a video",
    )
    _add_strict(parser)
    parser.set_defaults(subcommand=_split)


def _split(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.curation.split import Division, split_data
        from detect.data.recognition import open_data
    options = Division(args.from_split, tuple(args.ratios), args.out, args.seed, args.group, args.strict)
    print_lines(split_data(open_data(args.data, args.data_root), options))


def _add_view(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "draw the ground truth of some images, and a sheet of them all"
    parser = commands.add_parser("view", help=about, description=about)
    add_data(parser)
    add = parser.add_argument
    add("--split", default="train", metavar="NAME", help="split of the data config (default: train)")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the pictures; sheet.jpg shows all")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--count", type=positive_int, default=24, metavar="N", help="random images (default: 24)")
    which.add_argument("--images", nargs="+", default=(), metavar="NAME", help="these, with or without suffix")
    add("--seed", type=non_negative_int, default=0, metavar="N", help="of the random images (default: 0)")
    parser.set_defaults(subcommand=_view)


def _view(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.curation.view import view_data
        from detect.data.recognition import open_data
    config = open_data(args.data, args.data_root)
    print_lines(view_data(config, args.split, args.out, count=args.count, wanted=args.images, seed=args.seed))


def _add_review(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "list labels that a detector disagrees with: missing, extra, of the wrong class, with loose boxes"
    parser = commands.add_parser("review", help=about, description=f"{about}; and draw the strongest")
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE|NAME", help="a checkpoint or an exported detector")
    add_data(parser)
    add("--split", default="val", metavar="NAME", help="split of the data config (default: val)")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of review.csv, review.json and sheet.jpg")
    add("--conf", type=float, default=0.5, metavar="T", help="score that speaks against a label (default: 0.5)")
    add("--count", type=positive_int, default=48, metavar="N", help="pictures on the sheet (default: 48)")
    add("--image-size", type=positive_int, metavar="S", help="long side of the network input (default: as trained)")
    add("--workers", type=non_negative_int, default=2, metavar="N", help="processes that load images (default: 2)")
    add_computing(parser)
    parser.set_defaults(subcommand=_review)


def _review(args: argparse.Namespace) -> None:
    with heavy_imports():
        from detect.api.comparing import review
        from detect.api.evaluation_request import EvaluationRequest
    names = ("weights", "data", "data_root", "split", "image_size", "workers", "device", "precision", "threads")
    request = EvaluationRequest(**{name: getattr(args, name) for name in names})
    print_lines(review(request, args.out, args.conf, args.count))


def _add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strict", action="store_true", help="refuse damaged images and boxes instead of skipping them"
    )


def _add_json(parser: argparse.ArgumentParser, content: str) -> None:
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=STANDARD_OUTPUT,
        metavar="FILE",
        help=f"write {content} as JSON; without FILE on standard output",
    )


def _write(json: Path | None, text: str, record: dict[str, Any]) -> None:
    """Print a text; or JSON instead, or also JSON into a file."""
    if json == STANDARD_OUTPUT:
        print_json(record)
        return
    if json is not None:
        from detect.runtime.files import write_json

        write_json(json, record)
    print(text, flush=True)
