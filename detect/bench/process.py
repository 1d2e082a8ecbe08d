"""Program of a fresh process that runs one file, and times each stage of each batch; it reads and writes JSON lines.

The first line names the file; each further one a batch size and images. PyTorch is imported for a checkpoint only, as
in a user's program.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detect.data.images import read_image
from detect.data.letterbox import letterbox, pad_batch
from detect.data.pixel_values import ReadSettings
from detect.errors import InputError
from detect.evaluation.postprocess import Predictions, PredictSettings, postprocess
from detect.inference.network import open_network
from detect.runtime.threads import use_threads
from detect.structures import Letterbox

STAGES = ("decode", "letterbox", "network", "suppression")
STATUS = Path("/proc/self/status")


class BenchNetwork(Protocol):
    """The part of ``InferenceNetwork`` that a measurement needs."""

    name: str
    names: tuple[str, ...]
    image_size: int
    multiple: int
    value_range: tuple[float, float] | None

    def predictions(self, images: np.ndarray) -> Predictions:
        """(B, H, W, 3) uint8 RGB to (B, P, 5 + K) float32."""
        ...


def open_bench_network(weights: str, is_foreign: bool, names: Sequence[str]) -> BenchNetwork:
    """Open a file on the CPU; ``names`` are the classes of the data, for one of another toolkit.

    Raises:
        InputError: the file is not usable, or a classifier.
    """
    if is_foreign:
        from detect.bench.foreign import ForeignNetwork

        return ForeignNetwork(Path(weights), tuple(names))
    network = open_network(weights, "cpu", "fp32")
    if network.is_classifier:
        raise InputError(f"{weights}: is a classifier; bench measures detectors")
    return network


def time_batch(network: BenchNetwork, paths: Sequence[str], settings: PredictSettings) -> list[float]:
    """Seconds of each of ``STAGES`` for a batch; images of one shape go through the network together, as in
    ``Detector``.
    """
    times = [time.perf_counter()]
    reading = ReadSettings(network.value_range)
    images = [read_image(Path(path), reading) for path in paths]
    times.append(time.perf_counter())
    groups: dict[tuple[int, ...], list[tuple[np.ndarray, Letterbox]]] = {}
    for image in images:
        placed = letterbox(image, network.image_size)
        groups.setdefault(placed[0].shape, []).append(placed)
    batches = [(pad_batch([image for image, _ in group], network.multiple), group) for group in groups.values()]
    times.append(time.perf_counter())
    found = [(network.predictions(batch), [placement for _, placement in group]) for batch, group in batches]
    times.append(time.perf_counter())
    for predictions, letterboxes in found:
        postprocess(predictions, letterboxes, settings, network.names)
    times.append(time.perf_counter())
    return np.diff(times).tolist()


def peak_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not say."""
    if not STATUS.is_file():
        return 0
    # Not getrusage: its peak begins with the memory of the process that started this one.
    found = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(found.split()[1])


def _answer(network: BenchNetwork, order: dict[str, Any]) -> dict[str, Any]:
    size, paths = order["batch"], order["images"]
    batches = [paths[start : start + size] for start in range(0, len(paths) - size + 1, size)]
    before = time.process_time()
    seconds = [time_batch(network, batch, PredictSettings()) for batch in batches]
    cpu_s = time.process_time() - before
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_bytes": peak_bytes()}


def main() -> None:
    """Serve the process that started this one until it closes standard input."""
    first = json.loads(sys.stdin.readline())
    use_threads(first["threads"])
    try:
        network = open_bench_network(first["weights"], first["is_foreign"], first["names"])
        _reply({"name": network.name})
        for line in sys.stdin:
            _reply(_answer(network, json.loads(line)))
    except InputError as error:
        _reply({"error": str(error)})


def _reply(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the process that started this one
    main()
