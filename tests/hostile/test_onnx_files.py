"""ONNX files from strangers: they are refused in one line, or give what a network gives."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from detect.inference.detector import Detector
from tests.exporting import exports
from tests.hostile.fuzzed import check_message, message_of

IMAGE = np.zeros((40, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def exported():
    """A file of ours: three classes, 96 px."""
    return exports.export("exported")[0]


@pytest.fixture
def model(exported):
    return onnx.load_model_from_string(exported)


def says(model, **entries):
    """Put entries into the metadata."""
    for entry in model.metadata_props:
        if entry.key in entries:
            entry.value = entries[entry.key]


def refused(folder, model, predict=False):
    """The one line with which a file is refused: when it is opened, or when it looks at an image."""
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    message = message_of(Detector, path, "cpu")
    assert predict == (not message), message
    message = message or message_of(Detector(path, "cpu").predict, IMAGE)
    check_message(message)
    return message


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"names": "3"}, "names: must be a list of texts"),
        ({"names": "[1, 2, 3]"}, "names: must be a list of texts"),
        ({"names": "[" * 100_000}, "its metadata are incomplete or damaged"),
        ({"names": json.dumps(["a", "b"])}, "has 2 names, but 3 category ids"),
        ({"category_ids": "[1, 1, 2]"}, "category_ids: must be a list of different whole numbers"),
        ({"category_ids": "[1, 2, 1e99]"}, "category_ids: must be a list of different whole numbers"),
        ({"image_size": "1000000000"}, "image_size: must be a whole number from 1 to 16384"),
        ({"image_size": "-64"}, "image_size: must be"),
        ({"image_size": "9" * 5000}, "its metadata are incomplete or damaged"),
        ({"stride": "0"}, "stride: must be from 1"),
        ({"stride": "1000000000"}, "stride: must be from 1"),
        ({"cost": "much"}, "its metadata are incomplete or damaged"),
        ({"output": "[]"}, "its metadata are incomplete or damaged"),
        ({"format": "detect-onnx-2"}, "is not a file that detect export wrote"),
    ],
)
def test_metadata(tmp_path, model, entries, message):
    says(model, **entries)
    assert message in refused(tmp_path, model)


def test_a_promise_that_the_network_does_not_keep(tmp_path, model):
    says(model, names=json.dumps([*"abcd"]), category_ids="[1, 2, 3, 4]")
    assert "should give predictions of 4 classes, found (1, " in refused(tmp_path, model, predict=True)


def test_detections_that_are_none(tmp_path, model):
    says(model, output='{"non_maximum_suppression": "applied", "max_detections": 300}')
    assert "should give detections of the classes that it names" in refused(tmp_path, model, predict=True)


@pytest.mark.parametrize("location", ["../../../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_weights_in_other_files(tmp_path, model, location):
    weight = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    assert "has weights in other files" in refused(tmp_path, model)


def test_weights_in_other_files_of_an_attribute(tmp_path, model):
    value = numpy_helper.from_array(np.zeros(3, np.float32), "v")
    onnx.external_data_helper.set_external_data(value, "/dev/zero")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=value))
    assert "has weights in other files" in refused(tmp_path, model)


def test_operators_of_others(tmp_path, model):
    model.graph.node.append(helper.make_node("Run", [], ["unused"], domain="evil.\x1b[2J"))
    assert "uses an operator that is not ONNX's own ('evil.\\x1b[2J'); refused" in refused(tmp_path, model)


def test_a_loop_without_end(tmp_path, model):
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still_on", TensorProto.BOOL, [])],
    )
    true = numpy_helper.from_array(np.array(True), "true")
    most = numpy_helper.from_array(np.array(2**62, np.int64), "most")
    model.graph.initializer.extend([true, most])
    model.graph.node.append(helper.make_node("Loop", ["most", "true"], [], body=body))
    assert "has a graph inside an operator ('Loop'); refused" in refused(tmp_path, model)


def test_weights_of_another_shape(tmp_path, model):
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.dims[1] = 10**12
    assert "ONNX Runtime cannot load it: " in refused(tmp_path, model)


def test_damage_anywhere(tmp_path, exported):
    """Whatever three bytes change: it goes well, or is told in one line."""
    rng = np.random.default_rng(0)
    path = tmp_path / "model.onnx"
    messages = []
    for _ in range(30):
        content = bytearray(exported)
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        messages.append(message_of(lambda: Detector(path, "cpu").predict(IMAGE)))
        check_message(messages[-1])
    assert "" in messages
