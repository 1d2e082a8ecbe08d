"""A model definition as a module: rows are built in order, each from the shapes of those it names."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import Tensor, nn

from detect.config.model import Convolutions, Scale
from detect.errors import InputError, did_you_mean
from detect.models import blocks, heads  # noqa: F401 (importing registers them)
from detect.models.allocation import AllocationLimit
from detect.models.blocks.bdsc import replace_convolutions
from detect.models.definition import ModelDefinition, Row, Section
from detect.models.registry import Block, find_block
from detect.models.sdpoint import PLAIN, DownsamplePoint, Instance, PoolPoint, Way, resize_cells
from detect.structures import FeatureShape

IMAGE = FeatureShape(channels=3, reduction=1)
LevelSizes = dict[int, tuple[int, int]]
"""Height and width of the maps of each reduction, where an instance (SDPoint) has changed them."""
FROM_GRAPH = ("in_channels", "in_reductions", "num_classes", "repeats")
"""Constructor keywords that the builder fills in; a row's ``args`` must not."""
_ORDINARY = "convolutions of 1x1, of several groups, of the first row that has any, and of the head stay ordinary"


class Graph(nn.Module):
    """The rows of a definition, run in order.

    Each row's module is ``layers.<row name>``. ``shapes`` holds each row's output shape: that of the plain network.

    The backbone has points where ``use_instance`` makes maps smaller (SDPoint): those that its blocks name, and one
    behind each row that is a block as a whole. Where no block names any, the rows of plain convolutions are blocks.

    Args:
        definition: the model.
        num_classes: K, for the head.

    Raises:
        InputError: a row cannot be built; with file, row, what was found and what is allowed.
    """

    def __init__(self, definition: ModelDefinition, num_classes: int) -> None:
        super().__init__()
        self.definition = definition
        self.layers = nn.ModuleDict()
        self.shapes: dict[str, FeatureShape] = {"image": IMAGE}
        used: set[str | Convolutions] = {Convolutions()}
        with AllocationLimit():
            for section in definition.sections:
                for row in section.rows:
                    self._add(row, section, num_classes, used)
        self._refuse_idle_words(used)
        self._refuse_idle_rows()
        self._last_use = {name: i for i, row in enumerate(definition.rows) for name in row.inputs}
        self._as_pieces = self._plan_pieces()
        self.behind = nn.ModuleDict()
        """The point behind a row, by the row's name."""
        self.points = self._find_points()
        """All points, in execution order; the first is number 1."""
        self.instance = PLAIN
        """The network that runs."""
        self.way: Way = "restore"
        """What becomes of a detector's levels behind a point; a classifier's pool takes what there is."""
        self._tapped = self._find_tapped()
        backbone = {row.name for row in definition.rows if row.section == "backbone"}
        self._untouched = backbone - self._tapped

    def forward(self, image: Tensor) -> Any:
        """(B, 3, H, W) to the output of the last row.

        Maps are dropped after their last use. A space-to-depth whose consumers are all stride-less convolutions is not
        carried out: they take it in pieces (``detect.models.blocks.conv.convolve``), with the same result.
        """
        values: dict[str, Any] = {"image": image}
        sizes = self.level_sizes(image)
        for i, row in enumerate(self.definition.rows):
            # In pieces a map has no size that could be changed.
            if row.name in self._as_pieces and (self.instance == PLAIN or row.name in self._untouched):
                values[row.name] = self.layer(row.name).pieces(*(values[name] for name in row.inputs))
            else:
                values[row.name] = self.run_row(row, values, sizes)
            for name in row.inputs:
                if self._last_use[name] == i:
                    values.pop(name, None)
        return values[self.definition.rows[-1].name]

    def level_sizes(self, image: Tensor) -> LevelSizes:
        """The sizes that the neck's maps of an image (B, 3, H, W) must have; empty for the plain network.

        To ``restore`` they are the nominal ones. To ``shrink`` they are found on the way, by ``run_row``.
        """
        if self.instance == PLAIN or self.definition.is_classifier or self.way == "shrink":
            return {}
        height, width = image.shape[2:]
        return {s.reduction: (height // s.reduction, width // s.reduction) for s in self.shapes.values()}

    def run_row(self, row: Row, values: dict[str, Any], sizes: LevelSizes) -> Any:
        """The output of a row.

        Args:
            row: one of the definition.
            values: outputs of the rows that it reads.
            sizes: of ``level_sizes``; to ``shrink``, a map of the backbone that others read settles its level's.
        """
        inputs = [values[name] for name in row.inputs]
        if sizes and row.section != "backbone":
            inputs = [self._resized(x, name, sizes) for x, name in zip(inputs, row.inputs, strict=True)]
        output = self.layer(row.name)(*inputs)
        if row.name in self.behind:
            output = self.behind[row.name](output)
        shrinks = self.instance != PLAIN and not self.definition.is_classifier and self.way == "shrink"
        if shrinks and row.name in self._tapped:
            sizes[self.shapes[row.name].reduction] = (output.shape[2], output.shape[3])
        return output

    def use_instance(self, instance: Instance) -> None:
        """Run another of the networks that share these weights, from now on.

        Args:
            instance: point and ratio.

        Raises:
            InputError: there is no such point.
        """
        if not 0 <= instance.point <= len(self.points):
            allowed = f"1 to {len(self.points)}, or 0 for the plain network" if self.points else "0, it has none"
            raise InputError(f"point: {self.definition.name} has no point {instance.point}; allowed: {allowed}")
        for number, point in enumerate(self.points, start=1):
            point.ratio = instance.ratio if number == instance.point else None
        self.instance = instance

    def layer(self, name: str) -> Block:
        """The module of a row."""
        layer = self.layers[name]
        assert isinstance(layer, Block), f"{name} is not a block"
        return layer

    @property
    def max_reduction(self) -> int:
        """Input height and width must be multiples of it."""
        return max(shape.reduction for shape in self.shapes.values())

    @property
    def last(self) -> Block:
        """The module of the last row."""
        return self.layer(self.definition.rows[-1].name)

    def _add(self, row: Row, section: Section, num_classes: int, used: set[str | Convolutions]) -> None:
        inputs = [self.shapes[name] for name in row.inputs]
        try:
            if hasattr(self.layers, row.name):
                raise InputError(f"name: {row.name!r} is an attribute of PyTorch's modules; choose another name")
            layer, words = _build_row(row, inputs, section, num_classes)
            shape = layer.out_shape(*inputs)
            if row.reduction is not None and row.reduction != shape.reduction:
                raise InputError(f"reduction: stated {row.reduction}, built {shape.reduction}")
            conv = self._replace_convolutions(layer, row, section)
        except InputError as error:
            raise InputError(f"{self.definition.where(section)}: {row.label}: {error}") from None
        set_norms(layer, section.norm)
        used |= {*words, conv}
        self.layers[row.name] = layer
        self.shapes[row.name] = shape

    def _replace_convolutions(self, layer: Block, row: Row, section: Section) -> Convolutions:
        """Make the layer's convolutions what its row or section says; what they are now."""
        wanted = section.conv if row.conv is None else row.conv
        if wanted.kind == "standard":
            return wanted
        is_first = not any(isinstance(module, nn.Conv2d) for module in self.layers.modules())
        if not (is_first or row.section == "head") and replace_convolutions(layer, wanted):
            return wanted
        if row.conv is not None:
            raise InputError(f"conv: {wanted.kind} has no effect; {_ORDINARY}")
        return Convolutions()

    def _find_points(self) -> list[DownsamplePoint]:
        """The points of the backbone's blocks, or else one behind each row of its that is a convolution."""
        rows = [(row, self.layer(row.name)) for row in self.definition.rows if row.section == "backbone"]
        has_blocks = any(layer.point_behind or _inner_points(layer) for _, layer in rows)
        read = [name for row in self.definition.rows for name in row.inputs]
        found: list[DownsamplePoint] = []
        for row, layer in rows:
            # A max-pool is a point in front of the first block only, the stem's, and with no branch beside it.
            is_stem = not found and read.count(row.inputs[0]) == 1
            found += [point for point in layer.points if is_stem or not isinstance(point, PoolPoint)]
            if layer.point_behind or (row.module == "Conv" and not has_blocks):
                self.behind[row.name] = point = DownsamplePoint()
                found.append(point)
        return found

    def _find_tapped(self) -> frozenset[str]:
        """The rows of the backbone that the neck or the head reads."""
        backbone = {row.name for row in self.definition.rows if row.section == "backbone"}
        others = (row for row in self.definition.rows if row.section != "backbone")
        return frozenset(name for row in others for name in row.inputs if name in backbone)

    def _resized(self, x: Any, name: str, sizes: LevelSizes) -> Any:
        """The output of row ``name`` with its level's size; what has no level of the backbone's stays."""
        size_hw = sizes.get(self.shapes[name].reduction)
        return x if size_hw is None else resize_cells(x, size_hw)

    def _refuse_idle_words(self, used: set[str | Convolutions]) -> None:
        for section in self.definition.sections:
            where = self.definition.where(section)
            for word in section.defaults:
                if word not in used:
                    raise InputError(
                        f"{where}: defaults.{word}: has no effect; no module has this keyword, or "
                        "every row that could take it says otherwise"
                    )
            if section.conv not in used:
                raise InputError(f"{where}: conv: {section.conv.kind} has no effect; {_ORDINARY}")

    def _refuse_idle_rows(self) -> None:
        read = {name for row in self.definition.rows for name in row.inputs}
        for section in self.definition.sections:
            for row in section.rows:
                if row.name not in read and row is not self.definition.rows[-1]:
                    where = self.definition.where(section)
                    raise InputError(f"{where}: {row.label}: no row reads it, and it is not the last one")

    def _plan_pieces(self) -> frozenset[str]:
        """The rows whose output goes out in pieces: they can, it gains something, and all who use it accept pieces."""
        layers = {row.name: self.layer(row.name) for row in self.definition.rows}
        plan: set[str] = set()
        for row in self.definition.rows:
            # A module that accepts and emits pieces (a concatenation) only hands on those of its inputs.
            source = not layers[row.name].accepts_pieces or any(name in plan for name in row.inputs)
            if layers[row.name].emits_pieces and source:
                plan.add(row.name)
        plan.discard(self.definition.rows[-1].name)
        for row in reversed(self.definition.rows):
            if not layers[row.name].accepts_pieces or (layers[row.name].emits_pieces and row.name not in plan):
                plan.difference_update(row.inputs)
        return frozenset(plan)


def _inner_points(layer: Block) -> list[DownsamplePoint]:
    return [point for point in layer.points if not isinstance(point, PoolPoint)]


def scale_width(channels: int, scale: Scale) -> int:
    """Channels at the model's width, rounded up to the multiple (YOLOv5's rule; the SPD paper's text says nearest).

    At width 1 they are what the row says.
    """
    if scale.width == 1:
        return channels
    return max(math.ceil(round(channels * scale.width / scale.channel_multiple, 6)), 1) * scale.channel_multiple


def scale_depth(repeats: int, scale: Scale) -> int:
    """Repeats at the model's depth, at least one."""
    return max(round(repeats * scale.depth), 1) if repeats > 1 else repeats


def _build_row(row: Row, inputs: list[FeatureShape], section: Section, num_classes: int) -> tuple[Block, set[str]]:
    """The row's module, and the words of ``defaults`` that it took."""
    block = find_block(row.module)
    parameters = _keywords(block)
    allowed = [name for name in parameters if name not in FROM_GRAPH]
    for word in row.args:
        if word not in allowed:
            raise InputError(f"args: {row.module} has no keyword {word!r}{did_you_mean(str(word), allowed)}")
    if len(inputs) > 1 and not block.many_inputs:
        raise InputError(f"from: {row.module} takes one input, found {len(inputs)}")
    defaults = {word: value for word, value in section.defaults.items() if word in allowed}
    repeats = scale_depth(row.repeats, section.scale)
    many = block.many_inputs
    from_graph = {
        "in_channels": tuple(s.channels for s in inputs) if many else inputs[0].channels,
        "in_reductions": tuple(s.reduction for s in inputs) if many else inputs[0].reduction,
        "num_classes": num_classes,
        "repeats": repeats,
    }
    words = {**defaults, **row.args}
    for word, value in words.items():
        _check_kind(value, word, parameters[word].annotation)
        if word in block.widths and value is not None:
            words[word] = scale_width(value, section.scale)
    words.update({word: value for word, value in from_graph.items() if word in parameters})
    missing = [
        name for name, parameter in parameters.items() if parameter.default is parameter.empty and name not in words
    ]
    if missing:
        raise InputError(f"args: {row.module} needs {', '.join(missing)}")
    if row.repeats > 1 and "repeats" not in parameters:
        raise InputError(f"repeats: {row.module} cannot be repeated")
    return _construct(block, words), set(defaults) - set(row.args)


def _keywords(block: type[Block]) -> dict[str, inspect.Parameter]:
    """The keywords of the block's constructor. One without a constructor of its own has PyTorch's, which takes none."""
    parameters = inspect.signature(block.__init__).parameters.values()
    return {p.name: p for p in parameters if p.name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _construct(block: type[Block], words: dict[str, Any]) -> Block:
    try:
        return block(**words)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise InputError(f"args: {error}") from None
        given = ", ".join(f"{word}={value!r}" for word, value in words.items())
        raise InputError(f"args: {block.__name__}({given}): {str(error).splitlines()[0]}") from None


def _check_kind(value: Any, word: str, annotation: Any) -> None:
    """Refuse what Python would take for a number or a truth value: ``true`` as 1, ``"no"`` as true, 0 as a stride."""
    if annotation == "int | None" and value is None:
        return
    if annotation in ("int", "int | None") and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"args: {word}: must be a whole number above 0, found {value!r}")
    if annotation == "float" and (isinstance(value, bool) or not isinstance(value, (int, float)) or value != value):
        raise InputError(f"args: {word}: must be a number, found {value!r}")
    if annotation == "bool" and not isinstance(value, bool):
        raise InputError(f"args: {word}: must be true or false, found {value!r}")


def set_norms(module: nn.Module, norm: dict[str, float]) -> None:
    """Set ``eps`` and ``momentum`` of all batch norms; what ``norm`` does not name stays.

    Args:
        module: is changed.
        norm: the values.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = norm.get("eps", layer.eps)
            layer.momentum = norm.get("momentum", layer.momentum)
