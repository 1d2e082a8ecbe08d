"""Tiles from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from detect.evaluation.coco import METRICS
from tests.tools.running import run_here

EVALUATE = ("evaluate.py", "--data", "data.yaml", "--weights", "run/best.pt", "--workers", 0, "--device", "cpu")
PREDICT = ("predict.py", "--source", "shapes/images/val", "--weights", "run/best.pt", "--device", "cpu")


@pytest.fixture(scope="module")
def world(trained_world: Path) -> Path:
    return trained_world


def test_metrics_without_and_with_tiles(world: Path, tmp_path: Path) -> None:
    """Those without are what the tool measures otherwise, with any engine."""
    files = ("--metrics-json", tmp_path / "m.json", "--results-json", tmp_path / "r.json", "--coco-engine", "hotcoco")
    ended = run_here(world, *EVALUATE, "--tile", 40, "--overlap", 0.25, *files)
    assert ended.code == 0, ended.error
    lines = ended.output.splitlines()
    # 64 px is two tiles of 40 px, which have 16 in common: four of them, and the whole.
    assert lines[0] == "tiles of 40 px, overlap 0.25; with the whole image 5.0 views per image"
    assert re.split(" +", lines[2].strip()) == ["without", "with"]
    metrics = json.loads((tmp_path / "m.json").read_text())
    for name, line in zip(METRICS, lines[3:15], strict=True):
        shown, *values = line.split()
        assert shown == name
        assert [float(value) for value in values] == [round(metrics["without_tiles"][name], 3), round(metrics[name], 3)]
    assert [line.split()[0] for line in lines if "process" in line or "network" in line] == [
        "preprocess",
        "network",
        "postprocess",
    ]
    assert (metrics["tile"], metrics["overlap"]) == (40, 0.25)
    assert metrics["settings"]["max_detections"] == 1000
    assert metrics["without_tiles"]["settings"]["max_detections"] == 300
    results = json.loads((tmp_path / "r.json").read_text())
    assert len(results) == metrics["detections"] > 0
    COCO(str(world / "shapes/annotations/val.json")).loadRes(str(tmp_path / "r.json"))
    assert run_here(world, *EVALUATE, "--metrics-json", tmp_path / "plain.json").code == 0
    plain = json.loads((tmp_path / "plain.json").read_text())
    assert {name: metrics["without_tiles"][name] for name in METRICS} == {name: plain[name] for name in METRICS}


def test_prediction_in_tiles(world: Path, tmp_path: Path) -> None:
    options = ("--tile", 40, "--overlap", 0.5, "--batch-size", 4, "--conf", 0.001, "--save-json", "--out", tmp_path)
    ended = run_here(world, *PREDICT, *options)
    assert ended.code == 0, ended.error
    assert len(list(tmp_path.glob("*.jpg"))) == 4
    assert json.loads((tmp_path / "predictions.json").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*EVALUATE, "--tile", 8), "error: tile: must be at least 32 pixels, found 8"),
        ((*EVALUATE, "--tile", 64, "--overlap", 20), "error: overlap: must be from 0 to 0.9, a share of the tile; fou"),
        ((*EVALUATE, "--overlap", 0.5), "error: --overlap: belongs to --tile"),
        ((*EVALUATE, "--max-det", 0), "error: --max-det: must be at least 1, found 0"),
        ((*EVALUATE, "--instances", "--max-det", 500), "error: --max-det: is of one network, not of --instances"),
        (
            (*EVALUATE, "--instances", "--report", "r"),
            "error: --report: is of one network, not of --instances; --cost ",
        ),
        ((*EVALUATE, "--instances", "--tile", 64), "error: --tile: is of one network, not of --instances; --cost "),
        ((*EVALUATE, "--tile", "large"), "argument --tile: invalid int value: 'large'"),
        ((*PREDICT, "--tile", 8), "error: tile: must be at least 32 pixels, found 8"),
        (
            (*PREDICT, "--tile", 64, "--overlap", "nan"),
            "error: overlap: must be from 0 to 0.9, a share of the tile; fo",
        ),
        ((*PREDICT, "--overlap", 0.5), "error: --overlap: belongs to --tile"),
    ],
)
def test_bad_input(world: Path, tmp_path: Path, words: tuple, message: str) -> None:
    out = () if words[0] == "evaluate.py" else ("--out", tmp_path / "out")
    assert message in run_here(world, *words, *out).complaint
    assert not (tmp_path / "out").exists()
