"""Strategies: what changes how a run learns, at fixed places of the loop, without the loop knowing what it is.

Letters: B images, H W network input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from detect.models.model import Model
from detect.structures import ClassTargets, Targets

AnyTargets = Targets | ClassTargets
Part = tuple[Tensor, AnyTargets]
"""Images (B, 3, H, W) float in [0, 1] of one size, and their targets, boxes in their pixels."""


class Strategy:
    """What a strategy may do, each by overriding a method; as they are here, they do nothing.

    Whatever is random is a function of (seed, epoch, batch), so that a resumed run goes on as if it had not stopped,
    and several processes draw the same. Each of them has its share of a batch, and must make the same parts of it.
    """

    def start_epoch(self) -> None:
        """The first batch of an epoch comes next."""

    def split(self, images: Tensor, targets: AnyTargets, epoch: int, number: int) -> list[Part]:
        """Change a batch before the forward pass, or split it into parts that go through the network one by one.

        The gradients of the parts add up to one batch's. Several strategies come one after the other.

        Args:
            images: (B, 3, H, W) float in [0, 1].
            targets: boxes in their pixels.
            epoch: counted from 0.
            number: of the batch in the epoch, counted from 1.
        """
        return [(images, targets)]

    @property
    def facts(self) -> dict[str, Any]:
        """What checkpoints say about it, as keywords of ``save_checkpoint``."""
        return {}

    @property
    def state(self) -> dict[str, float]:
        """What it has counted in an epoch that is going on, for a checkpoint."""
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Go on counting from a ``state``."""

    def end_epoch(self) -> dict[str, float]:
        """All batches of an epoch are done; gives values for the run's records, by TensorBoard tag."""
        return {}

    def judged(self, model: Model, epoch: int) -> Model:
        """The model that is validated and kept as the best, from the one whose weights count; never changes that.

        Args:
            model: the average of the weights, or the learning model itself.
            epoch: counted from 0; its batches are done.
        """
        return model

    def finish(self, best: Path) -> None:
        """The run is over; complete a best checkpoint."""

    def report(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Lines that sum up a run.

        Args:
            rows: of ``results.csv``, those from before a resumption too.
        """
        return []


def split_batch(strategies: Sequence[Strategy], part: Part, epoch: int, number: int) -> list[Part]:
    """What the strategies, one after the other, make of a batch; arguments as for ``Strategy.split``."""
    parts = [part]
    for strategy in strategies:
        parts = [new for images, targets in parts for new in strategy.split(images, targets, epoch, number)]
    return parts


def size_of(images: Tensor) -> tuple[int, int]:
    """Height and width of images (B, 3, H, W)."""
    return images.shape[2], images.shape[3]


def resized(images: Tensor, targets: AnyTargets, new_hw: tuple[int, int], mode: str) -> Part:
    """A batch at another size, its targets following; the batch itself if it has that size.

    Args:
        images: (B, 3, H, W).
        targets: boxes in their pixels.
        new_hw: height and width.
        mode: as of ``torch.nn.functional.interpolate``.
    """
    height, width = size_of(images)
    if new_hw == (height, width):
        return images, targets
    corners = False if mode == "bilinear" else None
    new = F.interpolate(images, new_hw, mode=mode, align_corners=corners)
    return new, targets.scaled((new_hw[1] / width, new_hw[0] / height))
