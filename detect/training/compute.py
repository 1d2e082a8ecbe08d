"""What training costs, counted batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detect.analysis.profile import MacCounter
from detect.models.graph import NO_TRANSFORM, Graph, GraphTransform


class ComputeMeter:
    """Adds up the multiply-adds of the forward passes of an epoch's images.

    Args:
        graph: what learns; a copy without values is kept.
        num_classes: K of it.
    """

    def __init__(self, graph: Graph, num_classes: int) -> None:
        self._costs = MacCounter(graph, num_classes)
        self.start_epoch()

    def start_epoch(self) -> None:
        """Start from zero."""
        self._images, self._spent, self._full = 0, 0, 0

    @property
    def state(self) -> list[int]:
        """What was counted in an epoch that is going on, for a checkpoint."""
        return [self._images, self._spent, self._full]

    def restore(self, state: list[int]) -> None:
        """Go on counting from a ``state``."""
        self._images, self._spent, self._full = state

    def add(self, images: int, image_hw: tuple[int, int], transform: GraphTransform, full_hw: tuple[int, int]) -> None:
        """Count a forward pass.

        Args:
            images: how many.
            image_hw: their height and width.
            transform: with which they ran.
            full_hw: height and width that they had before any strategy.
        """
        self._images += images
        self._spent += images * self._costs.macs(transform, image_hw)
        self._full += images * self._costs.macs(NO_TRANSFORM, full_hw)

    def values(self) -> dict[str, float]:
        """By TensorBoard tag: billions of multiply-adds of an image, as trained and at full size in the plain network.

        The first is what the TRD paper calls mFLOPs, as a mean over this epoch.
        """
        images = max(self._images, 1)
        return {"compute/gmacs": self._spent / images / 1e9, "compute/full_gmacs": self._full / images / 1e9}


def compute_line(rows: Sequence[dict[str, Any]]) -> str:
    """The mean over the epochs of what they cost, in words.

    Args:
        rows: of ``results.csv``; those without ``ComputeMeter.values`` do not count.
    """
    counted = [row for row in rows if "compute/gmacs" in row]
    spent, full = (
        sum(float(row[tag]) for row in counted) / max(len(counted), 1)
        for tag in ("compute/gmacs", "compute/full_gmacs")
    )
    return (
        f"training cost {spent:.4g} G multiply-adds an image and forward pass (mFLOPs, as counted), "
        f"{spent / full if full else 0:.1%} of the {full:.4g} G at full size"
    )
