"""The exported file of a classifier: what it computes, what it says about itself, and that a wrong one is not left."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detect.data.images import read_image, write_image
from detect.errors import InputError
from detect.exporting import onnx as export_module
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError, compare_file
from detect.inference.classifier import Classifier
from detect.models.build import build_classifier
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from tests.models.yamls import write_model

OPTIONS = ExportOptions(image_size=32)


def metadata(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def run(path, images):
    """Probabilities (B, K) for images (B, 3, H, W) in [0, 1]."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images})[0]


@pytest.mark.parametrize("form", ["folded", "packed"])
def test_parity_is_reported(request, form):
    _, parity = request.getfixturevalue(form)
    assert len(parity.shapes) == 8
    assert parity.good
    assert parity.difference.box_px is None
    assert parity.difference.score < 1e-6
    assert parity.line().startswith("largest difference from PyTorch on 8 input shapes and 15 images: probability ")


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (5, 3, 32, 32), (2, 3, 12, 40)])
def test_any_batch_height_and_width(classifier, folded, shape):
    """Equal to PyTorch to 1e-5 of each probability, mean and deviation of the images included."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = classifier.model(images).softmax(dim=1).numpy()
    assert np.ptp(expected, axis=1).min() > 0.05, "classes that cannot be confused"
    np.testing.assert_allclose(run(folded[0], images.numpy()), expected, rtol=1e-5)


def test_on_photographs(classifier, folded, real_data):
    photos = [read_image(path) for path in sorted((real_data / "tiny_coco").glob("train2017/*.jpg"))[:4]]
    squares = np.stack([cv2.resize(photo, (64, 64), interpolation=cv2.INTER_AREA) for photo in photos])
    images = squares.transpose(0, 3, 1, 2).astype(np.float32) / 255
    with torch.inference_mode():
        expected = classifier.model(torch.from_numpy(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(run(folded[0], images), expected, rtol=1e-5)


FORK = """\
name: fork
backbone:
  - {name: stem, module: Conv, args: {out_channels: 8, kernel_size: 3, stride: 2}}
  - {name: down, module: Conv, args: {out_channels: 8, kernel_size: 3, stride: 2}}
  - {name: pool, module: Pool, args: {kind: max}, from: stem}
  - {name: c5, module: Concat, from: [down, pool]}
head:
  - {name: classify, module: Classify}
"""


@pytest.mark.slow
def test_two_ways_to_halve_a_map(tmp_path):
    """A strided convolution and a pool beside it, as in PeleeNet: they agree because sides are multiples."""
    model = build_classifier(str(write_model(tmp_path, FORK)), num_classes=2)
    facts = {"names": ("a", "b"), "category_ids": (0, 1), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(tmp_path / "model.pt", model, **facts)
    assert export_onnx(load_checkpoint(tmp_path / "model.pt"), tmp_path / "model.onnx").good


@pytest.mark.parametrize("form", ["folded", "packed"])
def test_the_graph(request, form):
    path, _ = request.getfixturevalue(form)
    onnx.checker.check_model(path, full_check=True)
    (images,), (probabilities,) = onnx.load(path).graph.input, onnx.load(path).graph.output
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, dims) == ("images", ["batch", 3, "height", "width"])
    dims = [dim.dim_param or dim.dim_value for dim in probabilities.type.tensor_type.shape.dim]
    assert (probabilities.name, dims) == ("probabilities", ["batch", 3])
    nodes = onnx.load(path).graph.node
    assert "BatchNormalization" not in {node.op_type for node in nodes}
    weights = {node.input[1] for node in nodes if node.op_type == "Conv"}
    computed = weights - {tensor.name for tensor in onnx.load(path).graph.initializer}
    assert len(computed) == (2 if form == "packed" else 0)


def test_metadata(folded, packed):
    found = metadata(folded[0])
    assert (found["model"], found["task"], found["image_size"], found["stride"]) == (
        "tiny-classifier",
        "classification",
        "32",
        "2",
    )
    assert json.loads(found["names"]) == ["cat", "dög", 'a "b"']
    preprocessing = json.loads(found["preprocessing"])
    # Of a short side of 40 pixels 32 are the 0.8 that the evaluation looks at.
    assert (preprocessing["center_crop"], preprocessing["resize_short_side"]) == (0.8, 40)
    assert json.loads(found["output"])["layout"] == "batch, classes"
    assert json.loads(found["masks"])["form"] == "folded"
    assert json.loads(metadata(packed[0])["masks"])["form"] == "packed"


def run_by_metadata(path, image_bgr):
    """Probabilities (K,) of an image: by the file and its metadata alone."""
    says = metadata(path)
    preprocessing, side = json.loads(says["preprocessing"]), int(says["image_size"])
    height, width = image_bgr.shape[:2]
    scale = preprocessing["resize_short_side"] / min(height, width)
    key = "interpolation_smaller" if scale < 1 else "interpolation_larger"
    size = (round(width * scale), round(height * scale))
    resized = cv2.resize(image_bgr, size, interpolation=getattr(cv2, preprocessing[key]))
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    rgb = resized[top : top + side, left : left + side, ::-1]
    return run(path, rgb.transpose(2, 0, 1)[None].astype(np.float32) / 255)[0]


@pytest.mark.parametrize("image_hw", [(75, 100), (31, 20)])
def test_the_metadata_is_all_one_needs(classifier, folded, tmp_path, image_hw):
    """Whoever follows the metadata finds what the toolkit itself finds, for a larger and for a smaller image."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), image_hw[::-1], interpolation=cv2.INTER_CUBIC)
    write_image(tmp_path / "a.png", image)
    expected = Classifier(dataclasses.replace(classifier), "cpu").predict(tmp_path / "a.png").probabilities
    found = run_by_metadata(folded[0], cv2.imread(str(tmp_path / "a.png")))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def exporter_gives(folded, monkeypatch):
    """The exporter always writes the classifier's file, whatever it is asked for."""
    content = folded[0].read_bytes()
    monkeypatch.setattr(export_module, "_write", lambda wrapper, path, opset: path.write_bytes(content))


def changed(classifier):
    """The checkpoint with a logit that is one per cent larger."""
    model = type(classifier.model)(classifier.model.definition, 3)
    model.load_state_dict(classifier.model.state_dict())
    model.head.linear.weight.data[0] *= 1.01
    return dataclasses.replace(classifier, model=model.eval())


def test_a_wrong_graph_is_not_written(classifier, tmp_path, exporter_gives):
    with pytest.raises(ExportError, match=r"model.onnx: not written, because its outputs differ: .* probability"):
        export_onnx(changed(classifier), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_wrong_bits_are_seen(classifier, packed, tmp_path):
    """One sign of one convolution."""
    model = onnx.load(packed[0])
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("_bits"))
    bits = onnx.numpy_helper.to_array(tensor).copy()
    bits[0] ^= 0x80
    tensor.CopyFrom(onnx.numpy_helper.from_array(bits, tensor.name))
    onnx.save(model, tmp_path / "edited.onnx")
    assert compare_file(classifier, packed[0], OPTIONS).good
    assert not compare_file(classifier, tmp_path / "edited.onnx", OPTIONS).good


def test_an_error_of_the_exporter_is_one_line(classifier, tmp_path, monkeypatch):
    def fail(*arguments, **words):
        raise torch.onnx.OnnxExporterError("long report\nof many lines") from ValueError("guard on data\nat a.py:3")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"^this PyTorch's exporter cannot write the model: guard on data$"):
        export_onnx(classifier, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_graph_that_depends_on_the_values_of_the_images(classifier, tmp_path, monkeypatch):
    def forward(self, images):
        return self.graph(images) if images.sum() > 0 else self.graph(-images)

    monkeypatch.setattr(type(classifier.model), "forward", forward)
    with pytest.raises(ExportError, match=r"^this PyTorch's exporter cannot write the model: .*guard.*$") as caught:
        export_onnx(classifier, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_masks_are_refused_before_the_work(checkpoint, tmp_path, exporter_gives):
    with pytest.raises(InputError, match=r"^masks: packed needs binary weights \(conv: bdsc\), tiny-detector has none"):
        export_onnx(checkpoint, tmp_path / "model.onnx", ExportOptions(masks="packed"))
    assert list(tmp_path.iterdir()) == []
