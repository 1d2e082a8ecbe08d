"""The module of a row: its class, and its constructor's keywords from the row, its section and the graph."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from detect.config.model import Convolutions, Scale
from detect.errors import InputError, did_you_mean
from detect.models.blocks.conv import replace_convolutions
from detect.models.definition import ModelDefinition, Row, Section
from detect.models.registry import Block, find_block
from detect.structures import FeatureShape

FROM_GRAPH = ("in_channels", "in_reductions", "num_classes", "repeats")
"""Constructor keywords that the builder fills in; a row's ``args`` must not."""
ORDINARY = "convolutions of 1x1, of several groups, of the first row that has any, and of the head stay ordinary"


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


def build_row(row: Row, inputs: list[FeatureShape], section: Section, num_classes: int) -> tuple[Block, set[str]]:
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


def choose_convolutions(layer: Block, row: Row, section: Section, is_first: bool) -> Convolutions:
    """Make a layer's convolutions what its row or section says.

    Args:
        layer: is changed.
        row: whose layer it is.
        section: of the row.
        is_first: no row before has a convolution.

    Returns:
        What they are now.

    Raises:
        InputError: the row's choice has no effect, or this installation does not have it.
    """
    wanted = section.conv if row.conv is None else row.conv
    if wanted.kind == "standard":
        return wanted
    if not (is_first or row.section == "head") and replace_convolutions(layer, wanted):
        return wanted
    if row.conv is not None:
        raise InputError(f"conv: {wanted.kind} has no effect; {ORDINARY}")
    return Convolutions()


def refuse_idle_words(definition: ModelDefinition, used: set[str | Convolutions]) -> None:
    """Refuse ``defaults`` and convolutions of a section that no row has taken.

    Args:
        definition: the model.
        used: the words and convolutions that rows have taken.

    Raises:
        InputError: names the first.
    """
    for section in definition.sections:
        where = definition.where(section)
        for word in section.defaults:
            if word not in used:
                raise InputError(
                    f"{where}: defaults.{word}: has no effect; no module has this keyword, or "
                    "every row that could take it says otherwise"
                )
        if section.conv not in used:
            raise InputError(f"{where}: conv: {section.conv.kind} has no effect; {ORDINARY}")


def refuse_idle_rows(definition: ModelDefinition) -> None:
    """Refuse a row that no other reads and that is not the last one.

    Raises:
        InputError: names the first.
    """
    read = {name for row in definition.rows for name in row.inputs}
    for section in definition.sections:
        for row in section.rows:
            if row.name not in read and row is not definition.rows[-1]:
                raise InputError(
                    f"{definition.where(section)}: {row.label}: no row reads it, and it is not the last one"
                )


def plan_pieces(definition: ModelDefinition, layers: Mapping[str, Block]) -> frozenset[str]:
    """The rows whose output goes out in pieces: they can, it gains something, and all who use it accept pieces.

    Args:
        definition: the model.
        layers: the rows' modules by name.
    """
    plan: set[str] = set()
    for row in definition.rows:
        # A module that accepts and emits pieces (a concatenation) only hands on those of its inputs.
        source = not layers[row.name].accepts_pieces or any(name in plan for name in row.inputs)
        if layers[row.name].emits_pieces and source:
            plan.add(row.name)
    plan.discard(definition.rows[-1].name)
    for row in reversed(definition.rows):
        if not layers[row.name].accepts_pieces or (layers[row.name].emits_pieces and row.name not in plan):
            plan.difference_update(row.inputs)
    return frozenset(plan)
