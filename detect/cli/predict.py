"""Run a trained model: draw a detector's boxes in images and videos, or a classifier's top five classes.

detect predict --weights runs/mine/best.pt --source photos video.mp4
detect predict weights=yolov5n-spd-bccd source=photo.jpg conf=0.4
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detect.cli.output import print_lines
from detect.cli.parser import add_computing
from detect.errors import InputError
from detect.runtime.startup import heavy_imports

if TYPE_CHECKING:
    from detect.inference.deadline import Deadline

FLAG = {"action": "store_true", "default": None}
LABEL_FORMS = ("coco", "yolo", "voc", "cvat", "label-studio")
DETECTION_OPTIONS: dict[str, dict[str, Any]] = {
    "--conf": {"type": float, "metavar": "T", "help": "minimum score, from 0 to 1 (default: 0.25)"},
    "--iou": {"type": float, "metavar": "T", "help": "IoU threshold of the non-maximum suppression (default: 0.6)"},
    "--max-det": {"type": int, "metavar": "N", "help": "maximum detections per image (default: 300)"},
    "--classes": {"nargs": "+", "metavar": "NAME|INDEX", "help": "keep these classes only"},
    "--class-agnostic": {**FLAG, "help": "suppress overlapping boxes of different classes as well"},
    "--tile": {
        "type": int,
        "metavar": "SIZE",
        "help": "predict in tiles of SIZE pixels as well, of images of up to 537 million pixels",
    },
    "--overlap": {
        "type": float,
        "metavar": "F",
        "help": "overlap of neighbouring tiles, as a share of the tile (default: 0.2)",
    },
    "--every": {"type": int, "metavar": "N", "help": "use every N-th frame of a video (default: 1)"},
    "--track": {**FLAG, "help": "track the objects of videos; needs pip install 'detect-small[track]'"},
    "--save-txt": {**FLAG, "help": "write labels/*.txt: class cx cy w h score, as shares of the image"},
    "--save-labels": {
        "choices": LABEL_FORMS,
        "help": "write labels to correct in a labelling tool, or to train on: coco.json, labels/*.txt and classes.txt "
        "(with the score as a sixth number if --save-txt is given, too), voc/*.xml, cvat.xml or label-studio.json",
    },
    "--save-csv": {**FLAG, "help": "write predictions.csv: a row for each detection"},
    "--save-crops": {**FLAG, "help": "write crops/CLASS/*.jpg: each detection cut out"},
    "--save-frames": {**FLAG, "help": "write frames/VIDEO/*.jpg: the frames of videos, without drawing"},
    "--show": {**FLAG, "help": "show the results in a window; q quits"},
}
"""None where not given, so that they can be refused for classifiers; ``Detector.stream`` has the defaults."""

OUTPUTS = ("save_txt", "save_labels", "save_csv", "save_crops", "save_frames", "show")
"""Options that ``Detector.stream`` does not have."""

BUDGETS: dict[str, dict[str, Any]] = {
    "--cost": {"metavar": "SHARE", "help": "use the best instance with at most this share of the full cost"},
    "--gflops": {"metavar": "G", "help": "or with at most G billion operations: 2 x multiply-adds of a square image"},
    "--target-ms": {"metavar": "MS", "help": "or whose network takes at most MS ms, timed on this machine first"},
}
"""Keywords of ``Detector.choose`` and ``Classifier.choose``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE|NAME", help="a checkpoint: a file, or one of weights/")
    add(
        "--source",
        required=True,
        nargs="+",
        metavar="SOURCE",
        help="images, animations, videos, folders, patterns, .txt files with a path a line, rtsp:// "
        "or http:// addresses, numbers of cameras; several are allowed",
    )
    add(
        "--out", type=Path, default=Path("runs/predict"), metavar="DIR", help="where results go (default: runs/predict)"
    )
    add("--image-size", type=int, metavar="S", help="long side of the network input in pixels (default: as trained)")
    add("--batch-size", type=int, default=1, metavar="B", help="images of one shape per pass (default: 1)")
    add_computing(parser)
    budgets = parser.add_argument_group("of models trained with SDPoint and measured (detect val --instances)")
    budget = budgets.add_mutually_exclusive_group()
    for option, words in BUDGETS.items():
        budget.add_argument(option, type=float, **words)
    budget.add_argument(
        "--deadline",
        type=float,
        metavar="MS",
        help="or, of detectors, choose it frame by frame, so that hardly a frame takes more than MS ms from pixels to "
        "boxes; a table of the instances' frames and times follows at the end",
    )
    add("--json", action="store_true", help="print each image or frame as a line of JSON; everything else on stderr")
    add("--save-json", action="store_true", help="write predictions.json: boxes or classes, with scores")
    detection = parser.add_argument_group("of detectors only")
    for option, words in DETECTION_OPTIONS.items():
        detection.add_argument(option, **words)


def run(args: argparse.Namespace) -> None:
    """Predict, write and print one line per image; the processes of torchrun share the sources."""
    with heavy_imports():
        from detect.inference.classifier import Classifier
        from detect.inference.inputs import warn_of_tiles
        from detect.inference.outputs import OutputOptions
        from detect.inference.run import PreviewWindow, classify_sources, detect_sources, open_predictor
        from detect.inference.sources import expand_sources
        from detect.runtime.distributed import init_distributed
        from detect.runtime.files import locked_folder
        from detect.runtime.threads import use_threads
    on_record = _print_record if args.json else None
    sizes = {"batch_size": args.batch_size, "image_size": args.image_size}
    with init_distributed():
        use_threads(args.threads)
        sources = expand_sources(args.source)
        predictor = open_predictor(args.weights, args.device, args.precision)
        if budget := _given(args, BUDGETS):
            print_lines([predictor.choose(image_size=args.image_size, **budget).line()], is_json=args.json)
        if isinstance(predictor, Classifier):
            _check_classifier(args)
            lines = classify_sources(predictor, sources, args.out, args.save_json, on_record, **sizes)
        else:
            options = _detector_options(args)
            outputs = OutputOptions(
                json=args.save_json,
                csv=bool(args.save_csv),
                txt=bool(args.save_txt),
                crops=bool(args.save_crops),
                frames=bool(args.save_frames),
                labels=args.save_labels,
                model=str(args.weights),
            )
            window = PreviewWindow() if args.show else None
            deadline = None if args.deadline is None else predictor.deadline(args.deadline)
            options |= {"deadline": deadline, **sizes}
            warn_of_tiles(predictor.network.tile_px, args.tile)
            lines = detect_sources(predictor, sources, args.out, outputs, window, on_record, **options)
            lines = lines if deadline is None else _with_times(lines, deadline)
        with locked_folder(args.out):
            print_lines(lines, is_json=args.json)


def _with_times(lines: Iterator[str], deadline: Deadline) -> Iterator[str]:
    yield from lines
    yield from deadline.lines()


def _detector_options(args: argparse.Namespace) -> dict[str, Any]:
    if args.overlap is not None and args.tile is None:
        raise InputError("--overlap: belongs to --tile")
    return {name: value for name, value in _given(args, DETECTION_OPTIONS).items() if name not in OUTPUTS}


def _check_classifier(args: argparse.Namespace) -> None:
    if given := _given(args, (*DETECTION_OPTIONS, "--deadline")):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: of detectors only; {args.weights} is a classifier")


def _print_record(record: dict[str, Any]) -> None:
    print(json.dumps(record, allow_nan=False))


def _given(args: argparse.Namespace, options: Iterable[str]) -> dict[str, Any]:
    """Return the given ones among some options, by their names in ``args``."""
    names = [option.removeprefix("--").replace("-", "_") for option in options]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}
