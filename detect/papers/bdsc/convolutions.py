"""Convolutions decoupled into a mixture of channels and a spatial convolution, in place of ordinary ones.

Letters: B batch, C input channels, S channels between the two steps, O output channels, H W cells, k kernel size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from detect.config.model import ChannelsOf, Convolutions
from detect.errors import InputError
from detect.models.blocks.conv import Pieces, SteppedConv, convolve, fuse_norm, space_to_depth
from detect.models.packing import PackedLayer
from detect.papers.bdsc.bits import BITS, pack_signs, unpack_signs


def decouple(conv: nn.Conv2d, wanted: Convolutions) -> DecoupledConv | DepthwiseConv:
    """The module in the place of an ordinary convolution.

    Args:
        conv: of one group, k above 1.
        wanted: what it becomes; not ``standard``.
    """
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


class MaskConv(nn.Conv2d, PackedLayer):
    """The spatial step: k x k convolution from S to O channels, whose ``weight`` is Q of ``binarise``.

    Packed, binary weights are ``bits``, uint8 (ceil(O * S * k * k / 8),): the signs in the order of the weights
    (output, input, row, column), the first one in the highest bit, 1 for +1, zeros at the end; and ``alpha``, float32
    (O,): the magnitude of each output's weights, from 0 to 1. The magnitudes of Q are lost, which only training needs.

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
        """Whether the weights are binary."""
        return self.binary

    @property
    def packed_bytes(self) -> int:
        """Bytes of the bits and the magnitudes."""
        return -(-self.weight.numel() // BITS) + 4 * len(self.weight)

    def pack(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Bits and magnitudes of Q."""
        weights = binarise(weight)
        return pack_signs(weights), weights[:, 0, 0, 0].abs().float()  # all of an output are equal

    def unpack(self, packed: tuple[Tensor, ...], where: str) -> Tensor:
        """Alpha * sign, float32 (O, S, k, k), of which ``binarise`` makes itself again; see ``PackedLayer``."""
        bits, alpha = packed
        shape = self.weight.shape
        _check(bits, torch.uint8, -(-shape.numel() // BITS), f"{where}bits")
        _check(alpha, torch.float32, shape[0], f"{where}alpha")
        if not ((alpha >= 0) & (alpha <= 1)).all():
            raise InputError(f"{where}alpha: must be finite, from 0 to 1; the file is of no use")
        return alpha.view(-1, 1, 1, 1) * unpack_signs(bits, shape)

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


class DecoupledConv(SteppedConv):
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
        """See ``SteppedConv``. A binary weight times a norm's factor is still one magnitude for each output."""
        if self.spatial.binary:
            self.spatial.weight.copy_(binarise(self.spatial.weight))
            self.spatial.binary = False
        fuse_norm(self, self, "project")


class DepthwiseConv(SteppedConv):
    """k x k convolution of each channel on its own → batch norm → 1x1 convolution: what BDSC is compared with.

    Args:
        replaced: an ordinary convolution; its stride and padding go to the first step, its bias to the second.

    Source: BDSC, Table 3; with the norm, sizes come nearer to those of the table. Section 4: the filters have no decay.
    """

    last = "pointwise"
    no_decay = ("depthwise.weight",)

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

    def fuse(self) -> None:
        """See ``SteppedConv``."""
        fuse_norm(self, self, "depthwise")


def _window(conv: nn.Conv2d) -> dict[str, Any]:
    """Constructor keywords of a convolution that looks at the same cells."""
    return {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}


def _made(conv: nn.Conv2d) -> dict[str, Any]:
    """Constructor keywords of a module whose weights are on the same device and of the same type."""
    return {"device": conv.weight.device, "dtype": conv.weight.dtype}


def _check(values: object, dtype: torch.dtype, length: int, where: str) -> None:
    if not isinstance(values, Tensor) or values.dtype != dtype or values.shape != (length,):
        found = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)
        raise InputError(f"{where}: must be {dtype} ({length},), found {found}")
