"""Class names that steer, hide, or are too much, through everything that shows a name.

In results they stay as they are; what people look at has escapes, and is not longer than a line.
"""

from __future__ import annotations

import csv
import json
import unicodedata

import onnx
import pytest
import torch

from detect.exporting.metadata import describe
from detect.exporting.options import ExportOptions
from detect.models.checkpoint import load_checkpoint
from tests.tools.running import TRAIN, data_yaml, make_world, run_here

NAMES = (
    "\x1b[2J\x1b]0;title\x07",
    "line\nwarning: all is well\r\t",
    "\u202egnp.tac\u2066",
    "zero\u200bwidth\ufeff",
    "$\\frac{$ _{^",
    "<script>alert(1)</script>&amp;",
    '=cmd|" /C calc"!A0',
    "../../../etc/passwd",
    "e\u0301\u0301\u0301" * 40 + "🐈\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "x" * 10_000,
    "",
    " ",
    "CON",
    "a/b\\c:d*?",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The embedded data set, whose six classes have the first of the names, with the others behind them."""
    folder = make_world(tmp_path_factory.mktemp("names"))
    for split in ("train", "val", "test"):
        path = folder / f"shapes/annotations/{split}.json"
        content = json.loads(path.read_text())
        ids = [category["id"] for category in content["categories"]]
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=min(ids))]
        for number, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = min(ids) + number % len(NAMES)
        path.write_text(json.dumps(content))
    (folder / "data.yaml").write_text(data_yaml())
    return folder


@pytest.fixture(scope="module")
def trained(world):
    ended = run_here(world, *TRAIN, "--epochs", 1, "--out", "out")
    assert ended.code == 0, ended.error
    return ended


def check_shown(ended):
    """Nothing that a terminal obeys, nothing that hides, no line without end."""
    for text in (ended.output, ended.error):
        shown = text.replace("\n", "").replace("\r", "")
        hidden = [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\u200d"]
        assert not hidden, hidden
        assert max(map(len, text.replace("\r", "\n").splitlines()), default=0) < 4500
        assert not any(line.startswith("warning: all is well") for line in text.splitlines())


@pytest.mark.slow
def test_training(world, trained):
    check_shown(trained)
    assert load_checkpoint(world / "out" / "best.pt").names == NAMES
    assert not list(world.rglob("*.html"))


@pytest.mark.slow
def test_evaluation(world, trained):
    words = (
        "--weights",
        "out/best.pt",
        "--data",
        "data.yaml",
        "--workers",
        0,
        "--device",
        "cpu",
        "--out",
        "evaluated",
        "--metrics-json",
        "m.json",
        "--report",
        "report",
    )
    ended = run_here(world, "evaluate.py", *words)
    assert ended.code == 0, ended.error
    check_shown(ended)
    assert set(NAMES) <= set(json.loads((world / "m.json").read_text())["per_class"])
    assert "<script" not in (world / "report" / "index.html").read_text(encoding="utf-8")


def test_prediction(world, trained):
    weights = world / "sure.pt"
    content = torch.load(world / "out" / "best.pt", weights_only=True)
    for key, tensor in content["state_dict"].items():
        if ".predict." in key and key.endswith("bias"):
            tensor.fill_(3.0)
    torch.save(content, weights)
    options = ("--conf", 0.01, "--save-json", "--save-csv", "--save-txt", "--save-crops", "--device", "cpu")
    ended = run_here(
        world, "predict.py", "--weights", weights, "--source", "shapes/images/val", "--out", "found", *options
    )
    assert ended.code == 0, ended.error
    check_shown(ended)
    found = json.loads((world / "found" / "predictions.json").read_text())
    assert {entry["category"] for entry in found} <= set(NAMES)
    assert len({entry["category"] for entry in found}) > 3
    with (world / "found" / "predictions.csv").open(newline="") as file:
        assert not [row for row in csv.DictReader(file) if row["category"].startswith(("=", "+", "-", "@", "\t", "\r"))]
    folders = [path.name for path in (world / "found" / "crops").iterdir()]
    assert all(len(name.encode()) <= 255 for name in folders)
    assert all(unicodedata.category(c) != "Cc" for name in folders for c in name)
    inside = [path for path in (world / "found").rglob("*") if not path.resolve().is_relative_to(world / "found")]
    assert not inside


def test_metadata_of_an_export(world, trained):
    says = describe(load_checkpoint(world / "out" / "best.pt"), ExportOptions(image_size=64))
    assert json.loads(says["names"]) == list(NAMES)


@pytest.mark.slow
def test_export(world, trained):
    ended = run_here(world, "export.py", "--weights", "out/best.pt", "--out", "model.onnx")
    assert ended.code == 0, ended.error
    check_shown(ended)
    says = {entry.key: entry.value for entry in onnx.load(world / "model.onnx").metadata_props}
    assert json.loads(says["names"]) == list(NAMES)


def test_a_refusal(world, trained):
    words = ("--weights", "out/best.pt", "--source", "shapes/images/val", "--classes", "\x1b[2J")
    ended = run_here(world, "predict.py", *words)
    check_shown(ended)
    assert "\\x1b[2J" in ended.complaint
