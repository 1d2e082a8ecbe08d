"""``from detect import train, evaluate, export`` on tiny data."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

import detect
from detect.api import exporting
from detect.errors import InputError
from detect.evaluation.postprocess import PredictSettings
from detect.exporting.parity import TOLERANCES, Difference, Parity
from tests.tools.running import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def trained(world):
    """A run of one epoch, made in a thread that is not the main one: an application's, which has the signals."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(
            detect.train,
            world / "tiny.yaml",
            world / "data.yaml",
            recipe=world / "recipe.yaml",
            out=world / "run",
            device="cpu",
            epochs=1,
            optimizer={"lr": 0.002},
            **{"anchors.fit": "never"},
        ).result()


def test_training(world, trained):
    assert trained.out == world / "run"
    assert trained.weights.is_file()
    assert trained.metrics.keys() >= {"AP", "AP50", "AP_S"}
    recipe = yaml.safe_load((trained.out / "config.yaml").read_text())["recipe"]
    assert (recipe["epochs"], recipe["optimizer"]["lr"], recipe["optimizer"]["name"]) == (1, 0.002, "adamw")
    assert recipe["anchors"]["fit"] == "never"


def test_a_finished_run_is_resumed_to_its_end(trained):
    assert detect.resume(trained.out, device="cpu") == trained


def test_evaluation(world, trained, capsys):
    metrics = detect.evaluate(trained.weights, world / "data.yaml", device="cpu")
    assert metrics["AP"] == pytest.approx(trained.metrics["AP"])
    assert dict(metrics) == metrics.record
    assert len(metrics) == len(metrics.record)
    assert metrics["split"] == "val"
    assert capsys.readouterr().out == ""
    json.dumps(metrics.record, allow_nan=False)
    tiled = detect.evaluate(trained.weights, str(world / "data.yaml"), "test", device="cpu", tile=64)
    assert tiled["without_tiles"].keys() >= {"AP"}


def test_export(world, trained, monkeypatch):
    """The arguments reach the export; ``tests/exporting`` looks at the file."""
    exports = []

    def export_onnx(checkpoint, out, options, table):
        exports.append((checkpoint.names, options, table))
        out.write_bytes(b"")
        return Parity(Difference(0.0, 0.0, good=True), TOLERANCES["fp32"], [], images=0)

    monkeypatch.setattr(exporting, "export_onnx", export_onnx)
    assert detect.export(trained.weights, world / "m.onnx", image_size=64, nms=True) == world / "m.onnx"
    assert detect.export(trained.weights, dynamic=False, half=True) == trained.out / "model.onnx"
    assert (world / "onnx_runner.py").is_file()
    (names, first, table), (_, second, _) = exports
    assert (names, table) == (detect.Detector(trained.weights, "cpu").names, None)
    assert (first.image_size, first.suppression, first.dynamic, first.half) == (64, PredictSettings(), True, False)
    assert (second.image_size, second.suppression, second.dynamic, second.half) == (None, None, False, True)


@pytest.mark.slow
def test_an_exported_file(world, trained):
    detect.export(trained.weights, world / "m.onnx", image_size=64, nms=True)
    image = str(next((world / "shapes/images/val").iterdir()))
    expected, found = (
        detect.Detector(weights, "cpu").predict(image, conf=0.25, image_size=64)
        for weights in (trained.weights, world / "m.onnx")
    )
    assert found.names == expected.names
    np.testing.assert_allclose(np.sort(found.scores), np.sort(expected.scores), atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: detect.train("tiny.yaml"), "--data is missing"),
        (lambda w: detect.train(w / "tiny.yaml", w / "data.yaml", epohcs=1), "epohcs: unknown key; did you mean"),
        (lambda w: detect.train(w / "tiny.yaml", w / "data.yaml", ema={"dcay": 1}), "ema.dcay: unknown key"),
        (lambda w: detect.resume(w / "nothing"), "nothing holds no last.pt"),
        (lambda w: detect.evaluate("none", "shapes"), "'none' is neither a file nor one of weights/"),
        (lambda w: detect.evaluate("none.pt", "none"), "none"),
        (lambda w: detect.export("none"), "'none' is neither a file nor one of weights/"),
    ],
)
def test_what_is_wrong(world, call, message, monkeypatch):
    monkeypatch.chdir(world)
    with pytest.raises(InputError) as raised:
        call(world)
    assert message in str(raised.value)
    assert not Path("runs").exists()


def test_names_come_on_demand():
    code = "import detect, sys\nassert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    for name in detect.__all__:
        assert getattr(detect, name) is not None
    assert not hasattr(detect, "nothing")


def test_functions_are_not_hidden_by_modules():
    """Whatever was imported before: ``detect.export`` is the function."""
    importlib.import_module("detect.exporting.onnx")
    assert all(map(callable, [detect.evaluate, detect.export, detect.train]))
