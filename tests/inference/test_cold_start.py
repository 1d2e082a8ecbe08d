"""A process that runs an exported file does not import PyTorch, whose import takes longer than the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.data.images import write_image
from detect.errors import InputError
from detect.inference.detector import Detector
from detect.inference.runtimes.exported import network_input
from detect.inference.runtimes.onnx_runtime import _devices
from tests.inference.onnx_files import write_classifier, write_detections, write_raw

ROOT = Path(__file__).parents[2]
ROWS = [[0, 0, 32, 32, 0.9, 2]]
UNLOADED = "import sys; print(sorted({'torch', 'onnx', 'pydantic', 'matplotlib', 'scipy', 'yaml'} & set(sys.modules)))"


def output_of(code, folder, **environment):
    """Standard output of a program, by lines."""
    settings = {"PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def photo(tmp_path):
    write_image(tmp_path / "photo.png", np.full((32, 32, 3), 51, np.uint8))
    return tmp_path


def test_a_detector_of_each_kind_of_file(photo):
    write_detections(photo / "detections.onnx", ROWS)
    write_raw(photo / "raw.onnx", fixed=True)
    code = (
        "from detect import Detector\n"
        "for name, options in (('detections', {}), ('raw', {}), ('raw', {'tile': 32, 'overlap': 0})):\n"
        "    print(len(Detector(f'{name}.onnx').predict('photo.png', conf=0.2, **options)))\n" + UNLOADED
    )
    first, *_, loaded = output_of(code, photo)
    assert (first, loaded) == ("1", "[]")


def test_a_classifier(photo):
    """A grey of 51: the means of the channels are equal."""
    write_classifier(photo / "model.onnx")
    code = "from detect import Classifier\nprint(Classifier('model.onnx').predict('photo.png').score)\n" + UNLOADED
    score, loaded = output_of(code, photo)
    assert (round(float(score), 4), loaded) == (0.3333, "[]")


def test_the_device_is_one_of_torch(photo):
    write_detections(photo / "model.onnx", ROWS)
    assert Detector(photo / "model.onnx", "cpu").device == torch.device("cpu")


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_the_command(photo, kind):
    write_detections(photo / "detector.onnx", ROWS)
    write_classifier(photo / "classifier.onnx")
    words = ["detect", "predict", "--weights", f"{kind}.onnx", "--source", "photo.png", "--save-json", "--threads", "1"]
    code = f"import sys; sys.argv = {words}\nfrom detect.cli import start\nstart()\n" + UNLOADED
    first, *_, loaded = output_of(code, photo)
    assert first.startswith("photo.png: ")
    assert loaded == "[]"
    assert len(json.loads((photo / "runs/predict/predictions.json").read_text())) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", "3"),  # OMP_NUM_THREADS
        ("threads.use_threads(2)", "2"),
        pytest.param("import torch; torch.set_num_threads(1)", "1", marks=pytest.mark.slow),
    ],
)
def test_threads_of_the_session(tmp_path, code, expected):
    lines = ["from detect.runtime import threads", code, "print(threads.num_threads())"]
    assert output_of("\n".join(lines), tmp_path, OMP_NUM_THREADS="3") == [expected]


def test_threads_chosen_before_torch_is_imported(tmp_path):
    code = "from detect.runtime.threads import use_threads; use_threads(1)\nimport detect.runtime.cpu, torch\n"
    assert output_of(code + "print(torch.get_num_threads())", tmp_path, OMP_NUM_THREADS="2") == ["1"]


def test_network_input():
    """Red 255, green 51, blue 0: 1, 0.2 and 0, in planes."""
    images = np.zeros((2, 2, 3, 3), np.uint8)
    images[1, ..., 0], images[1, ..., 1] = 255, 51
    found = network_input(images)
    assert (found.shape, found.dtype, found[0].any()) == ((2, 3, 2, 3), np.float32, False)
    assert [np.unique(plane).tolist() for plane in found[1]] == [[1.0], [float(np.float32(0.2))], [0.0]]


def test_devices_of_an_exported_file(photo):
    """Without an ONNX Runtime for GPUs ``auto`` is the CPU."""
    path = write_detections(photo / "model.onnx", ROWS)
    assert _devices("auto", path, has_gpus=False) == ["cpu"]
    assert _devices("auto", path, has_gpus=True) == ["cuda", "cpu"]
    assert _devices("1", path, has_gpus=True) == ["cuda:1"]
    with pytest.raises(InputError, match=r"this ONNX Runtime does not run on cuda:1; use cpu"):
        _devices("cuda:1", path, has_gpus=False)
    with pytest.raises(InputError, match=r"--device gpu: is not a device; allowed: auto, cpu, cuda"):
        _devices("gpu", path, has_gpus=True)
