"""A checkpoint in PyTorch.

Letters: B images, H W network input pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from detect.data.letterbox import padded_hw
from detect.errors import InputError
from detect.evaluation.forward import run_classifier, run_network
from detect.inference.inputs import checked_size
from detect.inference.instances import Budget, Choice, FixedCostError, InstanceMenu
from detect.inference.network import InferenceNetwork
from detect.models.checkpoint import Checkpoint, load_checkpoint
from detect.models.model import ClassificationModel, DetectionModel, fuse_conv_bn
from detect.runtime.device import Precision, select_device
from detect.runtime.plugins import find_plugin

if TYPE_CHECKING:
    from detect.analysis.profile import MacCounter

NO_PAPERS = "the cost cannot be chosen: this installation does not have detect.papers"


class TorchNetwork:
    """A checkpoint's model in PyTorch; see ``detect.inference.network.InferenceNetwork``.

    Args:
        checkpoint: of the model.
        device: device of the network.
        precision: number format of the network.
        fuse: run a copy with the norms fused into the convolutions, which is faster; otherwise the model itself, moved
            to ``device``.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: Precision, fuse: bool = True) -> None:
        self.checkpoint, self.device, self.precision = checkpoint, device, precision
        self.device_name = str(device)
        model = fuse_conv_bn(checkpoint.model) if fuse else checkpoint.model
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.name = self.model.definition.name
        self.is_classifier = self.model.definition.is_classifier
        self.names, self.category_ids = checkpoint.names, checkpoint.category_ids
        self.image_size, self.center_crop = checkpoint.image_size, checkpoint.center_crop
        self.value_range, self.tile_px = checkpoint.value_range, checkpoint.tile_px
        self.multiple = self.model.max_reduction
        self.max_detections: int | None = None
        self._counter: MacCounter | None = None

    @property
    def cost(self) -> float:
        return 1.0

    def menu(self) -> InstanceMenu:
        raise FixedCostError(NO_PAPERS)

    def use(self, name: str) -> None:
        raise FixedCostError(NO_PAPERS)

    def choose(self, budget: Budget) -> Choice:
        raise FixedCostError(NO_PAPERS)

    def multiply_adds(self, network_hw: tuple[int, int]) -> int:
        if self._counter is None:
            from detect.analysis.profile import MacCounter  # prediction does without

            self._counter = MacCounter(self.model.graph, self.model.num_classes)
        return self._counter.macs(self.model.graph.transform, network_hw)

    def check_size(self, image_size: int | None) -> int:
        return checked_size(self.image_size if image_size is None else image_size, self.multiple)

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        return padded_hw(image_hw, self.multiple)

    def predictions(self, images: np.ndarray) -> Tensor:
        assert isinstance(self.model, DetectionModel), "Detector asks first"
        return run_network(self.model, torch.from_numpy(images), self.device, self.precision)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        assert isinstance(self.model, ClassificationModel), "Classifier asks first"
        logits = run_classifier(self.model, torch.from_numpy(images), self.device, self.precision)
        probabilities: np.ndarray = logits.softmax(dim=1).cpu().numpy()
        return probabilities


def open_checkpoint(weights: str | Path | Checkpoint, device: str, precision: Precision) -> InferenceNetwork:
    """Open the network of a checkpoint; see ``detect.inference.opening.open_network``."""
    chosen = select_device(device)
    if precision not in get_args(Precision):
        raise InputError(f"precision: must be one of {', '.join(get_args(Precision))}, found {precision!r}")
    checkpoint = weights if isinstance(weights, Checkpoint) else load_checkpoint(Path(weights))
    network: InferenceNetwork = (find_plugin("networks", "torch") or TorchNetwork)(checkpoint, chosen, precision)
    return network
