"""State dicts of the YOLOv5 family, and of its SPD-Conv form, as weights of our models.

Their modules are numbered, and some have no weights. Modules with weights are matched to our rows by their order, and
tensors by their names in a module:

==============================================  ==========================  =====================================
theirs, behind ``model.N.``                     ours, behind a row's name   meaning
==============================================  ==========================  =====================================
``conv.weight``, ``bn.*``                       ``conv.conv``, ``norm``     a convolution; ``conv.conv.*``: the SPD stem
``cv1``, ``cv2``, ``cv3``, ``m.J.cv1``, ``cv2``  ``divide`` (cv1, cv2         a C3
                                                stacked), ``fuse`` (cv3),
                                                ``blocks.J.conv1``, ``2``
``cv1``, ``cv2``                                ``reduce``, ``fuse``        an SPPF
``m.L.weight``, ``bias``, ``anchors``           ``predict.L``, anchors      the head; anchors in cells
==============================================  ==========================  =====================================

The norms' batch counters have no use in a trained model and are dropped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.blocks.csp import C3
from detect.models.blocks.downsample import Downsample, Stem
from detect.models.blocks.pool import SPPF
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_weights
from detect.models.definition import Row, with_args
from detect.models.foreign.members import Misfit, fitting_member
from detect.models.foreign.tensor_files import COUNTER, State, TensorFile
from detect.models.heads import AnchorDetect
from detect.models.model import DetectionModel
from detect.models.registry import Block

FAMILY = tuple(f"yolov5{size}{form}" for size in "nsml" for form in ("", "-spd"))
"""The models that are tried by default."""

_NORM = ("weight", "bias", "running_mean", "running_var")
_CONV = {"conv.weight": "conv.weight", **{f"bn.{word}": f"norm.{word}" for word in _NORM}}
"""Tensors of a convolution with its norm: the file's name to ours."""
_KEY = re.compile(r"(?:model\.)*(?P<number>\d+)\.(?P<rest>.+)")


def load_yolov5(file: TensorFile, path: Path, name: str | None = None) -> DetectionModel:
    """Build a model with the weights of a YOLOv5-family state dict, in float32.

    Without a name those of ``FAMILY`` are tried. ``path`` is for messages.

    Raises:
        InputError: the tensors are not named like those of the family, do not fit, are not finite, or are negative
            where they are variances.
    """
    modules = _modules(file.tensors, path)
    num_classes = _num_classes(modules[-1], path)

    def translate(candidate: str) -> tuple[tuple[DetectionModel, State], list[str]]:
        with torch.device("meta"):
            model = DetectionModel(find_definition(candidate), num_classes)
        state, complaints = _translate(model, modules)
        return (model, state), complaints

    found = fitting_member(FAMILY, name, path, translate)
    if not isinstance(found, Misfit):
        return _filled(*found, path)
    count, nearest, complaint = found
    if count == len(modules):
        reason = f"{nearest}: {complaint}"
        raise InputError(f"{path}: fits none of {', '.join(FAMILY)} ({reason}); name the model that fits with --model")
    fitting = f"{len(modules) - count} of {len(modules)} rows fit"
    raise InputError(
        f"{path}: fits no model of the YOLOv5 family; nearest is {nearest}, of which {fitting}: {complaint}"
    )


def _filled(model: DetectionModel, state: State, path: Path) -> DetectionModel:
    definition = model.definition
    anchors = state.get(f"graph.layers.{definition.rows[-1].name}.anchors_px")
    if anchors is not None:
        definition = with_args(definition, "AnchorDetect", anchors_px=anchors.tolist())
    filled = DetectionModel(definition, model.num_classes)
    load_weights(filled, {**filled.state_dict(), **state}, path)
    return filled


def _modules(tensors: State, path: Path) -> list[State]:
    """The tensors of each module that has some, in the order of the numbers."""
    found: dict[int, State] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or len(match["number"]) > 4:
            raise InputError(f"{path}: {key[:80]!r} is no weight of the YOLOv5 family, such as 'model.0.conv.weight'")
        if key.endswith(COUNTER):
            continue
        value = tensor.float() if tensor.is_floating_point() else tensor
        found.setdefault(int(match["number"]), {})[match["rest"]] = value
    return [found[number] for number in sorted(found)]


def _num_classes(head: State, path: Path) -> int:
    """K, from the biases and anchors of the head."""
    anchors = head.get("anchors")
    num_anchors = anchors.shape[1] if anchors is not None and anchors.ndim == 3 else 3
    # By a majority of the levels: one that is missing or of another shape is reported later.
    sizes = Counter(len(bias) for key, bias in head.items() if key.endswith(".bias") and bias.ndim == 1)
    values = sizes.most_common(1)[0][0] if sizes else 0
    if not num_anchors or values % num_anchors or values // num_anchors < 6:
        raise InputError(f"{path}: its last module is no head of YOLOv5, with a bias of anchors * (5 + classes) values")
    return values // num_anchors - 5


def _translate(model: DetectionModel, modules: list[State]) -> tuple[State, list[str]]:
    """The tensors under our names, and a complaint for each row that its module does not fit."""
    graph = model.graph
    rows = [row for row in graph.definition.rows if any(True for _ in graph.layer(row.name).parameters())]
    if len(rows) != len(modules):
        complaint = f"the file has {len(modules)} modules with weights, the model {len(rows)} rows"
        return {}, [complaint] * len(modules)
    own, state, complaints = model.state_dict(), State(), []
    for row, module in zip(rows, modules, strict=True):
        path = f"graph.layers.{row.name}."
        shapes = {key: tuple(value.shape) for key, value in own.items() if key.startswith(path)}
        try:
            state |= _translate_row(graph.layer(row.name), row, module, path, shapes)
        except InputError as error:
            complaints.append(f"{row.label}: {error}")
    return state, complaints


def _translate_row(layer: Block, row: Row, module: State, path: str, shapes: dict[str, tuple[int, ...]]) -> State:
    """The tensors of a module under the names of a row, which must have these shapes."""
    left = dict(module)
    translated = {f"{path}{key}": value for key, value in _row(layer, left)}
    if left:
        raise InputError(f"is a {row.module}, which has nothing for {min(left)[:80]!r}")
    for key, shape in shapes.items():
        if key not in translated and not key.endswith((".anchors_px", COUNTER)):
            raise InputError(f"the file has nothing for {key}")
        if key in translated and tuple(translated[key].shape) != shape:
            raise InputError(f"{key} is {shape}, in the file {tuple(translated[key].shape)}")
    if unknown := sorted(set(translated) - set(shapes)):
        raise InputError(f"the model has no {unknown[0]}")
    return translated


def _row(layer: Block, module: State) -> Iterator[tuple[str, Tensor]]:
    """A module's tensors under their names in a row; they are removed from ``module``."""
    match layer:
        case AnchorDetect():
            return _head(layer, module)
        case C3():
            return _c3(module)
        case SPPF():
            return chain(_conv(module, "cv1.", "reduce."), _conv(module, "cv2.", "fuse."))
        case Stem() | Downsample():
            return _conv(module, "conv." if "conv.conv.weight" in module else "", "conv.")
        case Conv():
            return _conv(module, "", "")
    raise InputError(f"the YOLOv5 family has no {type(layer).__name__}")


def _conv(module: State, theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a convolution and its norm that the module has."""
    for word, name in _CONV.items():
        if f"{theirs}{word}" in module:
            yield f"{ours}{name}", module.pop(f"{theirs}{word}")


def _c3(module: State) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a C3; its first two convolutions are one in ours."""
    first, second = dict(_conv(module, "cv1.", "divide.")), dict(_conv(module, "cv2.", "divide."))
    for key in first.keys() & second.keys():
        a, b = first[key], second[key]
        if a.shape != b.shape:
            raise InputError(f"cv1 and cv2 have other shapes: {tuple(a.shape)} and {tuple(b.shape)}")
        yield key, torch.cat([a, b])
    yield from _conv(module, "cv3.", "fuse.")
    for number in {key.split(".")[1] for key in module if key.startswith("m.")}:
        for i in (1, 2):
            yield from _conv(module, f"m.{number}.cv{i}.", f"blocks.{number}.conv{i}.")


def _head(head: AnchorDetect, module: State) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the head; anchors are in cells in the file, in network-input pixels in ours."""
    for level in range(len(head.reductions)):
        for word in ("weight", "bias"):
            if f"m.{level}.{word}" in module:
                yield f"predict.{level}.{word}", module.pop(f"m.{level}.{word}")
    module.pop("anchor_grid", None)  # older files repeat the anchors
    anchors = module.pop("anchors", None)
    if anchors is not None:
        if anchors.shape != head.anchors_px.shape:
            raise InputError(f"anchors: are {tuple(anchors.shape)}, must be {tuple(head.anchors_px.shape)}")
        yield "anchors_px", anchors * torch.tensor(head.reductions).view(-1, 1, 1)
