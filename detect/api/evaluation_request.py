"""Options of an evaluation, and the model, the data and the conditions that they name."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from detect.config.data import DataConfig
from detect.data.value_range import as_trained
from detect.errors import InputError
from detect.evaluation.coco import Engine
from detect.evaluation.loop import Conditions
from detect.inference.inputs import checked_size
from detect.inference.network import InferenceNetwork
from detect.inference.opening import open_network
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.runtime.device import Precision, select_device
from detect.runtime.distributed import num_processes
from detect.runtime.plugins import require_plugin

Lines = Generator[str, None, dict[str, Any]]
"""Lines for people as they come; returns the content of the metrics file."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Arguments of an evaluation, named like the options of ``detect val``, where they are explained.

    Raises:
        InputError: options that exclude each other.
    """

    weights: Path
    data: str
    data_root: str | None = None
    split: str = "val"
    image_size: int | None = None
    batch_size: int = 16
    workers: int = 2
    device: str = "auto"
    precision: Precision = "fp32"
    threads: int = 0
    metrics_json: Path | None = None
    results_json: Path | None = None
    out: Path | None = None
    report: Path | None = None
    coco_engine: Engine | None = None
    areas: str | None = None
    max_det: int | None = None
    strict: bool = False
    tile: int | None = None
    overlap: float | None = None
    instances: bool = False
    cost: float | None = None
    baseline: Path | None = None
    crops: int | None = None

    def __post_init__(self) -> None:
        if self.instances and num_processes() > 1:
            raise InputError("--instances: are measured, and timed, by one process; run it without torchrun")
        options = {
            "--results-json": self.results_json,
            "--report": self.report,
            "--tile": self.tile,
            "--max-det": self.max_det,
            "--crops": self.crops,
        }
        for option, value in options.items():
            if self.instances and value is not None:
                raise InputError(f"{option}: is of one network, not of --instances; --cost chooses one")
        if self.max_det is not None and self.max_det < 1:
            raise InputError(f"--max-det: must be at least 1, found {self.max_det}")
        if self.overlap is not None and self.tile is None:
            raise InputError("--overlap: belongs to --tile")

    @property
    def engine(self) -> Engine:
        """Library that computes AP."""
        return self.coco_engine or "pycocotools"


def open_checkpoint(request: EvaluationRequest, data: DataConfig) -> tuple[Checkpoint, DataConfig, Conditions]:
    """Open a checkpoint on its device, with the data as it was trained on."""
    device = select_device(request.device)
    checkpoint = load_checkpoint(request.weights)
    checkpoint.model.to(device)
    data = as_trained(data, checkpoint.value_range)
    return checkpoint, data, conditions_of(request, checkpoint.image_size, device, checkpoint.names)


def open_exported(request: EvaluationRequest, data: DataConfig) -> tuple[InferenceNetwork, DataConfig, Conditions]:
    """Open an exported file, with the data as it was trained on."""
    for option, value in (("--instances", request.instances or None), ("--cost", request.cost)):
        if value is not None:
            raise InputError(f"{option}: is for checkpoints; {request.weights} is an exported file")
    network = open_network(request.weights, request.device, request.precision)
    data, device = as_trained(data, network.value_range), torch.device(network.device_name)
    return network, data, conditions_of(request, network.check_size(request.image_size), device, network.names)


def choose_instance(checkpoint: Checkpoint, cost: float, image_size: int | None) -> tuple[Checkpoint, str]:
    """Use the best instance of at most this share of the cost.

    Args:
        checkpoint: with measured instances.
        cost: share of the full cost.
        image_size: of the full network in pixels; None: the training's. An instance on smaller images has its share.

    Returns:
        The checkpoint with the size of the instance, and a line.
    """
    size = checked_size(image_size or checkpoint.image_size, checkpoint.model.max_reduction)
    chosen: tuple[Checkpoint, str] = require_plugin("cost_choices", "cost", "--cost")(
        replace(checkpoint, image_size=size), cost
    )
    return chosen


def conditions_of(
    request: EvaluationRequest, image_size: int, device: torch.device, names: tuple[str, ...]
) -> Conditions:
    """Conditions of an evaluation at the requested image size, or at ``image_size``, the model's own."""
    return Conditions(
        image_size=image_size if request.image_size is None else request.image_size,
        batch_size=request.batch_size,
        workers=request.workers,
        device=device,
        precision=request.precision,
        names=names,
        strict=request.strict,
    )


def origin_of(request: EvaluationRequest, conditions: Conditions) -> dict[str, Any]:
    """Origin of the numbers."""
    about: dict[str, Any] = {"weights": str(request.weights), "data": request.data, "split": request.split}
    if request.cost is not None:
        about["cost"] = request.cost
    if request.areas is not None:
        about["areas"] = request.areas
    return about | {
        "image_size": conditions.image_size,
        "precision": request.precision,
        "device": str(conditions.device),
    }
