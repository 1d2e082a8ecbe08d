"""An exported file in place of the checkpoint: the same metrics and the same predictions, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detect.evaluation.coco import METRICS
from tests.tools.running import TRAIN, make_world, run_here

EXPORT = ("export.py", "--weights", "run/best.pt", "--data", "data.yaml")
EVALUATE = ("evaluate.py", "--data", "data.yaml", "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, data, a checkpoint ``run/best.pt`` and what it was exported to, ``run/model.onnx``."""
    folder = make_world(tmp_path_factory.mktemp("exported"))
    ended = run_here(folder, *TRAIN, "--epochs", 1, "--out", "run")
    assert ended.code == 0, ended.error
    ended = run_here(folder, *EXPORT)
    assert ended.code == 0, ended.error
    assert ", AP " in ended.output
    assert "(at most 0.001 apart)" in ended.output
    return folder


def test_the_same_metrics(world: Path, tmp_path: Path) -> None:
    found = {}
    for weights in ("run/best.pt", "run/model.onnx"):
        ended = run_here(world, *EVALUATE, "--weights", weights, "--metrics-json", tmp_path / "m.json")
        assert ended.code == 0, ended.error
        found[weights] = json.loads((tmp_path / "m.json").read_text())
    expected, exported = found.values()
    assert exported["weights"] == "run/model.onnx"
    for name in METRICS:
        assert exported[name] == pytest.approx(expected[name], abs=1e-3)


def test_the_same_predictions(world: Path, tmp_path: Path) -> None:
    entries = []
    for weights in ("run/best.pt", "run/model.onnx"):
        options = ("--source", "shapes/images/val", "--conf", 0.001, "--max-det", 5, "--save-json", "--device", "cpu")
        ended = run_here(world, "predict.py", "--weights", weights, *options, "--out", tmp_path / Path(weights).suffix)
        assert ended.code == 0, ended.error
        entries.append(json.loads((tmp_path / Path(weights).suffix / "predictions.json").read_text()))
    assert len(entries[0]) == len(entries[1]) > 5
    for expected, found in zip(*entries, strict=True):
        assert found["file_name"] == expected["file_name"]
        assert found["score"] == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            (*EVALUATE, "--weights", "run/model.onnx", "--instances"),
            "--instances: is for checkpoints; run/model.onnx is",
        ),
        ((*EVALUATE, "--weights", "run/model.onnx", "--cost", 0.5), "--cost: is for checkpoints; run/model.onnx is"),
        ((*EVALUATE, "--weights", "run/model.onnx", "--precision", "bf16"), "leave the precision out"),
        ((*EVALUATE, "--weights", "data.onnx"), "data.onnx: cannot be read: No such file"),
        ((*EXPORT, "--split", "nowhere"), "nowhere"),
        (("predict.py", "--weights", "run/model.onnx", "--source", "shapes", "--cost", 0.5), "is settled"),
    ],
)
def test_refused(world: Path, command: tuple, message: str) -> None:
    ended = run_here(world, *command)
    assert ended.code == 2
    assert message in ended.error
    assert ended.error.count("\n") == 1
