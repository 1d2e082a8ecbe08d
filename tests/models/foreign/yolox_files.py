"""State dicts and exported files as YOLOX writes them, with random values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

Conv = tuple[str, int, int, int, bool]
"""Name, inputs of each output, outputs, kernel size, and whether a norm follows."""


def convolutions(width: float, depth: float, separable: bool, num_classes: int) -> Iterator[Conv]:
    """Their convolutions in the order in which the network runs."""

    def plain(name: str, inputs: int, outputs: int, size: int = 1) -> Iterator[Conv]:
        yield name, inputs, outputs, size, True

    def spatial(name: str, inputs: int, outputs: int) -> Iterator[Conv]:
        if separable:
            yield f"{name}.dconv", 1, inputs, 3, True
            yield f"{name}.pconv", inputs, outputs, 1, True
        else:
            yield name, inputs, outputs, 3, True

    def csp(name: str, inputs: int, outputs: int, repeats: int) -> Iterator[Conv]:
        half = outputs // 2
        yield from plain(f"{name}.conv1", inputs, half)
        yield from plain(f"{name}.conv2", inputs, half)
        for i in range(repeats):
            yield from plain(f"{name}.m.{i}.conv1", half, half)
            yield from spatial(f"{name}.m.{i}.conv2", half, half)
        yield from plain(f"{name}.conv3", 2 * half, outputs)

    base, few, many = int(64 * width), max(round(3 * depth), 1), 3 * max(round(3 * depth), 1)
    yield from plain("backbone.backbone.stem.conv", 12, base, 3)
    for i, repeats in ((2, few), (3, many), (4, many), (5, few)):
        inputs, outputs, name = base * 2 ** (i - 2), base * 2 ** (i - 1), f"backbone.backbone.dark{i}"
        yield from spatial(f"{name}.0", inputs, outputs)
        if i == 5:
            yield from plain(f"{name}.1.conv1", outputs, outputs // 2)
            yield from plain(f"{name}.1.conv2", 2 * outputs, outputs)
        yield from csp(f"{name}.{1 if i < 5 else 2}", outputs, outputs, repeats)
    c3, c4, c5 = base * 4, base * 8, base * 16
    yield from plain("backbone.lateral_conv0", c5, c4)
    yield from csp("backbone.C3_p4", 2 * c4, c4, few)
    yield from plain("backbone.reduce_conv1", c4, c3)
    yield from csp("backbone.C3_p3", 2 * c3, c3, few)
    yield from spatial("backbone.bu_conv2", c3, c3)
    yield from csp("backbone.C3_n3", 2 * c3, c4, few)
    yield from spatial("backbone.bu_conv1", c4, c4)
    yield from csp("backbone.C3_n4", 2 * c4, c5, few)
    for level, channels in enumerate((c3, c4, c5)):
        yield from plain(f"head.stems.{level}", channels, c3)
        for word, preds in (("cls", ("cls",)), ("reg", ("reg", "obj"))):
            for i in range(2):
                yield from spatial(f"head.{word}_convs.{level}.{i}", c3, c3)
            for pred in preds:
                outputs = {"cls": num_classes, "reg": 4, "obj": 1}[pred]
                yield f"head.{pred}_preds.{level}", c3, outputs, 1, False


NANO = (0.25, 0.33, True)
TINY = (0.375, 0.33, False)


def random_state(size: tuple[float, float, bool] = NANO, num_classes: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = {}
    for name, inputs, outputs, side, has_norm in convolutions(*size, num_classes):
        weight = torch.randn(outputs, inputs, side, side) / (inputs * side * side) ** 0.5
        if has_norm:
            state[f"{name}.conv.weight"] = weight
            state |= {f"{name}.bn.{word}": torch.rand(outputs) for word in ("weight", "bias", "running_mean")}
            state[f"{name}.bn.running_var"] = torch.rand(outputs) + 0.5
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
        else:
            state |= {f"{name}.weight": weight, f"{name}.bias": torch.randn(outputs)}
    return state


def write_export(path: Path, state: dict[str, Tensor], count: int | None = None) -> None:
    """A file with the convolutions of a state dict alone, norms folded into them, the first ``count`` of them."""
    folded = []
    for key, weight in state.items():
        name, _, word = key.rpartition(".")
        if word == "weight" and name.endswith(".conv"):
            norm = {w: state[f"{name[:-5]}.bn.{w}"] for w in ("weight", "bias", "running_mean", "running_var")}
            factor = norm["weight"] / (norm["running_var"] + 1e-3).sqrt()
            folded.append((weight * factor[:, None, None, None], norm["bias"] - norm["running_mean"] * factor))
        elif word == "weight" and not name.endswith(".bn"):
            folded.append((weight, state[f"{name}.bias"]))
    nodes, stored = [], []
    for i, (weight, bias) in enumerate(folded[:count]):
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}", f"b{i}"], [f"x{i + 1}"], name=f"Conv_{i}"))
        stored += [numpy_helper.from_array(weight.numpy(), f"w{i}"), numpy_helper.from_array(bias.numpy(), f"b{i}")]
    inputs = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 3, 416, 416])]
    outputs = [helper.make_tensor_value_info(f"x{len(nodes)}", TensorProto.FLOAT, None)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "yolox", inputs, outputs, stored)), path)
