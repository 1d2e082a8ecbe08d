"""A head without anchors through the whole chain, with the papers' strategies: training, instances, export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from detect.evaluation.postprocess import PredictSettings
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.inference.detector import Detector
from detect.models.checkpoint import load_checkpoint
from detect.models.model import DetectionModel
from detect.papers.sdpoint.transform import Instance, use_instance
from detect.training.loop import train
from tests.training.small import TINY, make_settings, make_shapes, write_model

FREE = TINY[: TINY.index("    module: AnchorDetect")] + (
    "    module: AnchorFreeDetect\n    from: [c3, c4, c5]\n    args: {hidden_channels: 8}\n"
)


ALIGNED = FREE.replace("hidden_channels: 8", "hidden_channels: 8, coding: distances, objectness: false, bins: 8")


@pytest.fixture(scope="module", params=[FREE, ALIGNED], ids=["anchor-free", "task-aligned"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Of a run of one epoch with SDPoint's instances, the second run's in sandwiches, and reduced resolution."""
    folder = tmp_path_factory.mktemp("runs")
    schedule = "paper" if request.param == FREE else "sandwich"
    papers = {
        "sdpoint": {"ratios": [0.5], "way": "shrink", "norm_batches": 1, "schedule": schedule},
        "trd": {"resolution": 32, "variant": "batch"},
    }
    settings = make_settings(folder, make_shapes(folder / "shapes"), epochs=1, **papers)
    settings = dataclasses.replace(settings, model=write_model(folder, request.param))
    metrics = train(settings)
    assert metrics.keys() >= {"AP", "AP_S"}
    return settings.out


def test_the_run_learns(folder: Path) -> None:
    """Box, classes and, where the head has it, objectness have losses."""
    header, *rows = (folder / "results.csv").read_text().splitlines()
    first = dict(zip(header.split(","), rows[0].split(","), strict=True))
    has_objectness = load_checkpoint(folder / "best.pt").detector.head.has_objectness
    is_positive = {word: float(first[f"loss/{word}"]) > 0 for word in ("box", "objectness", "classes")}
    assert is_positive == {"box": True, "objectness": has_objectness, "classes": True}


RAW = ExportOptions(image_size=64, raw=True)
SUPPRESSED = ExportOptions(image_size=64, suppression=PredictSettings(0.001, 0.6, 100))


@pytest.mark.slow  # tests/boxes/test_arrays.py and tests/models/test_heads.py compare the decodings
@pytest.mark.parametrize("options", [pytest.param(SUPPRESSED, id="detections"), pytest.param(RAW, id="raw")])
def test_exports(folder: Path, tmp_path: Path, options: ExportOptions) -> None:
    """The gate compares the file with PyTorch: values, and detections of the runner that users get."""
    checkpoint = load_checkpoint(folder / "best.pt")
    assert export_onnx(checkpoint, tmp_path / "model.onnx", options).good
    assert isinstance(checkpoint.model, DetectionModel)
    assert Detector(tmp_path / "model.onnx", "cpu").names == checkpoint.names


def test_an_instance(folder: Path) -> None:
    """A smaller network of SDPoint has fewer and larger cells behind its point."""
    model, images = load_checkpoint(folder / "best.pt").detector, torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        whole = model(images)
        use_instance(model, Instance(1, 0.5))
        reduced = model(images)
    assert model.head.cells_px(whole, (64, 64)) == [8, 16, 32]
    cells = model.head.cells_px(reduced, (64, 64))
    assert cells[0] == (64 / reduced[0].shape[3], 64 / reduced[0].shape[2])
    assert model.decode(reduced, (64, 64)).shape[1] < 64 + 16 + 4
