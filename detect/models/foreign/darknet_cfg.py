"""Darknet's ``.cfg``, which complements a weights file: anchors, ``scale_x_y``, classes, size of the input, structure.

Sections in brackets, each with lines ``key = value``. The first is ``[net]``; the others are layers, numbered from 0 as
in Darknet. A section's input is the layer before it, or the layers of a ``[route]``.

Source: Darknet (Redmon, 2013 to 2018; Bochkovskiy et al., 2020), its configuration files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from torch import nn

from detect.errors import InputError, did_you_mean, unreadable
from detect.models.blocks.conv import Conv
from detect.models.definition import ModelDefinition, with_args
from detect.models.foreign.darknet import Layer, darknet_layers
from detect.models.graph import Graph
from detect.models.heads import AnchorDetect

MAX_BYTES = 2**20
"""Larger files are refused; the published ones have at most 20 kB."""
MAX_LAYERS = 2000
_SECTION = re.compile(r"\[\s*([\w+-]+)\s*\]")
_NOTHING = ("dropout", "cost", "softmax", "avgpool")
"""Sections that change neither channels nor, before the last layer, the size."""


@dataclass(frozen=True)
class Section:
    """A section.

    Args:
        kind: the word in brackets.
        place: file, line and section, for messages.
        options: its values by key, as text.
    """

    kind: str
    place: str
    options: dict[str, str]

    def whole(self, key: str, default: int) -> int:
        """A whole number from 0 to 999,999."""
        text = self.options.get(key, str(default))
        if not text.isdecimal() or len(text) > 6:
            raise InputError(f"{self.place}: {key}: must be a whole number, found {text[:40]!r}")
        return int(text)

    def numbers(self, key: str) -> list[float]:
        """Numbers with commas between them; none where the key is missing."""
        try:
            return [float(text) for text in self.options.get(key, "").replace(" ", "").split(",") if text]
        except ValueError:
            raise InputError(f"{self.place}: {key}: must be numbers, found {self.options[key][:40]!r}") from None


class Weighted(NamedTuple):
    """A layer with weights.

    Args:
        kind: ``convolutional`` or ``connected``.
        filters: output channels.
        in_channels: input channels.
        size: side of the kernel.
        stride: of the convolution.
        groups: of the convolution.
        normed: with batch norm.
        activation: its name in Darknet.
        reduction: input pixels per cell of its output.
    """

    kind: str
    filters: int
    in_channels: int
    size: int
    stride: int
    groups: int
    normed: bool
    activation: str
    reduction: Fraction


class Level(NamedTuple):
    """A ``[yolo]`` section.

    Args:
        anchors_px: widths and heights in pixels of the network input.
        xy_scale: range of the centres, in cells.
        num_classes: K.
        place: of the section, for messages.
    """

    anchors_px: list[list[float]]
    xy_scale: float
    num_classes: int
    place: str


@dataclass(frozen=True)
class DarknetCfg:
    """Content of a configuration.

    Args:
        path: the file.
        input_wh: width and height of the network input in pixels.
        layers: layers with weights, in the order of the weights file, each with its place for messages.
        levels: the ``[yolo]`` sections, in their order.
    """

    path: Path
    input_wh: tuple[int, int]
    layers: tuple[tuple[Weighted, str], ...]
    levels: tuple[Level, ...]


def read_cfg(path: Path) -> DarknetCfg:
    """Read a configuration.

    Raises:
        InputError: it cannot be read, is not Darknet's, or has a layer that no detector of this toolkit has.
    """
    sections = _sections(path)
    net, *layers = sections
    maps: list[_Map] = []
    weighted, levels = [], []
    for number, section in enumerate(layers):
        before = maps[-1] if maps else _Map(net.whole("channels", 3), Fraction(1))
        found = _follow(section, number, before, maps)
        if isinstance(found, Weighted):
            weighted.append((found, section.place))
            maps.append(_Map(found.filters, found.reduction))
        else:
            if section.kind == "yolo":
                levels.append(_level(section))
            maps.append(found)
    if not weighted:
        raise InputError(f"{path}: has no layer with weights")
    size = (net.whole("width", 416), net.whole("height", 416))
    return DarknetCfg(path, size, tuple(weighted), tuple(levels))


def _sections(path: Path) -> list[Section]:
    """All sections; the first is ``[net]``."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: has more than {MAX_BYTES:,} bytes, so it is no configuration of Darknet")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text, so it is no configuration of Darknet") from None
    sections: list[Section] = []
    for line_number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#")[0].strip()
        if not line or line.startswith(";"):
            continue
        if match := _SECTION.fullmatch(line):
            place = f"{path}: line {line_number}"
            if sections:
                place += f", section {len(sections) - 1} [{match[1]}]"
            sections.append(Section(match[1], place, {}))
        elif not sections or "=" not in line:
            raise InputError(f"{path}: line {line_number}: must be [section] or key = value, found {line[:40]!r}")
        else:
            key, value = (word.strip() for word in line.split("=", 1))
            sections[-1].options[key] = value
        if len(sections) > MAX_LAYERS:
            raise InputError(f"{path}: has more than {MAX_LAYERS} sections, more than any network")
    if not sections or sections[0].kind not in ("net", "network"):
        raise InputError(f"{path}: is no configuration of Darknet: must start with [net]")
    return sections


class _Map(NamedTuple):
    """Output of a layer: channels, and input pixels per cell."""

    channels: int
    reduction: Fraction


def _follow(section: Section, number: int, before: _Map, maps: list[_Map]) -> Weighted | _Map:
    """The layer of a section if it has weights, its output otherwise.

    Args:
        section: the layer.
        number: its index.
        before: output of the layer before it.
        maps: outputs of all layers before it.
    """
    match section.kind:
        case "convolutional" | "conv":
            return _convolution(section, before)
        case "connected" | "conn":
            filters, activation = section.whole("output", 1), section.options.get("activation", "logistic")
            return Weighted("connected", filters, before.channels, 1, 1, 1, False, activation, before.reduction)
        case "maxpool" | "max":
            return before._replace(reduction=before.reduction * _above_zero(section, "stride", 1))
        case "upsample":
            return before._replace(reduction=before.reduction / _above_zero(section, "stride", 2))
        case "shortcut":
            _earlier(section, "from", number, maps)
            return before
        case "route":
            routed = _earlier(section, "layers", number, maps)
            parts = _above_zero(section, "groups", 1)
            return routed[0]._replace(channels=sum(m.channels for m in routed) // parts)
        case "yolo" | "softmax" | "dropout" | "cost" | "avgpool":
            return before
    kinds = ("convolutional", "connected", "maxpool", "upsample", "shortcut", "route", "yolo", *_NOTHING)
    raise InputError(f"{section.place}: is of a kind that is not read{did_you_mean(section.kind, kinds)}")


def _convolution(section: Section, before: _Map) -> Weighted:
    stride = _above_zero(section, "stride", 1)
    return Weighted(
        "convolutional",
        _above_zero(section, "filters", 1),
        before.channels,
        _above_zero(section, "size", 1),
        stride,
        _above_zero(section, "groups", 1),
        section.whole("batch_normalize", 0) > 0,
        section.options.get("activation", "logistic"),
        before.reduction * stride,
    )


def _above_zero(section: Section, key: str, default: int) -> int:
    value = section.whole(key, default)
    if value < 1:
        raise InputError(f"{section.place}: {key}: must be above 0, found {value}")
    return value


def _earlier(section: Section, key: str, number: int, maps: list[_Map]) -> list[_Map]:
    """Outputs of the layers that a section names; negative numbers count back from it."""
    found = []
    for value in section.numbers(key):
        index = int(value) + (number if value < 0 else 0)
        if value != int(value) or not 0 <= index < len(maps):
            raise InputError(f"{section.place}: {key}: must name layers before it, found {value:g}")
        found.append(maps[index])
    if not found:
        raise InputError(f"{section.place}: {key}: is missing")
    return found


def _level(section: Section) -> Level:
    if section.whole("new_coords", 0):
        raise InputError(f"{section.place}: new_coords: boxes are coded in a way that is not read")
    values = section.numbers("anchors")
    pairs = [list(pair) for pair in zip(values[::2], values[1::2], strict=False)]
    mask = section.numbers("mask") if "mask" in section.options else [float(i) for i in range(len(pairs))]
    if len(values) % 2 or not pairs or not mask or any(not 0 < value < 1e6 for value in values):
        raise InputError(f"{section.place}: anchors: must be pairs of numbers above 0, found {len(values)} numbers")
    if any(index != int(index) or not 0 <= index < len(pairs) for index in mask):
        raise InputError(f"{section.place}: mask: must be numbers from 0 to {len(pairs) - 1}, found {mask}")
    scale = section.numbers("scale_x_y") or [1.0]
    if not 1 <= scale[0] < 10:
        raise InputError(f"{section.place}: scale_x_y: must be a number of at least 1, found {scale[0]:g}")
    classes = _above_zero(section, "classes", 20)
    return Level([pairs[int(index)] for index in mask], scale[0], classes, section.place)


# --------------------------------------------------------------------------------------- comparison with a model

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.LeakyReLU: "leaky",
    nn.Mish: "mish",
    nn.Identity: "linear",
    nn.ReLU: "relu",
    nn.SiLU: "swish",
}
"""Ours to Darknet's names."""
_FIELDS = {
    "kind": "kind",
    "size": "size",
    "stride": "stride",
    "groups": "groups",
    "filters": "filters",
    "normed": "batch_normalize",
    "activation": "activation",
    "in_channels": "input channels",
    "reduction": "input pixels per cell",
}
"""Compared fields, with their names in messages; values of the section itself come first."""


def with_anchors_of(definition: ModelDefinition, graph: Graph, cfg: DarknetCfg) -> ModelDefinition:
    """Replace a detector's anchors and ``xy_scale`` by those of a configuration.

    Args:
        definition: the detector.
        graph: its graph, with any number of classes.
        cfg: the configuration.

    Raises:
        InputError: the configuration has other levels, or another coding of boxes than the model, or the model no
            anchors.
    """
    head = _head_with_anchors(graph)
    order = [int(layer.name.split(".")[-1]) for layer in darknet_layers(graph) if _is_of_head(layer, graph)]
    if len(order) != len(cfg.levels):
        found = f"{cfg.path}: has {len(cfg.levels)} [yolo] sections"
        raise InputError(f"{found}, but {definition.name} has {len(order)} detection layers")
    levels = [level for _, level in sorted(zip(order, cfg.levels, strict=True), key=lambda pair: pair[0])]
    counts = [len(level.anchors_px) for level in levels]
    if len(set(counts)) > 1:
        raise InputError(f"{cfg.path}: its [yolo] sections have {counts} anchors; as many in each are read")
    if head.codings[0].sizes != "exp":
        raise InputError(f"{definition.name}: codes boxes as YOLOv5 does; Darknet's files need coding: yolov3")
    anchors, scales = [level.anchors_px for level in levels], [level.xy_scale for level in levels]
    return with_args(definition, "AnchorDetect", anchors_px=anchors, xy_scale=scales)


def anchors_text(graph: Graph) -> str:
    """Anchors and ``scale_x_y`` of a detector, finest level first; ``InputError`` if its head has no anchors."""
    head = _head_with_anchors(graph)
    levels = [", ".join(f"{w:g}x{h:g}" for w, h in level) for level in head.anchors_px.tolist()]
    scales = ", ".join(f"{coding.xy_scale:g}" for coding in head.codings)
    return f"anchors {' | '.join(levels)} px, scale_x_y {scales}"


def _head_with_anchors(graph: Graph) -> AnchorDetect:
    if not isinstance(graph.last, AnchorDetect):
        raise InputError(f"{graph.definition.name}: has no anchors, as the detectors of Darknet and YOLOv5 have")
    return graph.last


def check_structure(graph: Graph, cfg: DarknetCfg) -> None:
    """Compare the layers with weights, one by one in the order of the weights file.

    Compared are kinds, filters, kernels, strides, groups, norms and activations, and input channels and output sizes,
    which depend on pools, upsamplings and routes.

    Raises:
        InputError: a section is another layer than the model's; the message names the first one.
    """
    name, layers = graph.definition.name, darknet_layers(graph)
    for layer, (theirs, place) in zip(layers, cfg.layers, strict=False):
        ours = _as_weighted(layer)
        for field, word in _FIELDS.items():
            found, wanted = getattr(theirs, field), getattr(ours, field)
            if found != wanted and not (field == "reduction" and ours.kind == "connected"):
                raise InputError(f"{place}: {word} is {_text(found)}, but {_text(wanted)} in {name} ({layer.name})")
    if len(layers) != len(cfg.layers):
        raise InputError(f"{cfg.path}: has {len(cfg.layers)} layers with weights, {name} has {len(layers)}")


def _is_of_head(layer: Layer, graph: Graph) -> bool:
    return layer.name.split(".")[1] == graph.definition.rows[-1].name


def _as_weighted(layer: Layer) -> Weighted:
    module = layer.module
    if isinstance(module, nn.Linear):
        outputs, inputs = module.weight.shape
        return Weighted("connected", outputs, inputs, 1, 1, 1, False, "linear", layer.reduction)
    conv = module.conv if isinstance(module, Conv) else module
    assert isinstance(conv, nn.Conv2d), "other layers are not Darknet's"
    activation = module.activation if isinstance(module, Conv) else nn.Identity()
    name = _ACTIVATIONS.get(type(activation), type(activation).__name__)
    channels = (conv.out_channels, conv.in_channels)
    kernel = (conv.kernel_size[0], conv.stride[0], conv.groups)
    return Weighted("convolutional", *channels, *kernel, layer.norm is not None, name, layer.reduction)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
