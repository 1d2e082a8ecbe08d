"""The client in C++: short, and with the boxes of ``onnx_runner.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.data.images import write_image
from detect.exporting.comparison_inputs import comparison_images
from detect.exporting.onnx import export_onnx
from detect.exporting.onnx_runner import OnnxModel
from detect.exporting.options import ExportOptions
from detect.models.catalog import shipped_weights
from detect.models.checkpoint import load_checkpoint
from tests.documents.pages import ROOT
from tests.exporting import exports

CLIENT = ROOT / "docs" / "clients" / "detect_opencv.cpp"
HEADERS = Path("/usr/include/opencv4")
LIBRARIES = ("-lopencv_dnn", "-lopencv_imgcodecs", "-lopencv_imgproc", "-lopencv_core")
MOST_PX = 0.5
"""Largest difference of a box; OpenCV of the client and of Python are two versions."""


def test_short() -> None:
    lines = CLIENT.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    included = {line.split()[1].strip("<>") for line in lines if line.startswith("#include")}
    assert all("/" not in name or name.startswith("opencv2/") for name in included)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built as its first lines say."""
    if shutil.which("g++") is None:
        pytest.skip("not installed: g++")
    if not all((HEADERS / "opencv2" / f"{name}.hpp").exists() for name in ("dnn", "imgcodecs", "imgproc")):
        pytest.skip("not installed: libopencv-dev")
    path = tmp_path_factory.mktemp("client") / "detect_opencv"
    flags = ("-O2", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{HEADERS}")
    subprocess.run(["g++", *flags, "-o", str(path), str(CLIENT), *LIBRARIES], check=True, timeout=300)
    return path


def run(client: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(client), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)


def compare(client: Path, model: Path, images: list[Path]) -> int:
    """Compare the printed objects with those of ``onnx_runner.py``, best first both; returns their number."""
    done = run(client, 0.25, model, *images)
    assert (done.returncode, done.stderr) == (0, "")
    runner, found = OnnxModel(str(model)), defaultdict(list)
    for line in done.stdout.splitlines():
        path, rest = line.split(" ", 1)
        label, score, *box = rest.rsplit(" ", 5)
        found[path].append([*map(float, box), float(score), runner.names.index(label)])
    for image in images:
        picture = cv2.imread(str(image))
        assert picture is not None
        expected = runner.detect(picture)
        rows = np.array(found[str(image)]).reshape(-1, 6)
        assert rows.shape == expected.shape
        assert np.abs(rows[:, :4] - expected[:, :4]).max(initial=0) <= MOST_PX
        assert np.abs(rows[:, 4] - expected[:, 4]).max(initial=0) <= 0.002
        np.testing.assert_array_equal(rows[:, 5], expected[:, 5])
    return sum(map(len, found.values()))


@pytest.mark.slow
def test_shapes_of_images(client: Path, tmp_path: Path) -> None:
    """Wider, higher, larger and smaller ones than the network's, one after the other."""
    (tmp_path / "raw.onnx").write_bytes(exports.export("raw")[0])
    images = [tmp_path / f"{number}.png" for number in range(len(comparison_images()))]
    for path, picture in zip(images, comparison_images(), strict=True):
        write_image(path, picture)
    assert compare(client, tmp_path / "raw.onnx", images) > 100


@pytest.mark.slow
def test_photographs(client: Path, tmp_path: Path) -> None:
    """Ten photographs of blood."""
    if not (data := os.environ.get("DETECT_REAL_DATA")):
        pytest.skip("DETECT_REAL_DATA is not set")
    checkpoint = load_checkpoint(shipped_weights()["yolov5n-spd-bccd"])
    export_onnx(checkpoint, tmp_path / "model.onnx", ExportOptions(raw=True))
    images = sorted((Path(data) / "bccd" / "JPEGImages").glob("*.jpg"))[:10]
    assert compare(client, tmp_path / "model.onnx", images) > 100


@pytest.mark.slow
def test_other_files(client: Path, tmp_path: Path) -> None:
    """A file with boxes inside, a classifier, text, no file, a folder: one line each."""
    names = ("exported", "folded")
    for name in names:
        (tmp_path / f"{name}.onnx").write_bytes(exports.export(name)[0])
    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    for name in (*names, "text", "missing"):
        done = run(client, 0.25, tmp_path / f"{name}.onnx", "photo.jpg")
        reason = (
            "boxes inside; export it with --raw" if name == "exported" else "is not a detector that detect export wrote"
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert reason in done.stderr
