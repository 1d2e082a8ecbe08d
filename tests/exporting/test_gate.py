"""The gate of every export: it lets a true file through and sees each fault of the graph and of the use."""

from __future__ import annotations

import math
import sys

import numpy as np
import onnx
import pytest

from detect.errors import InputError
from detect.exporting import comparison_inputs
from detect.exporting.comparison_inputs import IMAGE_SHAPES, comparison_images
from detect.exporting.onnx_runner import OnnxModel
from detect.exporting.options import ExportOptions
from detect.exporting.parity import TOLERANCES, Difference, ExportError, Parity, compare_file, count_unmatched

OPTIONS = ExportOptions(image_size=96)


@pytest.fixture
def few_images(monkeypatch):
    """The small ones, which show each fault."""
    monkeypatch.setattr(comparison_inputs, "IMAGE_SHAPES", IMAGE_SHAPES[:5])
    monkeypatch.setattr(comparison_inputs, "BATCHES", ((2, 0),))


def test_line():
    parity = Parity(Difference(3.14159e-5, 2e-7, good=True), TOLERANCES["fp32"], [(1, 32, 32)], 15, 400, 3)
    assert parity.line() == (
        "largest difference from PyTorch on 1 input shapes and 15 images: 3.1e-05 px (at most 0.01 px or 0.1% of the "
        "box), score 2e-07 (at most 0.0001), 397 of 400 detections the same"
    )
    parity = Parity(Difference(0.4, 0.01, good=True, unlikely=2), TOLERANCES["fp16"], [(1, 32, 32)], 15, 400)
    assert "0.4 px (at most 0.5 px or 3.0% of the box; not counted, as their scores are below 0.001: 2), " in (
        parity.line()
    )
    parity = Parity(Difference(None, 2e-7, good=True), TOLERANCES["fp32"], [(1, 32, 32)], 15)
    assert parity.line() == (
        "largest difference from PyTorch on 1 input shapes and 15 images: probability 2e-07 "
        "(at most 0.01% of the image's largest)"
    )


@pytest.mark.parametrize(("unmatched", "good"), [(0, True), (4, True), (5, False)])
def test_one_detection_in_a_hundred_may_be_decided_differently(unmatched, good):
    difference = Difference(0.0, 0.0, good=True)
    assert Parity(difference, TOLERANCES["fp32"], [(1, 32, 32)], 15, 400, unmatched).good is good


def test_images():
    images = comparison_images()
    assert len(images) >= 8
    assert [image.shape for image in images] == [(*shape, 3) for shape in IMAGE_SHAPES]
    assert all(image.dtype == np.uint8 and image.std() > 10 for image in images)
    assert all((first == second).all() for first, second in zip(images, comparison_images(), strict=True))


def test_unmatched():
    row = [10.0, 20.0, 30.0, 40.0, 0.9, 2.0]
    others = np.array([[9.995, 20.0, 30.0, 40.0, 0.9, 2.0], [10.0, 20.0, 30.0, 40.0, 0.9, 1.0]])
    assert count_unmatched(np.array([row]), others) == 0
    assert count_unmatched(np.array([row]), others[1:]) == 1  # another class
    assert count_unmatched(np.array([row, row]) + np.array([0, 0, 0, 0.02, 0, 0]), others) == 2
    assert count_unmatched(np.zeros((0, 6)), others) == 0
    assert count_unmatched(others, np.zeros((0, 6))) == 2


def test_a_true_file(checkpoint, exported):
    parity = compare_file(checkpoint, exported[0], OPTIONS)
    assert parity.good
    assert (parity.images, parity.unmatched) == (8 + 2 + 5, 0)
    assert parity.detections > 100


def edited(exported, folder, edit):
    """A copy of the exported file after ``edit``."""
    model = onnx.load(exported[0])
    edit(model.graph)
    onnx.save(model, folder / "edited.onnx")
    return folder / "edited.onnx"


@pytest.mark.usefixtures("few_images")
def test_a_changed_weight_is_seen(checkpoint, exported, tmp_path):
    def edit(graph):
        tensor = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[0] *= 1.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    assert not compare_file(checkpoint, edited(exported, tmp_path, edit), OPTIONS).good


@pytest.mark.usefixtures("few_images")
def test_nan_is_seen(checkpoint, exported, tmp_path):
    def edit(graph):
        tensor = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4)
        values = np.full(tuple(tensor.dims), np.nan, np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    parity = compare_file(checkpoint, edited(exported, tmp_path, edit), OPTIONS)
    assert math.isnan(parity.difference.box_px)
    assert not parity.good


def test_a_graph_that_cannot_run_is_seen(checkpoint, exported, tmp_path):
    def edit(graph):
        graph.node[-1].op_type = "NoSuchOperator"

    with pytest.raises(ExportError, match=r"cannot load the exported graph: .*INVALID_GRAPH"):
        compare_file(checkpoint, edited(exported, tmp_path, edit), OPTIONS)


def test_a_missing_runtime_is_named(checkpoint, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    monkeypatch.delitem(sys.modules, "detect.exporting.onnx_runner")
    with pytest.raises(InputError, match=r"onnxruntime is not installed.* pip install 'detect-small\[export\]'"):
        compare_file(checkpoint, exported[0], OPTIONS)


# --------------------------------------------------------------------- faults of the use, one at a time


def bgr(self, images):
    return np.ascontiguousarray(network_input(self, images)[:, ::-1])


def unscaled(self, images):
    return network_input(self, images) * np.float32(255)


def padded_left_and_above(self, images):
    """The image in the bottom right corner."""
    tensor = network_input(self, images)
    below, right = (tensor.shape[2 + axis] - images[0].shape[axis] for axis in (0, 1))
    return np.roll(tensor, (below, right), axis=(2, 3))


def black_padding(self, images):
    self.preprocessing = {**self.preprocessing, "pad_value": 0}
    return network_input(self, images)


def stretched(self, image):
    side = self.image_size
    return self.resized(image, (side, side)), (side / image.shape[1], side / image.shape[0])


def next_class(self, found, image_hw, scale_xy):
    rows = in_image(self, found, image_hw, scale_xy).copy()
    rows[:, 5] += 1
    return rows


network_input, in_image = OnnxModel.network_input, OnnxModel.in_image

FAULTS = {
    "BGR": ("network_input", bgr),
    "missing scale": ("network_input", unscaled),
    "pad side": ("network_input", padded_left_and_above),
    "pad value": ("network_input", black_padding),
    "class shift": ("in_image", next_class),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("few_images")
def test_each_fault_of_the_use_is_seen(checkpoint, exported, monkeypatch, fault):
    monkeypatch.setattr(OnnxModel, *FAULTS[fault])
    assert not compare_file(checkpoint, exported[0], OPTIONS).good


@pytest.mark.usefixtures("few_images")
def test_a_stretched_image_is_seen(checkpoint, exported, monkeypatch):
    """It is another tensor."""
    monkeypatch.setattr(OnnxModel, "scaled", stretched)
    with pytest.raises(ExportError, match=r"gives \(1, \d+, 8\), must be \(1, \d+, 8\)"):
        compare_file(checkpoint, exported[0], OPTIONS)


@pytest.mark.usefixtures("few_images")
def test_names_in_another_order_are_seen(checkpoint, exported, tmp_path):
    model = onnx.load(exported[0])
    entry = next(entry for entry in model.metadata_props if entry.key == "names")
    entry.value = entry.value.replace("cat", "dog")
    onnx.save(model, tmp_path / "edited.onnx")
    with pytest.raises(ExportError, match=r"classes are \['dog'.*must be \('cat'"):
        compare_file(checkpoint, tmp_path / "edited.onnx", OPTIONS)


@pytest.mark.usefixtures("few_images")
def test_the_wrong_pad_value_in_the_metadata_is_seen(checkpoint, exported, tmp_path):
    model = onnx.load(exported[0])
    entry = next(entry for entry in model.metadata_props if entry.key == "preprocessing")
    entry.value = entry.value.replace("114", "0")
    onnx.save(model, tmp_path / "edited.onnx")
    assert not compare_file(checkpoint, tmp_path / "edited.onnx", OPTIONS).good


@pytest.mark.usefixtures("few_images")
def test_a_wrong_suppression_is_seen(checkpoint, suppressed, tmp_path):
    """An IoU threshold in the graph that is not the one that was asked for."""
    path, options = suppressed
    assert compare_file(checkpoint, path, options).good
    model = onnx.load(path)
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == "iou_threshold")
    stored.CopyFrom(onnx.numpy_helper.from_array(np.array(0.3, np.float32), stored.name))
    onnx.save(model, tmp_path / "edited.onnx")
    assert not compare_file(checkpoint, tmp_path / "edited.onnx", options).good
