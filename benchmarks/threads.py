"""Time of the tools' work on an idle machine and beside busy processes, by the way threads wait and are counted.

python benchmarks/threads.py [--tasks predict onnx evaluate train load] [--busy 0 1 2] [--rounds 2]

Each measurement is a process of its own; its imports and its first seconds do not count. *spinning* is what PyTorch and
ONNX Runtime do when they are told nothing: a thread on each core, which spins while it waits. *one* has one thread.
*tool* is what the tools do. Cells are milliseconds of wall time for an image, the best of the rounds, and in brackets
their ratio to the task's best without busy processes. A measurement during which other programs used more than 0.3 of
a core is made again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from detect.runtime.startup import start_tool

if __name__ == "__main__" and sys.argv[1:3] == ["--child", "tool"]:
    start_tool()  # before torch is imported, as the tools do

import numpy as np
import psutil
import torch
from timing import busy_processes

from detect.cli.parser import positive_int
from detect.config.recipe import load_detection_recipe
from detect.data.datasets import open_split
from detect.data.recognition import open_data
from detect.evaluation.detection import evaluate
from detect.evaluation.loop import Conditions
from detect.exporting.onnx import export_onnx
from detect.inference.detector import Detector
from detect.inference.runtimes import onnx_runtime
from detect.models.checkpoint import load_checkpoint
from detect.runtime.cli import run_tool
from detect.runtime.threads import use_threads
from detect.training.detection import DetectionTask
from detect.training.detection_data import open_detection_data
from detect.training.loop import train
from detect.training.settings import RunSettings

SETTINGS = ("spinning", "one", "tool")
WEIGHTS = "yolov5n-spd-shapes"
IMAGE_HW = (432, 768)
WARM_UP_S, COUNTED_S = 5.0, 6.0
MAX_OTHERS = 0.3
CPU = torch.device("cpu")


def predict(weights: str) -> float:
    """Seconds of an image of a video."""
    detector = Detector(weights, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (*IMAGE_HW, 3), np.uint8)
    return _seconds_of(lambda: len(detector.predict([image])))


def evaluate_split(folder: Path) -> float:
    """Seconds of an image of a validation split, with its loader."""
    checkpoint = load_checkpoint(Path(WEIGHTS))
    table = open_split(open_data("shapes", str(folder / "shapes")), "val")

    def run() -> int:
        evaluate(checkpoint.detector, table, Conditions(192, batch_size=16, workers=1, device=CPU, progress=False))
        return len(table)

    return _seconds_of(run)


def train_epoch(folder: Path) -> float:
    """Seconds of an image in the second epoch of a training with one worker process."""
    data = open_data("shapes", str(folder / "shapes"))
    changes = {"epochs": 2, "batch_size": 8, "image_size": 128, "workers": 1, "evaluation.every": 2}
    recipe = load_detection_recipe("default", {**changes, "precision": "fp32"})
    with tempfile.TemporaryDirectory() as out:
        train(RunSettings(model="yolov5n", data=data, recipe=recipe, out=Path(out)))
        rows = list(csv.DictReader((Path(out) / "results.csv").open(encoding="utf-8")))
    return float(rows[-1]["time/epoch_s"]) / len(open_split(data, "train"))


def load(folder: Path) -> float:
    """Seconds of a training image that one worker process makes."""
    recipe = load_detection_recipe("default", {"image_size": 192, "batch_size": 8, "workers": 1})
    task = DetectionTask(
        open_detection_data(open_data("shapes", str(folder / "shapes")), strict=False), recipe, strict=False
    )
    loader = task.loader(task.prepare_model("yolov5n", None), folder)
    batches = (batch for number in itertools.count() for batch in loader.epoch(number))
    return _seconds_of(lambda: len(next(batches).images))


TASKS: dict[str, Callable[[Path], float]] = {
    "predict": lambda folder: predict(WEIGHTS),
    "onnx": lambda folder: predict(str(folder / "model.onnx")),
    "evaluate": evaluate_split,
    "train": train_epoch,
    "load": load,
}


def child(setting: str, task: str, folder: Path) -> None:
    """Run one task in one way and print its seconds of an image."""
    logging.getLogger("detect").setLevel(logging.ERROR)
    if setting != "tool":
        use_threads(1 if setting == "one" else torch.get_num_threads())
        onnx_runtime.SESSION_OPTIONS.clear()
    print(TASKS[task](folder))


def _seconds_of(run: Callable[[], int]) -> float:
    """Mean seconds of an image, of work that gives the number of its images."""
    for seconds in (WARM_UP_S, COUNTED_S):
        start, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds or not images:
            images += run()
    return elapsed / images


def measure(setting: str, task: str, busy: int, folder: Path) -> float:
    """Seconds of an image in a process of its own, on a machine that nothing else uses."""
    command = [sys.executable, __file__, "--child", setting, task, str(folder)]
    while True:
        before, started = _used_by_all(), time.monotonic()
        own = _used_by_children()
        with busy_processes(busy):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        own, seconds = _used_by_children() - own, time.monotonic() - started
        if done.returncode:
            raise RuntimeError(f"{setting} {task}: {done.stderr}")
        others = (_used_by_all() - before - own) / seconds
        if others <= MAX_OTHERS:
            return float(done.stdout)
        print(f"{task} {setting}: others used {others:.1f} cores; once more", file=sys.stderr, flush=True)


def _used_by_all() -> float:
    times = psutil.cpu_times()
    return float(sum(times)) - times.idle - getattr(times, "iowait", 0.0)


def _used_by_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description="time of the tools' work on idle and busy machines")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1, 2], help="busy processes")
    parser.add_argument("--rounds", type=positive_int, default=2)
    arguments = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {psutil.cpu_count()} cores, ms an image, ratio to the best with none busy")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        open_split(open_data("shapes", str(folder / "shapes")), "val")  # generates the data set
        export_onnx(load_checkpoint(Path(WEIGHTS)), folder / "model.onnx")
        print(f"{'task':<10}{'busy':>5}" + "".join(f"{setting:>18}" for setting in SETTINGS))
        for task in arguments.tasks:
            best_idle = 0.0
            for busy in arguments.busy:
                rounds = [[measure(way, task, busy, folder) for way in SETTINGS] for _ in range(arguments.rounds)]
                seconds = [min(column) for column in zip(*rounds, strict=True)]
                best_idle = best_idle or min(seconds)
                cells = [f"{1e3 * value:.1f} ({value / best_idle:.2f})" for value in seconds]
                print(f"{task:<10}{busy:>5}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        run_tool(main)
