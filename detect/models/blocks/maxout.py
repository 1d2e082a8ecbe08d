"""Compression of a map's channels without weights.

Letters: B batch, C input channels, O output channels, H W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detect.models.registry import Block, register
from detect.structures import FeatureShape


@register
class Maxout(Block):
    """Each output channel is the maximum of every O-th input channel.

    It has no weights and costs no multiply-adds. A map of O channels or fewer passes unchanged, so that a neck fits
    backbones of any width.

    Args:
        in_channels: C.
        out_channels: the most channels that leave; O is the smaller of it and C.

    Source: CSPNet (Wang et al., 2020), section 3.2; Maxout (Goodfellow et al., 2013).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = min(in_channels, out_channels)
        self.groups, self.rest = divmod(in_channels, self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W); channel g is the maximum over the channels k with k mod O = g."""
        if self.groups == 1 and self.rest == 0:
            return x
        whole = self.groups * self.out_channels
        y = x[:, :whole].unflatten(1, (self.groups, self.out_channels)).amax(dim=1)
        if self.rest == 0:
            return y
        return torch.cat([torch.maximum(y[:, : self.rest], x[:, whole:]), y[:, self.rest :]], dim=1)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """O channels at the same reduction."""
        return FeatureShape(self.out_channels, inputs[0].reduction)
