"""The modules that a row of a model YAML can name, and what they promise."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from torch import nn

from detect.errors import InputError, did_you_mean
from detect.models.resize import ResizePoint
from detect.structures import FeatureShape


class Block(nn.Module):
    """A module of the graph.

    The builder passes the constructor's keywords from a row's ``args``, and by name, where the constructor has them:
    ``in_channels`` and ``in_reductions`` (an int each, or a tuple with one for each input when ``many_inputs``),
    ``num_classes`` from the data, ``repeats`` scaled by the model's depth, and the model's ``defaults``.
    """

    many_inputs: ClassVar[bool] = False
    """Whether ``from`` may name several rows."""
    widths: ClassVar[tuple[str, ...]] = ("out_channels",)
    """Constructor keywords that are scaled by the model's width."""

    @property
    def accepts_pieces(self) -> bool:
        """Whether an input may come as pieces (``detect.models.blocks.conv.Piece``) instead of one map."""
        return False

    @property
    def emits_pieces(self) -> bool:
        """Whether ``pieces(*inputs)`` gives the output in pieces, for a consumer that accepts them."""
        return False

    @property
    def points(self) -> list[ResizePoint]:
        """The points inside where the map may be made smaller, in execution order."""
        return []

    @property
    def point_behind(self) -> bool:
        """Whether the block as a whole is a basic building block, so that its output may be made smaller."""
        return False

    def pieces(self, *inputs: Any) -> Any:
        """The output in pieces; only called when ``emits_pieces``."""
        raise NotImplementedError

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        """The output's shape, given the shapes of the inputs.

        Raises:
            InputError: the inputs do not fit; the builder puts the row's name in front.
        """
        raise NotImplementedError


AnyBlock = TypeVar("AnyBlock", bound=type[Block])
BLOCKS: dict[str, type[Block]] = {}


def register(block: AnyBlock) -> AnyBlock:
    """Class decorator: make a block available to YAML under its class name."""
    assert block.__name__ not in BLOCKS, f"{block.__name__} is registered twice"
    BLOCKS[block.__name__] = block
    return block


def find_block(name: str) -> type[Block]:
    """The registered class of that name."""
    if name not in BLOCKS:
        raise InputError(f"module: unknown {name!r}{did_you_mean(name, BLOCKS)}")
    return BLOCKS[name]
