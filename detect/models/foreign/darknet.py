"""Weights files of Darknet.

A ``.weights`` file has no names: behind a header are the float32 values of every convolution, in execution order. A
file fits a model when the counts agree.

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
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detect.errors import InputError, unreadable
from detect.models.blocks.conv import Conv
from detect.models.foreign.kinds import DARKNET, DARKNET_VERSION, is_darknet_version, kind_of
from detect.models.graph import Graph
from detect.models.heads import AnchorDetect, DetectionHead

VALUE = np.dtype("<f4")
_MOST_IMAGES_SEEN = 2**40
"""Ten thousand times as many as in any training; a larger number is not from Darknet's header."""


@dataclass(frozen=True)
class Layer:
    """A convolution or fully connected layer, as Darknet stores it.

    Args:
        name: path in the graph.
        weight: (O, C / groups, k, k) or (O, C).
        bias: (O,), or that of the batch norm.
        norm: the batch norm behind the convolution, if any.
        module: a ``Conv``, a convolution or a fully connected layer.
        reduction: input pixels per cell of its output; 1 of a fully connected layer.
    """

    name: str
    weight: Tensor
    bias: Tensor
    norm: nn.BatchNorm2d | None
    module: nn.Module
    reduction: Fraction

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors in the order of the file."""
        if self.norm is None:
            return (self.bias, self.weight)
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None, "batch norms keep running statistics"
        assert variance is not None, "batch norms keep running statistics"
        return (self.bias, self.norm.weight, mean, variance, self.weight)

    @property
    def num_values(self) -> int:
        """Number of its values in the file."""
        return sum(tensor.numel() for tensor in self.tensors)


@dataclass(frozen=True)
class DarknetFile:
    """Content of a weights file.

    Args:
        version: such as ``0.2.5``.
        images_seen: in training.
        num_layers: number of the model's layers that the file has.
        total_layers: number of the model's layers.
        last_layer: name of the last one in the file.
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
        partial: accept a file that ends behind any layer, or that has a classifier: backbone and last layer. The
            model's other layers stay as they are.

    Raises:
        InputError: the file is not Darknet's, or does not fit the model, which then stays as it was.
    """
    layers = darknet_layers(graph)
    try:
        with path.open("rb") as file:
            version, images_seen = _read_header(file.read(DARKNET_VERSION.size + 8), path)
            start = DARKNET_VERSION.size + (8 if version >= (0, 2) else 4)
            count, skipped = _fitting_layers(layers, graph, path.stat().st_size - start, path, partial)
            file.seek(start)
            values = np.fromfile(file, VALUE, sum(layer.num_values for layer in layers[:count]))
    except OSError as error:
        raise unreadable(path, error) from None
    _check_values(values, layers[:count], path)
    _fill(layers[:count], values)
    return DarknetFile(".".join(map(str, version)), images_seen, count, len(layers), layers[count - 1].name, skipped)


def darknet_layers(graph: Graph) -> list[Layer]:
    """The layers of a model in Darknet's order: execution order, with each detection layer behind the row it reads.

    Raises:
        InputError: Darknet has no such layer.
    """
    for name, module in graph.named_modules():
        convolution: nn.Module | None = module.conv if isinstance(module, Conv) else None
        if convolution is not None and not isinstance(convolution, nn.Conv2d):
            kind = type(convolution).__name__
            raise InputError(f"{graph.definition.name}: {name} is a {kind}, which no weights file of Darknet has")
    position = {row.name: i for i, row in enumerate(graph.definition.rows)}
    inputs_of_head = graph.definition.rows[-1].inputs
    order = []
    for i, (name, module, reduction) in enumerate(_run_order(graph)):
        words = name.split(".")
        row = words[1]
        if isinstance(graph.layer(row), AnchorDetect):
            row = inputs_of_head[int(words[-1])]
        # Layers of one row stay in execution order; the detection layer, which runs last, comes behind them.
        order.append((position[row], i, _layer(name, module, reduction, graph)))
    return [layer for _, _, layer in sorted(order, key=lambda entry: entry[:2])]


def _run_order(graph: Graph) -> list[tuple[str, nn.Module, Fraction]]:
    """Convolutions and linear layers in execution order: name, module, and input pixels per cell of the output."""
    # A convolution inside ``Conv`` may be run as a function, without a call that a hook would see.
    inside = {id(m.conv) for m in graph.modules() if isinstance(m, Conv)}
    layers = (Conv, nn.Conv2d, nn.Linear)
    watched = {name: m for name, m in graph.named_modules() if isinstance(m, layers) and id(m) not in inside}
    with torch.device("meta"):
        copy = Graph(graph.definition, _num_classes(graph)).eval()
    found: dict[str, Fraction] = {}
    side = 2 * copy.max_reduction

    def note(name: str, output: Tensor) -> None:
        assert name not in found, "every layer runs once"
        found[name] = Fraction(side, output.shape[2]) if output.ndim == 4 else Fraction(1)

    for name in watched:
        copy.get_submodule(name).register_forward_hook(lambda *args, name=name: note(name, args[2]))
    with torch.no_grad():
        copy(torch.empty(1, 3, side, side, device="meta"))
    assert sorted(found) == sorted(watched), "every layer runs once"
    return [(name, watched[name], reduction) for name, reduction in found.items()]


def _num_classes(graph: Graph) -> int:
    last = graph.last
    return (
        last.num_classes if isinstance(last, DetectionHead) else graph.shapes[graph.definition.rows[-1].name].channels
    )


def _layer(name: str, module: nn.Module, reduction: Fraction, graph: Graph) -> Layer:
    if isinstance(module, Conv):
        if module.conv.bias is not None:
            raise InputError(
                f"{graph.definition.name}: {name} is a convolution with a bias in front of a batch norm; "
                "Darknet has none, so there are no weights files for this model"
            )
        return Layer(name, module.conv.weight, module.norm.bias, module.norm, module, reduction)
    assert isinstance(module, (nn.Conv2d, nn.Linear)), "other modules are not watched"
    if module.bias is None:
        raise InputError(
            f"{graph.definition.name}: {name} is a convolution without bias and without a batch norm behind it; "
            "Darknet has none, so there are no weights files for this model"
        )
    return Layer(name, module.weight, module.bias, None, module, reduction)


def _read_header(header: bytes, path: Path) -> tuple[tuple[int, int, int], int]:
    """The version, and the number of images seen in training."""
    where = f"{path}: is not a Darknet weights file"
    if (kind := kind_of(path)) not in (DARKNET, None):
        raise InputError(f"{where}: it is {kind}")
    if len(header) < DARKNET_VERSION.size + 8:
        raise InputError(f"{where}: it has {len(header)} bytes, less than one layer")
    version = DARKNET_VERSION.unpack_from(header)
    if not is_darknet_version(version):
        found = ".".join(map(str, version))
        raise InputError(f"{where}: its version would be {found}, and Darknet's are 0.1 and 0.2")
    (images_seen,) = struct.unpack_from("<q" if version >= (0, 2) else "<i", header, DARKNET_VERSION.size)
    if not 0 <= images_seen < _MOST_IMAGES_SEEN:
        raise InputError(f"{where}: its header would say that {images_seen:,} images were seen in training")
    return version, images_seen


def _fitting_layers(layers: list[Layer], graph: Graph, size: int, path: Path, partial: bool) -> tuple[int, int]:
    """The number of layers in a file of ``size`` bytes behind the header.

    Returns:
        That number, and the classes of a classifier's layer behind them that is left out, or 0.
    """
    ends = np.cumsum([layer.num_values for layer in layers]).tolist()
    found, cut = divmod(size, VALUE.itemsize)
    if found == ends[-1] and not cut:
        return len(layers), 0
    count = int(np.searchsorted(ends, found, side="right"))  # complete layers
    if partial and count and not cut:
        backbone = sum(_section(layer, graph) == "backbone" for layer in layers)
        if found == ends[count - 1]:
            return count, 0
        if 0 < backbone <= count:
            channels = graph.shapes[_last_of_backbone(graph)].channels
            classes, rest = divmod(found - ends[backbone - 1], channels + 1)  # weights and bias of each class
            if rest == 0:
                return backbone, classes
    raise InputError(f"{path}: {_misfit(layers, ends, graph, found, cut)}")


def _misfit(layers: list[Layer], ends: list[int], graph: Graph, found: int, cut: int) -> str:
    """The message for a file of ``found`` values and ``cut`` bytes of another one."""
    model = f"{graph.definition.name} with {_num_classes(graph)} classes"
    if not found and not cut:
        return f"has a header and no values; {model} has {ends[-1]:,}"
    hint = "" if cut else _other_classes(layers, graph, found)
    if found == ends[-1]:
        return f"has {cut} bytes more than the {ends[-1]:,} values of {model}; it is damaged, or of another model"
    if found > ends[-1]:
        return f"has {found - ends[-1]:,} values more than the {ends[-1]:,} of {model}{hint}"
    count = sum(end <= found for end in ends)
    start = ends[count - 1] if count else 0
    if found == start and not cut:
        place = f"ends behind {layers[count - 1].name}, layer {count} of {len(layers)} of {model}"
        return f"{place}{hint}; --partial takes what is there as a start for training"
    place = f"ends inside {layers[count].name}, layer {count + 1} of {len(layers)} of {model}"
    missing = f"{ends[count] - found:,} of its {layers[count].num_values:,} values are missing"
    return f"{place}: {missing}, {ends[-1] - found:,} of all{hint}"


def _other_classes(layers: list[Layer], graph: Graph, found: int) -> str:
    """A hint: the number of classes with which the file would fit."""
    head = f"layers.{graph.definition.rows[-1].name}."
    heads = [layer for layer in layers if layer.name.startswith(head)]
    classes = _num_classes(graph)
    last = graph.last
    anchors = last.num_anchors if isinstance(last, DetectionHead) else 1
    per_class = anchors * sum(math.prod(layer.weight.shape[1:]) + 1 for layer in heads)
    more, rest = divmod(found - sum(layer.num_values for layer in layers), per_class)
    return f"; it would fit {classes + more} classes" if rest == 0 and classes + more > 0 else ""


def _section(layer: Layer, graph: Graph) -> str:
    return next(row.section for row in graph.definition.rows if row.name == layer.name.split(".")[1])


def _last_of_backbone(graph: Graph) -> str:
    return [row.name for row in graph.definition.rows if row.section == "backbone"][-1]


def _slices(layers: list[Layer]) -> Iterator[tuple[Layer, Tensor, slice]]:
    """Each layer's tensors, with the range of their values in the file."""
    start = 0
    for layer in layers:
        for tensor in layer.tensors:
            yield layer, tensor, slice(start, start + tensor.numel())
            start += tensor.numel()


def _check_values(values: np.ndarray, layers: list[Layer], path: Path) -> None:
    """Raise ``InputError`` for values that would make predictions NaN."""
    reason = "the file is damaged, or of another model"
    for layer, tensor, part in _slices(layers):
        if not np.isfinite(values[part]).all():
            raise InputError(f"{path}: a value of {layer.name} is not finite; {reason}")
        if layer.norm is not None and tensor is layer.norm.running_var and (values[part] < 0).any():
            raise InputError(f"{path}: a running variance of {layer.name} is negative; {reason}")


@torch.no_grad()
def _fill(layers: list[Layer], values: np.ndarray) -> None:
    for _, tensor, part in _slices(layers):
        tensor.copy_(torch.from_numpy(values[part].astype(np.float32)).view_as(tensor))
