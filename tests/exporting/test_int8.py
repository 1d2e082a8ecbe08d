"""INT8 files: what has 8 bits, what stays in float and why, and that an inaccurate file is not left."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper, parser
from onnxruntime.quantization.calibrate import TensorData

from detect.data.classification.table import ClassTable
from detect.errors import InputError
from detect.exporting import int8
from detect.exporting.calibration import Calibration
from detect.exporting.comparison_inputs import comparison_images
from detect.exporting.int8 import Int8Result, export_int8, find_float_layers
from detect.exporting.onnx_runner import OnnxModel
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError
from detect.exporting.quantizer import LayerCost, Quantizer, inner_layers, prediction_loss, share_ranges
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from tests.exporting import exports

INT8 = ExportOptions(int8=True)
GRAPH = """
network (float[1, 3, 8, 8] images) => (float[1, 2, 8, 8] fine, float[1, 2, 8, 8] coarse)
{
    a = Conv (images, first)
    b = Sigmoid (a)
    c = Mul (a, b)
    d = Conv (c, second)
    e = Relu (d)
    f = Conv (e, last)
    fine = Mul (f, two)
    coarse = Conv (c, other)
}
"""


def test_layers():
    """The first reads three channels, the last two have no layer behind them; a layer goes with its activation."""
    graph = parser.parse_graph(GRAPH)
    for number, node in enumerate(graph.node):
        node.name = f"{number}{node.op_type}"
    graph.node[3].input[1] = "model.graph.layers.c2.divide.conv.weight"
    for name, shape in (
        ("first", (8, 3)),
        ("model.graph.layers.c2.divide.conv.weight", (8, 8)),
        ("last", (2, 8)),
        ("other", (2, 8)),
    ):
        graph.initializer.append(numpy_helper.from_array(np.zeros((*shape, 1, 1), np.float32), name))
    layers, nodes = inner_layers(graph)
    assert [tuple(layer) for layer in layers] == [("c2.divide", ["3Conv", "4Relu"])]
    assert nodes == ["3Conv", "4Relu"]


@pytest.mark.parametrize(
    ("operator", "shape", "is_first"),
    [("Conv", (8, 4, 3, 3), True), ("Conv", (8, 5, 3, 3), False), ("Conv<group = 2>", (8, 2, 3, 3), False)],
)
def test_a_layer_of_few_channels_stays_in_float(operator, shape, is_first):
    """Four or three of an image, but not the one or two of each group of a convolution in groups."""
    text = f"n (float[1, 4, 8, 8] x, float[8, 8, 1, 1] w) => (float z) {{ y = {operator} (x, first) z = Conv (y, w) }}"
    graph = parser.parse_graph(text)
    for node in graph.node:
        node.name = node.output[0]
    for name, values in (("first", np.zeros(shape, np.float32)), ("w", np.zeros((8, 8, 1, 1), np.float32))):
        graph.initializer.append(numpy_helper.from_array(values, name))
    assert inner_layers(graph)[1] == ([] if is_first else ["y"])


def test_rearranged_tensors_share_a_range():
    """a and b meet in c, c in e; d, which a layer computes from e, has its own."""
    text = """n (float[1, 2, 4, 4] a, float[1, 2, 4, 4] b) => (float[1, 2, 4, 4] d)
    { c = Concat <axis = 1> (a, b) e = MaxPool <kernel_shape = [1, 1]> (c) d = Conv (e, w) }"""
    graph = parser.parse_graph(text)
    for node in graph.node:
        node.name = node.output[0]
    ends = {"a": (-1, 2), "b": (0, 3), "c": (-1, 3), "e": (-0.5, 4), "d": (-9, 9)}
    ranges = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ends.items()}
    share_ranges(graph, {"c", "e", "d"}, ranges)
    assert {name: one.range_value for name, one in ranges.items()} == {**dict.fromkeys("abce", (-1, 4)), "d": (-9, 9)}


def test_a_concatenation_rounds_nothing_again(tmp_path):
    """Two layers with outputs of different sizes are joined: the scales of both are that of the result."""
    text = """n (float[1, 8, 4, 4] images) => (float[1, 2, 4, 4] z)
    { a = Conv (images, w) b = Conv (images, v) c = Concat <axis = 1> (a, b) d = Conv (c, u) z = Conv (d, t) }"""
    model = onnx.helper.make_model(parser.parse_graph(text), opset_imports=[onnx.helper.make_opsetid("", 18)])
    rng = np.random.default_rng(0)
    for node in model.graph.node:
        node.name = node.output[0]
    for name, shape in (("w", (4, 8)), ("v", (4, 8)), ("u", (8, 8)), ("t", (2, 8))):
        values = rng.random((*shape, 1, 1), np.float32) * (10 if name == "v" else 1)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    inputs = [rng.random((1, 8, 4, 4), np.float32) for _ in range(2)]
    quantized = Quantizer(model, inputs, "minmax", {}).quantized([]).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.initializer}
    scales = {node.input[0]: stored[node.input[1]] for node in quantized.node if node.op_type == "QuantizeLinear"}
    assert scales["a"] == scales["b"] == scales["c"]


@pytest.fixture(scope="module")
def quantizer(exported):
    model = onnx.load(exported[0])
    rng = np.random.default_rng(0)
    inputs = [rng.random((1, 3, 48, 96), np.float32) for _ in range(3)]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Quantizer(model, inputs, "minmax", metadata | {"precision": "int8"})


def weights(model):
    """Values, or None where they are computed, and axis of the scales of each convolution's weights."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {node.output[0]: node for node in model.graph.node}
    found = []
    for node in (node for node in model.graph.node if node.op_type == "Conv"):
        name = node.input[1]
        source = producers.get(name)
        found.append(stored[name] if source is None else (stored[source.input[0]], stored[source.input[1]]))
    return found


def test_what_has_8_bits(quantizer):
    """Two layers between the first and the two last ones; 7 bits, a scale for each output channel."""
    model = quantizer.quantized([])
    onnx.checker.check_model(model, full_check=True)
    assert [layer.name for layer in quantizer.layers] == ["down2", "down3"]
    *inner, stem, fine, coarse = sorted(weights(model), key=lambda one: isinstance(one, np.ndarray))
    assert [stem.dtype, fine.dtype, coarse.dtype] == [np.float32] * 3
    assert len(inner) == 2
    for values, scales in inner:
        assert values.dtype == np.int8
        assert np.abs(values.astype(int)).max() <= 64
        assert scales.shape == (len(values),)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.producer_name == "detect"
    assert {entry.key: entry.value for entry in model.metadata_props}["precision"] == "int8"
    # The decoding is in float: what feeds the output's operators is not rounded.
    last = {node.output[0] for node in model.graph.node if node.op_type == "Conv"} - {
        name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input
    }
    assert len(last) == 3  # the stem's output is not rounded either, that of its activation is


def test_layers_in_float(quantizer):
    model = quantizer.quantized(["down2"])
    assert sum(isinstance(one, np.ndarray) for one in weights(model)) == 4


def test_costs(quantizer):
    costs = quantizer.costs(INT8)
    assert sorted(cost.layer for cost in costs) == ["down2", "down3"]
    values = [cost.cost for cost in costs]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] <= values[0] < 0.2


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods(exported, method, capsys):
    model = onnx.load(exported[0])
    inputs = [np.random.default_rng(0).random((1, 3, 16, 16), np.float32)] * 2
    quantized = Quantizer(model, inputs, method, {}).quantized([])
    assert any(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    assert capsys.readouterr().out == ""


def test_a_layer_of_one_value_has_no_histogram():
    """Of values that differ by rounding alone; the smallest and the largest are a range in any case."""
    text = "n (float[1, 8, 4, 4] images) => (float[1, 1, 4, 4] z) { a = Conv (images, w, one) z = Conv (a, v) }"
    model = onnx.helper.make_model(parser.parse_graph(text), opset_imports=[onnx.helper.make_opsetid("", 18)])
    for node in model.graph.node:
        node.name = node.output[0]
    for name, values in (("w", np.full((8, 8, 1, 1), 3e-7)), ("one", np.ones(8)), ("v", np.ones((1, 8, 1, 1)))):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    inputs = [np.random.default_rng(0).random((1, 8, 4, 4), np.float32)] * 2
    with pytest.raises(
        InputError, match=r"^calibration: percentile finds no range .*; take --calibration-method minmax$"
    ):
        Quantizer(model, inputs, "percentile", {})
    assert Quantizer(model, inputs, "minmax", {}).quantized([]).graph.node


def test_loss_of_a_detector():
    """Scores 0.8 and 0.4. Box 0 keeps half of its score; box 1 moves by half of its width: IoU 1/3.

    Lost are 0.8 * (1 - 1/2) + 0.4 * (1 - 1/3) = 0.6667 of 1.2.
    """
    expected = np.array([[[5, 5, 4, 4, 0.8, 1, 0], [9, 5, 4, 4, 0.4, 0, 1]]], np.float32)
    found = np.array([[[5, 5, 4, 4, 0.4, 1, 0], [11, 5, 4, 4, 0.4, 0, 1]]], np.float32)
    assert prediction_loss(expected, found) == pytest.approx(0.6667 / 1.2, abs=1e-4)
    assert prediction_loss(expected, expected) == 0
    assert prediction_loss(np.zeros((1, 2, 7), np.float32), found) == 0


def test_loss_of_a_classifier():
    expected, found = np.array([[0.5, 0.3, 0.2]]), np.array([[0.4, 0.3, 0.3]])
    assert prediction_loss(expected, found) == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------ layers in float


class Costs:
    """Layers with known costs, in place of a network's."""

    layers = [None] * 8

    def costs(self, options):
        return [LayerCost(f"layer{number}", 0.1 / (number + 1)) for number in range(8)]


@pytest.mark.parametrize(
    ("needed", "tried", "good"),
    [(0, [0], True), (1, [0, 1], True), (2, [0, 1, 2], True), (3, [0, 1, 2, 4], True), (5, [0, 1, 2, 4], False)],
)
def test_the_fewest_layers_in_float(needed, tried, good):
    """One more at first, then twice as many, up to half of the eight; the most expensive ones first."""
    asked = []

    def measure(floats):
        asked.append(floats)
        return {"AP": 0.5 if len(floats) >= needed else 0.4}

    result = find_float_layers(Costs(), INT8, "AP", {"AP": 0.5}, measure, measure_costs=False)
    assert [len(floats) for floats in asked] == tried
    assert asked[-1] == [f"layer{number}" for number in range(tried[-1])]
    assert (result.good, result.float_layers) == (good, asked[-1])
    assert bool(result.costs) is bool(needed)


def test_the_metric_may_lose_a_hundredth_and_gain_anything():
    def good(found):
        return Int8Result("AP", {"AP": 0.5}, {"AP": found}, 3, [], []).good

    assert (good(0.4901), good(0.6), good(0.489), good(float("nan"))) == (True, True, False, False)


def test_lines():
    metrics = {"AP": 0.5, "AP_S": 0.25}
    result = Int8Result("AP", metrics, {"AP": 0.495, "AP_S": 0.24}, 3, ["b"], [LayerCost("b", 0.1), LayerCost("a", 0)])
    assert result.line() == (
        "INT8: 2 of 3 layers (in float: b), the first and the last ones in float; AP 0.4950 and in PyTorch 0.5000 (at "
        "most 0.01 lower); AP_S 0.2400 and 0.2500"
    )
    assert result.cost_lines()[1:] == ["   10.000%  b  (float)", "    0.000%  a"]
    assert json.loads(json.dumps(result.record()))["costs"] == {"b": 0.1, "a": 0}
    weights = Int8Result("AP", metrics, metrics, 3, [], [], weights_only=True)
    assert weights.line().startswith("INT8: weights, 3 of 3 layers; AP 0.5000 and")
    top1 = Int8Result("top1", {"top1": 1.0}, {"top1": 1.0}, 3, [], [])
    assert top1.line().endswith("top1 1.0000 and in PyTorch 1.0000 (at most 0.01 lower)")
    assert top1.cost_lines() == []


# ------------------------------------------------------------------------------------------------ whole files


@pytest.fixture
def labelled(classifier):
    """Images, and the classes that the classifier gives them: its top-1 accuracy is 1."""
    pixels = np.stack([image[:32, :32] for image in comparison_images() for _ in range(3)])
    pixels = np.stack([np.roll(image, 5 * number, axis=2) for number, image in enumerate(pixels)])
    found = [Classifier(classifier, "cpu").predict(image).label for image in pixels]
    paths = np.array([b"x"] * len(pixels))
    return ClassTable(paths, np.array(found, np.int64), exports.NAMES, pixels)


@pytest.fixture
def calibration(labelled):
    return Calibration(list(labelled.pixels))


@pytest.fixture
def only_old_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    yield path
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == {"model.onnx": b"older"}


def test_a_classifier_with_binary_weights(classifier, labelled, calibration, tmp_path, monkeypatch):
    """Top-1 may fall by a quarter here: the untrained network is nearly undecided."""
    monkeypatch.setattr(int8, "MAX_LOSS", 0.25)
    path = tmp_path / "model.onnx"
    with exports.exporter_once():
        parity, result = export_int8(classifier, path, INT8, calibration, labelled)
    assert parity.good
    assert (result.metric, result.expected["top1"], result.float_layers) == ("top1", 1.0, [])
    runner = OnnxModel(str(path))
    probabilities = runner.classify(labelled.pixels[0][..., ::-1].copy())
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert runner.session.get_modelmeta().custom_metadata_map["precision"] == "int8"
    found = [Classifier(path).predict(image).label for image in labelled.pixels]
    assert result.found["top1"] == pytest.approx(np.mean(found == labelled.labels))


def test_an_inaccurate_file_is_not_left(classifier, labelled, calibration, only_old_file, monkeypatch):
    monkeypatch.setattr(int8, "MAX_LOSS", -1)  # nothing is good enough
    message = r"model.onnx: not written: INT8: .* top1 .*; the layers that cost most: [\w.]+ \d"
    with exports.exporter_once(), pytest.raises(ExportError, match=message):
        export_int8(classifier, only_old_file, INT8, calibration, labelled)


def test_nothing_to_keep_is_refused(classifier, labelled, calibration, only_old_file):
    wrong = ClassTable(labelled.image_paths, (labelled.labels + 1) % 3, labelled.names, labelled.pixels)
    with (
        exports.exporter_once(),
        pytest.raises(InputError, match="the model's top1 on the split is 0: nothing to keep"),
    ):
        export_int8(classifier, only_old_file, INT8, calibration, wrong)


def test_suppression_stays_behind_the_network(suppressed, checkpoint):
    """The file with suppression inside gives detections as the one in float does, nearly."""
    model = onnx.load(suppressed[0])
    inputs = [torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(seed)).numpy() for seed in range(2)]
    content = Quantizer(model, inputs, "minmax", {}).quantized([]).SerializeToString()
    names = [value.name for value in onnxruntime.InferenceSession(content).get_outputs()]
    assert names == ["detections", "counts"]


@pytest.mark.slow
def test_a_trained_detector(real_data, tmp_path):
    """On published images: AP holds, the file is a quarter as large, and finds what the checkpoint finds."""
    from detect.api.exporting import ExportRequest, run_export
    from detect.models.catalog import shipped_weights

    path, data = tmp_path / "model.onnx", real_data / "bccd"
    weights = shipped_weights()["yolov5n-spd-bccd"]
    exported = run_export(
        ExportRequest(weights, path, data="bccd", data_root=str(data), int8=True, calibration=32, threads=1)
    )
    found = exported.record["int8"]
    assert found["expected"]["AP"] - found["found"]["AP"] <= 0.01
    assert path.stat().st_size < 2.6e6
    image = next(iter(sorted((data / "JPEGImages").iterdir())))
    first, second = (Detector(source, "cpu").predict(image, conf=0.5) for source in (weights, path))
    assert abs(len(first) - len(second)) <= 2
