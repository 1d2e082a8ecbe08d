"""Blocks: the modules that a row of a model YAML can name, and the interface that the graph relies on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from torch import nn

from detect.errors import InputError, did_you_mean
from detect.models.rearrangement import Channels
from detect.models.resize import ResizePoint
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
        """True where an input may come as pieces (``detect.models.blocks.conv.Piece``) instead of one map."""
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
        """Return the places of a strided counterpart's output channels, given those of its inputs.

        None: in the same places, if the output has as many channels as the counterpart's.
        """
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
