"""The comparison itself: it sees what is wrong."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from detect.errors import InputError
from detect.export import parity as parity_module
from detect.export.parity import ExportError, Parity, compare_onnx, comparison_shapes
from detect.models.build import build_model
from detect.models.classifier import ClassificationModel
from detect.models.detector import DetectionModel


def test_line():
    assert Parity(3.14159e-5, 2e-7, ((1, 32, 32),), good=True).line() == (
        "largest difference from PyTorch on 1 input shapes: 3.1e-05 px (at most 0.05 px or 0.1% of the box), "
        "score 2e-07 (at most 0.001)"
    )
    assert Parity(None, 2e-7, ((1, 32, 32),), good=True).line() == (
        "largest difference from PyTorch on 1 input shapes: probability 2e-07 (at most 0.1% of the image's largest)"
    )


class Session:
    """Answers with a given output, whatever it is asked."""

    def __init__(self, output):
        self.output = np.array(output, np.float32)

    def get_inputs(self):
        return [SimpleNamespace(name="images")]

    def run(self, outputs, inputs):
        return [self.output]


class Detector(DetectionModel):
    """Answers with given predictions (1, 1, 6)."""

    max_reduction = 32

    def __init__(self, prediction):
        nn.Module.__init__(self)
        self.prediction = torch.tensor(prediction).view(1, 1, 6)

    def forward(self, images):
        return images

    def decode(self, raw):
        return self.prediction


class Classifier(ClassificationModel):
    """Answers with given probabilities (1, K), which must sum to 1."""

    max_reduction = 32

    def __init__(self, probabilities):
        nn.Module.__init__(self)
        self.logits = torch.tensor([probabilities]).log()

    def forward(self, images):
        return self.logits


@pytest.mark.parametrize(
    ("expected", "found", "good"),
    [
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, 0.5), True),
        ((8, 8, 10, 10, 0.5, 0.5), (8.04, 8, 10, 10, 0.5, 0.5), True),
        ((8, 8, 10, 10, 0.5, 0.5), (8.06, 8, 10, 10, 0.5, 0.5), False),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 9.94, 0.5, 0.5), False),
        # A thousandth of the larger side, 500 px, is 0.5 px, for its centre and its smaller side too.
        ((8, 8, 10, 500, 0.5, 0.5), (8.4, 8, 10.4, 499.6, 0.5, 0.5), True),
        ((8, 8, 10, 500, 0.5, 0.5), (8.6, 8, 10, 500, 0.5, 0.5), False),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5009, 0.4991), True),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.502, 0.5), False),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, 0.498), False),
        ((8, 8, 10, 10, 0.5, 0.5), (math.nan, 8, 10, 10, 0.5, 0.5), False),
        ((8, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, math.nan), False),
        ((math.nan, 8, 10, 10, 0.5, 0.5), (8, 8, 10, 10, 0.5, 0.5), False),
    ],
)
def test_tolerances(monkeypatch, expected, found, good):
    monkeypatch.setattr(parity_module, "_open_session", lambda path: Session([[found]]))
    parity = compare_onnx(Detector(expected), Path("model.onnx"), 64)
    assert parity.good is good
    difference = np.abs(np.array(expected) - np.array(found))
    np.testing.assert_allclose([parity.box_px, parity.score], [difference[:4].max(), difference[4:].max()], atol=1e-4)


@pytest.mark.parametrize(
    ("expected", "found", "good"),
    [
        ((0.8, 0.2), (0.8, 0.2), True),
        # A thousandth of the largest, 0.8, is 0.0008, for the others too.
        ((0.8, 0.2), (0.8007, 0.1993), True),
        ((0.8, 0.2), (0.8009, 0.2), False),
        ((0.8, 0.2), (0.8, 0.1991), False),
        # Of four equal ones it is 0.00025.
        ((0.25, 0.25, 0.25, 0.25), (0.2502, 0.25, 0.2498, 0.25), True),
        ((0.25, 0.25, 0.25, 0.25), (0.2503, 0.25, 0.25, 0.25), False),
        ((0.8, 0.2), (0.8, math.nan), False),
    ],
)
def test_tolerances_of_classes(monkeypatch, expected, found, good):
    monkeypatch.setattr(parity_module, "_open_session", lambda path: Session([found]))
    parity = compare_onnx(Classifier(expected), Path("model.onnx"), 64)
    assert parity.good is good
    assert parity.box_px is None
    np.testing.assert_allclose(parity.score, np.abs(np.array(expected) - np.array(found)).max(), atol=1e-6)


def test_each_image_has_its_own_tolerance(monkeypatch):
    """0.0005 is within a thousandth of the first image's 0.8, and not of the second's 0.25."""
    model = Classifier((0.8, 0.1, 0.05, 0.05))
    model.logits = torch.tensor([[0.8, 0.1, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25]]).log()
    found = [[0.8, 0.1, 0.05, 0.05], [0.2505, 0.2495, 0.25, 0.25]]
    monkeypatch.setattr(parity_module, "_open_session", lambda path: Session(found))
    assert not compare_onnx(model, Path("model.onnx"), 64).good
    monkeypatch.setattr(parity_module, "_open_session", lambda path: Session([[0.8005, 0.0995, 0.05, 0.05], found[1]]))
    assert not compare_onnx(model, Path("model.onnx"), 64).good


@pytest.mark.parametrize(("multiple", "image_size"), [(32, 640), (64, 96)])
def test_comparison_shapes(multiple, image_size):
    shapes = comparison_shapes(multiple, image_size)
    assert len(set(shapes)) == len(shapes) >= 4
    assert all(height % multiple == width % multiple == 0 for _, height, width in shapes)
    assert (2, 2 * multiple, 3 * multiple) not in shapes  # the export's own example
    # 640 is a multiple of 32; 96 is rounded up to 2 * 64.
    assert shapes[-1] == ((1, 640, 640) if multiple == 32 else (1, 128, 128))


def edited(exported, folder, edit):
    """A copy of the exported file after ``edit``."""
    model = onnx.load(exported[0])
    edit(model.graph)
    onnx.save(model, folder / "edited.onnx")
    return folder / "edited.onnx"


def test_equal(checkpoint, exported):
    assert compare_onnx(checkpoint.model, exported[0], 64).good


def test_a_changed_weight_is_seen(checkpoint, exported, tmp_path):
    def edit(graph):
        tensor = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[0] *= 1.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    assert not compare_onnx(checkpoint.model, edited(exported, tmp_path, edit), 64).good


def test_nan_is_seen(checkpoint, exported, tmp_path):
    def edit(graph):
        tensor = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4)
        values = np.full(tuple(tensor.dims), np.nan, np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    parity = compare_onnx(checkpoint.model, edited(exported, tmp_path, edit), 64)
    assert math.isnan(parity.box_px)
    assert not parity.good


def test_another_number_of_classes_is_seen(exported):
    other = build_model("yolov5n-spd", num_classes=4).eval()
    with pytest.raises(ExportError, match=r"gives \(1, 63, 8\) for an input of \(1, 3, 32, 32\), must be \(1, 63, 9\)"):
        compare_onnx(other, exported[0], 64)


def test_a_graph_that_cannot_run_is_seen(checkpoint, exported, tmp_path):
    def edit(graph):
        graph.node[-1].op_type = "NoSuchOperator"

    with pytest.raises(ExportError, match=r"cannot load the exported graph: .*INVALID_GRAPH"):
        compare_onnx(checkpoint.model, edited(exported, tmp_path, edit), 64)


def test_a_missing_runtime_is_named(checkpoint, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    with pytest.raises(InputError, match=r"onnxruntime is not installed.* pip install onnxruntime"):
        compare_onnx(checkpoint.model, exported[0], 64)
