"""A head without anchors through the whole chain, with the papers' strategies: training, instances, export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from detect.evaluation.forward import PredictSettings
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.inference.detector import Detector
from detect.models.checkpoint import load_checkpoint
from detect.models.model import DetectionModel
from detect.training.loop import train
from tests.training.small import TINY, make_settings, make_shapes, write_model

FREE = TINY[: TINY.index("    module: AnchorDetect")] + (
    "    module: AnchorFreeDetect\n    from: [c3, c4, c5]\n    args: {hidden_channels: 8}\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of one epoch with SDPoint's instances and reduced resolution in each batch."""
    folder = tmp_path_factory.mktemp("runs")
    papers = {"sdpoint": {"ratios": [0.5], "norm_batches": 1}, "trd": {"resolution": 32, "variant": "batch"}}
    settings = make_settings(folder, make_shapes(folder / "shapes"), epochs=1, **papers)
    settings = dataclasses.replace(settings, model=write_model(folder, FREE))
    metrics = train(settings)
    assert metrics.keys() >= {"AP", "AP_S"}
    return settings.out


def test_the_run_learns(folder: Path) -> None:
    """Box, objectness and classes have losses."""
    header, *rows = (folder / "results.csv").read_text().splitlines()
    first = dict(zip(header.split(","), rows[0].split(","), strict=True))
    assert all(float(first[f"loss/{word}"]) > 0 for word in ("box", "objectness", "classes"))


SUPPRESSED = ExportOptions(image_size=64, suppression=PredictSettings(0.001, 0.6, 100))


@pytest.mark.parametrize("options", [SUPPRESSED, ExportOptions(image_size=64, raw=True)], ids=["detections", "raw"])
def test_exports(folder: Path, tmp_path: Path, options: ExportOptions) -> None:
    """The gate compares the file with PyTorch: values, and detections of the runner that users get."""
    checkpoint = load_checkpoint(folder / "best.pt")
    assert export_onnx(checkpoint, tmp_path / "model.onnx", options).good
    assert isinstance(checkpoint.model, DetectionModel)
    assert Detector(tmp_path / "model.onnx", "cpu").names == checkpoint.names


def test_an_instance(folder: Path) -> None:
    """SDPoint's networks at less than the full cost run, too."""
    detector = Detector(folder / "best.pt", "cpu")
    detector.cost = 0.9
    assert detector.cost < 1
    assert detector.predict(np.zeros((64, 64, 3), np.uint8), conf=0.001).boxes_xyxy_px.shape[1] == 4
