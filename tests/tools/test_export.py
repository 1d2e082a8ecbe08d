"""tools/export.py as a user runs it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import onnx
import pytest
import torch

import detect.export.onnx
from detect.export.parity import ExportError, Parity
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from detect.runtime.logs import LOGGER
from tests.training.small import write_model

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
    model = build_model(write_model(tmp_path), num_classes=2)
    save_checkpoint(path, model, names=("a", "b"), category_ids=(1, 2), image_size=64, metrics={}, provenance={})
    return path


def test_export(export, weights):
    """Without --out the file is beside the weights; the opset is the one that was asked for."""
    code, out, err = export("--weights", weights, "--image-size", 96, "--opset", 20)
    path = weights.with_name("model.onnx")
    assert (code, err) == (None, "")
    first, second = out.splitlines()
    assert first.startswith(f"{path}: ")
    assert first.endswith(" MiB, opset 20, any batch size, height and width")
    assert second.startswith("largest difference from PyTorch on 8 input shapes: ")
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {entry.key: entry.value for entry in model.metadata_props}["image_size"] == "96"
    assert {found.name for found in weights.parent.iterdir()} == {"best.pt", "model.onnx"}


def test_what_is_not_the_model_ends_with_3(export, weights, monkeypatch):
    def fail(*arguments):
        raise ExportError("model.onnx: not written")

    monkeypatch.setattr(detect.export.onnx, "export_onnx", fail)
    assert export("--weights", weights) == (3, "", "error: model.onnx: not written\n")


def test_out(export, weights, monkeypatch, tmp_path):
    def pretend(checkpoint, path, image_size, opset):
        path.write_bytes(bytes(3 * 2**20))
        return Parity(0.0, 0.0, ((1, 32, 32),), good=True)

    monkeypatch.setattr(detect.export.onnx, "export_onnx", pretend)
    code, out, _ = export("--weights", weights, "--out", tmp_path / "other.onnx")
    assert code is None
    assert out.startswith(f"{tmp_path / 'other.onnx'}: 3.0 MiB, opset 18")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "missing.pt"), "error: missing.pt: cannot be read"),
        (("--opset", "9"), "error: opset: must be from 16 to 23, found 9"),
        (("--image-size", "50"), "error: image size: must be a multiple of 32 up to 16384, found 50"),
        (("--image-size", "0"), "--image-size: must be a whole number above 0"),
        (("--format", "tflite"), "--format: invalid choice: 'tflite'"),
        (("--out", "best.pt"), "error: --out best.pt: is the checkpoint itself"),
    ],
)
def test_refused(export, weights, monkeypatch, options, message):
    monkeypatch.chdir(weights.parent)
    code, out, err = export("--weights", "best.pt", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert [found.name for found in weights.parent.iterdir()] == ["best.pt"]
