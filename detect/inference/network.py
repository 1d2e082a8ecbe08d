"""What ``Detector`` and ``Classifier`` run: a checkpoint in PyTorch, or an exported file in ONNX Runtime.

Letters: B images, H W network input pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from detect.data.letterbox import padded_hw
from detect.errors import InputError
from detect.evaluation.predict import run_classifier, run_network
from detect.inference.inputs import checked_size, opened
from detect.inference.onnx_network import OnnxNetwork
from detect.models.checkpoint import Checkpoint
from detect.models.fuse import fuse_conv_bn
from detect.models.model import ClassificationModel, DetectionModel
from detect.runtime.device import Precision, select_device
from detect.runtime.plugins import find_plugin

ONNX_SUFFIX = ".onnx"


class CostChoice(Protocol):
    """What a network has chosen within a budget."""

    def line(self) -> str:
        """What runs now and what it costs, in one line."""


@dataclass(frozen=True)
class Budget:
    """What a network may cost: one of the first three.

    Args:
        cost: share of the full network's multiply-adds, in (0, 1].
        gflops: 2 * multiply-adds / 1e9 of a square image.
        target_ms: milliseconds of the network for a square image, which are measured here and now.
        image_size: side of that image in pixels; None is the one of the training.

    Raises:
        InputError: not one of the three is given.
    """

    cost: float | None = None
    gflops: float | None = None
    target_ms: float | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.cost, self.gflops, self.target_ms)) != 1:
            raise InputError("budget: name one of cost, gflops and target_ms")


@runtime_checkable
class Network(Protocol):
    """A trained network with what is known about it."""

    device: torch.device
    """Where it runs."""
    is_classifier: bool
    name: str
    """What it is called in messages."""
    names: tuple[str, ...]
    """The K class names."""
    category_ids: tuple[int, ...]
    """Their K ids in the annotation file of the training."""
    image_size: int
    """Side of the network input in pixels, as trained or exported; of a detector the long one."""
    multiple: int
    """Height and width of the network input are multiples of it."""
    max_detections: int | None
    """Detections of an image that suppression inside the file keeps; None without."""
    center_crop: float
    """A classifier looks at so much of an image's short side."""
    value_range: tuple[float, float] | None
    """Of images with more than 8 bits a channel: the values that become 0 and 255. None: the high byte."""

    @property
    def cost(self) -> float:
        """The share of the full network's multiply-adds that the network in use has, in (0, 1]."""

    def choose(self, budget: Budget) -> CostChoice:
        """Use the network with the best measured metric within a budget.

        Raises:
            InputError: the budget is out of range, or there is nothing to choose from.
        """

    def check_size(self, image_size: int | None) -> int:
        """The side of the network input in pixels; None is ``image_size``.

        Raises:
            InputError: the network does not take it.
        """

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what the network sees of an image of so many pixels, padding included."""

    def predictions(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB to (B, P, 5 + K) float32, as ``detect.evaluation.predict.run_network`` gives them."""

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB to the K probabilities of each image, (B, K) float32."""


class TorchNetwork:
    """A checkpoint's model in PyTorch; see ``Network``.

    Args:
        checkpoint: its content.
        device: where.
        precision: number format of the network.
        fuse: run a copy without norms, which is faster; otherwise the model itself, moved to ``device``.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: Precision, fuse: bool = True) -> None:
        self.checkpoint, self.device, self.precision = checkpoint, device, precision
        model = fuse_conv_bn(checkpoint.model) if fuse else checkpoint.model
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.name = self.model.definition.name
        self.is_classifier = self.model.definition.is_classifier
        self.names, self.category_ids = checkpoint.names, checkpoint.category_ids
        self.image_size, self.center_crop = checkpoint.image_size, checkpoint.center_crop
        self.value_range = checkpoint.value_range
        self.multiple = self.model.max_reduction
        self.max_detections: int | None = None

    @property
    def cost(self) -> float:
        return 1.0

    def choose(self, budget: Budget) -> CostChoice:
        raise InputError("the cost cannot be chosen: this installation does not have detect.papers")

    def check_size(self, image_size: int | None) -> int:
        return checked_size(self.image_size if image_size is None else image_size, self.multiple)

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        return padded_hw(image_hw, self.multiple)

    def predictions(self, images: Tensor) -> Tensor:
        assert isinstance(self.model, DetectionModel), "Detector asks first"
        return run_network(self.model, images, self.device, self.precision)

    def probabilities(self, images: Tensor) -> Tensor:
        assert isinstance(self.model, ClassificationModel), "Classifier asks first"
        return run_classifier(self.model, images, self.device, self.precision).softmax(dim=1)


def is_exported(weights: str | Path) -> bool:
    """Whether a file, by its name, is an exported model."""
    return Path(weights).suffix.lower() == ONNX_SUFFIX


def open_network(weights: str | Path | Checkpoint, device: str, precision: Precision) -> Network:
    """The network of a file.

    Args:
        weights: a checkpoint or its file, or a file that ``tools/export.py`` wrote.
        device: as of ``Detector``.
        precision: number format of a checkpoint's network; an exported file has its own.

    Raises:
        InputError: the file or the device is not usable.
    """
    chosen = select_device(device)
    if not isinstance(weights, Checkpoint) and is_exported(weights):
        if precision != "fp32":
            raise InputError(f"{weights}: has the number format that it was exported with; leave the precision out")
        return OnnxNetwork(Path(weights), chosen)
    torch_network = find_plugin("networks", "torch") or TorchNetwork
    return torch_network(opened(weights), chosen, precision)


class Predictor:
    """What ``Detector`` and ``Classifier`` share: a network, whose cost can be chosen while it is in use.

    Args:
        network: what runs; the cost of an exported file is settled.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._network.device

    @property
    def names(self) -> tuple[str, ...]:
        """The K class names."""
        return self._network.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The ids that the K classes have in the annotation file of the training."""
        return self._network.category_ids

    @property
    def image_size(self) -> int:
        """Side of the network input in pixels that the network was trained with; of a detector, the long one."""
        return self._network.image_size

    @property
    def network(self) -> Network:
        """What runs."""
        return self._network

    @property
    def cost(self) -> float:
        """The share of the full network's multiply-adds that the network in use has, in (0, 1].

        Setting it switches, in less than 10 ms, to the instance with the best measured metric (AP, top-1) of those that
        cost no more. 1 is the full network, even where a cheaper instance measured better. Only checkpoints that were
        trained with SDPoint and measured (``tools/evaluate.py --instances``) take anything but 1.

        Raises:
            InputError: it is out of range or below the cheapest instance, or nothing was measured.
        """
        return self._network.cost

    @cost.setter
    def cost(self, share: float) -> None:
        self.choose(cost=share)

    def choose(
        self,
        *,
        cost: float | None = None,
        gflops: float | None = None,
        target_ms: float | None = None,
        image_size: int | None = None,
    ) -> CostChoice:
        """Use the instance with the best measured metric within a budget, of which one is to be given.

        Args:
            cost: a share of the full cost, as the property.
            gflops: 2 * multiply-adds / 1e9 of a square image.
            target_ms: milliseconds of the network for a square image, which are measured here and now.
            image_size: side of that image in pixels; None is the one of the training.

        Returns:
            What was chosen.

        Raises:
            InputError: not one budget is given, it is out of range or below the cheapest instance, nothing was
                measured, or the network is an exported file.
        """
        return self._network.choose(Budget(cost, gflops, target_ms, image_size))
