"""Without ``detect.papers`` everything else works, and options that need a paper are refused in one line."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[:2] == ["detect", "papers"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""

START = """
import numpy as np
import torch
from pathlib import Path
from detect import Detector
from detect.analysis.profile import build_on_meta
from detect.errors import InputError
from detect.models.build import build_model
from detect.models.checkpoint import load_checkpoint, save_checkpoint

def refused(action, *args):
    try:
        action(*args)
    except InputError as error:
        return str(error)
    raise AssertionError("not refused")

folder = Path.cwd()
best = folder / "best.pt"
"""

SAVE = """
facts = {"names": ("a",), "category_ids": (1,), "image_size": 64, "metrics": {}, "provenance": {}}
save_checkpoint(best, build_model("yolov5n-spd+depth=0.1+width=0.1", 1), **facts)
"""

TRAIN = """
import dataclasses
from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.training.loop import train
from tests.training.small import make_recipe, make_settings, make_shapes

for name in ("yolov5n-spd", "csppeleenet-efm", "resnet18", "densenet40", "yolov3-tiny", "wrn-16-8"):
    build_on_meta(name, 3)
settings = make_settings(folder, make_shapes(folder / "data"), epochs=1)
train(settings)
best = settings.out / "best.pt"
assert export_onnx(load_checkpoint(best), folder / "model.onnx", ExportOptions(dynamic=False)).good
for section in ({"sdpoint": {"ratios": [0.5]}}, {"trd": {"resolution": 32}}):
    other = dataclasses.replace(settings, recipe=make_recipe(**section), out=folder / "other")
    print(refused(train, other))
"""

PREDICT = """
detector = Detector(load_checkpoint(best), device="cpu")
detector.predict(np.zeros((64, 64, 3), np.uint8))
assert detector.cost == 1.0
print(refused(setattr, detector, "cost", 0.5))
print(refused(build_on_meta, "resnet20+bdsc", 3))
assert not [name for name in sys.modules if name.startswith("detect.papers")]
"""


def run_afresh(code: str, folder: Path, answers: Any) -> None:
    """Run ``code`` in ``folder`` in a process forked from the tests', which begins without a module of ours."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("detect", "tests")]:
        del sys.modules[name]
    os.chdir(folder)
    program = folder / "program.py"
    program.write_text(code, encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_path(str(program))
    answers.put(output.getvalue())


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_everything_else_works_without_the_papers(tmp_path: Path, full: bool) -> None:
    """It builds, saves and predicts, and fully also trains and exports, where the package cannot be found."""
    if full and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxscript is not installed")
    fork = multiprocessing.get_context("fork")  # without the seconds that importing PyTorch takes
    answers = fork.SimpleQueue()
    code = HIDE + START + (TRAIN if full else SAVE) + PREDICT
    process = fork.Process(target=run_afresh, args=(code, tmp_path, answers))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    missing = "needs detect.papers, which this installation does not have"
    lines = answers.get().splitlines()
    assert lines[-2] == "the cost cannot be chosen: this installation does not have detect.papers"
    assert lines[-1].endswith(f"conv: bdsc: {missing}")
    if full:
        assert lines[-4:-2] == [f"sdpoint: {missing}", f"trd: {missing}"]
