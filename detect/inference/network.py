"""What ``Detector`` and ``Classifier`` run: a checkpoint in PyTorch, or an exported file in ONNX Runtime.

Letters: B images, H W network input pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

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
from detect.models.classifier import ClassificationModel
from detect.models.detector import DetectionModel
from detect.models.melting import melted
from detect.runtime.device import select_device
from detect.runtime.precision import Precision

ONNX_SUFFIX = ".onnx"


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
        checkpoint: of one with instances the model itself runs, moved to ``device``; otherwise a faster copy.
        device: where.
        precision: number format of the network.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: Precision) -> None:
        self.checkpoint, self.device, self.precision = checkpoint, device, precision
        # Without norms a network is faster, but instances (SDPoint) have norms of their own, and switch in a moment.
        model = melted(checkpoint.model) if checkpoint.instances is None else checkpoint.model
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.name = self.model.definition.name
        self.is_classifier = self.model.definition.is_classifier
        self.names, self.category_ids = checkpoint.names, checkpoint.category_ids
        self.image_size, self.center_crop = checkpoint.image_size, checkpoint.center_crop
        self.value_range = checkpoint.value_range
        self.multiple = self.model.max_reduction
        self.max_detections: int | None = None

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
    return TorchNetwork(opened(weights), chosen, precision)
