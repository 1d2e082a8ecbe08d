"""Points inside blocks where a map may be made smaller, and the resizing of maps.

Letters: B batch, C channels, H W cells, r ratio.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResizePoint(nn.Module):
    """Adaptive average pooling to r times the height and width, or the identity.

    It has no weights, so that a model's parameters and their names do not depend on it. A graph transform sets the
    ratio.

    Source: SDPoint (Kuen et al., 2018), section 3.1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ratio: float | None = None
        """r, or None where the map stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, round(r*H), round(r*W)), or the map itself."""
        return x if self.ratio is None else resize_cells(x, pooled_hw((x.shape[2], x.shape[3]), self.ratio))


class PoolPoint(ResizePoint):
    """Point of the stem's max-pool, which then pools to r times its ordinary output size.

    The pool reads the ratio (``detect.models.blocks.downsample.Pool``). Behind the first block a pool is no point.

    Source: the published code of SDPoint.
    """


def pooled_hw(size_hw: tuple[int, int], ratio: float) -> tuple[int, int]:
    """Return ``ratio`` times a height and width, rounded half to even (14 at 0.75 is 10, 7 at 0.5 is 4), at least 1."""
    return max(round(size_hw[0] * ratio), 1), max(round(size_hw[1] * ratio), 1)


def resize_cells(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize a map (B, C, H, W) by adaptive average pooling; a map of that size is returned itself."""
    # Cell i of m covers rows floor(i*n/m) to ceil((i+1)*n/m) - 1 of n; with more cells than before, they repeat.
    return x if x.shape[2:] == size_hw else F.adaptive_avg_pool2d(x, size_hw)
