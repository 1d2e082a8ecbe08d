"""Bringing maps of different levels together."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.errors import InputError
from detect.models.blocks.conv import Piece, Pieces
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
        """The same channels at a finer reduction."""
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
        """The input may be given as pieces."""
        return True

    @property
    def emits_pieces(self) -> bool:
        """The output may be left for the following convolution to rearrange."""
        return True

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, C1, H, W), (B, C2, H, W), ... to (B, C1 + C2 + ..., H, W)."""
        return torch.cat(maps, dim=1)

    def pieces(self, *maps: Tensor | Pieces) -> Pieces:
        """The inputs side by side, left for the following convolution to join."""
        return tuple(piece for m in maps for piece in ((Piece(m),) if isinstance(m, Tensor) else m))

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """The sum of the channels at the common reduction."""
        reductions = {shape.reduction for shape in inputs}
        if len(reductions) > 1:
            found = ", ".join(str(shape.reduction) for shape in inputs)
            raise InputError(f"from: maps of reductions {found} cannot be concatenated; they must be equal")
        return FeatureShape(sum(shape.channels for shape in inputs), inputs[0].reduction)
