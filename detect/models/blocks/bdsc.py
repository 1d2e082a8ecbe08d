"""Convolutions decoupled into a mixture of channels and a spatial convolution, in place of ordinary ones.

Letters: B batch, C input channels, S channels between the two steps, O output channels, H W cells, k kernel size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from detect.config.model import ChannelsOf, Convolutions
from detect.models.blocks.conv import Pieces, convolve, space_to_depth


def replace_convolutions(module: nn.Module, wanted: Convolutions) -> int:
    """Put decoupled convolutions in the place of the k x k ones, under the same names.

    Those of 1x1 and those of several groups stay.

    Args:
        module: is changed.
        wanted: what they become; not ``standard``.

    Returns:
        How many were replaced.
    """
    found = [
        (parent, name, conv)
        for parent in module.modules()
        for name, conv in parent.named_children()
        if isinstance(conv, nn.Conv2d) and conv.groups == 1 and max(conv.kernel_size) > 1
    ]
    for parent, name, conv in found:
        setattr(parent, name, _decouple(conv, wanted))
    return len(found)


def _decouple(conv: nn.Conv2d, wanted: Convolutions) -> nn.Module:
    if wanted.kind == "depthwise":
        return DepthwiseConv(conv)
    return DecoupledConv(conv, wanted.p, wanted.kind == "bdsc", wanted.p_of, wanted.norm)


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor) -> Tensor:
        magnitudes = q.abs().clamp(max=1)
        measures = (torch.mean, torch.amin, torch.amax)
        mean, least, most = (measure(magnitudes, dim=(1, 2, 3), keepdim=True) for measure in measures)
        # The mean of equal values may differ from them in its last bit; what is binary already must stay as it is.
        alpha = torch.where(least == most, most, mean)  # (O, 1, 1, 1)
        return torch.where(q < 0, -alpha, alpha)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def binarise(q: Tensor) -> Tensor:
    """Weights of two values for each output: alpha * sign(Q), where alpha is the mean of abs(Q) and sign(0) is +1.

    Args:
        q: (O, S, k, k); a value beyond -1 or 1 counts as that.

    Returns:
        (O, S, k, k). Binary weights stay as they are, bit for bit. What comes back as the gradient of these weights is
        that of Q: straight through the sign, alpha being a constant.

    Source: BDSC, Algorithm 1.
    """
    weights: Tensor = _Binarise.apply(q)
    return weights


class MaskConv(nn.Conv2d):
    """The spatial step: k x k convolution from S to O channels, whose ``weight`` is Q of ``binarise``.

    The paper writes its masks with zeros and ones, M01. With M = 2 * M01 - 1 of -1 and +1 these are the same layer but
    for one map that all outputs share::

        conv(z, alpha * M) = alpha * (2 * conv(z, M01) - box(z))

    box(z) being the sum over the k x k window, of the same stride and padding, of the sum of z over its channels.

    Args:
        hidden_channels: S.
        replaced: gives O, k, stride, padding, and whether there is a bias.
        binary: whether the map is convolved with the binary weights, or with Q as it is.

    Source: BDSC, Algorithm 1; with Q as it is, Table 2.
    """

    def __init__(self, hidden_channels: int, replaced: nn.Conv2d, binary: bool) -> None:
        super().__init__(
            hidden_channels,
            replaced.out_channels,
            bias=replaced.bias is not None,
            **_window(replaced),
            **_made(replaced),
        )
        self.binary = binary

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Q starts as He et al. (2015) start a convolution, within [-1, 1]; a bias at 0."""
        nn.init.normal_(self.weight, std=math.sqrt(2 / self.weight[0].numel())).clamp_(-1, 1)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, H, W) to (B, O, H / stride, W / stride)."""
        if not self.binary:
            return super().forward(x)
        if self.training:
            with torch.no_grad():
                self.weight.clamp_(-1, 1)  # or Q could leave for good: beyond, only its sign counts
        return self._conv_forward(x, binarise(self.weight), self.bias)


class DecoupledConv(nn.Module):
    """Balanced decoupled spatial convolution: 1x1 convolution → batch norm → k x k convolution with binary weights.

    There is no activation between the two: a k x k convolution *is* a 1x1 convolution to S = k * k * O channels and a
    spatial one with a fixed mask of zeros and ones. Here S is smaller, and the mask is learnt.

    Args:
        replaced: an ordinary convolution; its stride and padding go to the spatial step.
        p: S is ``p`` times O or C, at least 1.
        binary: whether the weights of the spatial step are binary.
        p_of: ``output``: times O; ``input``: times C.
        norm: whether there is a batch norm between the two.

    Source: Balanced Decoupled Spatial Convolution (AAAI 2018), Algorithm 1. Its text takes S from C and says nothing of
    a norm; S from O, and a norm, give the sizes of its tables.
    """

    def __init__(
        self, replaced: nn.Conv2d, p: float, binary: bool, p_of: ChannelsOf = "output", norm: bool = True
    ) -> None:
        super().__init__()
        hidden = max(round(p * (replaced.out_channels if p_of == "output" else replaced.in_channels)), 1)
        self.project = nn.Conv2d(replaced.in_channels, hidden, 1, bias=False, **_made(replaced))
        self.norm = nn.BatchNorm2d(hidden, **_made(replaced)) if norm else nn.Identity()
        self.spatial = MaskConv(hidden, replaced, binary)
        self.out_channels, self.stride, self.groups = replaced.out_channels, replaced.stride, 1

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H / stride, W / stride)."""
        return self.spatial(self.norm(convolve(self.project, x)))


class DepthwiseConv(nn.Module):
    """k x k convolution of each channel on its own → batch norm → 1x1 convolution: what BDSC is compared with.

    Args:
        replaced: an ordinary convolution; its stride and padding go to the first step, its bias to the second.

    Source: BDSC, Table 3; with the norm, sizes come nearer to those of the table.
    """

    def __init__(self, replaced: nn.Conv2d) -> None:
        super().__init__()
        channels, made = replaced.in_channels, _made(replaced)
        self.depthwise = nn.Conv2d(channels, channels, groups=channels, bias=False, **_window(replaced), **made)
        self.norm = nn.BatchNorm2d(channels, **made)
        self.pointwise = nn.Conv2d(channels, replaced.out_channels, 1, bias=replaced.bias is not None, **made)
        self.out_channels, self.stride, self.groups = replaced.out_channels, replaced.stride, 1

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H / stride, W / stride)."""
        if not isinstance(x, Tensor):
            x = torch.cat([space_to_depth(piece.map, piece.block_size) for piece in x], dim=1)
        return self.pointwise(self.norm(self.depthwise(x)))


def _window(conv: nn.Conv2d) -> dict[str, Any]:
    """Constructor keywords of a convolution that looks at the same cells."""
    return {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}


def _made(conv: nn.Conv2d) -> dict[str, Any]:
    """Constructor keywords of a module whose weights are on the same device and of the same type."""
    return {"device": conv.weight.device, "dtype": conv.weight.dtype}
