"""Without ``detect.papers`` everything else works, and options that need a paper are refused in one line."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[:2] == ["detect", "papers"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""

STORY = """
import dataclasses
import numpy as np
import torch
from pathlib import Path
from detect import Detector
from detect.errors import InputError
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint
from detect.analysis.profile import build_on_meta
from detect.training.loop import train
from tests.training.small import make_recipe, make_settings, make_shapes

def refused(action, *args):
    try:
        action(*args)
    except InputError as error:
        return str(error)
    raise AssertionError("not refused")

folder = Path.cwd()
settings = make_settings(folder, make_shapes(folder / "data"), epochs=1)
if FULL:
    train(settings)
    best = settings.out / "best.pt"
else:
    best = folder / "best.pt"
    facts = {"names": ("a",), "category_ids": (1,), "image_size": 64, "metrics": {}, "provenance": {}}
    save_checkpoint(best, build_model("yolov5n-spd+depth=0.1", 1), **facts)
checkpoint = load_checkpoint(best)
detector = Detector(checkpoint, device="cpu")
detector.predict(np.zeros((64, 64, 3), np.uint8))
assert detector.cost == 1.0
if FULL:
    assert export_onnx(checkpoint, folder / "model.onnx", ExportOptions(dynamic=False)).good
print(refused(setattr, detector, "cost", 0.5))
print(refused(build_on_meta, "resnet20+bdsc", 3))
for section in ({"sdpoint": {"ratios": [0.5]}}, {"trd": {"resolution": 32}}):
    other = dataclasses.replace(settings, recipe=make_recipe(**section), out=folder / "other")
    print(refused(train, other))
assert not [name for name in sys.modules if name.startswith("detect.papers")]
"""


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_everything_else_works_without_the_papers(tmp_path: Path, full: bool) -> None:
    """It builds, saves and predicts, and fully also trains and exports, where the package cannot be found."""
    if full and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxscript is not installed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(
        [sys.executable, "-c", f"FULL = {full}\n{HIDE}{STORY}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    missing = "needs detect.papers, which this installation does not have"
    assert ended.stdout.splitlines()[-4:] == [
        "the cost cannot be chosen: this installation does not have detect.papers",
        *[line for line in ended.stdout.splitlines() if line.endswith(f"conv: bdsc: {missing}")],
        f"sdpoint: {missing}",
        f"trd: {missing}",
    ]
