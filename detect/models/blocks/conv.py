"""Convolutions: with norm and activation behind or in front, and alone; and what may take a convolution's place.

Letters: B batch, C channels of a map, O output channels, H W cells, k kernel size, s block size of a space-to-depth.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detect.config.model import Convolutions
from detect.errors import InputError
from detect.models.blocks.space_to_depth import (
    Piece,
    Pieces,
    convolve,
    joined,
)
from detect.models.rearrangement import Channels, State, rearrange_parts, rearrange_pooled
from detect.models.registry import Block, ResizePoint, register
from detect.runtime.plugins import require_plugin
from detect.structures import FeatureShape

LEAKY_SLOPE = 0.1
"""Slope of Darknet's leaky ReLU below 0."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": lambda: nn.SiLU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "none": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """Return an activation by its name, in place where possible. The papers call ``silu`` swish."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"activation: unknown {name!r}; allowed: {known} (what the papers call swish is silu)")
    return ACTIVATIONS[name]()


class SteppedConv(nn.Module):
    """Several steps that replace one k x k convolution (``detect.papers.bdsc``); takes a map or pieces.

    It has the convolution's ``out_channels``, ``stride`` and ``groups``, and a ``norm`` between its steps.
    """

    last: ClassVar[str]
    """Name of its last convolution, into which a norm behind the module can be fused."""

    def fuse(self) -> None:
        """Fold the norm and binary weights into ordinary convolutions, in place; in evaluation mode."""
        raise NotImplementedError


class SeparableConv(SteppedConv):
    """k x k convolution of each channel on its own → batch norm → activation → 1x1 convolution.

    Args:
        replaced: an ordinary convolution; its stride and padding go to the first step, its bias to the second.
        activation: between the two.

    Source: MobileNets (Howard et al., 2017), section 3.1.
    """

    last = "pointwise"

    def __init__(self, replaced: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        channels = replaced.in_channels
        made: dict[str, Any] = {"device": replaced.weight.device, "dtype": replaced.weight.dtype}
        window: dict[str, Any] = {key: getattr(replaced, key) for key in ("kernel_size", "stride", "padding")}
        self.depthwise = nn.Conv2d(channels, channels, groups=channels, bias=False, **window, **made)
        self.norm = nn.BatchNorm2d(channels, **made)
        self.activation = activation
        self.pointwise = nn.Conv2d(channels, replaced.out_channels, 1, bias=replaced.bias is not None, **made)
        self.out_channels, self.stride, self.groups = replaced.out_channels, replaced.stride, 1

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H / stride, W / stride)."""
        if not isinstance(x, Tensor):
            x = joined(x)
        return self.pointwise(self.activation(self.norm(self.depthwise(x))))

    def fuse(self) -> None:
        fuse_norm(self, self, "depthwise")


def replace_convolutions(module: nn.Module, wanted: Convolutions) -> int:
    """Replace the k x k convolutions of a module in place by modules of the same names; return their number.

    1x1 convolutions and those of several groups stay. ``wanted`` is not ``standard``; an ``InputError`` reports a
    paper's kind that this installation does not have.
    """
    found = [
        (parent, name, conv)
        for parent in module.modules()
        for name, conv in parent.named_children()
        if isinstance(conv, nn.Conv2d) and conv.groups == 1 and max(conv.kernel_size) > 1
    ]
    for parent, name, conv in found:
        setattr(parent, name, _replacement(conv, parent, wanted))
    return len(found)


def _replacement(conv: nn.Conv2d, parent: nn.Module, wanted: Convolutions) -> nn.Module:
    if wanted.kind == "separable":  # with the activation of the module that holds the convolution, if that has one
        return SeparableConv(conv, copy.deepcopy(getattr(parent, "activation", nn.Identity())))
    module: nn.Module = require_plugin("convolutions", wanted.kind, f"conv: {wanted.kind}")(conv, wanted)
    return module


def fuse_norm(layer: nn.Module, parent: nn.Module, name: str) -> None:
    """Fold ``layer.norm``, if it is a batch norm, into the convolution ``parent.name``; in evaluation mode."""
    if isinstance(layer.norm, nn.BatchNorm2d):
        setattr(parent, name, fuse_conv_bn_eval(getattr(parent, name), layer.norm))
        layer.add_module("norm", nn.Identity())


@register
class Conv(Block):
    """Convolution → batch norm → activation.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd, or even together with a stride.
        stride: 1 or more.
        groups: as in ``torch.nn.Conv2d``.
        activation: name of the activation.
        bias: give the convolution a bias. The norm cancels it; some published networks have it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "silu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if stride == 1 and kernel_size % 2 == 0:
            raise InputError(f"kernel_size: must be odd where the stride is 1, found {kernel_size}")
        # An even kernel with a stride of 2 (YOLOv5's 6x6 stem) is padded by one less than half: the map is halved.
        padding = (kernel_size - 1) // 2 if stride > 1 else kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = make_activation(activation)

    @property
    def accepts_pieces(self) -> bool:
        return self.conv.stride == (1, 1) and self.conv.groups == 1

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H / stride, W / stride)."""
        return self.activation(self.norm(convolve(self.conv, x)))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.conv.out_channels, inputs[0].reduction * self.conv.stride[0])


@register
class ConvStage(Block):
    """3x3 convolutions at one resolution, with a point behind each.

    Args:
        in_channels: C.
        out_channels: O, of each.
        repeats: convolutions.
        bias: give each a bias, in front of its norm.
        activation: name of the activation.

    Source: VGG (Simonyan and Zisserman, 2015), Table 1, with batch norms.
    """

    def __init__(
        self, in_channels: int, out_channels: int, repeats: int = 1, bias: bool = False, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        inputs = [in_channels] + [out_channels] * (repeats - 1)
        self.convs = nn.ModuleList(
            Conv(channels, out_channels, 3, activation=activation, bias=bias) for channels in inputs
        )
        self.behind = nn.ModuleList(ResizePoint() for _ in inputs)

    def forward(self, x: Tensor | Pieces) -> Tensor:
        """(B, C, H, W) or pieces to (B, O, H, W)."""
        y: Any = x
        for conv, point in zip(self.convs, self.behind, strict=True):
            y = point(conv(y))
        return y

    @property
    def points(self) -> list[ResizePoint]:
        return [m for m in self.behind if isinstance(m, ResizePoint)]

    @property
    def accepts_pieces(self) -> bool:
        return True

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.out_channels, inputs[0].reduction)


class PreConv(nn.Module):
    """Batch norm → activation → convolution without bias.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd.
        activation: name of the activation.
        groups: as in ``torch.nn.Conv2d``; 1 with a space-to-depth.
        block_size: s, of a space-to-depth between activation and convolution; 1 for none.
        stride: of the convolution; 1 with a space-to-depth.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        activation: str,
        groups: int = 1,
        block_size: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)
        folded = in_channels * block_size**2
        self.conv = nn.Conv2d(folded, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.block_size = block_size
        self.dropout = 0.0
        """Probability, in training, that the convolution reads 0 in place of a value."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H / s, W / s), or to (B, O, H / stride, W / stride)."""
        y = self.activation(self.norm(x))
        if self.dropout and self.training:
            y = F.dropout(y, self.dropout)
        return convolve(self.conv, y if self.block_size == 1 else (Piece(y, self.block_size),))

    def from_strided(self, strided: nn.Module, inputs: Sequence[Channels]) -> State:
        """See ``HasStridedForm``. Nearly: the pool of the strided form averages before norm and activation."""
        if self.block_size > 1 and isinstance(strided, nn.Sequential):
            return rearrange_pooled(self, strided)
        return rearrange_parts(self, strided, inputs)


@register
class NormActivation(Block):
    """Batch norm → activation, behind the last convolution of a pre-activation network.

    Args:
        in_channels: C.
        activation: name of the activation.
    """

    def __init__(self, in_channels: int, activation: str = "relu") -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.activation(self.norm(x))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return inputs[0]


@register
class BareConv(Block):
    """Convolution of stride 1 without bias, norm or activation: the first layer of a pre-activation network.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: k, odd.
        groups: as in ``torch.nn.Conv2d``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, groups: int = 1) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise InputError(f"kernel_size: must be odd, found {kernel_size}")
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H, W)."""
        return self.conv(x)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.conv.out_channels, inputs[0].reduction)
