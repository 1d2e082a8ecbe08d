"""onnx_runner.py as a user has it: a file beside the model, and no torch."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from detect.api.exporting import RUNNER, copy_runner
from detect.data.images import read_image, write_image
from detect.exporting import onnx_runner
from detect.exporting.comparison_inputs import comparison_images
from detect.exporting.metadata import describe
from detect.exporting.onnx_runner import OnnxModel, suppress
from detect.exporting.options import ExportOptions
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector

WITHOUT = """\
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "detect", "PIL", "onnx"):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program where the packages cannot be imported that a user without PyTorch does not have."""


def run_alone(folder, *arguments, stdout=subprocess.PIPE):
    command = [sys.executable, "-I", "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, encoding="utf-8", timeout=120)


@pytest.fixture
def run_main(monkeypatch, capfd, tmp_path):
    """Run the program in this process; gives its exit code, output and error output."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["onnx_runner.py", *map(str, arguments)])
        onnx_runner.main()
        return SimpleNamespace(returncode=0, **dict(zip(("stdout", "stderr"), capfd.readouterr(), strict=True)))

    return run


@pytest.fixture
def photo(tmp_path):
    """A picture of shapes of odd size."""
    path = tmp_path / "photo.png"
    write_image(path, comparison_images()[4])
    return path


def test_short_and_by_three_packages_only():
    lines = RUNNER.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert imported - {"__future__", "argparse", "json", "os", "sys", "pathlib"} == {"cv2", "numpy", "onnxruntime"}


def unmatched(rows, others):
    """How many rows, score, class and box, have no equal one but for the digits that are printed."""
    same = np.abs(rows[:, None] - others[None]) <= [0.001, 0.1, 0.06, 0.06, 0.06, 0.06]
    return int((~same.all(axis=2).any(axis=1)).sum())


@pytest.mark.parametrize("kind", ["exported", "suppressed", "raw"])
def test_detections(request, checkpoint, tmp_path, photo, run_main, kind):
    """It prints and draws what ``Detector`` finds; one kind of file in a process without PyTorch."""
    path = request.getfixturevalue(kind)
    path = path if kind == "raw" else path[0]
    model = Detector(checkpoint, "cpu")
    copy_runner(tmp_path / "model.onnx")
    words = (path, photo, "missing.jpg", "--conf", 0.2, "--out", "drawn")
    done = run_alone(tmp_path, "onnx_runner.py", *words) if kind == "exported" else run_main(*words)
    assert done.returncode == 0
    assert done.stderr.endswith("missing.jpg: cannot be read\n")  # OpenCV has its own message before
    iou, max_det = (0.5, 40) if kind == "suppressed" else (0.6, 300)
    expected = model.predict(photo, conf=0.2, iou=iou, max_det=max_det)
    assert len(expected) > 5
    found = []
    for line in done.stdout.splitlines():
        assert line.startswith(f"{photo} ")
        name, score, *box = line[len(f"{photo} ") :].rsplit(" ", 5)
        found.append([float(score), checkpoint.names.index(name), *map(float, box)])
    rows = np.column_stack([expected.scores, expected.labels, expected.boxes_xyxy_px])
    assert unmatched(np.array(found), rows) == unmatched(rows, np.array(found)) == 0
    assert (read_image(tmp_path / "drawn" / "photo.png") != read_image(photo)).any()


def test_classes(classifier, folded, tmp_path, photo):
    """Printed by a process without PyTorch."""
    done = run_alone(tmp_path, RUNNER, folded[0], photo)
    best, score = Classifier(classifier, "cpu").predict(photo).top(1)[0]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{photo} {best} {score:.3f} ")


def test_a_closed_pipe(tmp_path, photo, exported):
    """The work goes on to its end, with all its files, as in the tools."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        done = run_alone(tmp_path, RUNNER, exported[0], photo, "--conf", 0.2, "--out", "drawn", stdout=nobody)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "drawn" / "photo.png").is_file()


@pytest.mark.parametrize("shape", [(8, 100, 3), (1, 17, 3), (33, 32, 3), (400, 3, 3)])
def test_a_classifier_of_any_shape(classifier, folded, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = Classifier(classifier, "cpu").predict(image).probabilities
    bgr = np.ascontiguousarray(image[..., ::-1])
    np.testing.assert_allclose(OnnxModel(str(folded[0])).classify(bgr), expected, atol=1e-5)


def test_16_bits_have_the_range_of_the_training(classifier, folded, tmp_path, run_main):
    """File, array and program see what the checkpoint sees of the same image as bytes."""
    import onnx

    ranged = dataclasses.replace(classifier, value_range=(7400.0, 7656.0))
    model = onnx.load(folded[0])
    says = describe(ranged, ExportOptions(image_size=32))
    for entry in model.metadata_props:
        entry.value = says.get(entry.key, entry.value)
    onnx.save(model, tmp_path / "model.onnx")
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), noise + 7400)
    cv2.imwrite(str(tmp_path / "a.tif"), (noise + 7400).astype(np.float32))
    expected = Classifier(classifier, "cpu").predict(np.dstack([noise.astype(np.uint8)] * 3))
    for source in (tmp_path / "a.png", tmp_path / "a.tif", noise + 7400):
        for weights in (ranged, tmp_path / "model.onnx"):
            found = Classifier(weights, "cpu").predict(source).probabilities
            np.testing.assert_allclose(found, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(OnnxModel(str(tmp_path / "model.onnx")).classify(noise + 7400), found, atol=1e-5)
    best, score = expected.top(1)[0]
    for name in ("a.png", "a.tif"):
        done = run_main("model.onnx", name)
        assert done.stdout.startswith(f"{name} {best} {score:.3f} ")


def test_another_file_is_refused(tmp_path, exported):
    import onnx

    model = onnx.load(exported[0])
    del model.metadata_props[:]
    with pytest.raises(ValueError, match="not of format detect-onnx-1"):
        OnnxModel(model.SerializeToString())


def test_suppress_by_hand():
    """Two boxes of 10 x 10 px a pixel apart share 90 of 110 px: IoU 0.82. A third is of another class, and left of the
    image's edge is a fourth, which stays apart from the first where it would come to lie if classes lay too close.
    """
    rows = np.array(
        [
            [51, 50, 10, 10, 0.8, 1, 0],
            [50, 50, 10, 10, 0.9, 1, 0],
            [50, 50, 10, 10, 0.7, 0, 1],
            [-10, 50, 10, 10, 0.6, 0, 1],
        ],
        np.float32,
    )
    best, other, left = [45, 45, 55, 55, 0.9, 0], [45, 45, 55, 55, 0.7, 1], [-15, 45, -5, 55, 0.6, 1]
    np.testing.assert_allclose(suppress(rows, 0.25, 0.8), [best, other, left], rtol=1e-6)
    np.testing.assert_allclose(suppress(rows, 0.65, 0.8), [best, other], rtol=1e-6)
    assert len(suppress(rows, 0.25, 0.83)) == 4


def test_suppress_nothing():
    assert suppress(np.zeros((0, 7), np.float32), 0.25, 0.6).shape == (0, 6)
    assert suppress(np.zeros((4, 7), np.float32), 0.25, 0.6).shape == (0, 6)


def test_a_changed_program_stays(tmp_path):
    assert (
        copy_runner(tmp_path / "a.onnx") == f"without PyTorch: python {tmp_path}/onnx_runner.py {tmp_path}/a.onnx IMAGE"
    )
    assert (tmp_path / "onnx_runner.py").read_bytes() == RUNNER.read_bytes()
    (tmp_path / "onnx_runner.py").write_text("# mine\n")
    assert copy_runner(tmp_path / "b.onnx").endswith("differs from the one of this version, so it was left alone")
    assert (tmp_path / "onnx_runner.py").read_text() == "# mine\n"
