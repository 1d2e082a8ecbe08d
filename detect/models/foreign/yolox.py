"""Weights of the YOLOX family: its published state dicts, and its ONNX export.

Their modules are matched to our rows by name, and the convolutions in them likewise:

================================================  ======================================================================
theirs, behind the module's name                  ours, behind the row's name
================================================  ======================================================================
``conv.weight``, ``bn.*``                         ``conv.conv``, ``conv.norm``: a convolution
``dconv.conv``, ``.bn``, ``pconv.conv``, ``.bn``  ``conv.conv.depthwise``, ``.norm``, ``.pointwise``, ``conv.norm``
``conv1``, ``conv2``, ``conv3``, ``m.J.conv1``    ``divide`` (conv1, conv2 stacked), ``fuse``, ``blocks.J.conv1``: a C3
``conv1``, ``conv2``                              ``reduce``, ``fuse``: the spatial pyramid
``stems.L``, ``cls_convs.L.I``, ``cls_preds.L``   ``stems.L``, ``class_branches.L.I``, ``classes.L``: the head
``reg_convs.L.I``, ``reg_preds.L``, ``obj_...``   ``box_branches.L.I``, ``boxes.L`` (sides and objectness stacked)
================================================  ======================================================================

An exported file has numbers for names, and its norms are folded into the convolutions: those are taken in the order in
which the network runs. Each gets a norm that changes nothing in inference, with the statistics of noise. Training takes
those of a batch, so that it does not start from the same function; with other statistics it would start further away.

YOLOX reads blue, green, red from 0 to 255, our models red, green, blue from 0 to 1: the stem's channels change places,
and its norm takes the factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv, SeparableConv
from detect.models.blocks.csp import C3
from detect.models.blocks.downsample import Downsample, Stem
from detect.models.blocks.pool import SPPF
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_weights
from detect.models.definition import ModelDefinition
from detect.models.foreign.members import Misfit, fitting_member
from detect.models.foreign.onnx_weights import FoldedConv
from detect.models.foreign.tensor_files import COUNTER, State
from detect.models.heads import BOX_VALUES, AnchorFreeDetect
from detect.models.model import DetectionModel

FAMILY = tuple(f"yolox-{size}" for size in ("nano", "tiny", "s", "m", "l"))
"""The models that are tried by default."""
PREFIX = "backbone.backbone.stem."
"""Start of the name of the first tensors, by which the family is recognised."""
MODULES = {
    "stem": "backbone.backbone.stem.conv",
    **{f"down{i}": f"backbone.backbone.dark{i}.0" for i in (2, 3, 4, 5)},
    **{f"c{i}": f"backbone.backbone.dark{i}.1" for i in (2, 3, 4)},
    "spp5": "backbone.backbone.dark5.1",
    "c5": "backbone.backbone.dark5.2",
    "lateral5": "backbone.lateral_conv0",
    "fpn4": "backbone.C3_p4",
    "lateral4": "backbone.reduce_conv1",
    "p3": "backbone.C3_p3",
    "down_p3": "backbone.bu_conv2",
    "p4": "backbone.C3_n3",
    "down_p4": "backbone.bu_conv1",
    "p5": "backbone.C3_n4",
    "detect": "head",
}
"""Their modules of our rows, which run in this order."""
PIXEL_SCALE = 255.0
"""Values of YOLOX's images over ours."""

_NORM = ("weight", "bias", "running_mean", "running_var")


class Part(NamedTuple):
    """One of their convolutions.

    Args:
        theirs: its name.
        conv: name of ours.
        norm: name of the norm behind it, or None.
        eps: of the norm.
        rows: its output channels among ours.
    """

    theirs: str
    conv: str
    norm: str | None = None
    eps: float = 0.0
    rows: slice = slice(None)


def load_yolox(tensors: State, path: Path, name: str | None = None) -> DetectionModel:
    """Build a model with a published state dict's weights; without a name, the member of ``FAMILY`` that fits."""
    given = {key: value.float() for key, value in tensors.items() if not key.endswith(COUNTER)}
    return _load(lambda parts: given, path, name)


def load_yolox_export(convolutions: list[FoldedConv], path: Path, name: str | None = None) -> DetectionModel:
    """Build a model with the convolutions of an exported file; otherwise as ``load_yolox``."""
    return _load(lambda parts: _named(convolutions, parts), path, name)


def _named(convolutions: list[FoldedConv], parts: list[Part]) -> State:
    """The convolutions as a state dict of YOLOX, with norms that change nothing; those too many are numbered."""
    state = {f"convolution {i + 1}": conv.weight for i, conv in enumerate(convolutions) if i >= len(parts)}
    for part, (weight, bias) in zip(parts, convolutions, strict=False):
        if part.norm is None:
            state |= {f"{part.theirs}.weight": weight, f"{part.theirs}.bias": bias}
        else:
            ones = torch.ones_like(bias)
            norm = (ones, bias, torch.zeros_like(bias), ones - part.eps)
            state |= {f"{part.theirs}.conv.weight": weight}
            state |= {f"{part.theirs}.bn.{word}": value for word, value in zip(_NORM, norm, strict=True)}
    return state


def _load(state_of: Callable[[list[Part]], State], path: Path, name: str | None) -> DetectionModel:
    """Build the first model that a state fits, which may depend on the model."""

    def translate(candidate: str) -> tuple[tuple[ModelDefinition, int, list[Part], State], list[str]]:
        definition = find_definition(candidate)
        with torch.device("meta"):
            parts = parts_of(DetectionModel(definition, 1))
            given = state_of(parts)
            model = DetectionModel(definition, _num_classes(given))
        return (definition, model.num_classes, parts, given), _complaints(model, parts, given)

    found = fitting_member(FAMILY, name, path, translate)
    if isinstance(found, Misfit):
        raise InputError(f"{path}: fits none of {', '.join(FAMILY)}; nearest is {found.name}: {found.complaint}")
    return _filled(*found, path)


def parts_of(model: DetectionModel) -> list[Part]:
    """Return their convolutions, in the order in which their network runs, as those of a model of ours.

    Raises:
        InputError: the model has a row that YOLOX has not.
    """
    found: list[Part] = []
    for row in model.definition.rows:
        layer = model.graph.layer(row.name)
        if not any(True for _ in layer.parameters()):
            continue
        parts = _parts(layer, MODULES[row.name], f"graph.layers.{row.name}") if row.name in MODULES else None
        if parts is None:
            raise InputError(f"{model.definition.name}: {row.label}: the YOLOX family has no such {row.module}")
        found += parts
    return found


def _parts(layer: nn.Module, theirs: str, ours: str) -> Iterator[Part] | None:
    """The convolutions of a row, or None if YOLOX has none of its class."""
    match layer:
        case Conv():
            return _conv(layer, theirs, ours)
        case Stem() | Downsample():
            return _conv(layer.conv, theirs, f"{ours}.conv")
        case SPPF():
            reduce = _conv(layer.reduce, f"{theirs}.conv1", f"{ours}.reduce")
            return chain(reduce, _conv(layer.fuse, f"{theirs}.conv2", f"{ours}.fuse"))
        case C3():
            return _c3(layer, theirs, ours)
        case AnchorFreeDetect():
            return chain(*(_level(layer, level, theirs, ours) for level in range(len(layer.reductions))))
    return None


def _conv(layer: nn.Module, theirs: str, ours: str, rows: slice = slice(None)) -> Iterator[Part]:
    assert isinstance(layer, Conv), "YOLOX is made of them"
    if isinstance(layer.conv, SeparableConv):
        inner = layer.conv.norm
        yield Part(f"{theirs}.dconv", f"{ours}.conv.depthwise", f"{ours}.conv.norm", inner.eps)
        yield Part(f"{theirs}.pconv", f"{ours}.conv.pointwise", f"{ours}.norm", layer.norm.eps)
    else:
        yield Part(theirs, f"{ours}.conv", f"{ours}.norm", layer.norm.eps, rows)


def _c3(layer: C3, theirs: str, ours: str) -> Iterator[Part]:
    half = layer.divide.conv.out_channels // 2
    yield from _conv(layer.divide, f"{theirs}.conv1", f"{ours}.divide", slice(half))
    yield from _conv(layer.divide, f"{theirs}.conv2", f"{ours}.divide", slice(half, 2 * half))
    for j, block in enumerate(layer.blocks):
        for word in ("conv1", "conv2"):
            yield from _conv(getattr(block, word), f"{theirs}.m.{j}.{word}", f"{ours}.blocks.{j}.{word}")
    yield from _conv(layer.fuse, f"{theirs}.conv3", f"{ours}.fuse")


def _level(head: AnchorFreeDetect, level: int, theirs: str, ours: str) -> Iterator[Part]:
    yield from _conv(head.stems[level], f"{theirs}.stems.{level}", f"{ours}.stems.{level}")
    yield from _branch(head.class_branches[level], f"{theirs}.cls_convs.{level}", f"{ours}.class_branches.{level}")
    yield Part(f"{theirs}.cls_preds.{level}", f"{ours}.classes.{level}")
    yield from _branch(head.box_branches[level], f"{theirs}.reg_convs.{level}", f"{ours}.box_branches.{level}")
    yield Part(f"{theirs}.reg_preds.{level}", f"{ours}.boxes.{level}", rows=slice(BOX_VALUES - 1))
    yield Part(f"{theirs}.obj_preds.{level}", f"{ours}.boxes.{level}", rows=slice(BOX_VALUES - 1, BOX_VALUES))


def _branch(branch: nn.Module, theirs: str, ours: str) -> Iterator[Part]:
    return chain(*(_conv(layer, f"{theirs}.{i}", f"{ours}.{i}") for i, layer in branch.named_children()))


def _num_classes(given: State) -> int:
    """K, by the first level's biases; 1 where the file has none, which is reported later."""
    biases = given.get("head.cls_preds.0.bias", torch.zeros(1))
    return len(biases) if biases.ndim == 1 and len(biases) else 1


def _pairs(part: Part) -> list[tuple[str, str]]:
    """Their names and ours of a part's tensors."""
    if part.norm is None:
        return [(f"{part.theirs}.{word}", f"{part.conv}.{word}") for word in ("weight", "bias")]
    norm = [(f"{part.theirs}.bn.{word}", f"{part.norm}.{word}") for word in _NORM]
    return [(f"{part.theirs}.conv.weight", f"{part.conv}.weight"), *norm]


def _complaints(model: DetectionModel, parts: list[Part], given: State) -> list[str]:
    """A complaint for each tensor that is missing, is too many or has another shape."""
    own = model.state_dict()
    found, known = [], set()
    for part in parts:
        for theirs, ours in _pairs(part):
            known.add(theirs)
            wanted = tuple(own[ours][part.rows].shape)
            if theirs not in given:
                found.append(f"the file has nothing for {theirs}")
            elif tuple(given[theirs].shape) != wanted:
                found.append(f"{theirs} is {tuple(given[theirs].shape)}, must be {wanted}")
    return found + [f"the model has nothing for {key[:80]!r}" for key in given if key not in known]


def _filled(
    definition: ModelDefinition, num_classes: int, parts: list[Part], given: State, path: Path
) -> DetectionModel:
    model = DetectionModel(definition, num_classes)
    state = model.state_dict()
    for part in parts:
        for theirs, ours in _pairs(part):
            state[ours][part.rows] = given[theirs]
    stem = next(part for part in parts if part.theirs == MODULES["stem"])
    _read_our_pixels(state, stem)
    load_weights(model, state, path)
    return model


def _read_our_pixels(state: State, stem: Part) -> None:
    """Change the stem from blue, green, red in [0, 255] to red, green, blue in [0, 1], in place."""
    weight = state[f"{stem.conv}.weight"]
    pixels = weight.view(len(weight), -1, 3, *weight.shape[2:])  # (O, place in a block of 2 x 2, colour, k, k)
    state[f"{stem.conv}.weight"] = pixels.flip(2).view_as(weight)
    # The convolution's values are a 255th of theirs: so are the norm's mean and deviation, but not its epsilon.
    variance = state[f"{stem.norm}.running_var"]
    scaled = variance / PIXEL_SCALE**2
    state[f"{stem.norm}.weight"] *= PIXEL_SCALE * ((scaled + stem.eps) / (variance + stem.eps)).sqrt()
    state[f"{stem.norm}.running_var"] = scaled
    state[f"{stem.norm}.running_mean"] /= PIXEL_SCALE
