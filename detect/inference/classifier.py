"""Image classification in Python: ``Classifier``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from detect.data.classification.geometry import center_crop
from detect.data.pixel_values import ReadSettings
from detect.errors import InputError
from detect.inference.inputs import ImageSource, as_image, in_batches, is_list
from detect.inference.network import InferenceNetwork, Predictor
from detect.inference.opening import open_network
from detect.structures import Classification

if TYPE_CHECKING:
    from detect.models.checkpoint import Checkpoint
    from detect.runtime.device import Precision


class Classifier(Predictor):
    """A trained classifier.

    Example:
        ``Classifier("weights.pt").predict("a.jpg").top(5)``

        ``classifier.cost = 0.6`` switches a checkpoint that was trained with SDPoint to a cheaper network.

    Args:
        weights: a checkpoint: its file, a shipped name or the result of ``load_checkpoint``; or the file of an exported
            model, which runs in ONNX Runtime.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, 1 or ``mps``.
        precision: number format of the network: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        InputError: the checkpoint or the device is not usable, or the checkpoint is a detector's.
    """

    def __init__(
        self,
        weights: str | Path | Checkpoint | InferenceNetwork,
        device: str | int = "auto",
        precision: Precision = "fp32",
    ) -> None:
        network = weights if isinstance(weights, InferenceNetwork) else open_network(weights, device, precision)
        if not network.is_classifier:
            raise InputError(f"{network.name} is a detector; use detect.Detector")
        super().__init__(network)

    @property
    def center_crop(self) -> float:
        """Share of an image's short side that the network sees."""
        return self._network.center_crop

    @overload  # a str is a sequence of str too, hence the exception
    def predict(  # type: ignore[overload-overlap]
        self, source: ImageSource, *, image_size: int | None = ..., batch_size: int = ...
    ) -> Classification: ...

    @overload
    def predict(
        self, source: Sequence[ImageSource], *, image_size: int | None = ..., batch_size: int = ...
    ) -> list[Classification]: ...

    def predict(
        self, source: ImageSource | Sequence[ImageSource], *, image_size: int | None = None, batch_size: int = 1
    ) -> Classification | list[Classification]:
        """Classify one image or several.

        Args:
            source: an image file, a (H, W, 3) uint8 array in RGB order (OpenCV reads BGR; ``image[..., ::-1]`` converts
                it), a PIL image, or a list of these. EXIF orientation is applied. The network sees the middle square of
                an image, ``center_crop`` of its short side.
            image_size: side of the network input in pixels; None: the training's.
            batch_size: maximum number of images that go through the network together.

        Returns:
            ``Classification`` for one image, a list of them for a list.

        Raises:
            InputError: an image cannot be read, a value is outside its range, or the output is not finite.
        """
        size = self._network.check_size(image_size)
        found: list[Classification] = []
        for sources in in_batches(source, batch_size):
            found += self._predict_batch(sources, size)
        return found if is_list(source) else found[0]

    def network_hw(self, image_hw: tuple[int, int], image_size: int | None = None) -> tuple[int, int]:
        """Height and width of the network input, the same for all images."""
        size = self._network.check_size(image_size)
        return size, size

    def read_settings(self) -> ReadSettings:
        """Settings for reading images: the value range of the training."""
        return ReadSettings(self._network.value_range)

    def _predict_batch(self, sources: Sequence[ImageSource], size: int) -> list[Classification]:
        images = (as_image(source, self.read_settings()) for source in sources)
        batch = np.stack([center_crop(image, size, self.center_crop) for image in images])
        probabilities = self._network.probabilities(batch)
        if not np.isfinite(probabilities).all():
            raise InputError("the network's output is not finite with this precision; try another")
        return [Classification(row, self.names) for row in probabilities]
