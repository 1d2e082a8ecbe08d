"""Points where a map may be made smaller, so that everything behind it costs less (SDPoint).

A network with N points and some ratios is many networks, its instances, which share all weights.

Letters: B batch, C channels, H W cells, r ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from detect.config.base import Strict

Way = Literal["restore", "shrink"]
"""What becomes of a detector's levels behind a point. ``restore``: every map that the neck or the head reads is brought
back to its nominal size, so that these cost what they do. ``shrink``: each level of the neck and the head has the size
of the backbone's map, so that they get cheaper too; a cell is more pixels. A classifier's pool takes any size."""


@dataclass(frozen=True)
class Instance(Strict):
    """One of the networks in a network with points.

    Args:
        point: from 1 in execution order; 0 is the plain network.
        ratio: r, in (0, 1); 1 for the plain network.
    """

    point: int
    ratio: float

    @property
    def name(self) -> str:
        """``3@0.5``, or ``plain``."""
        return f"{self.point}@{self.ratio:g}" if self.point else "plain"


PLAIN = Instance(0, 1.0)
"""The network without any downsampling at a point."""


def list_instances(points: Sequence[int], ratios: Sequence[float]) -> list[Instance]:
    """The plain network, then every point with every ratio."""
    return [PLAIN, *(Instance(point, ratio) for point in points for ratio in ratios)]


class DownsamplePoint(nn.Module):
    """A stochastic downsampling point: adaptive average pooling to r times the height and width, or nothing.

    It has no weights, and so leaves a model's parameters and their names alone. ``Graph.use_instance`` sets the ratio.

    Source: SDPoint (Kuen et al., 2018), section 3.1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ratio: float | None = None
        """r, or None where the map stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, round(r*H), round(r*W)), or the map itself."""
        return x if self.ratio is None else resize_cells(x, pooled_hw((x.shape[2], x.shape[3]), self.ratio))


class PoolPoint(DownsamplePoint):
    """The point of the stem's max-pool, which then pools to r times the size that it would have.

    The pool reads the ratio (``detect.models.blocks.downsample.Pool``). Behind the first block a pool is no point.

    Source: the published code of SDPoint.
    """


def pooled_hw(size_hw: tuple[int, int], ratio: float) -> tuple[int, int]:
    """``ratio`` times a height and width, half to even (14 at 0.75 is 10, 7 at 0.5 is 4), at least 1."""
    return max(round(size_hw[0] * ratio), 1), max(round(size_hw[1] * ratio), 1)


def resize_cells(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Adaptive average pooling: cell i of m covers rows floor(i*n/m) to ceil((i+1)*n/m) - 1 of n; to more cells, it
    repeats them.

    Args:
        x: (B, C, H, W).
        size_hw: height and width of the result; a map that has them is returned itself.
    """
    return x if x.shape[2:] == size_hw else F.adaptive_avg_pool2d(x, size_hw)
