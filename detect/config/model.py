"""A model: the schema of ``configs/models`` and of its parts, ``configs/backbones``, ``necks`` and ``heads``.

``detect.models.catalog`` combines files, parts and variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Interval, Predicate
from pydantic import BeforeValidator, Discriminator, Field, Tag

from detect.config.base import Listed, Named, Strict, Unit, Wanted, refuse
from detect.errors import did_you_mean

SECTIONS = ("backbone", "neck", "head")
MAX_SCALE = 1000
"""Limit of a factor; a larger model fits no memory."""

_LIMITS = Interval(gt=0, lt=MAX_SCALE)
_TEXT = f"number above 0 and below {MAX_SCALE}"
Factor = Annotated[int | float, _LIMITS, Wanted(f"must be a {_TEXT}")]
WholeFactor = Annotated[int, _LIMITS, Wanted(f"must be a whole {_TEXT}")]
OpenShare = Annotated[int | float, Interval(gt=0, lt=1), Wanted("must be a number in (0, 1)")]
Count = Annotated[int, Ge(1), Wanted("must be a whole number above 0")]
ModuleName = Annotated[str, Wanted("must be a class name")]
InputName = Annotated[str, Wanted("must be the name of a row above, or image")]

Levels = Literal["p2-p5", "p2-p4", "p2-p3", "p3-p5", "p3-p4", "p4-p5"]
ConvKind = Literal["standard", "separable", "bdsc", "bdsc-float", "depthwise"]
ChannelsOf = Literal["output", "input"]
BDSC_KINDS = ("bdsc", "bdsc-float")
"""Kinds of convolutions that have the keys of ``BDSC_KEYS``."""
BDSC_KEYS = ("p", "p_of", "norm")
OF_BDSC = f"belongs to the kinds {' and '.join(BDSC_KINDS)}"


@dataclass(frozen=True)
class Scale(Strict):
    """Compound scaling."""

    depth: Factor = 1.0
    """Repeats above 1 become max(round(repeats * depth), 1)."""
    width: Factor = 1.0
    """Channels become channels * width, rounded up to a multiple of ``channel_multiple``."""
    channel_multiple: WholeFactor = 8
    """Divisor of the scaled channels."""


NamedScale = Annotated[
    Annotated[str, Tag("name")] | Annotated[Scale, Tag("mapping")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "mapping"),
]


@dataclass(frozen=True)
class Norm(Strict):
    """Constants of all batch norms of a section; default, PyTorch's."""

    eps: OpenShare | None = None
    """Epsilon added to the variance."""
    momentum: OpenShare | None = None
    """Momentum of the running statistics."""


@dataclass(frozen=True)
class Convolutions(Strict):
    """Kind of the k x k convolutions (k > 1), or a mapping with ``kind``.

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

    @classmethod
    def expand(cls, value: Any) -> Any:
        """Return the mapping of a kind; beside other kinds, BDSC keys are refused even if they repeat a default."""
        content = {"kind": None, **value} if isinstance(value, dict) else {"kind": value}
        kind = content["kind"]
        if kind in get_args(ConvKind) and kind not in BDSC_KINDS:
            refuse((key, f"{OF_BDSC}, found {kind}") for key in BDSC_KEYS if key in content)
        return content


@dataclass(frozen=True, kw_only=True)
class RowKeys(Strict):
    """Keys that a row and the changes of a row have."""

    inputs: Annotated[
        Listed[InputName] | None,
        BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
        Field(alias="from"),
    ] = None
    """Name of a row above or ``image``, or a list of them; default, the row before."""
    args: Named[Any] | None = None
    """The module's constructor keywords."""
    repeats: Count | None = 1
    """Number of copies, before depth scaling."""
    reduction: Annotated[Count | None, Unit("px")] = None
    """Input pixels per cell that the builder asserts."""
    conv: Convolutions | None = None
    """Kind of its k x k convolutions, or a mapping as in the section's ``conv``."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.inputs == ():
            yield "from", "is empty; name rows above"


@dataclass(frozen=True, kw_only=True)
class RowChanges(RowKeys):
    """Changes of a part's row: ``args`` are added, all other keys replaced."""

    module: ModuleName | None = None
    """Class name in the registry."""


@dataclass(frozen=True, kw_only=True)
class RowConfig(RowKeys):
    """One row of the graph."""

    name: Annotated[str, Predicate(str.isidentifier), Wanted("must be a word of letters, digits and _")]
    """Unique in the model; prefix of the weights' keys."""
    module: ModuleName
    """Class name in the registry."""


@dataclass(frozen=True, kw_only=True)
class Settings(Strict):
    """Settings of all rows of a part or a section."""

    defaults: Named[Any] | None = None
    """Constructor keywords for every module that has them, unless its row overrides them."""
    norm: Norm | None = None
    """Constants of the batch norms."""
    conv: Convolutions | None = None
    """Kind of the k x k convolutions, or a mapping, unless their row overrides it."""


@dataclass(frozen=True, kw_only=True)
class SectionConfig(Settings):
    """A section: the name of a part, a list of rows, or a mapping with one of them and settings of its own."""

    part: Annotated[str, Wanted("must be the name of a part, or a list of rows")] | None = None
    """Name of a shipped part, or ``FILE`` or ``FILE:VARIANT`` beside the model's file."""
    override: Named[RowChanges | None] | None = None
    """Changes of the part's rows, by the rows' names."""
    rows: Listed[RowConfig] | None = None
    """Rows in execution order, in place of a part."""
    scale: NamedScale | None = None
    """Scale, or its name in the model's ``scales``."""

    @classmethod
    def expand(cls, value: Any) -> Any:
        """Return the mapping of a part's name or a list of rows."""
        return value if isinstance(value, dict) else {"rows" if isinstance(value, list) else "part": value}

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if (self.part is None) == (self.rows is None):
            yield "", "must have either a part or rows"
        elif self.rows is not None and self.override is not None:
            yield "override", "changes rows of a part; here are rows of its own"


@dataclass(frozen=True, kw_only=True)
class ModelChanges(Settings):
    """Variant of a model: it adds to ``defaults`` and ``norm`` and replaces all other keys."""

    backbone: SectionConfig | None = None
    """Name of a part, list of rows, or mapping."""
    neck: SectionConfig | None = None
    """As ``backbone``; a classifier has none."""
    head: SectionConfig | None = None
    """As ``backbone``; default, the head of the neck's file, without a neck of the backbone's."""
    scale: NamedScale | None = None
    """Scale, or its name in ``scales``."""
    levels: Levels | None = None
    """First and last level of the head; default, the head's own. A finer one is in the neck's ``finer``; without a
    coarse one, the rows that nothing else reads go too."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelChanges):
    """Model; its settings are those of every section that does not override them."""

    name: str
    """Name of the file's own model."""
    scales: Named[Scale] | None = None
    """Scales by name."""
    variants: Named[ModelChanges | None] | None = None
    """Further models, as changes of the file's own."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        known = self.scales or {}
        for key, settings in {"": self, **{f"{name}.": getattr(self, name) for name in SECTIONS}}.items():
            name = settings.scale if settings is not None else None
            if isinstance(name, str) and name not in known:
                yield f"{key}scale", f"unknown {name!r}{did_you_mean(name, known)}"
        yield from _own_name_as_variant(self)


@dataclass(frozen=True, kw_only=True)
class FinerLevel(Strict):
    """A level below the finest one of a neck: rows to insert, and changes of rows."""

    behind: Named[Listed[RowConfig]]
    """Rows to insert behind a row, by its name, in execution order; one of them has the level's name."""
    override: Named[RowChanges | None] | None = None
    """Changes of the neck's other rows, by the rows' names."""


@dataclass(frozen=True, kw_only=True)
class PartChanges(Settings):
    """Variant of a part: it adds to ``defaults`` and ``norm`` and replaces all other keys."""

    head: str | None = None
    """Head of a model with this neck, or of a classifier with this backbone, unless its file names one."""
    override: Named[RowChanges | None] | None = None
    """Changes of rows, by the rows' names."""


@dataclass(frozen=True, kw_only=True)
class PartConfig(Settings):
    """Part: a file of ``configs/backbones``, ``necks`` or ``heads``."""

    rows: Listed[RowConfig]
    """Rows in execution order."""
    name: str | None = None
    """Name of the part; shipped ones have one."""
    head: str | None = None
    """As in a variant."""
    finer: Named[FinerLevel] | None = None
    """Of a neck: levels that a model's ``levels`` may ask for, by name, each below the ones before it."""
    variants: Named[PartChanges | None] | None = None
    """Further parts, as changes of the file's own."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from _own_name_as_variant(self)


def _own_name_as_variant(file: ModelConfig | PartConfig) -> Iterator[tuple[str, str]]:
    if file.name in (file.variants or {}):
        yield "variants", f"{file.name!r} is the name of the file's own model"
