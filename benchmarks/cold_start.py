"""Time to the first prediction of a fresh process, and of a later one, against ONNX Runtime alone.

python benchmarks/cold_start.py --weights FILE|NAME --source IMAGE [--before CHECKOUT] [--rounds 10]

The checkpoint is exported first. *alone* is the ``onnx_runner.py`` that users get: numpy, OpenCV and ONNX Runtime.
``--before`` adds another version of this toolkit with the same file. Fresh processes are started in turn; seconds are
those of wall and processor from the start to the end of a process, medians, and in brackets the ratio to *alone*.

A later prediction is timed in this process, in turn, with one thread: from an array, from the image file, *alone* from
the image file, and the session's run on the same network input.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
from timing import alternate

from detect.cli.parser import positive_int
from detect.data.images import read_image
from detect.data.letterbox import letterbox, pad_batch
from detect.exporting.onnx import export_onnx
from detect.exporting.onnx_runner import OnnxModel
from detect.inference.detector import Detector
from detect.inference.runtimes.exported import network_input
from detect.inference.runtimes.onnx_runtime import open_session
from detect.models.checkpoint import load_checkpoint
from detect.runtime.cli import run_tool
from detect.runtime.threads import use_threads

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "detect"
ALONE = "ONNX Runtime alone"
SESSION = "the session's run"
PREDICT = "import sys\nfrom detect import Detector\nDetector(sys.argv[1]).predict(sys.argv[2])"
RUN_ALONE = (
    "import sys\nimport cv2\nfrom onnx_runner import OnnxModel\nOnnxModel(sys.argv[1]).detect(cv2.imread(sys.argv[2]))"
)


class Start(NamedTuple):
    """A program, run in a fresh process.

    Args:
        code: Python, with the model and the image as arguments.
        weights: the model.
        place: folder that modules are imported from.
    """

    code: str
    weights: str
    place: Path


def seconds_of(start: Start, image: Path) -> tuple[float, float]:
    """Wall and processor seconds of a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(start.place)}
    before, begin = os.times(), time.perf_counter()
    command = [sys.executable, "-c", start.code, start.weights, str(image)]
    subprocess.run(command, env=environment, cwd=start.place, check=True, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begin, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, processor


def print_starts(starts: dict[str, Start], image: Path, rounds: int) -> None:
    """Time the programs in turn, after one round that does not count."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name, start in starts.items():
            seconds = seconds_of(start, image)
            if number:
                measured[name].append(seconds)
    medians = {name: [statistics.median(part) for part in zip(*found, strict=True)] for name, found in measured.items()}
    print("| a fresh process | wall s | processor s |\n|---|---|---|")
    for name, found in medians.items():
        cells = [f"{value:.2f} ({value / floor:.2f})" for value, floor in zip(found, medians[ALONE], strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


def print_later(model: Path, image: Path, rounds: int) -> None:
    """Time a later prediction in this process."""
    use_threads(1)
    detector = Detector(model, "cpu")
    session, _, _ = open_session(model, "cpu")
    pixels = read_image(image)
    scaled, _ = letterbox(pixels, detector.image_size)
    inputs = {"images": network_input(pad_batch([scaled], detector.network.multiple))}
    alone = OnnxModel(session)
    seconds = alternate(
        {
            SESSION: lambda: session.run(None, inputs),
            f"{ALONE}, of a file": lambda: alone.detect(cv2.imread(str(image))),
            "Detector, of an array": lambda: detector.predict(pixels),
            "Detector, of a file": lambda: detector.predict(image),
        },
        rounds,
    )
    height, width = scaled.shape[:2]
    print(f"\n| a later prediction, {width} x {height} | processor ms | ratio |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {1000 * value:.1f} | {value / seconds[SESSION]:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="time to the first prediction, and of a later one")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--source", required=True, type=Path, metavar="IMAGE")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another version of this toolkit")
    parser.add_argument("--rounds", type=positive_int, default=10)
    arguments = parser.parse_args()
    image = arguments.source.resolve()
    weights = str(arguments.weights.resolve() if arguments.weights.exists() else arguments.weights)
    checkpoint = load_checkpoint(arguments.weights)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        export_onnx(checkpoint, model)
        shutil.copy(PACKAGE / "exporting" / "onnx_runner.py", folder)
        starts = {
            ALONE: Start(RUN_ALONE, str(model), model.parent),
            "Detector, model.onnx": Start(PREDICT, str(model), ROOT),
            "Detector, checkpoint": Start(PREDICT, weights, ROOT),
        }
        if arguments.before:
            before = arguments.before.resolve()
            starts["before: Detector, model.onnx"] = Start(PREDICT, str(model), before)
            starts["before: Detector, checkpoint"] = Start(PREDICT, weights, before)
        print_starts(starts, image, arguments.rounds)
        print_later(model, image, 10 * arguments.rounds)


if __name__ == "__main__":
    run_tool(main)
