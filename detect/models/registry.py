"""Blocks: the modules that a row of a model YAML can name, the interface that the graph relies on, and their points.

Letters: B batch, C channels, H W cells, r ratio.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch.nn.functional as F
from torch import Tensor, nn

from detect.errors import InputError, did_you_mean
from detect.models.rearrangement import Channels
from detect.structures import FeatureShape


@dataclass(frozen=True)
class BlockOptions:
    """Constructor keywords of a block that has many. Each field is a keyword of a row's ``args``."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in fields(self):
            if get_origin(kinds[field.name]) is Literal:
                check_choice(field.name, getattr(self, field.name), get_args(kinds[field.name]))


def check_choice(word: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a keyword's value that is not one of those allowed."""
    if value not in allowed:
        raise InputError(f"{word}: unknown {value!r}{did_you_mean(str(value), allowed)}")


def check_probability(word: str, value: float) -> None:
    """Refuse a keyword's value that is not in [0, 1)."""
    if not 0 <= value < 1:
        raise InputError(f"{word}: must be from 0 to below 1, found {value:g}")


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


class Block(nn.Module):
    """Base of the modules of a graph.

    The builder passes the constructor's keywords from a row's ``args``, and by name, where the constructor has them:
    ``in_channels`` and ``in_reductions`` (an int each, or a tuple with one for each input when ``many_inputs``),
    ``num_classes`` from the data, ``repeats`` scaled by the model's depth, and the model's ``defaults``.
    """

    Options: ClassVar[type[BlockOptions] | None] = None
    """Class of the constructor's argument ``options``, whose fields are further keywords; None if it has none."""
    many_inputs: ClassVar[bool] = False
    """True where ``from`` may name several rows."""
    widths: ClassVar[tuple[str, ...]] = ("out_channels",)
    """Constructor keywords that are scaled by the model's width."""

    @property
    def accepts_pieces(self) -> bool:
        """True where an input may come as pieces (``detect.models.blocks.space_to_depth.Piece``) instead of one map."""
        return False

    @property
    def emits_pieces(self) -> bool:
        """True where ``pieces(*inputs)`` returns the output in pieces, for a consumer that accepts them."""
        return False

    @property
    def points(self) -> list[ResizePoint]:
        """Points inside where the map may be made smaller, in execution order."""
        return []

    @property
    def point_behind(self) -> bool:
        """True where the block as a whole is a basic building block, so that its output may be made smaller."""
        return False

    def places(self, *inputs: Channels) -> Channels | None:
        """Return the places of a strided counterpart's output channels, given its inputs'; None: the same places."""
        return None

    def pieces(self, *inputs: Any) -> Any:
        """Return the output in pieces; only called when ``emits_pieces``."""
        raise NotImplementedError

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """Return the output's shape; ``InputError`` if the inputs do not fit. The builder adds the row's name."""
        raise NotImplementedError


AnyBlock = TypeVar("AnyBlock", bound=type[Block])
BLOCKS: dict[str, type[Block]] = {}


def register(block: AnyBlock) -> AnyBlock:
    """Make a block available to YAML under its class name (a class decorator)."""
    assert block.__name__ not in BLOCKS, f"{block.__name__} is registered twice"
    BLOCKS[block.__name__] = block
    return block


def find_block(name: str) -> type[Block]:
    if name not in BLOCKS:
        raise InputError(f"module: unknown {name!r}{did_you_mean(name, BLOCKS)}")
    return BLOCKS[name]
