"""Networks of ``Detector`` and ``Classifier``: their interface, and the choice of their cost.

Letters: B images, H W network input pixels, P predictions of an image, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from detect.evaluation.postprocess import Predictions
from detect.inference.instances import Budget, Choice, InstanceMenu

if TYPE_CHECKING:
    import torch


@runtime_checkable
class InferenceNetwork(Protocol):
    """A trained network and the facts about it."""

    device_name: str
    """``cpu``, ``cuda:0``, ...: of ``torch.device``."""
    is_classifier: bool
    name: str
    """Name in messages."""
    names: tuple[str, ...]
    """The K class names."""
    category_ids: tuple[int, ...]
    """The K ids of the classes in the annotation file of the training."""
    image_size: int
    """Side of the network input in pixels, as trained, exported or chosen; of a detector the long side."""
    multiple: int
    """Divides height and width of the network input."""
    max_detections: int | None
    """Detections per image that suppression inside the file keeps; None without suppression."""
    center_crop: float
    """Share of an image's short side that a classifier sees."""
    value_range: tuple[float, float] | None
    """Values that become 0 and 255, of images with more than 8 bits a channel; None: the high byte is used."""
    tile_px: int
    """Side of the tiles of the training in pixels of its images; 0: it was on whole images."""

    @property
    def cost(self) -> float:
        """Share of the full network's multiply-adds that the network in use has, in (0, 1]."""
        ...

    def menu(self) -> InstanceMenu:
        """The measured instances that ``choose`` can switch to.

        Raises:
            FixedCostError: the cost is fixed, or nothing was measured.
            InputError: the measurement is damaged.
        """
        ...

    def use(self, name: str) -> None:
        """Switch to an instance of the menu."""
        ...

    def choose(self, budget: Budget) -> Choice:
        """Switch to the instance with the best measured metric within a budget."""
        ...

    def multiply_adds(self, network_hw: tuple[int, int]) -> int | None:
        """Multiply-adds of the network in use for an input of this height and width; None where they are unknown."""
        ...

    def check_size(self, image_size: int | None) -> int:
        """Side of the network input in pixels for ``image_size``, of which an instance on smaller images has its share.

        Args:
            image_size: of the full network; None: the training's.

        Raises:
            InputError: the network does not take it.
        """
        ...

    def padded_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the network input, with padding, for a scaled image of height and width ``image_hw``."""
        ...

    def predictions(self, images: np.ndarray) -> Predictions:
        """(B, H, W, 3) uint8 RGB to (B, P, 5 + K) float32: a tensor on the network's device, or an array."""
        ...

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB to class probabilities, (B, K) float32."""
        ...


class Predictor:
    """Base of ``Detector`` and ``Classifier``: a network, and the choice of its cost."""

    def __init__(self, network: InferenceNetwork) -> None:
        self._network = network

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        import torch  # exported files run without it

        return torch.device(self._network.device_name)

    @property
    def names(self) -> tuple[str, ...]:
        """The K class names."""
        return self._network.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The K ids of the classes in the annotation file of the training."""
        return self._network.category_ids

    @property
    def image_size(self) -> int:
        """Side of the network input in pixels, as trained or as the chosen cost has it; of a detector the long side."""
        return self._network.image_size

    @property
    def network(self) -> InferenceNetwork:
        """The network in use."""
        return self._network

    @property
    def cost(self) -> float:
        """Share of the full network's multiply-adds that the network in use has, in (0, 1].

        Setting it switches, in less than 10 ms, to the instance with the best measured metric (AP, top-1) of those that
        cost no more. 1 is the full network, even where a cheaper instance measured better. Checkpoints that were not
        trained with SDPoint and measured (``detect val --instances``) take 1 only.

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
    ) -> Choice:
        """Switch to the instance with the best measured metric within one budget.

        Args:
            cost: share of the full cost, as the property.
            gflops: 2 * multiply-adds / 1e9 of a square image.
            target_ms: milliseconds of the network for a square image, measured on this machine first.
            image_size: side of that image in pixels; None: the training's.

        Returns:
            The choice; its ``line()`` has name and cost.

        Raises:
            InputError: none or more than one budget, one that is out of range or below the cheapest instance, nothing
                was measured, or the network is an exported file.
        """
        return self._network.choose(Budget(cost, gflops, target_ms, image_size))
