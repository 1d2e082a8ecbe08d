"""A little Darknet: it runs a list of layers with random weights, and writes them as Darknet does.

The layers are those of the published configurations, with numbers and relative references as they stand there; filters
are multiplied by a width, so that the tests are fast. Nothing here knows the product's models.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 0.25


class C(NamedTuple):
    """``[convolutional]``; ``filters`` 0 is an output layer: without batch norm, with bias."""

    filters: int
    size: int = 1
    stride: int = 1
    groups: int = 1
    activation: str = "leaky"


Cfg = list[Any]
"""``C``, ("max", size, stride), ("route", ...), ("shortcut", from, activation), ("up",), ("yolo",) or ("mean",)."""
YOLO = [C(0, activation="linear"), ("yolo",)]


def yolov3() -> Cfg:
    cfg: Cfg = [C(32, 3)]
    ends = {}
    for filters, repeats in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]:
        cfg += [C(filters, 3, 2)] + [C(filters // 2), C(filters, 3), ("shortcut", -3, "linear")] * repeats
        ends[filters] = len(cfg) - 1
    assert (ends[256], ends[512]) == (36, 61)  # as the published file refers to them
    cfg += [C(512), C(1024, 3)] * 3 + YOLO
    cfg += [("route", -4), C(256), ("up",), ("route", -1, 61)] + [C(256), C(512, 3)] * 3 + YOLO
    cfg += [("route", -4), C(128), ("up",), ("route", -1, 36)] + [C(128), C(256, 3)] * 3 + YOLO
    return cfg


def yolov3_tiny(prn: bool = False) -> Cfg:
    cfg: Cfg = []
    for filters in (16, 32, 64, 128, 256):
        cfg += [C(filters, 3), ("max", 2, 2)]
    cfg += [C(512, 3), ("max", 2, 1)]
    if prn:
        cfg += [C(512, 3), ("shortcut", -3, "leaky"), C(256), C(256, 3), ("shortcut", -2, "leaky"), *YOLO]
        cfg += [("route", -4), C(128), ("up",), ("shortcut", 8, "leaky"), C(128, 3)]
        return [*cfg, ("shortcut", -3, "leaky"), ("shortcut", 8, "leaky"), *YOLO]
    cfg += [C(1024, 3), C(256), C(512, 3), *YOLO]
    return [*cfg, ("route", -4), C(128), ("up",), ("route", -1, 8), C(256, 3), *YOLO]


def csp_darknet53(activation: str = "leaky") -> Cfg:
    cfg: Cfg = [C(32, 3)]
    for filters, half, hidden, repeats in [
        (64, 64, 32, 1),
        (128, 64, 64, 2),
        (256, 128, 128, 8),
        (512, 256, 256, 8),
        (1024, 512, 512, 4),
    ]:
        cfg += [C(filters, 3, 2), C(half), ("route", -2), C(half)]
        cfg += [C(hidden), C(half, 3), ("shortcut", -3, "linear")] * repeats
        cfg += [C(half), ("route", -1, -3 * repeats - 4), C(filters)]
    return [layer._replace(activation=activation) if isinstance(layer, C) else layer for layer in cfg]


def csp_resnet(kind: str) -> Cfg:
    """``cspresnet50`` or ``cspresnext50``."""
    grouped = kind == "cspresnext50"
    cfg: Cfg = [C(64, 7, 2), ("max", 2, 2)]
    for i, (part, repeats) in enumerate([(128, 3), (256, 3), (512, 5), (1024, 2)]):
        groups, hidden = (32, part) if grouped else (1, part // 2)
        activation = "linear" if i in (1, 2) else "leaky"
        if i:
            cfg += [C(hidden, 3, 2, groups)]
        cfg += [C(part, activation=activation), ("route", -2), C(part if i else 64, activation=activation)]
        block = [C(hidden), C(hidden, 3, 1, groups), C(part, activation="linear"), ("shortcut", -4, "leaky")]
        cfg += block * repeats
        cfg += [C(part), ("route", -1, -4 * repeats - 4), C(2 * part if grouped else part)]
    return cfg


def with_panet_spp(backbone: Cfg, c3: int, c4: int) -> Cfg:
    """PANet with SPP behind a backbone whose layers ``c3`` and ``c4`` are the maps at 8 and 16 px."""
    cfg = [*backbone, C(512), C(1024, 3), C(512)]
    cfg += [("max", 5, 1), ("route", -2), ("max", 9, 1), ("route", -4), ("max", 13, 1), ("route", -1, -3, -5, -6)]
    cfg += [C(512), C(1024, 3), C(512)]
    for filters, tap in [(256, c4), (128, c3)]:
        cfg += [C(filters), ("up",), ("route", tap), C(filters), ("route", -1, -3)]
        cfg += [C(filters), C(2 * filters, 3)] * 2 + [C(filters)]
    cfg += [C(256, 3), *YOLO]
    for filters, tap in [(256, -16), (512, -37)]:
        cfg += [("route", -4), C(filters, 3, 2), ("route", -1, tap)]
        cfg += [C(filters), C(2 * filters, 3)] * 3 + YOLO
    return cfg


CFGS = {
    "yolov3": yolov3(),
    "yolov3-tiny": yolov3_tiny(),
    "yolov3-tiny-prn": yolov3_tiny(prn=True),
    "yolov4": with_panet_spp(csp_darknet53("mish"), 54, 85),
    "cspdarknet53-panet-spp": with_panet_spp(csp_darknet53(), 54, 85),
    "cspresnet50-panet-spp": with_panet_spp(csp_resnet("cspresnet50"), 38, 65),
    "cspresnext50-panet-spp": with_panet_spp(csp_resnet("cspresnext50"), 38, 65),
    "cspdarknet53": [*csp_darknet53(), ("mean",), C(0, activation="linear")],
}
"""The references 54 and 85, 38 and 65 are the numbers in the published files."""
SLOW = ("yolov3", "yolov4", "cspdarknet53-panet-spp", "cspresnet50-panet-spp", "cspresnext50-panet-spp")
"""Networks for the slow tests; the others have their parts."""


class Run(NamedTuple):
    """What a network was and gave.

    Args:
        weights: of each convolution, in the order of the file.
        outputs: of its ``yolo`` layers, or of the last layer.
    """

    weights: list[list[Tensor]]
    outputs: list[Tensor]


@torch.no_grad()
def run(cfg: Cfg, image: Tensor, outputs: int) -> Run:
    """Run a network with random weights that keep the size of what passes.

    Args:
        cfg: its layers.
        image: (B, 3, H, W) float64.
        outputs: channels of a layer of 0 filters.
    """
    maps: list[Tensor] = []
    weights: list[list[Tensor]] = []
    found = []
    for layer in cfg:
        x = maps[-1] if maps else image
        if isinstance(layer, C):
            out = math.ceil(layer.filters * WIDTH / 8) * 8 or outputs
            weights.append(_random_weights(out, x.shape[1] // layer.groups, layer.size, norm=layer.filters > 0))
            y = _convolution(layer, weights[-1], x)
        elif layer[0] == "max":
            # Darknet pads by size - 1 in all, the smaller half in front, and what it pads with is below any value.
            before = (layer[1] - 1) // 2
            after = layer[1] - 1 - before
            y = F.max_pool2d(F.pad(x, (before, after, before, after), value=-torch.inf), layer[1], layer[2])
            y = y[..., : x.shape[2] // layer[2], : x.shape[3] // layer[2]]
        elif layer[0] == "route":
            y = torch.cat([maps[i] for i in layer[1:]], dim=1)
        elif layer[0] == "shortcut":
            y = x.clone()
            channels = min(x.shape[1], maps[layer[1]].shape[1])
            y[:, :channels] += maps[layer[1]][:, :channels]
            y = _activate(y, layer[2])
        elif layer[0] == "up":
            y = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        elif layer[0] == "mean":
            y = x.mean(dim=(2, 3), keepdim=True)
        else:
            found.append(x)
            y = x
        maps.append(y)
    return Run(weights, found or maps[-1:])


def write(path: Path, weights: list[list[Tensor]], header: bytes = struct.pack("<3iq", 0, 2, 5, 32_013_312)) -> Path:
    """Write layers as Darknet does."""
    path.write_bytes(header + b"".join(t.numpy().astype("<f4").tobytes() for layer in weights for t in layer))
    return path


def _random_weights(out: int, channels: int, size: int, norm: bool) -> list[Tensor]:
    """In the order of the file; float32."""
    weight = torch.randn(out, channels, size, size) * math.sqrt(2 / (channels * size * size))
    bias = 0.1 * torch.randn(out)
    if not norm:
        return [bias, weight]
    return [bias, 0.8 + 0.4 * torch.rand(out), 0.1 * torch.randn(out), 0.5 + torch.rand(out), weight]


def _convolution(layer: C, weights: list[Tensor], x: Tensor) -> Tensor:
    *others, weight = [tensor.double() for tensor in weights]
    y = F.conv2d(x, weight, None, layer.stride, layer.size // 2, groups=layer.groups)
    bias, *norm = [tensor.view(-1, 1, 1) for tensor in others]
    if norm:
        scale, mean, variance = norm
        y = scale * (y - mean) / (variance + 1e-5).sqrt()
    return _activate(y + bias, layer.activation)


def _activate(x: Tensor, activation: str) -> Tensor:
    if activation == "mish":
        return x * (1 + x.exp()).log().tanh()
    return torch.where(x > 0, x, 0.1 * x) if activation == "leaky" else x
