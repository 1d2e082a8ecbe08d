"""An exported file in place of the checkpoint: the same metrics and the same predictions, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from detect.evaluation.coco import METRICS
from tests.inference.onnx_files import write_detections, write_raw
from tests.tools.running import run_here

EXPORT = ("export.py", "--weights", "run/best.pt", "--data", "data.yaml")
EVALUATE = ("evaluate.py", "--data", "data.yaml", "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def world(trained_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained world with another network as ``run/model.onnx``."""
    folder = shutil.copytree(trained_world, tmp_path_factory.mktemp("exported") / "world")
    write_raw(folder / "run/model.onnx")
    return folder


@pytest.fixture
def exported_world(world: Path, exported_run: Path, tmp_path: Path) -> Path:
    """A copy of the world with the exported network as ``run/model.onnx``."""
    folder = shutil.copytree(world, tmp_path / "exported")
    shutil.copy(exported_run, folder / "run/model.onnx")
    return folder


@pytest.mark.slow
def test_the_same_metrics(exported_world: Path, tmp_path: Path) -> None:
    found = {}
    for weights in ("run/best.pt", "run/model.onnx"):
        ended = run_here(exported_world, *EVALUATE, "--weights", weights, "--metrics-json", tmp_path / "m.json")
        assert ended.code == 0, ended.error
        found[weights] = json.loads((tmp_path / "m.json").read_text())
    expected, exported = found.values()
    assert exported["weights"] == "run/model.onnx"
    for name in METRICS:
        assert exported[name] == pytest.approx(expected[name], abs=1e-3)


@pytest.mark.slow
def test_the_same_predictions(exported_world: Path, tmp_path: Path) -> None:
    entries = []
    for weights in ("run/best.pt", "run/model.onnx"):
        options = ("--source", "shapes/images/val", "--conf", 0.001, "--max-det", 5, "--save-json", "--device", "cpu")
        out = tmp_path / Path(weights).suffix
        ended = run_here(exported_world, "predict.py", "--weights", weights, *options, "--out", out)
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
        (("predict.py", "--weights", "run/model.onnx", "--source", "shapes/images/val", "--cost", 0.5), "is fixed"),
    ],
)
def test_refused(world: Path, command: tuple, message: str) -> None:
    ended = run_here(world, *command)
    assert ended.code == 2
    assert message in ended.error
    assert ended.error.count("\n") == 1


def test_another_limit_of_detections(world: Path, tmp_path: Path) -> None:
    """A second table stands behind COCO's, whose numbers are the same without it."""
    for name, options in (("plain", ()), ("limited", ("--max-det", 5))):
        command = (*EVALUATE, "--weights", "run/best.pt", "--metrics-json", tmp_path / name, *options)
        ended = run_here(world, *command)
        assert ended.code == 0, ended.error
    plain, limited = (json.loads((tmp_path / name).read_text()) for name in ("plain", "limited"))
    assert {name: limited[name] for name in METRICS} == {name: plain[name] for name in METRICS}
    assert limited["other_limit"]["max_det"] == 5
    titles = [line for line in ended.output.splitlines() if line.startswith(("COCO metrics", "Metrics with"))]
    assert titles == [
        "COCO metrics",
        "Metrics with up to 5 detections of a class and image, which COCO limits to 100",
    ]


def test_images_that_reach_the_limit_of_detections(world: Path, tmp_path: Path) -> None:
    options = ("--source", "shapes/images/val", "--conf", 0.0001, "--max-det", 2, "--device", "cpu")
    ended = run_here(world, "predict.py", "--weights", "run/best.pt", *options, "--out", tmp_path / "out")
    assert ended.code == 0, ended.error
    assert ended.error.count("4 of 4 images reached the limit of 2 detections and may have more objects") == 1


def test_limit_of_a_file_with_suppression_inside(world: Path, tmp_path: Path) -> None:
    file = write_detections(tmp_path / "nms.onnx", [[4 * n, 0, 4 * n + 3, 9, 0.9, n] for n in range(3)])
    options = ("--source", "shapes/images/val", "--conf", 0.001, "--device", "cpu", "--out", tmp_path / "out")
    ended = run_here(world, "predict.py", "--weights", file, *options)
    assert "images reached the limit of 3 detections" in ended.error
    ended = run_here(world, *EVALUATE, "--weights", file, "--max-det", 4)
    assert (
        ended.code,
        "keeps 3 detections of an image, found 4; export it with a larger --max-det" in ended.error,
    ) == (
        2,
        True,
    )
