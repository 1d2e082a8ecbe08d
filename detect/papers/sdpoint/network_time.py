"""How long a network takes for one image, several networks in turn.

Letters: H W network input pixels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from detect.evaluation.forward import evaluation_mode, run_classifier, run_network
from detect.models.classifier import ClassificationModel
from detect.models.detector import DetectionModel
from detect.models.model import Model
from detect.papers.sdpoint.transform import Instance, instance_of, use_instance
from detect.runtime.device import Precision
from detect.runtime.progress import progress_bar

MAX_ROUNDS, MIN_ROUNDS, ENOUGH_SECONDS = 51, 5, 20.0
"""Each network runs so often; less often, but as often as the second number says, once so many seconds have passed."""


@dataclass(frozen=True)
class NetworkRun:
    """What is timed.

    Args:
        model: on the device that times it.
        instance: of the model.
        image_hw: H and W, multiples of the model's ``max_reduction``.
    """

    model: Model
    instance: Instance
    image_hw: tuple[int, int]


def network_ms(runs: Sequence[NetworkRun], device: torch.device, precision: Precision = "fp32") -> list[float]:
    """Milliseconds of each network for one image: the median of its runs, after one that does not count.

    The time is that of the network with its decoding, from the image in memory; without reading, scaling and
    non-maximum suppression. Networks take turns, so that a machine that is slow for a while is slow for all.

    Args:
        runs: what to time; models run their instances of before afterwards.
        device: where.
        precision: number format of the networks.
    """
    before = {id(run.model): (run.model, instance_of(run.model)) for run in runs}
    seconds: list[list[float]] = [[] for _ in runs]
    with ExitStack() as modes:
        for model, _ in before.values():
            modes.enter_context(evaluation_mode(model))
        for run in runs:
            _seconds(run, device, precision)
        start = time.perf_counter()
        for number in progress_bar(range(MAX_ROUNDS), "milliseconds", unit="round"):
            if number >= MIN_ROUNDS and time.perf_counter() - start > ENOUGH_SECONDS:
                break
            for run, found in zip(runs, seconds, strict=True):
                found.append(_seconds(run, device, precision))
    for model, instance in before.values():
        use_instance(model, instance)
    return [1000 * median(found) for found in seconds]


def _seconds(run: NetworkRun, device: torch.device, precision: Precision) -> float:
    use_instance(run.model, run.instance)
    image = torch.full((1, *run.image_hw, 3), 128, dtype=torch.uint8)
    start = time.perf_counter()
    _forward(run.model, image, device, precision)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _forward(model: Model, image: Tensor, device: torch.device, precision: Precision) -> None:
    if isinstance(model, DetectionModel):
        run_network(model, image, device, precision)
    else:
        assert isinstance(model, ClassificationModel), "there are two kinds of models"
        run_classifier(model, image, device, precision)
