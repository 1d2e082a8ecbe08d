"""The Python interface of classification: a checkpoint in, probabilities out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL.Image import Image

from detect.data.classification.geometry import center_crop
from detect.data.pixel_values import ReadSettings
from detect.errors import InputError
from detect.inference.inputs import as_image, in_batches, is_list
from detect.inference.network import Network, Predictor, open_network
from detect.models.checkpoint import Checkpoint
from detect.runtime.device import Precision
from detect.structures import Classification


class Classifier(Predictor):
    """A trained classifier, ready to look at images.

    Example:
        ``Classifier("weights.pt").predict("a.jpg").top(5)``; ``classifier.cost = 0.6`` makes one that was trained with
        SDPoint cheaper, at once.

    Args:
        weights: a checkpoint of this toolkit: its file, the name of a shipped one, or what
            ``load_checkpoint`` gave; or the file of an exported model, which runs in ONNX Runtime.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``1`` or ``mps``.
        precision: number format of the network: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        InputError: the checkpoint or the device is not usable, or the checkpoint is a detector's.
    """

    def __init__(
        self, weights: str | Path | Checkpoint | Network, device: str = "auto", precision: Precision = "fp32"
    ) -> None:
        network = weights if isinstance(weights, Network) else open_network(weights, device, precision)
        if not network.is_classifier:
            raise InputError(f"{network.name} is a detector; use detect.Detector")
        super().__init__(network)

    @property
    def center_crop(self) -> float:
        """The network looks at so much of an image's short side."""
        return self._network.center_crop

    @overload  # a str is a sequence of str too, hence the exception
    def predict(  # type: ignore[overload-overlap]
        self,
        source: str | Path | np.ndarray | Image,
        *,
        image_size: int | None = ...,
        batch_size: int = ...,
    ) -> Classification: ...

    @overload
    def predict(
        self,
        source: Sequence[str | Path | np.ndarray | Image],
        *,
        image_size: int | None = ...,
        batch_size: int = ...,
    ) -> list[Classification]: ...

    def predict(
        self,
        source: str | Path | np.ndarray | Image | Sequence[str | Path | np.ndarray | Image],
        *,
        image_size: int | None = None,
        batch_size: int = 1,
    ) -> Classification | list[Classification]:
        """Tell what one image shows, or several.

        Args:
            source: an image file, a (H, W, 3) uint8 array in RGB order (what OpenCV reads is BGR; ``image[..., ::-1]``
                turns it), a PIL image, or a list of these. EXIF orientation is applied. The network sees the middle
                square of an image, ``center_crop`` of its short side.
            image_size: side of the network input in pixels; None is the one of the training.
            batch_size: images that go through the network together, at most.

        Returns:
            ``Classification`` for one image, a list of them for a list.

        Raises:
            InputError: an image cannot be read, a value is outside its range, or the network gives no finite numbers.
        """
        size = self._network.check_size(image_size)
        found: list[Classification] = []
        for sources in in_batches(source, batch_size):
            found += self._predict_batch(sources, size)
        return found if is_list(source) else found[0]

    def network_hw(self, image_hw: tuple[int, int], image_size: int | None = None) -> tuple[int, int]:
        """Height and width of the network input, which do not depend on those of the image; see ``predict``."""
        size = self._network.check_size(image_size)
        return size, size

    def read_settings(self) -> ReadSettings:
        """How images are read: with the range of values of the training."""
        return ReadSettings(self._network.value_range)

    def _images(self, sources: Sequence[Any]) -> Iterator[np.ndarray]:
        return (as_image(source, self.read_settings()) for source in sources)

    def _predict_batch(self, sources: Sequence[Any], size: int) -> list[Classification]:
        images = np.stack([center_crop(image, size, self.center_crop) for image in self._images(sources)])
        probabilities = self._network.probabilities(torch.from_numpy(images)).cpu().numpy()
        if not np.isfinite(probabilities).all():
            raise InputError("the network's output is not finite with this precision; try another")
        return [Classification(row, self.names) for row in probabilities]
