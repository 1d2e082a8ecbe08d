"""The client for Node: the lines of ``onnx_runner.py``.

``DETECT_NODE_MODULES`` names a folder ``node_modules`` that has ``onnxruntime-node`` and ``sharp``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detect.exporting.onnx import export_onnx
from detect.exporting.options import ExportOptions
from detect.models.catalog import shipped_weights
from detect.models.checkpoint import load_checkpoint
from tests.documents.pages import ROOT
from tests.exporting.web.test_detector_script import SCRIPT

CLIENT = ROOT / "docs" / "clients" / "detect.mjs"
RUNNER = ROOT / "detect" / "exporting" / "onnx_runner.py"
PROGRAMS = (("node", CLIENT.name), (sys.executable, RUNNER))
MODULES = os.environ.get("DETECT_NODE_MODULES")


def test_short() -> None:
    assert len(CLIENT.read_text(encoding="utf-8").splitlines()) <= 30


def lines(folder: Path, *command: object) -> list[str]:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(MODULES is None, reason="DETECT_NODE_MODULES names no onnxruntime-node and sharp")
@pytest.mark.parametrize("raw", [False, True])
def test_photographs(real_data: Path, tmp_path: Path, raw: bool) -> None:
    """Ten photographs of blood: the same classes, scores and sides to the last digit that is printed."""
    checkpoint = load_checkpoint(shipped_weights()["yolov5n-spd-bccd"])
    export_onnx(checkpoint, tmp_path / "model.onnx", ExportOptions(raw=raw))
    for file in (CLIENT, SCRIPT):
        shutil.copy(file, tmp_path)
    (tmp_path / "node_modules").symlink_to(Path(str(MODULES)).resolve(), target_is_directory=True)
    images = sorted((real_data / "bccd" / "JPEGImages").glob("*.jpg"))[:10]
    client, runner = (lines(tmp_path, *program, "model.onnx", *images) for program in PROGRAMS)
    assert client == runner
    assert len(client) > 100
