"""Draw what a trained model sees: ``python tools/predict.py --weights best.pt --source photos video.mp4``."""

from __future__ import annotations

from detect.runtime.startup import start_tool

if __name__ == "__main__":
    start_tool()  # before the imports, which take seconds

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.errors import InputError
from detect.inference.class_outputs import ClassWriter
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.outputs import OutputOptions, PredictionWriter
from detect.inference.predictor import open_predictor
from detect.inference.run import classify_files, write_found
from detect.inference.sources import Source, expand_sources, image_paths
from detect.inference.window import Window
from detect.runtime.cli import THREADS_HELP, ToolParser, non_negative_int, run_tool
from detect.runtime.folders import held_folder
from detect.runtime.interruption import stop_requests
from detect.runtime.processes import dealt, is_first, joined
from detect.runtime.threads import use_threads

FLAG = {"action": "store_true", "default": None}
DETECTION_OPTIONS: dict[str, dict[str, Any]] = {
    "--conf": {"type": float, "metavar": "T", "help": "least score, from 0 to 1 (default: 0.25)"},
    "--iou": {"type": float, "metavar": "T", "help": "boxes of a class that overlap more are one (default: 0.6)"},
    "--max-det": {"type": int, "metavar": "N", "help": "most detections per image (default: 300)"},
    "--classes": {"nargs": "+", "metavar": "NAME|INDEX", "help": "keep these classes only"},
    "--class-agnostic": {**FLAG, "help": "boxes of different classes that overlap are one, too"},
    "--tile": {
        "type": int,
        "metavar": "SIZE",
        "help": "look at the image, of up to 537 million pixels, in tiles of SIZE, too",
    },
    "--overlap": {"type": float, "metavar": "F", "help": "share of a tile in common with the next (default: 0.2)"},
    "--every": {"type": int, "metavar": "N", "help": "look at each N-th frame of a video only (default: 1)"},
    "--track": {**FLAG, "help": "number the objects of videos; needs pip install -e '.[track]'"},
    "--save-txt": {**FLAG, "help": "write labels/*.txt: class cx cy w h score, as shares of the image"},
    "--save-csv": {**FLAG, "help": "write predictions.csv: a row for each detection"},
    "--save-crops": {**FLAG, "help": "write crops/CLASS/*.jpg: each detection cut out"},
    "--save-frames": {**FLAG, "help": "write frames/VIDEO/*.jpg: the frames of videos, without drawing"},
    "--show": {**FLAG, "help": "show what is found in a window; q ends"},
}
"""They stay None where they are not given, so that they can be refused for classifiers; ``Detector.stream`` has the
defaults."""

OUTPUTS = ("save_txt", "save_csv", "save_crops", "save_frames", "show")
"""Those of them that are not of ``Detector.stream``."""

BUDGETS: dict[str, dict[str, Any]] = {
    "--cost": {"metavar": "SHARE", "help": "use the best instance with at most this share of the full cost"},
    "--gflops": {"metavar": "G", "help": "or with at most G billion operations: 2 x multiply-adds of a square image"},
    "--target-ms": {"metavar": "MS", "help": "or whose network takes at most MS ms, timed on this machine first"},
}
"""The keywords of ``Detector.choose`` and ``Classifier.choose``."""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = ToolParser(
        "Draw what a trained model sees: a detector's boxes in images and videos, or a classifier's five best classes."
    )
    add = parser.add_argument
    add("--weights", required=True, type=Path, metavar="FILE|NAME", help="a checkpoint: a file, or one of weights/")
    add(
        "--source",
        required=True,
        nargs="+",
        metavar="SOURCE",
        help="what to look at: images, animations, videos, folders, patterns, .txt files with a path a line, rtsp:// "
        "or http:// addresses, numbers of cameras; several are allowed",
    )
    add(
        "--out", type=Path, default=Path("runs/predict"), metavar="DIR", help="where results go (default: runs/predict)"
    )
    add("--image-size", type=int, metavar="S", help="long side of the network input in pixels (default: as trained)")
    add("--batch-size", type=int, default=1, metavar="B", help="images of one shape per pass (default: 1)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the network")
    add("--threads", type=non_negative_int, default=0, metavar="N", help=THREADS_HELP)
    budgets = parser.add_argument_group(
        "of models that were trained with SDPoint and measured (evaluate.py --instances)"
    )
    budget = budgets.add_mutually_exclusive_group()
    for option, words in BUDGETS.items():
        budget.add_argument(option, type=float, **words)
    add("--save-json", action="store_true", help="write predictions.json: boxes or classes, with scores")
    detection = parser.add_argument_group("of detectors only")
    for option, words in DETECTION_OPTIONS.items():
        detection.add_argument(option, **words)
    return parser.parse_args()


@joined()
def main() -> None:
    """Predict, write and print one line per image. Processes of torchrun share out the sources."""
    args = parse_arguments()
    use_threads(args.threads)
    sources = expand_sources(args.source)
    predictor = open_predictor(args.weights, args.device, args.precision)
    if budget := _given(args, BUDGETS):
        print(predictor.choose(image_size=args.image_size, **budget).line())
    if isinstance(predictor, Classifier):
        lines = _classify(predictor, sources, args)
    else:
        lines = _detect(predictor, sources, args)
    with held_folder(args.out):
        for line in lines:
            print(line)


def _detect(detector: Detector, sources: list[Source], args: argparse.Namespace) -> Iterator[str]:
    if args.overlap is not None and args.tile is None:
        raise InputError("--overlap: belongs to --tile")
    options = {name: value for name, value in _given(args, DETECTION_OPTIONS).items() if name not in OUTPUTS}
    window = Window() if args.show else None
    own = dealt(sources)
    frames = detector.stream(own, batch_size=args.batch_size, image_size=args.image_size, **options) if own else []
    outputs = OutputOptions(
        json=args.save_json,
        csv=bool(args.save_csv),
        txt=bool(args.save_txt),
        crops=bool(args.save_crops),
        frames=bool(args.save_frames),
    )
    with stop_requests() as stop:
        with PredictionWriter(args.out, sources, outputs) as writer:
            yield from write_found(frames, writer, window, is_over=lambda: bool(stop))
        if is_first():
            yield from writer.summary()


def _classify(classifier: Classifier, sources: list[Source], args: argparse.Namespace) -> Iterator[str]:
    if given := _given(args, DETECTION_OPTIONS):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: of detectors only; {args.weights} is a classifier")
    paths = image_paths(sources)
    writer = ClassWriter(args.out, paths, json=args.save_json)
    own = dealt(paths)
    for prediction in classify_files(classifier, own, args.batch_size, args.image_size) if own else ():
        writer.add(prediction.path, prediction.image_rgb, prediction.classification)
        yield prediction.line()
    places = writer.finish()
    if is_first():
        yield from places


def _given(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Those of some options that are on the command line, by their names in ``args``."""
    names = [option.removeprefix("--").replace("-", "_") for option in options]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


if __name__ == "__main__":
    run_tool(main)
