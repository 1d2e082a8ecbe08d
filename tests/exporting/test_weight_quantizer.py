"""Weights in 8 bits: their steps, what is left in float, and that a runtime computes them once."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from detect.exporting.int8 import WeightQuantizer
from detect.exporting.options import ExportOptions

GRAPH = """n (float[1, 2, 4, 4] images) => (float[1, 2] z)
{ a = Conv (images, w) b = GlobalAveragePool (a) c = Flatten (b) z = Gemm (c, v) }"""


@pytest.fixture
def model():
    """Channels of very different size; the second one of the fully connected layer, whose axis is 1, is zero."""
    model = onnx.helper.make_model(parser.parse_graph(GRAPH), opset_imports=[onnx.helper.make_opsetid("", 18)])
    for node in model.graph.node:
        node.name = node.output[0]
    kernels = np.array([[1, -0.5], [0.001, 0.0004]], np.float32).reshape(2, 2, 1, 1)
    for name, values in (("w", kernels), ("v", np.array([[2, 0], [-1, 0]], np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def stored(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_steps_and_scales(model):
    """-0.5 / (1 / 127) = -63.5, which is rounded to the even -64; 0.0004 / (0.001 / 127) = 50.8."""
    found = WeightQuantizer(model, [], {"precision": "int8 weights"}).quantized([])
    onnx.checker.check_model(found, full_check=True)
    arrays = stored(found)
    assert arrays["w.steps"].dtype == np.int8
    assert arrays["w.steps"].ravel().tolist() == [127, -64, 127, 51]
    np.testing.assert_allclose(arrays["w.scales"].ravel(), [1 / 127, 0.001 / 127], rtol=1e-6)
    assert arrays["v.steps"].tolist() == [[127, 0], [-64, 0]]
    np.testing.assert_allclose(arrays["v.scales"], [[2 / 127, 1]], rtol=1e-6)
    assert {entry.key: entry.value for entry in found.metadata_props} == {"precision": "int8 weights"}


def test_layers_in_float(model):
    quantizer = WeightQuantizer(model, [], {})
    assert [layer.name for layer in quantizer.layers] == ["a", "z"]
    assert set(stored(quantizer.quantized(["a"]))) == {"w", "v.steps", "v.scales"}
    assert set(stored(model)) == {"w", "v"}


def test_a_runtime_unpacks_them_on_loading(model, tmp_path):
    """The same result as that of the unpacked weights; the optimised graph has the operators of the float file."""
    content = WeightQuantizer(model, [], {}).quantized([]).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    images = np.random.default_rng(0).random((1, 2, 4, 4), np.float32)
    (found,) = onnxruntime.InferenceSession(content, options).run(None, {"images": images})
    kernels, last = np.array([[127, -64], [0.127, 0.051]]) / 127, np.array([[2, 0], [-128 / 127, 0]])
    expected = images.mean(axis=(2, 3)) @ kernels.T @ last
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert {node.op_type for node in loaded.graph.node} & {"Cast", "Mul", "DequantizeLinear"} == set()


def test_costs(exported):
    model = onnx.load(exported[0])
    inputs = [np.random.default_rng(0).random((1, 3, 48, 96), np.float32)]
    quantizer = WeightQuantizer(model, inputs, {entry.key: entry.value for entry in model.metadata_props})
    costs = quantizer.costs(ExportOptions(int8=True, weights_only=True))
    assert {cost.layer for cost in costs} == {layer.name for layer in quantizer.layers}
    assert len(costs) == 5
    assert 0 < costs[0].cost < 0.05
