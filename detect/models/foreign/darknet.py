"""Weights files of Darknet.

A ``.weights`` file names nothing: behind a header are the float32 values of every convolution, in the order in which
the network runs. A file fits a model when the counts agree; what must be known here is the order of the convolutions.

====================  ==================================================================================
int32                 version: major, minor, revision
int64, or int32       images seen in training; int64 from version 0.2 on
float32, by layer     bias, scale, running mean and running variance of the batch norm, or the bias alone;
                      then the weights (O, C / groups, k, k)
====================  ==================================================================================

All values are little-endian. Source: Darknet (Redmon, 2013 to 2018), its file format.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detect.errors import InputError
from detect.models.blocks.conv import Conv
from detect.models.graph import Graph
from detect.models.heads import AnchorDetect

VALUE = np.dtype("<f4")
_VERSION = struct.Struct("<3i")
_LARGEST_VERSION = 1000
"""From here on Darknet means transposed matrices by it, which no convolutional network has."""


@dataclass(frozen=True)
class Layer:
    """A convolution or fully connected layer, as Darknet stores it.

    Args:
        name: path in the graph.
        weight: (O, C / groups, k, k) or (O, C).
        bias: (O,), or that of the batch norm.
        norm: the batch norm behind the convolution, if any.
    """

    name: str
    weight: Tensor
    bias: Tensor
    norm: nn.BatchNorm2d | None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of the file."""
        if self.norm is None:
            return (self.bias, self.weight)
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None, "batch norms keep running statistics"
        assert variance is not None, "batch norms keep running statistics"
        return (self.bias, self.norm.weight, mean, variance, self.weight)

    @property
    def num_values(self) -> int:
        """How many values the file holds for it."""
        return sum(tensor.numel() for tensor in self.tensors)


@dataclass(frozen=True)
class DarknetFile:
    """What was read into a model.

    Args:
        version: such as ``0.2.5``.
        images_seen: in training.
        num_layers: how many of the model's layers the file had.
        total_layers: how many the model has.
        last_layer: name of the last one that the file had.
        skipped_classes: K of a classifier's last layer that was left out, or 0.
    """

    version: str
    images_seen: int
    num_layers: int
    total_layers: int
    last_layer: str
    skipped_classes: int


def load_darknet(graph: Graph, path: Path, partial: bool = False) -> DarknetFile:
    """Read a Darknet weights file into a model.

    Args:
        graph: its layers are filled, in Darknet's order.
        path: the file.
        partial: accept a file that ends behind any layer, or that holds a classifier, backbone and last layer;
            the model's other layers stay as they are.

    Raises:
        InputError: it is no such file, or has other values than the model takes; the model is as it was.
    """
    layers = darknet_layers(graph)
    try:
        with path.open("rb") as file:
            version, images_seen = _read_header(file.read(_VERSION.size + 8), path)
            start = _VERSION.size + (8 if version >= (0, 2) else 4)
            size = path.stat().st_size - start
            if size <= 0 or size % VALUE.itemsize:
                raise InputError(f"{path}: is not a Darknet weights file, or is damaged: it ends inside a value")
            count, skipped = _fitting_layers(layers, graph, size // VALUE.itemsize, path, partial)
            file.seek(start)
            values = np.fromfile(file, VALUE, sum(layer.num_values for layer in layers[:count]))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    _check_finite(values, layers[:count], path)
    _fill(layers[:count], values)
    return DarknetFile(".".join(map(str, version)), images_seen, count, len(layers), layers[count - 1].name, skipped)


def darknet_layers(graph: Graph) -> list[Layer]:
    """The layers of a model in Darknet's order: as they run, each detection layer right behind the row that it reads.

    Raises:
        InputError: a layer is none of Darknet's.
    """
    position = {row.name: i for i, row in enumerate(graph.definition.rows)}
    inputs_of_head = graph.definition.rows[-1].inputs
    order = []
    for i, (name, module) in enumerate(_run_order(graph)):
        words = name.split(".")
        row = words[1]
        if isinstance(graph.layer(row), AnchorDetect):
            row = inputs_of_head[int(words[-1])]
        # Layers of one row stay as they run; the detection layer, which runs last of all, comes behind them.
        order.append((position[row], i, _layer(name, module, graph)))
    return [layer for _, _, layer in sorted(order, key=lambda entry: entry[:2])]


def _run_order(graph: Graph) -> list[tuple[str, nn.Module]]:
    """Name and module of every convolution (with its norm, where it has one) and linear layer, in execution order."""
    # A convolution inside ``Conv`` may be run by a function of ours, without a call that a hook would see.
    inside = {id(m.conv) for m in graph.modules() if isinstance(m, Conv)}
    layers = (Conv, nn.Conv2d, nn.Linear)
    watched = {name: m for name, m in graph.named_modules() if isinstance(m, layers) and id(m) not in inside}
    with torch.device("meta"):
        copy = Graph(graph.definition, _num_classes(graph)).eval()
    found: list[str] = []
    for name in watched:
        copy.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: found.append(name))
    side = 2 * copy.max_reduction
    with torch.no_grad():
        copy(torch.empty(1, 3, side, side, device="meta"))
    assert sorted(found) == sorted(watched), "every layer runs once"
    return [(name, watched[name]) for name in found]


def _num_classes(graph: Graph) -> int:
    """K of the last row."""
    last = graph.last
    return last.num_classes if isinstance(last, AnchorDetect) else graph.shapes[graph.definition.rows[-1].name].channels


def _layer(name: str, module: nn.Module, graph: Graph) -> Layer:
    if isinstance(module, Conv):
        return Layer(name, module.conv.weight, module.norm.bias, module.norm)
    assert isinstance(module, (nn.Conv2d, nn.Linear)), "other modules are not watched"
    if module.bias is None:
        raise InputError(
            f"{graph.definition.name}: {name} is a convolution without bias and without a batch norm behind it; "
            "Darknet has none, so there are no weights files for this model"
        )
    return Layer(name, module.weight, module.bias, None)


def _read_header(header: bytes, path: Path) -> tuple[tuple[int, int, int], int]:
    """The version and the number of images seen."""
    if len(header) < _VERSION.size + 8:
        raise InputError(f"{path}: is not a Darknet weights file: it has {len(header)} bytes, less than one layer")
    version = _VERSION.unpack_from(header)
    if not all(0 <= number < _LARGEST_VERSION for number in version):
        raise InputError(
            f"{path}: is not a Darknet weights file: it starts with {header[:4]!r}, which is no version; "
            "files of PyTorch end in .pt or .pth, others in .safetensors"
        )
    (images_seen,) = struct.unpack_from("<q" if version >= (0, 2) else "<i", header, _VERSION.size)
    return version, images_seen


def _fitting_layers(layers: list[Layer], graph: Graph, found: int, path: Path, partial: bool) -> tuple[int, int]:
    """How many layers the file holds, and the classes of a classifier's layer behind them that is left out."""
    ends = np.cumsum([layer.num_values for layer in layers]).tolist()
    if found == ends[-1]:
        return len(layers), 0
    count = int(np.searchsorted(ends, found, side="right"))  # layers that are there as a whole
    backbone = sum(_section(layer, graph) == "backbone" for layer in layers)
    if partial and count and found == ends[count - 1]:
        return count, 0
    if partial and 0 < backbone <= count:
        channels = graph.shapes[_last_of_backbone(graph)].channels
        classes, rest = divmod(found - ends[backbone - 1], channels + 1)  # its weights and its biases
        if rest == 0:
            return backbone, classes
    model = f"{graph.definition.name} with {_num_classes(graph)} classes"
    if found > ends[-1]:
        raise InputError(
            f"{path}: has {found - ends[-1]:,} values more than the {ends[-1]:,} of {model}"
            f"{_other_classes(layers, graph, found)}"
        )
    start = ends[count - 1] if count else 0
    if count and found == start:
        raise InputError(
            f"{path}: ends behind {layers[count - 1].name}, layer {count} of {len(layers)} of {model}"
            f"{_other_classes(layers, graph, found)}; --partial takes what is there as a start for training"
        )
    missing = layers[count].num_values - (found - start)
    raise InputError(
        f"{path}: ends inside {layers[count].name}, layer {count + 1} of {len(layers)} of {model}: "
        f"{missing:,} of its {layers[count].num_values:,} values are missing, {ends[-1] - found:,} of all"
        f"{_other_classes(layers, graph, found)}"
    )


def _other_classes(layers: list[Layer], graph: Graph, found: int) -> str:
    """A hint at the number of classes with which the file would fit."""
    head = f"layers.{graph.definition.rows[-1].name}."
    heads = [layer for layer in layers if layer.name.startswith(head)]
    classes = _num_classes(graph)
    last = graph.last
    anchors = last.anchors_px.shape[1] if isinstance(last, AnchorDetect) else 1
    per_class = anchors * sum(math.prod(layer.weight.shape[1:]) + 1 for layer in heads)
    more, rest = divmod(found - sum(layer.num_values for layer in layers), per_class)
    return f"; it would fit {classes + more} classes" if rest == 0 and classes + more > 0 else ""


def _section(layer: Layer, graph: Graph) -> str:
    return next(row.section for row in graph.definition.rows if row.name == layer.name.split(".")[1])


def _last_of_backbone(graph: Graph) -> str:
    return [row.name for row in graph.definition.rows if row.section == "backbone"][-1]


def _slices(layers: list[Layer]) -> Iterator[tuple[Layer, Tensor, slice]]:
    """Each tensor of each layer, and where its values are."""
    start = 0
    for layer in layers:
        for tensor in layer.tensors:
            yield layer, tensor, slice(start, start + tensor.numel())
            start += tensor.numel()


def _check_finite(values: np.ndarray, layers: list[Layer], path: Path) -> None:
    if np.isfinite(values).all():
        return
    broken = next(layer.name for layer, _, part in _slices(layers) if not np.isfinite(values[part]).all())
    raise InputError(f"{path}: a value of {broken} is not finite; the file is damaged, or of another model")


@torch.no_grad()
def _fill(layers: list[Layer], values: np.ndarray) -> None:
    for _, tensor, part in _slices(layers):
        tensor.copy_(torch.from_numpy(values[part].astype(np.float32)).view_as(tensor))
