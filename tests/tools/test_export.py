"""tools/export.py as a user runs it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import onnx
import pytest
import torch

import detect.api.exporting
from detect.evaluation.postprocess import PredictSettings
from detect.exporting.options import ExportOptions
from detect.exporting.parity import TOLERANCES, Difference, ExportError, Parity
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import rewrite_checkpoint, save_checkpoint
from detect.runtime.logs import LOGGER
from tests.exporting import exports
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


@pytest.fixture
def exported_with(monkeypatch):
    """The options with which the tool exports; the file is 3 MiB of zeros."""
    found = []

    def pretend(checkpoint, path, options, table):
        found.append(options)
        path.write_bytes(bytes(3 * 2**20))
        return Parity(Difference(0.0, 0.0, good=True), TOLERANCES["fp32"], [(1, 32, 32)], 15)

    monkeypatch.setattr(detect.api.exporting, "export_onnx", pretend)
    return found


def shapes(path):
    """The shape of each input and output."""
    graph = onnx.load(path).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def test_the_file_and_its_program(export, tmp_path):
    """Without --out the file is beside the weights."""
    path = tmp_path / "best.pt"
    rewrite_checkpoint(path, exports.detector())
    with exports.exporter_once():
        code, out, err = export("--weights", path)
    assert (code, err) == (None, "")
    first, second, third = out.splitlines()
    assert first.startswith(f"{tmp_path}/model.onnx: ")
    assert first.endswith(", opset 18, any batch size, height and width")
    assert second.startswith("largest difference from PyTorch on ")
    assert third == f"without PyTorch: python {tmp_path}/onnx_runner.py {tmp_path}/model.onnx IMAGE"
    assert {found.name for found in tmp_path.iterdir()} == {"best.pt", "model.onnx", "onnx_runner.py"}


@pytest.mark.slow
def test_detections_of_one_image_in_half_precision(export, weights):
    """Without --out the file is beside the weights; the opset is the given one."""
    code, out, err = export("--weights", weights, "--nms", "--max-det", 20, "--no-dynamic", "--half", "--opset", 20)
    path = weights.with_name("model.onnx")
    assert (code, err) == (None, "")
    first, second, third = out.splitlines()
    assert first.startswith(f"{path}: ")
    assert first.endswith(" MiB, opset 20, one image of 64 x 64 pixels")
    assert second.startswith("largest difference from PyTorch on 1 input shapes and 8 images: ")
    assert third == f"without PyTorch: python {path.parent}/onnx_runner.py {path} IMAGE"
    assert {found.name for found in weights.parent.iterdir()} == {"best.pt", "model.onnx", "onnx_runner.py"}
    model = onnx.load(path)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 20)}
    assert {entry.key: entry.value for entry in model.metadata_props}["image_size"] == "64"
    assert shapes(path) == {"images": [1, 3, 64, 64], "detections": [1, 20, 6], "counts": [1]}
    names = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    types = {tensor.data_type for tensor in model.graph.initializer if tensor.name in names}
    assert types == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--image-size", 96), {"predictions": ["batch", "predictions", 7]}),
        (("--nms", "--conf", 0.1, "--dynamic"), {"detections": ["batch", 300, 6], "counts": ["batch"]}),
        # An anchor's x, y, width, height, objectness and two classes are 7 values; cells have 2 and 4 px.
        (("--raw",), {"raw_2": ["batch", 7, "height/2", "width/2"], "raw_4": ["batch", 7, "height/4", "width/4"]}),
    ],
)
def test_any_images(export, weights, flags, expected):
    assert export("--weights", weights, *flags)[0] is None
    found = shapes(weights.with_name("model.onnx"))
    assert found.pop("images") == ["batch", 3, "height", "width"]
    if "predictions" in found:
        found["predictions"][1] = "predictions"
    assert found == expected


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ((), ExportOptions()),
        (("--image-size", 96, "--opset", 20), ExportOptions(image_size=96, opset=20)),
        (("--no-dynamic", "--half"), ExportOptions(dynamic=False, half=True)),
        (("--raw", "--dynamic"), ExportOptions(raw=True)),
        (("--nms",), ExportOptions(suppression=PredictSettings())),
        (
            ("--nms", "--conf", 0.1, "--iou", 0.5, "--max-det", 9),
            ExportOptions(suppression=PredictSettings(0.1, 0.5, 9)),
        ),
    ],
)
def test_flags(export, exported_with, weights, tmp_path, flags, options):
    code, out, _ = export("--weights", weights, "--out", tmp_path / "other.onnx", *flags)
    assert code is None
    assert out.startswith(f"{tmp_path / 'other.onnx'}: 3.0 MiB, opset {options.opset}, ")
    assert ("any batch size, height and width" in out) == options.dynamic
    assert exported_with == [options]


def test_packed_masks_of_a_classifier(export, exported_with, tmp_path):
    path = tmp_path / "best.pt"
    model = build_classifier(str(write_model(tmp_path, CLASSIFIER)), num_classes=2)
    save_checkpoint(path, model, names=("a", "b"), category_ids=(0, 1), image_size=8, metrics={}, provenance={})
    code, out, err = export("--weights", path, "--masks", "packed")
    assert (code, err) == (None, "")
    assert exported_with == [ExportOptions(masks="packed")]
    _, note, _, _ = out.splitlines()
    assert note.startswith("binary weights packed, 1 bit each: a smaller file, not a faster one; the runtime unpacks ")


def test_what_is_not_the_model_ends_with_3(export, weights, monkeypatch):
    def fail(*arguments):
        raise ExportError("model.onnx: not written")

    monkeypatch.setattr(detect.api.exporting, "export_onnx", fail)
    assert export("--weights", weights) == (3, "", "error: model.onnx: not written\n")


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
        (
            ("--int8",),
            "error: --int8: needs --data: training images for the ranges, validation images for the accuracy",
        ),
        (("--int8", "--half", "--data", "shapes"), "error: int8: the other layers stay in float32"),
        (("--report", "--calibration", "9"), "error: --calibration, --report: belongs to --int8"),
        (("--weights-only",), "error: --weights-only: belongs to --int8"),
        (
            ("--int8", "--data", "shapes", "--weights-only", "--calibration-method", "minmax"),
            "error: --calibration-method: not together with --weights-only, which has nothing to calibrate",
        ),
        (("--int8", "--data", "shapes", "--opset", "9"), "error: opset: must be from 16 to 23, found 9"),
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
