"""tools/export.py as a user runs it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import onnx
import pytest
import torch

import detect.api.exporting
from detect.exporting.parity import TOLERANCES, Difference, ExportError, Parity
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import save_checkpoint
from detect.runtime.logs import LOGGER
from tests.models.yamls import TINY, write_model

CLASSIFIER = """\
name: small
conv: {kind: bdsc, p: 1}
backbone:
  - {name: stem, module: Conv, args: {out_channels: 8}}
  - {name: c5, module: Conv, args: {out_channels: 8, kernel_size: 3}}
head:
  - {name: classify, module: Classify}
"""

TOOL = Path(__file__).parents[2] / "tools" / "export.py"


@pytest.fixture
def export(monkeypatch, capsys):
    """Run the tool in this process. Gives its exit code (None: it came to its end), standard output and error."""
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        code = None
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    LOGGER.handlers[:], LOGGER.level, LOGGER.propagate = handlers, level, propagate


@pytest.fixture
def weights(tmp_path):
    """An untrained checkpoint of the tiny model, alone in its folder."""
    torch.manual_seed(0)
    folder = tmp_path / "alone"
    folder.mkdir()
    path = folder / "best.pt"
    model = build_model(str(write_model(tmp_path, TINY)), num_classes=2)
    save_checkpoint(path, model, names=("a", "b"), category_ids=(1, 2), image_size=64, metrics={}, provenance={})
    return path


def test_export(export, weights):
    """Without --out the file is beside the weights; the opset is the one that was asked for."""
    code, out, err = export("--weights", weights, "--image-size", 96, "--opset", 20)
    path = weights.with_name("model.onnx")
    assert (code, err) == (None, "")
    first, second, third = out.splitlines()
    assert first.startswith(f"{path}: ")
    assert first.endswith(" MiB, opset 20, any batch size, height and width")
    assert second.startswith("largest difference from PyTorch on 8 input shapes and 15 images: ")
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {entry.key: entry.value for entry in model.metadata_props}["image_size"] == "96"
    assert third == f"without PyTorch: python {path.parent}/onnx_runner.py {path} IMAGE"
    assert {found.name for found in weights.parent.iterdir()} == {"best.pt", "model.onnx", "onnx_runner.py"}


def test_packed_masks_of_a_classifier(export, tmp_path):
    """What is smaller and what is not faster is said, and how far the probabilities are from PyTorch's."""
    path = tmp_path / "best.pt"
    model = build_classifier(str(write_model(tmp_path, CLASSIFIER)), num_classes=2)
    save_checkpoint(path, model, names=("a", "b"), category_ids=(0, 1), image_size=8, metrics={}, provenance={})
    code, out, err = export("--weights", path, "--masks", "packed")
    assert (code, err) == (None, "")
    first, note, parity, _ = out.splitlines()
    assert first.startswith(f"{tmp_path / 'model.onnx'}: ")
    assert note.startswith("binary weights packed, 1 bit each: a smaller file, not a faster one; the runtime unpacks ")
    assert parity.startswith("largest difference from PyTorch on 8 input shapes and 15 images: probability ")
    names = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert {
        "model.graph.layers.c5.conv.spatial.weight_bits",
        "model.graph.layers.c5.conv.spatial.weight_scale",
    } <= names


def test_what_is_not_the_model_ends_with_3(export, weights, monkeypatch):
    def fail(*arguments):
        raise ExportError("model.onnx: not written")

    monkeypatch.setattr(detect.api.exporting, "export_onnx", fail)
    assert export("--weights", weights) == (3, "", "error: model.onnx: not written\n")


def test_out(export, weights, monkeypatch, tmp_path):
    def pretend(checkpoint, path, options, table):
        path.write_bytes(bytes(3 * 2**20))
        return Parity(Difference(0.0, 0.0, good=True), TOLERANCES["fp32"], [(1, 32, 32)], 15)

    monkeypatch.setattr(detect.api.exporting, "export_onnx", pretend)
    code, out, _ = export("--weights", weights, "--out", tmp_path / "other.onnx")
    assert code is None
    assert out.startswith(f"{tmp_path / 'other.onnx'}: 3.0 MiB, opset 18")


def shapes(path):
    """The shape of each input and output."""
    graph = onnx.load(path).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def test_detections_of_one_image_in_half_precision(export, weights):
    code, out, err = export("--weights", weights, "--nms", "--max-det", 20, "--no-dynamic", "--half")
    assert (code, err) == (None, "")
    assert "one image of 64 x 64 pixels" in out
    path = weights.with_name("model.onnx")
    assert shapes(path) == {"images": [1, 3, 64, 64], "detections": [1, 20, 6], "counts": [1]}
    graph = onnx.load(path).graph
    weights = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    types = {tensor.data_type for tensor in graph.initializer if tensor.name in weights}
    assert types == {onnx.TensorProto.FLOAT16}


def test_detections_of_any_images(export, weights):
    assert export("--weights", weights, "--nms", "--conf", 0.1, "--dynamic")[0] is None
    assert shapes(weights.with_name("model.onnx")) == {
        "images": ["batch", 3, "height", "width"],
        "detections": ["batch", 300, 6],
        "counts": ["batch"],
    }


def test_raw_maps_of_any_images(export, weights):
    """An anchor's x, y, width, height, objectness and two classes are 7 values; cells have 2 and 4 px."""
    assert export("--weights", weights, "--raw")[0] is None
    found = shapes(weights.with_name("model.onnx"))
    assert list(found) == ["images", "raw_2", "raw_4"]
    assert [found[name][:2] for name in ("raw_2", "raw_4")] == [["batch", 7]] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "missing.pt"), "error: missing.pt: cannot be read"),
        (("--opset", "9"), "error: opset: must be from 16 to 23, found 9"),
        (("--image-size", "50"), "error: image size: must be a multiple of 4 up to 16384, found 50"),
        (("--image-size", "0"), "--image-size: must be a whole number above 0"),
        (("--format", "tflite"), "--format: invalid choice: 'tflite'"),
        (("--masks", "zipped"), "--masks: invalid choice: 'zipped'"),
        (("--masks", "packed"), "error: masks: packed needs binary weights (conv: bdsc), tiny has none; take folded"),
        (("--out", "best.pt"), "error: --out best.pt: is the checkpoint itself"),
        (("--iou", "0.5", "--max-det", "9"), "error: --iou, --max-det: belongs to --nms; without it"),
        (("--raw", "--nms"), "error: argument --nms: not allowed with argument --raw"),
        (("--raw", "--conf", "0.5"), "error: --conf: belongs to --nms; without it"),
        (("--nms", "--conf", "2"), "error: score threshold: must be from 0 to 1, found 2"),
        (("--nms", "--max-det", "0"), "error: most detections per image: must be at least 1, found 0"),
        (("--cost", "0.5"), "error: the cost cannot be chosen: "),
    ],
)
def test_refused(export, weights, monkeypatch, options, message):
    monkeypatch.chdir(weights.parent)
    code, out, err = export("--weights", "best.pt", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert [found.name for found in weights.parent.iterdir()] == ["best.pt"]
