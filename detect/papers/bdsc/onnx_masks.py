"""Binary weights (BDSC) in an exported file, in two forms that compute the same.

``folded``: ordinary weights, 32 bits each. Every runtime takes them.

``packed``: one bit for each weight and one scale for each output, and nodes that unpack them. Only the file is smaller.
Nothing is faster: a runtime unpacks when it loads the file (ONNX Runtime does) or at each run, then has the same
weights in memory and computes the same ordinary convolution. A runtime that requires stored weights refuses the file.

Letters: O output channels, S input channels of the mask, k kernel size, N bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from detect.exporting.onnx_graph import replace_items
from detect.exporting.parity import ExportError
from detect.exporting.wrappers import PREFIX
from detect.models.model import Model
from detect.models.packing import packed_layers
from detect.papers.bdsc.convolutions import BITS, pack_signs, unpack_signs

BYTE_SIGNS = "byte_signs"
"""Initialiser (256, 8) of all packed files: the eight signs of each byte."""


def pack_masks(exported: onnx.ModelProto, model: Model) -> None:
    """Replace, in place, each binary weight X by ``X_bits``, ``X_scale`` and nodes that compute X from them.

    ``X_bits`` is uint8 (N,), the signs of Q as ``pack_signs`` packs them; ``X_scale`` is float32 (O, 1, 1, 1), below 0
    where a norm with a negative factor was fused. X is computed bit for bit.

    Args:
        exported: with the fused weights of ``model`` as initialisers.
        model: the trained model.

    Raises:
        ExportError: a stored weight differs from scale * sign(Q).
    """
    graph = exported.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    unpacking: dict[str, list[onnx.NodeProto]] = {}
    constants = {BYTE_SIGNS: _byte_signs()}
    for number, key in enumerate(packed_layers(model)):
        name = PREFIX + key
        bits, scale = _bits_and_scale(stored.get(name), model.get_parameter(key).detach(), name)
        constants |= {f"{name}_bits": bits, f"{name}_scale": scale}
        unpacking[name] = list(_unpack(name, tuple(stored[name].dims), f"mask{number}", constants))
    kept = [tensor for name, tensor in stored.items() if name not in unpacking]
    replace_items(graph.initializer, kept + [numpy_helper.from_array(value, name) for name, value in constants.items()])
    # Each mask is unpacked right before its use: a runtime that unpacks at each run need not hold all at once.
    nodes = [
        part for node in graph.node for part in (*(u for name in node.input for u in unpacking.pop(name, ())), node)
    ]
    replace_items(graph.node, nodes)


def _bits_and_scale(tensor: onnx.TensorProto | None, q: torch.Tensor, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return bits (N,) and scale (O, 1, 1, 1) of a stored weight, which must be scale * sign(Q)."""
    if tensor is not None:
        bits = pack_signs(q)
        signs, weight = unpack_signs(bits, q.shape).numpy(), numpy_helper.to_array(tensor)
        scale = weight[:, :1, :1, :1] * signs[:, :1, :1, :1]  # (O, 1, 1, 1)
        if weight.shape == signs.shape and (scale * signs == weight).all():
            return bits.numpy(), scale
    raise ExportError(f"this PyTorch's exporter does not store {name} as it is; take the folded form")


def _unpack(
    name: str, shape: tuple[int, ...], short: str, constants: dict[str, np.ndarray]
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that compute weight ``name`` from its bits and scale, with operators of every supported opset.

    Args:
        name: of the weight.
        shape: (O, S, k, k).
        short: prefix of the intermediate values.
        constants: receives the further initialisers that the nodes need.
    """
    count, shape_name = int(np.prod(shape)), "shape_" + "x".join(map(str, shape))
    constants[shape_name] = np.array(shape)
    yield helper.make_node("Cast", [f"{name}_bits"], [f"{short}_bytes"], to=onnx.TensorProto.INT32)
    yield helper.make_node("Gather", [BYTE_SIGNS, f"{short}_bytes"], [f"{short}_rows"])  # (N, 8)
    signs = f"{short}_rows"
    if count % BITS:  # drop the signs of the zeros that fill the last byte
        ends = f"first_{count}"
        constants |= {"flat": np.array([-1]), "start": np.array([0]), ends: np.array([count])}
        yield helper.make_node("Reshape", [signs, "flat"], [f"{short}_padded"])
        yield helper.make_node("Slice", [f"{short}_padded", "start", ends], [f"{short}_flat"])
        signs = f"{short}_flat"
    yield helper.make_node("Reshape", [signs, shape_name], [f"{short}_signs"])
    yield helper.make_node("Mul", [f"{short}_signs", f"{name}_scale"], [name])


def _byte_signs() -> np.ndarray:
    """Return (256, 8) float32: the signs of each byte, the highest bit first."""
    return unpack_signs(torch.arange(256, dtype=torch.uint8), (256, BITS)).numpy()
