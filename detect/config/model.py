"""A model: the schema of rows in ``configs/models``, ``backbones``, ``necks`` and ``heads``, and of their common keys.

``detect.models.catalog`` combines files, parts and variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval, Predicate
from pydantic import Field

from detect.config.base import Named, Strict, Unit, Wanted

MAX_SCALE = 1000
"""Limit of a factor; a larger model fits no memory."""

_LIMITS = Interval(gt=0, lt=MAX_SCALE)
_TEXT = f"number above 0 and below {MAX_SCALE}"
Factor = Annotated[int | float, _LIMITS, Wanted(f"must be a {_TEXT}")]
WholeFactor = Annotated[int, _LIMITS, Wanted(f"must be a whole {_TEXT}")]
OpenShare = Annotated[int | float, Interval(gt=0, lt=1), Wanted("must be a number in (0, 1)")]
Count = Annotated[int, Ge(1), Wanted("must be a whole number above 0")]

ConvKind = Literal["standard", "separable", "bdsc", "bdsc-float", "depthwise"]
ChannelsOf = Literal["output", "input"]


@dataclass(frozen=True)
class Scale(Strict):
    """Compound scaling."""

    depth: Factor = 1.0
    """Repeats above 1 become max(round(repeats * depth), 1)."""
    width: Factor = 1.0
    """Channels become channels * width, rounded up to a multiple of ``channel_multiple``."""
    channel_multiple: WholeFactor = 8
    """Divisor of the scaled channels."""


@dataclass(frozen=True)
class Norm(Strict):
    """Constants of all batch norms of a section; default, PyTorch's."""

    eps: OpenShare | None = None
    """Epsilon added to the variance."""
    momentum: OpenShare | None = None
    """Momentum of the running statistics."""


@dataclass(frozen=True)
class Convolutions(Strict):
    """Kind of the k x k convolutions (k > 1).

    Those of the first row that has any, and grouped ones, stay standard.
    """

    kind: ConvKind = "standard"
    """``standard``; ``separable``, a depthwise k x k convolution, norm, activation and a 1x1; ``bdsc``, decoupled into
    a 1x1 and a binary k x k convolution; ``bdsc-float``, the same with real weights; ``depthwise``, ``separable``
    without the activation, to which the BDSC paper compares."""
    p: Factor = 1.0
    """Of the BDSC kinds: channels between the two convolutions, as a multiple of the output's or the input's."""
    p_of: ChannelsOf = "output"
    """Of the BDSC kinds: the channels that ``p`` multiplies."""
    norm: bool = True
    """Of the BDSC kinds: a batch norm between the two convolutions."""


@dataclass(frozen=True)
class RowConfig(Strict):
    """One row of the graph."""

    name: Annotated[str, Predicate(str.isidentifier), Wanted("must be a word of letters, digits and _")]
    """Unique in the model; prefix of the weights' keys."""
    module: Annotated[str, Wanted("must be a class name")]
    """Class name in the registry."""
    inputs: Annotated[Any, Field(alias="from")] = ()
    """Name of a row above or ``image``, or a list of them; default, the row before."""
    args: Named[Any] | None = None
    """The module's constructor keywords."""
    repeats: Count | None = 1
    """Number of copies, before depth scaling."""
    reduction: Annotated[Count | None, Unit("px")] = None
    """Input pixels per cell that the builder asserts."""
    conv: Any = None
    """Kind of its k x k convolutions, or a mapping as in the section's ``conv``."""
