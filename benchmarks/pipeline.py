"""Frames per second of a video run whose steps work at the same time, against the steps alone and one after the other.

python benchmarks/pipeline.py --weights FILE|NAME --video FILE [--frames 100] [--rounds 3] [--pin]

*read*, *predict* and *write* are the steps of ``detect predict`` alone, the last one with drawing and encoding; *in
turn* is a loop over all three; *together* is ``detect predict`` itself. They take turns; a row has the median of the
rounds, and its ratio to the slowest step. The network has one thread; three steps at once need two cores or more.
Beside other work Linux may keep all threads on one core: ``--pin`` gives the network the first one, *together* the
second one for the other steps.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from detect.cli.parser import positive_int
from detect.errors import InputError
from detect.inference.detector import Detector
from detect.inference.outputs import OutputOptions, PredictionWriter
from detect.inference.run import detect_sources
from detect.inference.sources import expand_sources
from detect.inference.stream import FoundFrame, Frame, read_frames
from detect.inference.video import writing_video
from detect.runtime.cli import run_tool
from detect.runtime.threads import use_threads

STEPS = ("read", "predict", "write")
GOAL = 0.9
"""Rate of all steps together, as a share of the slowest step's."""


def main() -> None:
    """Time the ways in turn and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", type=Path, required=True)
    add("--video", type=Path, required=True)
    add("--frames", type=positive_int, default=100)
    add("--rounds", type=positive_int, default=3)
    add("--pin", action="store_true", help="the network on core 0, the other steps beside it on core 1 (Linux)")
    args = parser.parse_args()
    use_threads(1)
    detector = Pinned(args.weights, device="cpu") if args.pin else Detector(args.weights, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(detector, args.video, args.frames, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in ways.works}
        for _ in range(args.rounds):
            for name, work in ways.works.items():
                if args.pin:
                    os.sched_setaffinity(0, {1 if name == "together" else 0})  # threads that start later inherit it
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
    rates = {name: ways.num_frames / median(found) for name, found in seconds.items()}
    slowest = min(rates[step] for step in STEPS)
    for name, rate in rates.items():
        print(f"{name:<10}{rate:>8.1f} frames/s{rate / slowest:>8.2f}")
    is_met = rates["together"] >= GOAL * slowest
    print(f"together at least {GOAL} of the slowest step: {'yes' if is_met else 'no'}")


class Pinned(Detector):
    """A detector whose network stays on core 0 where it has a thread of its own."""

    def predict(self, *images: Any, **options: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            os.sched_setaffinity(0, {0})  # of this thread alone
        return super().predict(*images, **options)


class Ways:
    """The steps of a run, alone and together, on the first frames of a video.

    Args:
        detector: with the network.
        video: a file.
        count: number of frames at most.
        folder: of a copy of these frames, and of the results.
    """

    def __init__(self, detector: Detector, video: Path, count: int, folder: Path) -> None:
        self._detector, self._out, clip = detector, folder / "out", folder / "clip.mp4"
        frames = list(islice(read_frames(expand_sources(video)), count))
        if not frames or frames[0].clip is None:
            raise InputError(f"{video}: is no video")
        with writing_video(clip, frames[0].image_rgb.shape[:2], frames[0].clip.fps) as add:
            for frame in frames:
                add(frame.image_rgb, None)
        self._sources = expand_sources(clip)
        self._frames = list(read_frames(self._sources))
        self._found = [self._predict(frame) for frame in self._frames]
        self.num_frames = len(self._frames)
        self.works: dict[str, Callable[[], object]] = {
            "read": lambda: [None for _ in read_frames(self._sources)],
            "predict": lambda: [self._predict(frame) for frame in self._frames],
            "write": lambda: self._write(self._found),
            "in turn": lambda: self._write(self._predict(frame) for frame in read_frames(self._sources)),
            "together": lambda: list(detect_sources(detector, self._sources, self._out, OutputOptions())),
        }

    def _predict(self, frame: Frame) -> FoundFrame:
        return FoundFrame(**vars(frame), detections=self._detector.predict(frame.image_rgb))

    def _write(self, found: Iterable[FoundFrame]) -> None:
        with PredictionWriter(self._out, self._sources, OutputOptions()) as writer:
            for frame in found:
                writer.add(frame)


if __name__ == "__main__":
    run_tool(main)
