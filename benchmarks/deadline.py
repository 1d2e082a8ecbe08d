"""Frames of a video that come too late while other processes come and go: full network, dropped frames, slider.

python benchmarks/deadline.py --weights FILE --video FILE [--deadline MS] [--frames 400] [--busy 3] [--phase 4]

Of a checkpoint, or a folder of exported instances, with measured instances (``detect val --instances``). The frames
are in memory and arrive as from a camera, one each deadline. Each way sees the same frames beside the same load:
processes that keep a core busy, none and ``--busy`` of them in turn, for ``--phase`` seconds each. A frame is late if
it takes longer than the deadline from its pixels to its boxes. *full* works on every frame with the full network;
*drop* too, but leaves out the frames that arrived while it was late; *slider* is ``Detector.deadline``. Cost is the
mean share of the full network's multiply-adds of a frame that was worked on.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from timing import busy_processes

from detect.cli.parser import positive_int
from detect.errors import InputError
from detect.inference.deadline import FrameTimes
from detect.inference.detector import Detector
from detect.inference.sources import expand_sources
from detect.inference.stream import read_frames
from detect.runtime.cli import run_tool
from detect.runtime.threads import use_threads

SLACK = 1.5
"""Deadline without ``--deadline``: median time of the full network beside nothing, times this."""
WARM_UP = 10
TARGET, WHERE = 0.02, 0.30
"""Largest share of late frames of the slider, where at least this share of the full network's are late."""
Frame = Callable[[np.ndarray], float]
"""Works on a frame, (H, W, 3) uint8 RGB, and returns its cost."""


def main() -> None:
    """Measure the ways in turn and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", type=Path, required=True)
    add("--video", required=True)
    add("--deadline", type=float, metavar="MS")
    add("--frames", type=positive_int, default=400)
    add("--busy", type=positive_int, default=3, help="busy processes of a loaded phase (default: 3)")
    add("--phase", type=float, default=4.0, metavar="S", help="seconds of a phase (default: 4)")
    add("--conf", type=float, default=0.25, help="minimum score; false detections take time too (default: 0.25)")
    add("--threads", type=positive_int, default=1)
    args = parser.parse_args()
    use_threads(args.threads)
    detector = Detector(args.weights, device="cpu")
    frames = read_video(args.video, args.frames)
    full_ms = median(timed(lambda: detector.predict(frames[0], conf=args.conf)) for _ in range(WARM_UP))
    deadline_ms = SLACK * full_ms if args.deadline is None else args.deadline
    print(f"full network {full_ms:.1f} ms, deadline {deadline_ms:.1f} ms, {len(frames)} frames")
    print(f"{'way':<8}{'late':>8}{'dropped':>9}{'p50 ms':>9}{'p95 ms':>9}{'cost':>8}")
    deadline = detector.deadline(deadline_ms)

    def full(image: np.ndarray) -> float:
        detector.predict(image, conf=args.conf)
        return 1.0

    def slider(image: np.ndarray) -> float:
        deadline.run(lambda: detector.predict(image, conf=args.conf))
        return detector.cost

    late = {}
    for way, work, drops in (("full", full, False), ("drop", full, True), ("slider", slider, False)):
        detector.cost = 1
        work(frames[0])  # the slider's first frame runs each instance
        with load(args.busy, args.phase):
            late[way] = run_way(way, work, frames, deadline_ms, drops=drops)
    print("\n".join(deadline.lines()))
    is_met = late["slider"] <= TARGET and late["full"] >= WHERE
    print(f"at most {TARGET:.0%} late where the full network has at least {WHERE:.0%}: {'yes' if is_met else 'no'}")


def read_video(video: str, count: int) -> list[np.ndarray]:
    """The first frames of a video, from the start again where it has fewer."""
    found: list[np.ndarray] = []
    for frame in read_frames(expand_sources(video)):
        found.append(frame.image_rgb)
        if len(found) == count:
            break
    if not found:
        raise InputError(f"{video}: has no frame")
    return [found[n % len(found)] for n in range(count)]


def run_way(way: str, work: Frame, frames: list[np.ndarray], deadline_ms: float, *, drops: bool) -> float:
    """Work on frames that arrive one each deadline, and print a row; returns the share that is late or dropped."""
    times, costs, dropped = FrameTimes(), [], 0
    start, interval_s = time.perf_counter(), deadline_ms / 1000
    number = 0
    while number < len(frames):
        time.sleep(max(0.0, start + number * interval_s - time.perf_counter()))
        ms = timed(lambda: costs.append(work(frames[number])))  # noqa: B023  (called at once)
        times.add(ms, is_late=ms > deadline_ms)
        number += 1
        if drops:
            arrived = int((time.perf_counter() - start) / interval_s)
            dropped += max(0, min(arrived, len(frames)) - number)
            number = max(number, arrived)
    late, lost = times.late / len(frames), dropped / len(frames)
    row = f"{times.percentile(50):>9.1f}{times.percentile(95):>9.1f}{np.mean(costs):>8.3f}"
    print(f"{way:<8}{late:>8.1%}{lost:>9.1%}{row}", flush=True)
    return late + lost


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


@contextmanager
def load(busy: int, phase_s: float) -> Iterator[None]:
    """No busy processes and ``busy`` of them in turn, in another thread."""
    ended = threading.Event()

    def generate() -> None:
        while not ended.wait(phase_s):
            with busy_processes(busy):
                ended.wait(phase_s)

    generator = threading.Thread(target=generate)
    generator.start()
    try:
        yield
    finally:
        ended.set()
        generator.join()


if __name__ == "__main__":
    run_tool(main)
