"""INT8 files: calibrated on training images, and written only if their accuracy is that of the model.

The first and the last layers, the decoding and the suppression stay in float; further layers do if the accuracy needs
it, those first that change the predictions most.

Weights alone in 8 bits need no calibration: they are symmetric, with a range for each output channel. The file
multiplies them by their scales with ordinary operators, of constants alone, which runtimes compute once when they load
it: it is as fast as the file in float, and a quarter as large.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detect import __version__
from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.data.letterbox import pad_batch
from detect.errors import InputError
from detect.evaluation.coco import ABSENT
from detect.exporting.accuracy import measure_file, measure_model
from detect.exporting.calibration import Calibration
from detect.exporting.metadata import describe
from detect.exporting.onnx import checked_options, checked_parity, write_graph
from detect.exporting.onnx_graph import replace_items
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError, Parity
from detect.exporting.quantizer import COST_IMAGES, LAYERS, Layer, LayerCost, Quantizer, layer_costs, layer_name
from detect.inference.runtimes.exported import network_input
from detect.inference.runtimes.onnx_runtime import OnnxNetwork
from detect.models.checkpoint import Checkpoint
from detect.models.model import fuse_conv_bn
from detect.runtime.files import atomic_path
from detect.runtime.logs import LOGGER

MAX_STEP = 127
"""Largest step: zero is zero, and both signs have as many steps."""
MAX_LOSS = 0.01
"""Metric that the file may lose against PyTorch: AP, or a classifier's top-1 accuracy."""
MAX_FLOAT_SHARE = 0.5
"""Share of the layers that may go back to float; a file with more of them is hardly an INT8 file."""
WORST = 5
"""Layers that a refusal names."""


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


@dataclass(frozen=True)
class Int8Result:
    """Accuracy of an INT8 file, and its layers.

    Args:
        metric: ``AP`` or ``top1``.
        expected: metrics of PyTorch.
        found: metrics of the file.
        num_layers: layers that can have 8 bits: all but the first and the last ones.
        float_layers: those of them that have not, so that the metric holds.
        costs: of the layers, the highest first; empty if they were not measured.
        weights_only: weights alone have 8 bits, also those of the first and the last layers.
    """

    metric: str
    expected: dict[str, float]
    found: dict[str, float]
    num_layers: int
    float_layers: list[str]
    costs: list[LayerCost]
    weights_only: bool = False

    @property
    def good(self) -> bool:
        """True where the metric holds; NaN never does."""
        return self.expected[self.metric] - self.found[self.metric] <= MAX_LOSS

    def line(self) -> str:
        """Layers and metrics in one line."""
        in_int8 = self.num_layers - len(self.float_layers)
        back = f" (in float: {', '.join(self.float_layers)})" if self.float_layers else ""
        small = ""
        if self.expected.get("AP_S", ABSENT) != ABSENT:
            small = f"; AP_S {self.found['AP_S']:.4f} and {self.expected['AP_S']:.4f}"
        what = "weights, " if self.weights_only else ""
        ends = "" if self.weights_only else ", the first and the last ones in float"
        return (
            f"INT8: {what}{in_int8} of {self.num_layers} layers{back}{ends}; {self.metric} "
            f"{self.found[self.metric]:.4f} and in PyTorch {self.expected[self.metric]:.4f} (at most {MAX_LOSS:g} "
            f"lower){small}"
        )

    def record(self) -> dict[str, Any]:
        """The result as JSON."""
        return {**vars(self), "costs": dict(self.costs)}

    def cost_lines(self) -> list[str]:
        """A line for each layer that was measured, behind a head."""
        if not self.costs:
            return []
        in_float = {*self.float_layers}
        head = [f"share of the predictions' scores that is lost with one layer in INT8, on {COST_IMAGES} images"]
        return head + [f"  {cost:8.3%}  {name}{'  (float)' * (name in in_float)}" for name, cost in self.costs]


def export_int8(
    checkpoint: Checkpoint,
    path: Path,
    options: ExportOptions,
    calibration: Calibration,
    table: AnnotationTable | ClassTable,
    measure_costs: bool = False,
) -> tuple[Parity, Int8Result]:
    """Write a checkpoint's model as an INT8 file, and compare it with PyTorch.

    Args:
        checkpoint: the model.
        path: the file. It is written only if its metric holds.
        options: the kind of file, with ``int8``.
        calibration: training images.
        table: labelled split on which the metric is measured.
        measure_costs: measure the cost of each layer in any case; otherwise where the metric needs layers in float.

    Returns:
        The distance of the file before the quantization, in float, from PyTorch; and the result.

    Raises:
        InputError: as of ``export_onnx``; or the split has nothing to measure.
        ExportError: as of ``export_onnx``; or the metric does not hold.
    """
    options = checked_options(checkpoint, path, options)
    in_float = replace(options, int8=False, weights_only=False)
    with atomic_path(path) as temporary:
        write_graph(fuse_conv_bn(checkpoint.model), temporary, checkpoint, in_float)
        parity = checked_parity(checkpoint, temporary, in_float, path)
        network = OnnxNetwork(temporary, "cpu")
        expected = measure_model(checkpoint, network, options, table)
        metric = "top1" if network.is_classifier else "AP"
        if expected[metric] <= 0:
            raise InputError(f"--int8: the model's {metric} on the split is {expected[metric]:g}: nothing to keep")
        inputs = [_network_input(network, image) for image in calibration.images]
        model, metadata = onnx.load(temporary), describe(checkpoint, options)
        quantizer: Quantizer | WeightQuantizer = (
            WeightQuantizer(model, inputs, metadata)
            if options.weights_only
            else Quantizer(model, inputs, calibration.method, metadata)
        )

        def measure(floats: list[str]) -> dict[str, float]:
            onnx.save(quantizer.quantized(floats), temporary)
            return measure_file(OnnxNetwork(temporary, "cpu"), options, table)

        result = find_float_layers(quantizer, options, metric, expected, measure, measure_costs)
        if not result.good:
            worst = ", ".join(f"{cost.layer} {cost.cost:.2%}" for cost in result.costs[:WORST])
            raise ExportError(f"{path}: not written: {result.line()}; the layers that cost most: {worst}")
    return parity, result


def find_float_layers(
    quantizer: Quantizer | WeightQuantizer,
    options: ExportOptions,
    metric: str,
    expected: dict[str, float],
    measure: Callable[[list[str]], dict[str, float]],
    measure_costs: bool,
) -> Int8Result:
    """Find the layers that must stay in float: none, or as many of the most expensive ones as the metric needs.

    Args:
        quantizer: of the file.
        options: the kind of file.
        metric: that must hold.
        expected: metrics of PyTorch.
        measure: writes the file with these layers in float, and measures it.
        measure_costs: measure the layers in any case.

    Returns the first result that holds, or the last one.
    """
    num_layers = len(quantizer.layers)
    costs = quantizer.costs(options) if measure_costs else []
    result = Int8Result(metric, expected, measure([]), num_layers, [], costs, options.weights_only)
    count = 1
    while not result.good and count <= MAX_FLOAT_SHARE * num_layers:
        LOGGER.info("%s", result.line())
        costs = costs or quantizer.costs(options)
        floats = [cost.layer for cost in costs[:count]]
        result = replace(result, found=measure(floats), float_layers=floats, costs=costs)
        count *= 2
    return result


def _network_input(network: OnnxNetwork, image: np.ndarray) -> np.ndarray:
    """(1, 3, H, W) float32 of a scaled image, as ``OnnxNetwork`` computes it."""
    padded = pad_batch([image], shape_hw=network.padded_hw((image.shape[0], image.shape[1])))
    return network_input(padded)
