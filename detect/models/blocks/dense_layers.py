"""What a densely connected stage is made of: its layers, and how one reads the others.

Letters: B batch, C input channels, O output channels, H W cells, g growth, b bottleneck channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.models.blocks.conv import Conv, Piece
from detect.models.blocks.downsample import BLOCK_SIZE, Kind, Pool, is_odd
from detect.models.blocks.preactivation import PreConv
from detect.models.resize import ResizePoint, resize_cells


class FoldedConv(nn.Module):
    """Space-to-depth → 1x1 convolution → batch norm → activation.

    Args:
        in_channels: C, before the space-to-depth.
        out_channels: O.
        activation: name of the activation.
    """

    def __init__(self, in_channels: int, out_channels: int, activation: str) -> None:
        super().__init__()
        self.conv = Conv(in_channels * BLOCK_SIZE**2, out_channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H/2, W/2)."""
        return self.conv((Piece(x, BLOCK_SIZE),))


@dataclass(frozen=True)
class ConvStyle:
    """How all convolutions of a stage are made.

    Args:
        preactivation: whether norm and activation come before the convolution (DenseNet) or behind it.
        activation: name of the activation.
        downsample: ``stride``, for a 2x2 average pool, or ``spd``.
        group_width: input channels of one group of the 3x3 convolutions; None for one group.
    """

    preactivation: bool
    activation: str
    downsample: Kind = "stride"
    group_width: int | None = None

    def conv(self, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
        """A convolution that keeps the size."""
        groups = 1
        if self.group_width is not None and kernel_size > 1:
            # At a small width the channels may not hold as many groups.
            groups = math.gcd(max(in_channels // self.group_width, 1), in_channels, out_channels)
        if self.preactivation:
            return PreConv(in_channels, out_channels, kernel_size, self.activation, groups)
        return Conv(in_channels, out_channels, kernel_size, 1, groups, self.activation)

    def halving_conv(self, in_channels: int, out_channels: int) -> nn.Module:
        """A 1x1 convolution of the map at half its size: behind a pool, or of the space-to-depth itself."""
        if self.downsample == "stride":
            return nn.Sequential(Pool(in_channels, "avg"), self.conv(in_channels, out_channels, 1))
        if self.preactivation:
            return PreConv(in_channels, out_channels, 1, self.activation, block_size=BLOCK_SIZE)
        return FoldedConv(in_channels, out_channels, self.activation)


class DenseLayer(nn.Sequential):
    """[1x1 →] 3x3 convolution: (B, C, H, W) to (B, g, H, W).

    Args:
        in_channels: C.
        growth: g.
        bottleneck: b, of the 1x1 convolution; None leaves it out.
        style: how the convolutions are made.

    Source: DenseNet (Huang et al., 2017), section 3.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int | None, style: ConvStyle) -> None:
        if bottleneck is None:
            super().__init__(style.conv(in_channels, growth, 3))
        else:
            super().__init__(style.conv(in_channels, bottleneck, 1), style.conv(bottleneck, growth, 3))


class TwoWayDenseLayer(nn.Module):
    """Two branches of g / 2 channels each, 1x1 → 3x3 and 1x1 → 3x3 → 3x3, side by side.

    Args:
        in_channels: C.
        growth: g, even.
        bottleneck: b, of each 1x1 convolution.
        style: how the convolutions are made.

    Source: PeleeNet (Wang et al., 2018), section 2.1.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int, style: ConvStyle) -> None:
        super().__init__()
        half = growth // 2
        self.near = nn.Sequential(style.conv(in_channels, bottleneck, 1), style.conv(bottleneck, half, 3))
        self.far = nn.Sequential(
            style.conv(in_channels, bottleneck, 1), style.conv(bottleneck, half, 3), style.conv(half, half, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, g, H, W)."""
        return torch.cat([self.near(x), self.far(x)], dim=1)


class ElasticDenseLayer(nn.Module):
    """Two branches 1x1 → 3x3, at full and at half size, each with half of the bottleneck, are added.

    Args:
        in_channels: C.
        growth: g.
        bottleneck: b, even; of both 1x1 convolutions together.
        style: how the convolutions are made.

    Source: ELASTIC (Wang et al., 2019), section 3; there the small branch is enlarged bilinearly.
    """

    def __init__(self, in_channels: int, growth: int, bottleneck: int, style: ConvStyle) -> None:
        super().__init__()
        half = bottleneck // 2
        self.full = nn.Sequential(style.conv(in_channels, half, 1), style.conv(half, growth, 3))
        self.small = nn.Sequential(style.halving_conv(in_channels, half), style.conv(half, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, g, H, W)."""
        enlarged = F.interpolate(self.small(x), scale_factor=float(BLOCK_SIZE), mode="nearest")
        return self.full(x) + (resize_cells(enlarged, (x.shape[2], x.shape[3])) if is_odd(x) else enlarged)


class DenseBody(nn.Module):
    """Layers of which each reads outputs of layers before it; the input and all outputs are concatenated at the end.

    Behind each layer there is a point, where all maps so far may be made smaller.

    Args:
        layers: (B, C, H, W) to (B, g, H, W) each, C the channels of what the layer reads.
        sources: what each layer reads, ascending: 0 is the input, i the output of layer i, counted from 1.
    """

    def __init__(self, layers: Sequence[nn.Module], sources: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sources = sources
        self.points = nn.ModuleList(ResizePoint() for _ in layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C + n g, H, W) for n layers: the input, then the outputs in order."""
        maps = [x]
        for layer, sources, point in zip(self.layers, self.sources, self.points, strict=True):
            maps.append(layer(torch.cat([maps[i] for i in sources], dim=1)))
            if point.ratio is not None:
                maps = [point(m) for m in maps]
        return torch.cat(maps, dim=1)


def layer_sources(layer: int, sparse: bool) -> tuple[int, ...]:
    """What a layer of a ``DenseBody`` reads, ascending.

    Args:
        layer: its number, from 1; the input is number 0.
        sparse: whether it reads only what lies 1, 2, 4, 8, ... before it, or everything.

    Source: Sparsely Aggregated Convolutional Networks (Zhu et al., 2018), section 3, for ``sparse``.
    """
    if not sparse:
        return tuple(range(layer))
    return tuple(layer - 2**exponent for exponent in reversed(range(layer.bit_length())))
