"""Darknet's ``.cfg``: what a weights file cannot say. Anchors, how far centres reach, classes, the input's size.

Sections in brackets, each with lines ``key = value``. The first is ``[net]``; the others are layers, numbered from 0 as
Darknet does. A section's input is the layer before it, or those that a ``[route]`` names.

Source: Darknet (Redmon, 2013 to 2018; Bochkovskiy et al., 2020), its configuration files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from detect.errors import InputError, did_you_mean

MAX_BYTES = 2**20
"""Larger files are refused; the published ones have at most 20 kB."""
MAX_LAYERS = 2000
_SECTION = re.compile(r"\[\s*([\w+-]+)\s*\]")
_NOTHING = ("dropout", "cost", "softmax", "avgpool")
"""Sections that change neither channels nor, up to the last layer, the size."""


@dataclass(frozen=True)
class Section:
    """A section.

    Args:
        kind: the word in brackets.
        place: the file, the section and its line, for messages.
        options: its values by key, as text.
    """

    kind: str
    place: str
    options: dict[str, str]

    def whole(self, key: str, default: int) -> int:
        """A whole number from 0 to a million.

        Raises:
            InputError: the value is something else.
        """
        text = self.options.get(key, str(default))
        if not text.isdecimal() or len(text) > 6:
            raise InputError(f"{self.place}: {key}: must be a whole number, found {text[:40]!r}")
        return int(text)

    def numbers(self, key: str) -> list[float]:
        """Numbers with commas between them; none where the key is missing.

        Raises:
            InputError: the value is something else.
        """
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
        normed: it has a batch norm.
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
        xy_scale: how far centres reach.
        num_classes: K.
        place: of the section, for messages.
    """

    anchors_px: list[list[float]]
    xy_scale: float
    num_classes: int
    place: str


@dataclass(frozen=True)
class DarknetCfg:
    """What a configuration says.

    Args:
        path: the file.
        input_wh: width and height of the network input in pixels.
        layers: those with weights, in the order of the weights file, each with its place for messages.
        levels: the ``[yolo]`` sections, in their order.
    """

    path: Path
    input_wh: tuple[int, int]
    layers: tuple[tuple[Weighted, str], ...]
    levels: tuple[Level, ...]


def read_cfg(path: Path) -> DarknetCfg:
    """Read a configuration.

    Raises:
        InputError: it cannot be read, is none, or has a layer that no detector of this toolkit has.
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
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
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
    """What a layer gives: channels, and input pixels per cell."""

    channels: int
    reduction: Fraction


def _follow(section: Section, number: int, before: _Map, maps: list[_Map]) -> Weighted | _Map:
    """What a layer is, or gives.

    Args:
        section: the layer.
        number: of it, from 0.
        before: what the layer before gives.
        maps: what all layers before give.
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
    """What the layers that a section names give; negative numbers count back from it."""
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
