"""Convolutions of ONNX files, whose norms were folded into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detect.errors import InputError, unreadable
from detect.safety.onnx_files import parse_onnx


class FoldedConv(NamedTuple):
    """A convolution with the norm behind it, if it had one.

    Args:
        weight: (O, C / groups, k, k) float32.
        bias: (O,) float32.
    """

    weight: Tensor
    bias: Tensor


def read_convolutions(path: Path) -> list[FoldedConv]:
    """Read the convolutions of a file, in the order of its graph, which is an order of execution.

    Raises:
        InputError: the file cannot be read, is damaged, or has a convolution whose weights or bias are not stored.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    graph = parse_onnx(content, path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "Conv":
            if len(node.input) != 3 or any(name not in stored for name in node.input[1:]):
                raise InputError(f"{path}: {node.name[:80]!r} is a convolution without stored weights and bias")
            found.append(FoldedConv(*(_tensor(stored[name], path) for name in node.input[1:])))
    if not found:
        raise InputError(f"{path}: has no convolutions")
    return found


def _tensor(stored: Any, path: Path) -> Tensor:
    from onnx.numpy_helper import to_array

    try:
        return torch.from_numpy(to_array(stored).astype("float32"))
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}: is damaged: {stored.name[:80]!r} has not as many values as its shape") from None
