"""A model put together by name, through every tool: two levels, YOLOv3's boxes, ``+`` and ``=`` in paths."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from detect.models.checkpoint import load_checkpoint
from tests.tools.running import make_world, run_here

MODEL = "peleenet+prn+spd+width=0.25+depth=0.1"
WORDS = ("--data", "data.yaml", "--recipe", "recipe.yaml", "--device", "cpu")


@pytest.mark.slow
def test_a_composed_model_through_every_tool(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    frozen = ("--set", "freeze=[neck]", "anchors.fit=always", "epochs=1")
    ended = run_here(world, "train.py", "--model", MODEL, *WORDS, *frozen)
    assert ended.code == 0, ended.error
    run = world / "runs" / f"{MODEL}-data"
    checkpoint = load_checkpoint(run / "best.pt")
    assert checkpoint.model.definition.name == MODEL
    assert checkpoint.model.head.reductions == (16, 32)
    assert checkpoint.model.head.codings[0].sizes == "exp"

    out = f"runs/{MODEL}-data"
    assert run_here(world, "train.py", "--resume", "--out", out).code == 0
    weights = ("--weights", f"{out}/best.pt")
    measured = run_here(world, "evaluate.py", *weights, "--data", "data.yaml", "--metrics-json", f"{out}/m=1.json")
    assert measured.code == 0, measured.error
    assert {"AP", "AP50", "AP_S"} <= json.loads((run / "m=1.json").read_text()).keys()
    exported = run_here(world, "export.py", *weights, "--out", f"{out}/model+1.onnx")
    assert exported.code == 0, exported.error
    assert {entry.key for entry in onnx.load(run / "model+1.onnx").metadata_props} >= {"names"}
