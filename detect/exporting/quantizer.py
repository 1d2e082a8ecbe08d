"""Quantization of an exported graph: what is between the first and the last layers in 8 bits, by ONNX Runtime (QDQ).

Weights are symmetric, with a range for each output channel, and have 7 of the 8 bits: the AVX2 kernels of processors
without VNNI add pairs of products in 16 bits, which saturate with 8 (``docs/results/int8.md``). Activations are
unsigned, with a zero point and a range for each tensor; that of ``percentile`` is of the absolute values. Tensors that
are concatenated have one range, so that nothing is rounded again.

Letters: P predictions of an image, K classes.

Source: Jacob et al. 2018 (arXiv 1712.05877), sections 2 and 3, for the scheme.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch

from detect import __version__
from detect.boxes.iou import paired_iou
from detect.errors import InputError
from detect.exporting.calibration import Method
from detect.exporting.onnx_graph import replace_items
from detect.exporting.options import ExportOptions
from detect.exporting.parity import open_file, run_file
from detect.exporting.wrappers import PREFIX
from detect.runtime.progress import progress_bar

COST_IMAGES = 8
"""Images of the calibration on which the cost of each layer is measured."""
CANDIDATES = 50
"""Predictions of an image, the best ones, that a cost is of."""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip")
_OPERATORS = (
    *LAYERS,
    *_ACTIVATIONS,
    *("Add", "Concat", "Split", "Slice", "Reshape", "Transpose", "Resize"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
)
"""Operators in 8 bits. With convolutions alone each converts its input and output, and most of the gain is lost."""
_SAME_VALUES = ("Concat", "Split", "Slice", "Reshape", "Transpose", "Resize", "MaxPool")
"""Operators whose outputs are values of their inputs."""
MAX_IMAGE_CHANNELS = 4
"""Input channels of a layer that reads an image. It stays in float: the 8-bit kernels copy the pixels under each
position of the kernel, channels together, and of so few the copies take longer than the products."""
_METHODS: dict[Method, str] = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


class LayerCost(NamedTuple):
    """Cost of a layer.

    Args:
        layer: name in the model.
        cost: share of the predictions' scores that is lost where this layer alone has 8 bits, from 0 to 1
            (``prediction_loss``).
    """

    layer: str
    cost: float


class Layer(NamedTuple):
    """A layer that can have 8 bits.

    Args:
        name: in the model.
        nodes: names of its nodes: the convolution and the activation behind it.
    """

    name: str
    nodes: list[str]


def inner_layers(graph: onnx.GraphProto) -> tuple[list[Layer], list[str]]:
    """Layers with another layer behind them, but for those that read the image.

    Returns:
        The layers; and the names of all nodes in front of the last layers, which have none behind them, without the
        nodes of the first ones.
    """
    stored = {tensor.name for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in LAYERS and node.input[1] in stored]
    producers = {name: node for node in graph.node for name in node.output}
    before: set[str] = set()
    waiting = [node.input[0] for node in layers]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.name not in before:
            before.add(node.name)
            waiting += node.input
    inner = [node for node in layers if node.name in before]
    first = {name for node in inner if _reads_image(graph, node) for name in _with_activation(graph, node)}
    found = [Layer(layer_name(node), _with_activation(graph, node)) for node in inner if node.name not in first]
    return found, [node.name for node in graph.node if node.name in before - first]


def _reads_image(graph: onnx.GraphProto, layer: onnx.NodeProto) -> bool:
    """True for a convolution of a few channels, all of which each output channel reads."""
    (shape,) = (tensor.dims for tensor in graph.initializer if tensor.name == layer.input[1])
    groups = next((attribute.i for attribute in layer.attribute if attribute.name == "group"), 1)
    return layer.op_type == "Conv" and groups == 1 and shape[1] <= MAX_IMAGE_CHANNELS


def layer_name(node: onnx.NodeProto) -> str:
    """Name in the model, by its bias or weights; of merged weights the name of the node."""
    own = next((name for name in reversed(node.input) if name.startswith(PREFIX)), "")
    if not own:
        return node.name
    return own.removeprefix(PREFIX).removeprefix("graph.layers.").rpartition(".")[0].removesuffix(".conv")


def _with_activation(graph: onnx.GraphProto, layer: onnx.NodeProto) -> list[str]:
    found, waiting = [layer.name], [*layer.output]
    while waiting:
        tensor = waiting.pop()
        for node in graph.node:
            if tensor in node.input and node.op_type in _ACTIVATIONS and node.name not in found:
                found.append(node.name)
                waiting += node.output
    return found


class Quantizer:
    """A float file, and INT8 files of some of its layers.

    Args:
        model: the file.
        inputs: (1, 3, H, W) float32 each, of the calibration.
        method: choice of the ranges.
        metadata: of the INT8 files.
    """

    def __init__(
        self, model: onnx.ModelProto, inputs: Sequence[np.ndarray], method: Method, metadata: dict[str, str]
    ) -> None:
        self._model, self._inputs, self._metadata = model, inputs, metadata
        self._typed = onnx.shape_inference.infer_shapes(model)
        self.layers, self._nodes = inner_layers(model.graph)
        if not self.layers:
            raise InputError("--int8: the model has no layers but the first and the last ones, which stay in float")
        self._ranges = tensor_ranges(self._front(), inputs, method)
        share_ranges(model.graph, {*self._nodes}, self._ranges)

    def quantized(self, float_layers: Collection[str]) -> onnx.ModelProto:
        """Return the file with all layers in INT8 but the first and last ones and ``float_layers``."""
        excluded = {name for layer in self.layers if layer.name in float_layers for name in layer.nodes}
        return self._with_nodes([name for name in self._nodes if name not in excluded])

    def costs(self, options: ExportOptions) -> list[LayerCost]:
        """Measure the cost of each layer; the highest first."""
        files = ((layer.name, self._with_nodes(layer.nodes)) for layer in self.layers)
        return layer_costs(self._model, files, self._inputs, options)

    def _with_nodes(self, nodes: list[str]) -> onnx.ModelProto:
        from onnxruntime.quantization import QDQQuantizer, QuantType

        model = onnx.ModelProto()
        model.CopyFrom(self._typed)
        # What quantize_static does behind the calibration, which is done once for all choices of layers.
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=list(_OPERATORS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        replace_items(quantized.opset_import, list(self._model.opset_import))
        quantized.producer_name, quantized.producer_version = "detect", __version__
        del quantized.metadata_props[:]
        onnx.helper.set_model_props(quantized, self._metadata)
        return quantized

    def _front(self) -> onnx.ModelProto:
        """The part whose tensors get ranges: neither decoding nor suppression."""
        inside, graph = {*self._nodes}, self._model.graph
        made = {name for node in graph.node if node.name in inside for name in node.output}
        read = dict.fromkeys(name for node in graph.node if node.name not in inside for name in node.input)
        ends = [name for name in read if name in made]
        return onnx.utils.Extractor(self._typed).extract_model(["images"], ends)


def tensor_ranges(model: onnx.ModelProto, inputs: Sequence[np.ndarray], method: Method) -> Any:
    """Ranges of all tensors, ONNX Runtime's ``TensorsData``; one image at a time is in memory."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        path = Path(folder) / "network.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            list(_OPERATORS),
            augmented_model_path=str(path.with_name("observed.onnx")),
            calibrate_method=CalibrationMethod[_METHODS[method]],
        )
        try:
            for images in progress_bar(inputs, "calibration", unit="image"):
                calibrator.collect_data(_one_input(images))
            return calibrator.compute_data()
        except ValueError as error:  # NumPy has no histogram of values that are equal but for rounding
            raise InputError(
                f"calibration: {method} finds no range of the values of a layer ({error}); take --calibration-method "
                "minmax"
            ) from None


def share_ranges(graph: onnx.GraphProto, nodes: Collection[str], ranges: Any) -> None:
    """Widen ranges, ``tensor_ranges``, in place, until all tensors that some of these nodes only rearrange have one."""
    from onnxruntime.quantization.calibrate import TensorData

    moving = [node for node in graph.node if node.name in nodes and node.op_type in _SAME_VALUES]
    groups = [[name for name in (*node.input, *node.output) if name in ranges] for node in moving]
    is_done = False
    while not is_done:
        is_done = True
        for group in groups:
            lows, highs = zip(*(ranges[name].range_value for name in group), strict=True)
            if len({low.item() for low in lows}) > 1 or len({high.item() for high in highs}) > 1:
                for name in group:
                    ranges[name] = TensorData(lowest=min(lows), highest=max(highs))
                is_done = False


def _one_input(images: np.ndarray) -> Any:
    """A ``CalibrationDataReader`` of one input."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._waiting = [{"images": images}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self._waiting.pop() if self._waiting else None

    return Reader()


def layer_costs(
    model: onnx.ModelProto,
    files: Iterable[tuple[str, onnx.ModelProto]],
    inputs: Sequence[np.ndarray],
    options: ExportOptions,
) -> list[LayerCost]:
    """Costs of layers, the highest first; ``files`` has each layer's name, and the model with it alone in 8 bits."""
    inputs = inputs[:COST_IMAGES]
    in_float = open_file(model, options)
    expected = [run_file(in_float, images) for images in inputs]
    costs = []
    for name, file in progress_bar(files, "layers", unit="layer"):
        runner = open_file(file, options)
        found = [run_file(runner, images) for images in inputs]
        losses = [prediction_loss(*pair) for pair in zip(expected, found, strict=True)]
        costs.append(LayerCost(name, float(np.mean(losses))))
    return sorted(costs, key=lambda one: -one.cost)


def prediction_loss(expected: np.ndarray, found: np.ndarray) -> float:
    """Share of the scores that another network loses, from 0 to 1.

    Of a detector, (1, P, 5 + K): the best predictions count by their scores; of each, IoU of the two boxes times ratio
    of the smaller to the larger score is kept. Of a classifier, (1, K): half the absolute difference.
    """
    if expected.ndim == 2:
        return float(np.abs(expected - found).sum() / 2)
    first, second = expected[0], found[0]
    scores = (first[:, 4:5] * first[:, 5:]).max(axis=1)
    best = np.argsort(-scores)[:CANDIDATES]
    label = first[best, 5:].argmax(axis=1)
    scores, others = scores[best], second[best, 4] * second[best, 5 + label]
    kept = np.minimum(scores, others) / np.maximum(np.maximum(scores, others), 1e-9)
    one, other = (torch.from_numpy(rows[best, :4]) for rows in (first, second))
    kept = kept * paired_iou(one, other, "iou").numpy()
    return float((scores * (1 - kept)).sum() / max(scores.sum(), 1e-9))
