"""The exported file: what it computes, what it says about itself, and that there is none when something is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detect import __version__
from detect.data.images import write_image
from detect.errors import InputError
from detect.exporting import onnx as export_module
from detect.exporting.metadata import describe
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.exporting.parity import ExportError
from detect.inference.detector import Detector
from detect.inference.runtimes.onnx_runtime import OnnxNetwork
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint


def metadata(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_parity_is_reported(exported):
    _, parity = exported
    assert len(parity.shapes) == 8
    assert parity.good
    assert parity.difference.box_px < 0.01
    assert parity.difference.score < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5n-spd-bccd", "detect-n-bccd", "yolov5n-spd-deeppcb", "detect-n-deeppcb"])
def test_shipped_detectors_in_half_precision(name, tmp_path):
    parity = export_onnx(load_checkpoint(Path(name)), tmp_path / "model.onnx", ExportOptions(half=True))
    assert parity.good
    assert parity.difference.unlikely <= 2


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 3, 64, 160), (2, 3, 224, 96)])
def test_any_batch_height_and_width(checkpoint, exported, shape):
    path, _ = exported
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["predictions"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = checkpoint.model.decode(checkpoint.model(images)).numpy()
    # 3 anchors at each cell of strides 4 and 8: an 8 x 8 image has 3 * (4 + 1) = 15 predictions.
    assert found.shape == (shape[0], 15 * (shape[2] // 8) * (shape[3] // 8), 5 + 3)
    np.testing.assert_allclose(found[..., :4], expected[..., :4], rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(found[..., 4:], expected[..., 4:], atol=3e-4)


def test_the_graph(exported):
    path, _ = exported
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    graph = model.graph
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert (model.producer_name, model.producer_version) == ("detect", __version__)
    (images,), (predictions,) = graph.input, graph.output
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, dims) == ("images", ["batch", 3, "height", "width"])
    dims = predictions.type.tensor_type.shape.dim
    assert (predictions.name, dims[0].dim_param, dims[2].dim_value) == ("predictions", "batch", 8)
    operators = {node.op_type for node in graph.node}
    assert "BatchNormalization" not in operators
    assert not operators & {"If", "Loop", "NonMaxSuppression"}


def test_the_outputs_of_a_file_with_suppression(suppressed):
    graph = onnx.load(suppressed[0]).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "images": ["batch", 3, "height", "width"],
        "detections": ["batch", 40, 6],
        "counts": ["batch"],
    }


def test_weights_are_stored_not_computed(exported):
    graph = onnx.load(exported[0]).graph
    stored = {tensor.name for tensor in graph.initializer}
    assert {node.input[1] for node in graph.node if node.op_type == "Conv"} <= stored
    used = {name for node in graph.node for name in node.input}
    assert stored <= used


def test_one_file_without_traces_of_the_machine(exported):
    path, _ = exported
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    content = path.read_bytes()
    for trace in (b"stack_trace", b"site-packages", b".py", str(path.parent).encode()):
        assert trace not in content


def test_metadata(exported):
    found = metadata(exported[0])
    assert found["producer"] == f"detect {__version__}"
    assert (found["model"], found["task"]) == ("tiny-detector", "detection")
    assert "masks" not in found
    assert (found["image_size"], found["stride"]) == ("96", "8")
    assert json.loads(found["names"]) == ["cat", "dög", 'a "b"']
    assert json.loads(found["category_ids"]) == [3, 9, 90]
    assert json.loads(found["input"]) == {
        "layout": "NCHW",
        "type": "float32",
        "colour_order": "RGB",
        "scale": "1/255",
        "multiple_of": 8,
    }
    preprocessing = json.loads(found["preprocessing"])
    assert preprocessing["interpolation_smaller"] == "INTER_AREA"
    assert preprocessing["interpolation_larger"] == "INTER_LINEAR"
    assert preprocessing["position"] == "top left"
    assert (preprocessing["pad_value"], preprocessing["pad_to_multiple_of"]) == (114, 8)
    assert json.loads(found["output"])["columns"][:5] == ["centre_x", "centre_y", "width", "height", "objectness"]


def test_the_tiles_of_the_training_are_in_the_file(checkpoint, exported, tmp_path):
    provenance = {"settings": {"recipe": {"tiles": {"size_px": 256}}}}
    found = describe(dataclasses.replace(checkpoint, provenance=provenance), ExportOptions(image_size=96))
    model = onnx.load(exported[0])
    next(entry for entry in model.metadata_props if entry.key == "preprocessing").value = found["preprocessing"]
    onnx.save(model, tmp_path / "tiled.onnx")
    assert OnnxNetwork(tmp_path / "tiled.onnx", "cpu").tile_px == 256
    assert OnnxNetwork(exported[0], "cpu").tile_px == 0


def run_by_metadata(path, image_bgr):
    """(N, 6) boxes xyxy in image pixels, score, class: by the file and its metadata alone, without NMS."""
    says = metadata(path)
    preprocessing, stride = json.loads(says["preprocessing"]), int(says["stride"])
    height, width = image_bgr.shape[:2]
    scale = int(says["image_size"]) / max(height, width)
    new_w, new_h = round(width * scale), round(height * scale)
    key = "interpolation_smaller" if scale < 1 else "interpolation_larger"
    resized = cv2.resize(image_bgr, (new_w, new_h), interpolation=getattr(cv2, preprocessing[key]))
    shape = (-(-new_h // stride) * stride, -(-new_w // stride) * stride, 3)
    padded = np.full(shape, preprocessing["pad_value"], np.uint8)
    padded[:new_h, :new_w] = resized
    images = np.ascontiguousarray(padded[None, ..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32) / 255
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})[0]
    scale_xyxy = np.tile([new_w / width, new_h / height], 2)
    centres, sizes = found[:, :2], found[:, 2:4]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1) / scale_xyxy
    scores = found[:, 4:5] * found[:, 5:]
    labels = scores.argmax(axis=1)
    return np.column_stack([boxes, scores.max(axis=1), labels])


@pytest.mark.parametrize("image_hw", [(150, 200), (41, 60)])
def test_the_metadata_is_all_one_needs(checkpoint, exported, tmp_path, image_hw):
    """Whoever follows the metadata finds what the toolkit itself finds, for a larger and for a smaller image."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), image_hw[::-1], interpolation=cv2.INTER_CUBIC)
    write_image(tmp_path / "a.png", image)
    save_checkpoint(
        tmp_path / "model.pt",
        checkpoint.model,
        names=checkpoint.names,
        category_ids=checkpoint.category_ids,
        image_size=96,
        metrics={},
        provenance={},
    )
    detections = Detector(tmp_path / "model.pt", "cpu").predict(tmp_path / "a.png", conf=0.2, max_det=20)
    assert len(detections) > 3
    found = run_by_metadata(exported[0], cv2.imread(str(tmp_path / "a.png")))
    height, width = image_hw
    boxes = np.clip(found[:, :4], 0, [width, height, width, height])
    for box, score, label in zip(detections.boxes_xyxy_px, detections.scores, detections.labels, strict=True):
        same = (np.abs(boxes - box).max(axis=1) < 0.3) & (np.abs(found[:, 4] - score) < 3e-4) & (found[:, 5] == label)
        assert same.any(), (box, score, label)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def exporter_gives(exported, monkeypatch):
    """The exporter always writes the exported file, whatever it is asked for."""
    content = exported[0].read_bytes()
    monkeypatch.setattr(export_module, "_write", lambda wrapper, path, options: path.write_bytes(content))


@pytest.fixture
def only_old_file(tmp_path):
    """A path that holds something older; afterwards it must hold just that."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    yield path
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == {"model.onnx": b"older"}


def test_a_wrong_graph_is_not_written(checkpoint, only_old_file, exporter_gives):
    """The exporter's file computes another model: comparison refuses it."""
    other = dataclasses.replace(checkpoint, model=build_model(checkpoint.model.definition, num_classes=3).eval())
    with pytest.raises(ExportError, match=r"model.onnx: not written, because its outputs differ: .* px"):
        export_onnx(other, only_old_file)


def test_another_opset_than_asked_is_not_written(checkpoint, only_old_file, exporter_gives):
    with pytest.raises(ExportError, match=r"operator sets \{'': 18\} instead of 17"):
        export_onnx(checkpoint, only_old_file, ExportOptions(opset=17))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 11}, "opset: must be from 16 to 23, found 11"),
        ({"opset": 99}, "found 99"),
        ({"image_size": 100}, "image size: must be a multiple of 8 up to 16384, found 100"),
        ({"image_size": 0}, "found 0"),
        ({"image_size": 32768}, "found 32768"),
    ],
)
def test_refused(checkpoint, only_old_file, options, message):
    with pytest.raises(InputError, match=message):
        export_onnx(checkpoint, only_old_file, ExportOptions(**options))


def test_a_folder_is_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        export_onnx(checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(checkpoint, only_old_file, monkeypatch, package):
    find = export_module.importlib.util.find_spec
    monkeypatch.setattr(export_module.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(InputError, match=rf"needs {package}: pip install 'detect-small\[export\]'"):
        export_onnx(checkpoint, only_old_file)
