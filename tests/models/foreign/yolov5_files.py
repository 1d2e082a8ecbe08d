"""Files as the YOLOv5 family writes them, made of models of ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from detect.models.build import build_model
from detect.models.model import DetectionModel

_ROWS = (
    *("stem", "down2", "c2", "down3", "c3", "down4", "c4", "down5", "c5", "spp"),
    *("lateral5", "fpn4", "lateral4", "p3", "down_p3", "p4", "down_p4", "p5", "detect"),
)
# Numbers of their modules with weights, and the rows that they are. Those between enlarge and concatenate.
ROWS = dict(zip((*range(11), 13, 14, 17, 18, 20, 21, 23, 24), _ROWS, strict=True))
# The space-to-depth form has a module without weights behind each convolution that halved: the numbers move on.
SPD_ROWS = dict(zip((0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 14, 17, 18, 21, 22, 25, 26, 29, 30), _ROWS, strict=True))
STRIDES = (8, 16, 32)


def random_model(name: str, num_classes: int) -> DetectionModel:
    """A model whose every value is random and representable in half precision, so that files of it lose nothing."""
    torch.manual_seed(0)
    model = build_model(name, num_classes)
    for key, tensor in model.state_dict().items():
        if key.endswith("anchors_px"):
            tensor.copy_(torch.arange(1, 19).view(3, 3, 2) * 8.0)
        elif tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape).half())
    return model


def their_state(model: DetectionModel, rows: dict[int, str] = ROWS) -> dict[str, Tensor]:
    """The state dict under their names, each convolution of a C3 as two, and other counters of batches."""
    state = model.graph.layers.state_dict()
    found: dict[str, Tensor] = {}

    def conv(theirs: str, ours: str, part: slice = slice(None)) -> None:
        found[f"{theirs}.conv.weight"] = state[f"{ours}.conv.weight"][part]
        for word in ("weight", "bias", "running_mean", "running_var"):
            found[f"{theirs}.bn.{word}"] = state[f"{ours}.norm.{word}"][part]
        found[f"{theirs}.bn.num_batches_tracked"] = torch.tensor([7])  # some write a scalar, some one element

    for number, row in rows.items():
        path = f"model.{number}"
        if row == "detect":
            found[f"{path}.anchors"] = state["detect.anchors_px"] / torch.tensor(STRIDES).view(-1, 1, 1)
            for level in range(3):
                for word in ("weight", "bias"):
                    found[f"{path}.m.{level}.{word}"] = state[f"detect.predict.{level}.{word}"]
        elif row == "spp":
            conv(f"{path}.cv1", "spp.reduce")
            conv(f"{path}.cv2", "spp.fuse")
        elif f"{row}.divide.conv.weight" in state:
            half = len(state[f"{row}.divide.conv.weight"]) // 2
            conv(f"{path}.cv1", f"{row}.divide", slice(half))
            conv(f"{path}.cv2", f"{row}.divide", slice(half, None))
            conv(f"{path}.cv3", f"{row}.fuse")
            for i in range(sum(key.endswith("conv1.conv.weight") for key in state if key.startswith(f"{row}.blocks."))):
                conv(f"{path}.m.{i}.cv1", f"{row}.blocks.{i}.conv1")
                conv(f"{path}.m.{i}.cv2", f"{row}.blocks.{i}.conv2")
        elif row == "stem" and rows is SPD_ROWS:
            conv(f"{path}.conv", "stem.conv")
        elif f"{row}.conv.conv.weight" in state:
            conv(path, f"{row}.conv")
        else:
            conv(path, row)
    return found


@contextmanager
def their_classes() -> Iterator[type]:
    """A module class that exists only inside: a file with objects of it cannot be unpickled afterwards."""
    module = ModuleType("models_of_theirs")

    class Model(nn.Module):
        """Parameters, buffers and modules as they come."""

    Model.__module__, Model.__qualname__ = module.__name__, "Model"
    module.Model = Model
    sys.modules[module.__name__] = module
    try:
        yield Model
    finally:
        del sys.modules[module.__name__]


def their_module(state: dict[str, Tensor], kind: type, **attributes: Any) -> nn.Module:
    """Nested modules with these tensors."""
    root = kind()
    for key, tensor in state.items():
        *words, last = key.split(".")
        module = root
        for word in words:
            if word not in module._modules:
                module.add_module(word, kind())
            module = module._modules[word]
        if last in ("weight", "bias"):
            module.register_parameter(last, nn.Parameter(tensor.clone()))
        else:
            module.register_buffer(last, tensor.clone())
    for name, value in attributes.items():
        setattr(root, name, value)
    return root


def write_pickled_model(path: Path, state: dict[str, Tensor], **attributes: Any) -> Path:
    """A checkpoint with a pickled model in half precision and other things around it."""
    with their_classes() as kind:
        model = their_module(state, kind, **attributes).half()
        content = {"epoch": -1, "best_fitness": None, "ema": None, "model": model, "optimizer": None, "date": "today"}
        torch.save(content, path)
    return path


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    """A safetensors file."""
    types = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        values = tensor.contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": types[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
