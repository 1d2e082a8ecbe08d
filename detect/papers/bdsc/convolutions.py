"""Convolutions decoupled into a mixture of channels and a spatial convolution, which replace ordinary ones.

Letters: B batch, C input channels, S channels between the two steps, O output channels, H W cells, k kernel size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detect.config.model import ChannelsOf, Convolutions
from detect.errors import InputError
from detect.models.blocks.conv import SeparableConv, SteppedConv, fuse_norm
from detect.models.blocks.space_to_depth import Pieces, convolve
from detect.models.packing import PackedLayer

BITS = 8
"""Of a byte."""


def decouple(conv: nn.Conv2d, wanted: Convolutions) -> DecoupledConv | DepthwiseConv:
    """Return the replacement, which is not ``standard``, of an ordinary convolution of one group, with k above 1."""
    if wanted.kind == "depthwise":
        return DepthwiseConv(conv)
    return DecoupledConv(conv, wanted.p, wanted.kind == "bdsc", wanted.p_of, wanted.norm)


def pack_signs(q: Tensor) -> Tensor:
    """Pack n signs (+1 for 0) as uint8 (ceil(n / 8),) on the same device, in the order of ``numpy.packbits``.
    1 is +1, the first value is in the highest bit, and the end is filled with 0.
    """
    positive = (~(q < 0)).flatten().to(torch.uint8)
    rows = F.pad(positive, (0, -len(positive) % BITS)).view(-1, BITS)  # (ceil(n / 8), 8), a row for each byte
    return (rows << _shifts(q.device)).sum(dim=1, dtype=torch.uint8)


def unpack_signs(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Unpack n signs from uint8 (ceil(n / 8),) of ``pack_signs``: float32 of ``shape``, -1 and +1."""
    found = ((bits[:, None] >> _shifts(bits.device)) & 1).flatten()  # (N, 8) to (8 * N,)
    return (2.0 * found - 1)[: torch.Size(shape).numel()].view(shape)  # without the zeros at the end


def _shifts(device: torch.device) -> Tensor:
    # distance of each bit of a byte from the lowest, the highest bit first
    return torch.arange(BITS - 1, -1, -1, dtype=torch.uint8, device=device)


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor) -> Tensor:
        magnitudes = q.abs().clamp(max=1)
        measures = (torch.mean, torch.amin, torch.amax)
        mean, least, most = (measure(magnitudes, dim=(1, 2, 3), keepdim=True) for measure in measures)
        # The mean of equal values may differ from them in its last bit; binary weights must stay as they are.
        alpha = torch.where(least == most, most, mean)  # (O, 1, 1, 1)
        return torch.where(q < 0, -alpha, alpha)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]  # straight through the sign; alpha counts as a constant


def binarise(q: Tensor) -> Tensor:
    """Binarise Q (O, S, k, k), clamped to [-1, 1], to mean(abs(Q)) * sign(Q), per output. Source: BDSC, Algorithm 1."""
    weights: Tensor = _Binarise.apply(q)
    return weights


class MaskConv(nn.Conv2d, PackedLayer):
    """The spatial step: k x k convolution from S to O channels, whose ``weight`` is Q of ``binarise``.

    Binary weights are packed as ``bits``, uint8 (ceil(O * S * k * k / 8),): the signs in the order of the weights
    (output, input, row, column), the first one in the highest bit, 1 for +1, zeros at the end; and ``alpha``, float32
    (O,): the magnitude of each output's weights, from 0 to 1. The magnitudes of Q, which only training needs, are lost.

    The paper writes its masks with zeros and ones, M01. With M = 2 * M01 - 1 of -1 and +1 these are the same layer but
    for one map that all outputs share::

        conv(z, alpha * M) = alpha * (2 * conv(z, M01) - box(z))

    where box(z) sums z over its channels and over the k x k window, with the same stride and padding.

    Args:
        hidden_channels: S.
        replaced: the convolution whose O, k, stride, padding and bias (or none) it takes.
        binary: convolve with the binary weights, not with Q itself.

    Source: BDSC, Algorithm 1; with Q itself, Table 2.
    """

    packed_names = ("bits", "alpha")

    def __init__(self, hidden_channels: int, replaced: nn.Conv2d, binary: bool) -> None:
        super().__init__(
            hidden_channels,
            replaced.out_channels,
            bias=replaced.bias is not None,
            **_window(replaced),
            **_made(replaced),
        )
        self.binary = binary

    @property
    def mask_weights(self) -> tuple[str, ...]:
        """Parameters that decay only with ``OptimizerConfig.mask_decay``."""
        return ("weight",) if self.binary else ()

    @property
    def is_packed(self) -> bool:
        return self.binary

    @property
    def packed_bytes(self) -> int:
        return -(-self.weight.numel() // BITS) + 4 * len(self.weight)

    @property
    def ones(self) -> float:
        # 1/2 is the paper's typical setting, behind equation 15.
        return 0.5 if self.weight.is_meta else float((~(self.weight < 0)).float().mean())

    def pack(self, weight: Tensor) -> tuple[Tensor, ...]:
        weights = binarise(weight)
        return pack_signs(weights), weights[:, 0, 0, 0].abs().float()  # (O,), one magnitude each

    def unpack(self, packed: tuple[Tensor, ...], where: str) -> Tensor:
        """Return alpha * sign, float32 (O, S, k, k), a fixed point of ``binarise``; see ``PackedLayer``."""
        bits, alpha = packed
        shape = self.weight.shape
        _check(bits, torch.uint8, -(-shape.numel() // BITS), f"{where}bits")
        _check(alpha, torch.float32, shape[0], f"{where}alpha")
        if not ((alpha >= 0) & (alpha <= 1)).all():
            raise InputError(f"{where}alpha: must be finite, from 0 to 1; the file is of no use")
        return alpha.view(-1, 1, 1, 1) * unpack_signs(bits, shape)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise Q as He et al. (2015) do a convolution, clamped to [-1, 1], and a bias with 0."""
        nn.init.normal_(self.weight, std=math.sqrt(2 / self.weight[0].numel())).clamp_(-1, 1)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, H, W) to (B, O, H / stride, W / stride)."""
        if not self.binary:
            return super().forward(x)
        if self.training:
            with torch.no_grad():
                self.weight.clamp_(-1, 1)  # beyond, only the sign would count, and Q could drift away for good
        return self._conv_forward(x, binarise(self.weight), self.bias)


class DecoupledConv(SteppedConv):
    """Balanced decoupled spatial convolution: 1x1 convolution → batch norm → k x k convolution with binary weights.

    There is no activation between the two: a k x k convolution *is* a 1x1 convolution to S = k * k * O channels and a
    spatial one with a fixed mask of zeros and ones. Here S is smaller, and the mask is trained.

    Args:
        replaced: an ordinary convolution; its stride and padding go to the spatial step.
        p: S is ``p`` times O or C, at least 1.
        binary: binarise the weights of the spatial step.
        p_of: ``output``: times O; ``input``: times C.
        norm: put a batch norm between the two.

    Source: Balanced Decoupled Spatial Convolution (AAAI 2018), Algorithm 1. Its text takes S from C and mentions no
    norm; S from O, and a norm, give the sizes of its tables.
    """

    last = "spatial"

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

    def fuse(self) -> None:
        # A binary weight times a norm's factor still has one magnitude for each output.
        if self.spatial.binary:
            self.spatial.weight.copy_(binarise(self.spatial.weight))
            self.spatial.binary = False
        fuse_norm(self, self, "project")


class DepthwiseConv(SeparableConv):
    """k x k convolution of each channel on its own → batch norm → 1x1 convolution: the paper's baseline.

    Args:
        replaced: an ordinary convolution.

    Source: BDSC, Table 3; with the norm, sizes come nearer to those of the table. Section 4: the filters have no decay.
    """

    no_decay = ("depthwise.weight",)

    def __init__(self, replaced: nn.Conv2d) -> None:
        super().__init__(replaced, nn.Identity())


def _window(conv: nn.Conv2d) -> dict[str, Any]:
    """Return the constructor keywords of a convolution with the same window."""
    return {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}


def _made(conv: nn.Conv2d) -> dict[str, Any]:
    """Return the constructor keywords of a module whose weights have the same device and type."""
    return {"device": conv.weight.device, "dtype": conv.weight.dtype}


def _check(values: object, dtype: torch.dtype, length: int, where: str) -> None:
    if not isinstance(values, Tensor) or values.dtype != dtype or values.shape != (length,):
        found = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise InputError(f"{where}: must be {dtype} ({length},), found {found}")
