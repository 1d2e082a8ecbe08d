"""A row's module: its class, and its constructor's keywords from the row, its section and the graph."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields
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
ORDINARY = "convolutions of 1x1, of several groups, and of the first row that has any stay ordinary"


def scale_width(channels: int, scale: Scale) -> int:
    """Scale channels by the width and round up to the multiple (YOLOv5's rule; the SPD paper's text says nearest)."""
    if scale.width == 1:
        return channels  # as published, also where they are no multiple
    return max(math.ceil(round(channels * scale.width / scale.channel_multiple, 6)), 1) * scale.channel_multiple


def scale_depth(repeats: int, scale: Scale) -> int:
    return max(round(repeats * scale.depth), 1) if repeats > 1 else repeats


def build_row(row: Row, inputs: list[FeatureShape], section: Section, num_classes: int) -> tuple[Block, set[str]]:
    """Build the row's module; the set holds the keys of ``defaults`` that it took."""
    block = find_block(row.module)
    keywords = _keywords(block)
    allowed = [name for name in keywords if name not in FROM_GRAPH]
    for key in row.args:
        if key not in allowed:
            raise InputError(f"args: {row.module} has no keyword {key!r}{did_you_mean(str(key), allowed)}")
    if len(inputs) > 1 and not block.many_inputs:
        raise InputError(f"from: {row.module} takes one input, found {len(inputs)}")
    defaults = {key: value for key, value in section.defaults.items() if key in allowed}
    values = {**defaults, **row.args}  # the row's own overrule the section's
    for key, value in values.items():
        _check_kind(value, key, keywords[key].annotation)
        if key in block.widths and value is not None:  # None leaves the layer out
            values[key] = scale_width(value, section.scale)
    from_graph = {
        **_shape_keywords(block, inputs),
        "num_classes": num_classes,
        "repeats": scale_depth(row.repeats, section.scale),
    }
    values |= {key: value for key, value in from_graph.items() if key in keywords}
    missing = [name for name, keyword in keywords.items() if keyword.default is keyword.empty and name not in values]
    if missing:
        raise InputError(f"args: {row.module} needs {', '.join(missing)}")
    if row.repeats > 1 and "repeats" not in keywords:
        raise InputError(f"repeats: {row.module} cannot be repeated")
    return _construct(block, values), set(defaults) - set(row.args)


def _shape_keywords(block: type[Block], inputs: list[FeatureShape]) -> dict[str, Any]:
    if block.many_inputs:
        return {
            "in_channels": tuple(shape.channels for shape in inputs),
            "in_reductions": tuple(shape.reduction for shape in inputs),
        }
    return {"in_channels": inputs[0].channels, "in_reductions": inputs[0].reduction}


def _keywords(block: type[Block]) -> dict[str, inspect.Parameter]:
    """Return the constructor's keywords, the fields of its options among them."""
    found = dict(inspect.signature(block.__init__).parameters)
    if block.Options is not None:
        del found["options"]
        found |= inspect.signature(block.Options.__init__).parameters
    # A block without a constructor of its own has PyTorch's ``*args, **kwargs``, which take none.
    return {n: p for n, p in found.items() if n != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _construct(block: type[Block], values: dict[str, Any]) -> Block:
    options = {field.name for field in fields(block.Options)} if block.Options else set()
    own = {key: value for key, value in values.items() if key not in options}
    try:
        if block.Options is None:
            return block(**own)
        return block(**own, options=block.Options(**{key: values[key] for key in values if key in options}))
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise InputError(f"args: {error}") from None
        given = ", ".join(f"{key}={value!r}" for key, value in values.items())
        raise InputError(f"args: {block.__name__}({given}): {str(error).splitlines()[0]}") from None


def _check_kind(value: Any, key: str, annotation: Any) -> None:
    """Refuse values that Python itself would accept: ``true`` as 1, ``"no"`` as true, 0 as a stride."""
    if annotation == "int | None" and value is None:
        return
    if annotation in ("int", "int | None") and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"args: {key}: must be a whole number above 0, found {value!r}")
    if annotation == "float" and (isinstance(value, bool) or not isinstance(value, (int, float)) or value != value):
        raise InputError(f"args: {key}: must be a number, found {value!r}")
    if annotation == "bool" and not isinstance(value, bool):
        raise InputError(f"args: {key}: must be true or false, found {value!r}")


def set_norms(module: nn.Module, norm: dict[str, float]) -> None:
    """Set ``eps`` and ``momentum`` of all batch norms in place; a key that ``norm`` lacks keeps its value."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = norm.get("eps", layer.eps)
            layer.momentum = norm.get("momentum", layer.momentum)


def choose_convolutions(layer: Block, row: Row, section: Section, is_first: bool) -> Convolutions:
    """Replace a layer's k x k convolutions in place by the kind of its row or section; return their resulting kind.

    An ``InputError`` reports a choice of the row without effect, or a kind that this installation does not have.
    """
    wanted = section.conv if row.conv is None else row.conv
    if wanted.kind == "standard":
        return wanted
    if not is_first and replace_convolutions(layer, wanted):
        return wanted
    if row.conv is not None:
        raise InputError(f"conv: {wanted.kind} has no effect; {ORDINARY}")
    return Convolutions()


def refuse_idle_defaults(definition: ModelDefinition, used: set[str | Convolutions]) -> None:
    """Refuse ``defaults`` and convolutions of a section that no row has taken (those in ``used``)."""
    for section in definition.sections:
        where = definition.where(section)
        for key in section.defaults:
            if key not in used:
                raise InputError(
                    f"{where}: defaults.{key}: has no effect; no module has this keyword, or "
                    "every row that could take it says otherwise"
                )
        if section.conv not in used:
            raise InputError(f"{where}: conv: {section.conv.kind} has no effect; {ORDINARY}")


def refuse_idle_rows(definition: ModelDefinition) -> None:
    read = {name for row in definition.rows for name in row.inputs}
    for section in definition.sections:
        for row in section.rows:
            if row.name not in read and row is not definition.rows[-1]:
                raise InputError(
                    f"{definition.where(section)}: {row.label}: no row reads it, and it is not the last one"
                )


def plan_pieces(definition: ModelDefinition, layers: Mapping[str, Block]) -> frozenset[str]:
    """Return the rows whose output stays in pieces: they emit pieces, all readers accept those, and it saves a copy.

    Args:
        definition: the model.
        layers: the rows' modules by name.
    """
    plan: set[str] = set()
    for row in definition.rows:
        # A module that accepts and emits pieces (a concatenation) only forwards those of its inputs.
        source = not layers[row.name].accepts_pieces or any(name in plan for name in row.inputs)
        if layers[row.name].emits_pieces and source:
            plan.add(row.name)
    plan.discard(definition.rows[-1].name)
    # Backwards: a row that cannot read pieces takes its inputs out of the plan, and so a concatenation its own inputs.
    for row in reversed(definition.rows):
        if not layers[row.name].accepts_pieces or (layers[row.name].emits_pieces and row.name not in plan):
            plan.difference_update(row.inputs)
    return frozenset(plan)
