"""Modules that bring maps of different levels together.

Letters: B batch, C channels, O output channels, H W cells.
"""

from __future__ import annotations

from itertools import accumulate
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.errors import InputError
from detect.models.blocks.conv import Conv, make_activation
from detect.models.blocks.residual import partial_add
from detect.models.blocks.space_to_depth import Piece, Pieces
from detect.models.rearrangement import Channels
from detect.models.registry import Block, register
from detect.structures import FeatureShape


@register
class Upsample(Block):
    """Nearest-neighbour enlargement.

    Args:
        scale_factor: whole number.
    """

    def __init__(self, scale_factor: int = 2) -> None:
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H * scale_factor, W * scale_factor)."""
        return F.interpolate(x, scale_factor=float(self.scale_factor), mode="nearest")

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        shape = inputs[0]
        if shape.reduction % self.scale_factor:
            raise InputError(
                f"scale_factor: a map of reduction {shape.reduction} cannot be enlarged {self.scale_factor} times"
            )
        return FeatureShape(shape.channels, shape.reduction // self.scale_factor)


@register
class Concat(Block):
    """Concatenation along the channels, in the order of ``from``."""

    many_inputs: ClassVar[bool] = True

    @property
    def accepts_pieces(self) -> bool:
        return True

    @property
    def emits_pieces(self) -> bool:
        return True

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, C1, H, W), (B, C2, H, W), ... to (B, C1 + C2 + ..., H, W)."""
        return torch.cat(maps, dim=1)

    def pieces(self, *maps: Tensor | Pieces) -> Pieces:
        """Return the inputs as pieces, for the following convolution to join."""
        return tuple(piece for m in maps for piece in ((Piece(m),) if isinstance(m, Tensor) else m))

    def places(self, *inputs: Channels) -> Channels | None:
        starts = accumulate((channels.total for channels in inputs), initial=0)
        places = torch.cat([start + channels.places for start, channels in zip(starts, inputs, strict=False)])
        return Channels(places, sum(channels.total for channels in inputs))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        _check_reductions(inputs, "concatenated")
        return FeatureShape(sum(shape.channels for shape in inputs), inputs[0].reduction)


@register
class Maxout(Block):
    """Each output channel is the maximum of every O-th input channel.

    It compresses a map without weights or multiply-adds. A map of O channels or fewer passes unchanged, so that a neck
    fits backbones of any width.

    Args:
        in_channels: C.
        out_channels: largest number of output channels; O is the smaller of it and C.

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
        # (B, groups, O, H, W) to (B, O, H, W)
        y = x[:, :whole].unflatten(1, (self.groups, self.out_channels)).amax(dim=1)
        if self.rest == 0:
            return y
        # The channels beyond the whole groups belong to the first outputs.
        return torch.cat([torch.maximum(y[:, : self.rest], x[:, whole:]), y[:, self.rest :]], dim=1)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return FeatureShape(self.out_channels, inputs[0].reduction)


@register
class Add(Block):
    """Partial residual addition: the later maps of ``from`` are added to the first one, one after the other.

    Maps may differ in width: as many channels are added as both have, the first ones. There are no weights.

    Args:
        activation: name of the activation behind each addition.

    Source: "Enriching Variety of Layer-wise Learning Information by Gradient Combination" (Wang et al., 2019), partial
    residual connections.
    """

    many_inputs: ClassVar[bool] = True

    def __init__(self, activation: str = "none") -> None:
        super().__init__()
        self.activation = make_activation(activation)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """(B, C, H, W) and others of any width to (B, C, H, W)."""
        for other in others:
            x = self.activation(partial_add(x, other))  # the first min(C, C2) channels change
        return x

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        if len(inputs) < 2:
            raise InputError("from: Add needs two maps or more, found 1")
        _check_reductions(inputs, "added")
        return inputs[0]


@register
class GlobalContext(Block):
    """Global average pool of the second map → 1x1 convolution → added to every cell of the first map.

    Args:
        in_channels: channels of the two maps.
        activation: name of the convolution's activation.

    Source: ThunderNet (Qin et al., 2019), "Context Enhancement Module".
    """

    many_inputs: ClassVar[bool] = True

    def __init__(self, in_channels: tuple[int, ...], activation: str = "silu") -> None:
        super().__init__()
        if len(in_channels) != 2:
            raise InputError(f"from: must name a map and what its context is taken from, found {len(in_channels)} maps")
        self.conv = Conv(in_channels[1], in_channels[0], 1, activation=activation)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C2, H2, W2) to (B, C, H, W)."""
        context = source.mean(dim=(2, 3), keepdim=True)  # (B, C2, 1, 1)
        if self.training and len(context) == 1:
            # A channel has one value for each image, and batch statistics of a single value are undefined.
            return x + self._with_running_statistics(context)
        return x + self.conv(context)  # (B, C, 1, 1), added to every cell

    def _with_running_statistics(self, context: Tensor) -> Tensor:
        norm = self.conv.norm
        y = F.batch_norm(
            self.conv.conv(context), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        return self.conv.activation(y)

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return inputs[0]


def _check_reductions(inputs: tuple[FeatureShape, ...], done: str) -> None:
    if len({shape.reduction for shape in inputs}) > 1:
        found = ", ".join(str(shape.reduction) for shape in inputs)
        raise InputError(f"from: maps of reductions {found} cannot be {done}; they must be equal")
