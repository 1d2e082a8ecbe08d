"""tools/train.py as a user runs it, and what the other tools do with its checkpoints."""

from __future__ import annotations

import csv
import json

import cv2
import pytest
import torch
import yaml

from detect.models.checkpoint import load_checkpoint
from tests.tools.running import TRAIN, data_yaml, make_world, run_here


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Model, data and recipe, with a finished run in ``run``."""
    folder = make_world(tmp_path_factory.mktemp("train"))
    ended = run_here(folder, *TRAIN, "--out", "run", "--set", "epochs=3", "anchors.fit=always")
    assert ended.code == 0, ended.error
    (folder / "ended").write_text(json.dumps(ended))
    return folder


def results(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_run_says(world):
    _, output, error = json.loads((world / "ended").read_text())
    first, second = output.splitlines()
    assert first.startswith("best.pt on the validation split: AP 0.")
    assert second == "run: best.pt, last.pt, results.csv, config.yaml, pictures"
    lines = [line for line in error.replace("\r", "\n").splitlines() if line.strip()]
    assert "training tiny in fp32 on cpu, 2 batches an epoch" in lines
    assert any(line.startswith("anchors: best possible recall ") for line in lines)
    assert [line[:10] for line in lines if line.startswith("epoch ") and "AP_S" in line] == [
        f"epoch {epoch}/3 " for epoch in (1, 2, 3)
    ]
    assert "error" not in error
    assert "Warning" not in error


def test_what_a_run_leaves(world):
    names = sorted(path.name for path in (world / "run").iterdir())
    events = [name for name in names if name.startswith("events.out.tfevents.")]
    assert len(events) == 1
    assert [name for name in names if name not in events] == [
        "best.pt",
        "config.yaml",
        "last.pt",
        "previous.pt",
        "results.csv",
        "train_batch.jpg",
        "val_predictions.jpg",
    ]
    assert cv2.imread(str(world / "run" / "train_batch.jpg")).shape == (640, 640, 3)  # a batch of 4
    assert cv2.imread(str(world / "run" / "val_predictions.jpg")).shape == (640, 640, 3)
    rows = results(world / "run")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert set(rows[0]) > {"loss/box", "loss/objectness", "loss/classes", "rate/weights", "val/AP", "val/AP_S"}
    settings = yaml.safe_load((world / "run" / "config.yaml").read_text())
    assert (settings["model"], settings["recipe"]["epochs"], settings["recipe"]["image_size"]) == ("tiny.yaml", 3, 64)


def test_checkpoints_hold_no_code(world):
    for name in ("best.pt", "last.pt"):
        content = torch.load(world / "run" / name, weights_only=True)
        assert content["names"] == ["cross", "disc", "ring", "square", "star", "triangle"]
        assert content["provenance"]["command"].endswith("--set epochs=3 anchors.fit=always")
        assert content["provenance"]["epoch"] in (1, 2, 3)
        assert (content["training"] is None) == (name == "best.pt")


def test_prediction_draws(world, tmp_path):
    ended = run_here(
        world,
        *("predict.py", "--weights", "run/best.pt", "--source", "shapes/images/val", "--out", tmp_path),
        *("--conf", 0.001, "--max-det", 3, "--device", "cpu"),
    )
    assert ended.code == 0, ended.error
    assert len(list(tmp_path.glob("*.jpg"))) == 4


@pytest.mark.slow
def test_fine_tuning_on_fewer_classes(world, tmp_path):
    """The model comes from the checkpoint; the head keeps the rows of the classes that both have, in another order."""
    (world / "few.yaml").write_text(data_yaml(more="names: [ring, disc]\n"))
    ended = run_here(
        world,
        *("train.py", "--weights", "run/best.pt", "--data", "few.yaml", "--recipe", "recipe.yaml", "--device", "cpu"),
        *("--epochs", 1, "--out", tmp_path / "tuned", "--set", "freeze=[backbone]", "anchors.fit=never"),
    )
    assert ended.code == 0, ended.error
    tuned, start = load_checkpoint(tmp_path / "tuned/last.pt"), load_checkpoint(world / "run/best.pt")
    total = len(start.model.state_dict()) - 1  # the anchors are the model's own
    assert f"run/best.pt: {total - 6} of {total} tensors fit and were copied, 6 more class by class; " in ended.error
    assert (
        "classes: 2 carried over by name ('disc', 'ring'); 4 dropped ('cross', 'square', 'star', 'triangle')"
        in ended.error
    )
    assert tuned.names == ("ring", "disc")
    assert torch.equal(tuned.model.head.anchors_px, start.model.head.anchors_px)
    for name, value in start.model.graph.layers["stem"].state_dict().items():
        assert torch.equal(tuned.model.graph.layers["stem"].state_dict()[name], value), name


def test_an_ap_of_0_comes_with_its_usual_reasons(world, tmp_path):
    words = ("--out", tmp_path / "none", "--set", "epochs=1", "optimizer.lr=1e-9")
    ended = run_here(world, *TRAIN, *words)
    assert ended.code == 0, ended.error
    assert "AP 0.000, AP50 0.000" in ended.output
    assert "warning: an AP of 0 is nearly always too few updates" in ended.error


def test_an_experiment(world, tmp_path):
    (world / "experiment.yaml").write_text("model: tiny.yaml\ndata: data.yaml\nrecipe: recipe.yaml\nset: {epochs: 1}\n")
    (tmp_path / "elsewhere").mkdir()
    ended = run_here(
        tmp_path / "elsewhere",
        *("train.py", "--run", world / "experiment.yaml", "--data-root", world / "shapes", "--device", "cpu"),
    )
    assert ended.code == 0, ended.error
    assert len(results(tmp_path / "elsewhere" / "runs" / "experiment")) == 1
    again = run_here(
        tmp_path / "elsewhere", "train.py", "--out", "runs/experiment", "--resume", "--device", "cpu", "--epochs", 1
    )
    assert again.code == 0, again.error
    assert "resuming after epoch 1 of 1" in again.error


def test_a_folder_that_holds_a_run_is_left_alone(world):
    before = {path.name: path.stat().st_mtime_ns for path in (world / "run").iterdir()}
    assert run_here(world, *TRAIN, "--out", "run").complaint == (
        "error: --out run: holds a run already; --resume continues it, another --out starts anew"
    )
    assert {path.name: path.stat().st_mtime_ns for path in (world / "run").iterdir()} == before


def test_an_unknown_key(world):
    ended = run_here(world, *TRAIN, "--out", "new", "--set", "optimizer.weightdecay=0.1", "epohcs=3")
    assert "optimizer.weightdecay: unknown key; did you mean 'weight_decay'?" in ended.complaint
    assert "epohcs: unknown key; did you mean 'epochs'?" in ended.complaint
    assert not (world / "new").exists()


def test_words_that_are_none(world):
    for words in (("--epochs", "0"), ("--batch-size", "many"), ("--seed", "-1"), ("--epoch",)):
        assert "--help lists what there is" in run_here(world, *TRAIN, *words).complaint
