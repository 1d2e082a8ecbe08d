"""Weights alone in 8 bits: symmetric, with a range for each output channel; nothing has to be calibrated.

The file multiplies them by their scales with ordinary operators, of constants alone, which runtimes compute once when
they load it: it is as fast as the file in float, and a quarter as large.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detect import __version__
from detect.exporting.onnx_graph import replace_items
from detect.exporting.options import ExportOptions
from detect.exporting.quantizer import LAYERS, Layer, LayerCost, layer_costs, layer_name

MAX_STEP = 127
"""Largest step: zero is zero, and both signs have as many steps."""


class WeightQuantizer:
    """A float file, and files with the weights of some of its layers in 8 bits; see ``detect.exporting.quantizer``.

    Args:
        model: the file.
        inputs: (1, 3, H, W) float32 each, on which costs are measured.
        metadata: of the files with 8 bits.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Sequence[np.ndarray], metadata: dict[str, str]) -> None:
        self._model, self._inputs, self._metadata = model, inputs, metadata
        stored = {tensor.name for tensor in model.graph.initializer}
        nodes = [node for node in model.graph.node if node.op_type in LAYERS and node.input[1] in stored]
        self.layers = [Layer(layer_name(node), [node.name]) for node in nodes]
        self._axes = {node.name: (node.input[1], _channel_axis(node)) for node in nodes}

    def quantized(self, float_layers: Collection[str]) -> onnx.ModelProto:
        """Return the file with the weights of all layers in INT8 but those of ``float_layers``."""
        return self._with_layers([layer for layer in self.layers if layer.name not in float_layers])

    def costs(self, options: ExportOptions) -> list[LayerCost]:
        """Measure the cost of each layer; the highest first."""
        files = [(layer.name, self._with_layers([layer])) for layer in self.layers]
        return layer_costs(self._model, files, self._inputs, options)

    def _with_layers(self, layers: Sequence[Layer]) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        axes = dict(self._axes[name] for layer in layers for name in layer.nodes)  # weights of several nodes once
        stored: list[TensorProto] = []
        nodes: list[onnx.NodeProto] = []
        for tensor in model.graph.initializer:
            if tensor.name in axes:
                parts, unpacking = _unpacked_on_loading(tensor, axes[tensor.name])
                stored, nodes = [*stored, *parts], [*nodes, *unpacking]
            else:
                stored.append(tensor)
        replace_items(model.graph.initializer, stored)
        replace_items(model.graph.node, [*nodes, *model.graph.node])
        model.producer_name, model.producer_version = "detect", __version__
        helper.set_model_props(model, self._metadata)
        return model


def _channel_axis(node: onnx.NodeProto) -> int:
    """Axis of the output channels in the weights of a layer."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _unpacked_on_loading(tensor: TensorProto, axis: int) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
    """Steps and scales in the place of weights, and the nodes that compute the weights from them."""
    values, name = numpy_helper.to_array(tensor), tensor.name
    others = tuple(each for each in range(values.ndim) if each != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / MAX_STEP, 1).astype(np.float32)
    steps = np.rint(values / scales).astype(np.int8)
    parts = [numpy_helper.from_array(steps, f"{name}.steps"), numpy_helper.from_array(scales, f"{name}.scales")]
    cast = helper.make_node("Cast", [f"{name}.steps"], [f"{name}.float"], f"{name}.cast", to=TensorProto.FLOAT)
    return parts, [cast, helper.make_node("Mul", [f"{name}.float", f"{name}.scales"], [name], f"{name}.scale")]
