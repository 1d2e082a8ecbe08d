"""Whole runs: they learn, they repeat themselves to the last bit, and they go on where they were stopped."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detect.api.evaluation import measure
from detect.api.evaluation_request import EvaluationRequest
from detect.config.base import to_plain
from detect.errors import InputError
from detect.models.checkpoint import load_checkpoint
from detect.papers.sdpoint.instances import affine_in
from detect.training import checkpoints, loop
from detect.training.epoch import train_epoch
from detect.training.loop import train
from detect.training.settings import RunSettings
from detect.training.state import build_state
from tests.models.thin import thin
from tests.tools.running import run_here
from tests.training.small import (
    STILL,
    TINY,
    EndsWhenAsked,
    make_recipe,
    make_settings,
    make_shapes,
    shapes_at,
    train_in_pieces,
    write_model,
)

TOOL = Path(__file__).parents[2] / "tools" / "train.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight training and four validation images of 64 px."""
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data):
    """Settings of three runs: one epoch, finished; two epochs, finished; these stopped in the second epoch."""
    folder = tmp_path_factory.mktemp("runs")
    short, whole = make_settings(folder, data, epochs=1), make_settings(folder, data, epochs=2)
    whole = dataclasses.replace(whole, out=folder / "whole")
    stopped = dataclasses.replace(whole, out=folder / "stopped")
    short.out.mkdir()
    (short.out / ".last-unfinished-x1y2.pt").write_bytes(b"half")
    (short.out / "notes.txt").write_text("mine")
    train(short)
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, EndsWhenAsked(5))  # after the fourth update; the first epoch asks three times
    return {"short": short, "whole": whole, "stopped": stopped}


def copied(settings, folder):
    """The settings with a copy of their folder."""
    shutil.copytree(settings.out, folder / "copied")
    return dataclasses.replace(settings, out=folder / "copied")


def results(folder):
    """The rows of results.csv without the one column that is never the same."""
    with (folder / "results.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "time/epoch_s"} for row in csv.DictReader(file)]


def timeless(training):
    """A training state without the one value that is never the same."""
    return training and {key: value for key, value in training.items() if key != "seconds"}


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """Two nested values are equal, tensors bit by bit."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    else:
        assert found == expected, where


def assert_same_run(found, expected):
    """Two runs have the same losses, metrics, weights, averages and momenta."""
    assert results(found) == results(expected)
    for name in ("last.pt", "best.pt"):
        one, other = load_checkpoint(found / name), load_checkpoint(expected / name)
        assert_same(one.model.state_dict(), other.model.state_dict(), name)
        assert_same(timeless(one.training), timeless(other.training), name)
        assert_same(affine_in(one.model), affine_in(other.model), name)
        assert one.metrics == other.metrics


# ---------------------------------------------------------------------------------------------- learning


class Repeated:
    """Batches of ``loader`` as one long epoch."""

    def __init__(self, loader, times):
        self.loader, self.times = loader, times

    def __len__(self):
        return self.times * len(self.loader)

    def epoch(self, number, start=0):
        for repetition in range(self.times):
            yield from self.loader.epoch(repetition)


@pytest.mark.slow
def test_overfits_four_images(tmp_path):
    """Images, targets, loss, decoding and evaluation agree. The slow suite overfits more images in a whole run."""
    data = make_shapes(tmp_path / "shapes", sizes=(4, 1, 1))
    data = dataclasses.replace(data, splits={"train": data.splits["train"], "val": data.splits["train"]})
    optimizer = {"name": "adamw", "lr": 0.01, "final_lr_factor": 0.05, "warmup_min_steps": 5, "warmup_bias_lr": 0.0}
    settings = make_settings(
        tmp_path,
        data,
        epochs=1,
        augment=STILL,
        cache="ram",
        optimizer={**optimizer, "warmup_epochs": 0.05},
        ema={"decay": 0.9, "ramp_steps": 10},
        anchors={"fit": "always"},
    )
    torch.manual_seed(0)
    task = loop.open_task(settings)
    model = task.prepare_model(settings.model, None)
    loader = Repeated(task.loader(model, tmp_path), 110)
    state = build_state(task, model, loader, settings.device)
    train_epoch(state, loader)
    metrics = task.validate(state.averaged, settings.device, "fp32").metrics
    assert metrics["AP50"] > 0.9
    assert metrics["AP"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["yolov5", "yolov3"])
def test_overfits_eight_images(tmp_path, coding):
    """What can be learnt by heart must be: images, targets, loss, decoding and evaluation agree."""
    data = make_shapes(tmp_path / "shapes", sizes=(8, 1, 1), image_size=128)
    data = dataclasses.replace(data, splits={"train": data.splits["train"], "val": data.splits["train"]})
    optimizer = {"name": "adamw", "lr": 0.01, "final_lr_factor": 0.05, "warmup_min_steps": 5, "warmup_bias_lr": 0.0}
    settings = make_settings(
        tmp_path,
        data,
        epochs=140,
        image_size=128,
        batch_size=8,
        nominal_batch_size=8,
        augment=STILL,
        cache="ram",
        optimizer={**optimizer, "warmup_epochs": 1},
        ema={"decay": 0.9, "ramp_steps": 10},
        anchors={"fit": "always"},
        evaluation={"every": 200},
    )
    text = TINY.replace("anchors_px", f"coding: {coding}, anchors_px")
    settings = dataclasses.replace(settings, model=write_model(tmp_path, text))
    metrics = train(settings)
    assert metrics["AP50"] > 0.9
    assert metrics["AP"] > 0.6
    assert len(results(settings.out)) == 140


@pytest.mark.slow
def test_the_tool_measures_what_the_run_recorded(tmp_path, data, runs):
    """From ``last.pt`` and in other batches."""
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(to_plain(data)))
    ended = run_here(
        tmp_path,
        *("evaluate.py", "--weights", runs["short"].out / "last.pt", "--data", "data.yaml", "--workers", 0),
        *("--device", "cpu", "--batch-size", 3, "--metrics-json", "metrics.json"),
    )
    assert ended.code == 0, ended.error
    found = json.loads((tmp_path / "metrics.json").read_text())
    last = results(runs["short"].out)[-1]
    recorded = {key.removeprefix("val/"): float(value) for key, value in last.items() if key.startswith("val/")}
    assert len(recorded) == 12
    assert {name: found[name] for name in recorded} == pytest.approx(recorded, abs=2e-6)


# -------------------------------------------------------------------------------------------- repeating


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_seed_is_the_same_run(tmp_path, data, workers):
    """Also with worker processes and images from a cache; another seed is another run."""
    runs = {}
    changes = {"first": {}, "again": {"workers": workers, "cache": "disk"}, "seed": {"seed": 1}}
    for name, change in changes.items():
        settings = make_settings(
            tmp_path, data, epochs=1, augment={"mosaic": 0.5, "mixup": 0.5, "scale": 0.3, "close_mosaic": 0}, **change
        )
        runs[name] = dataclasses.replace(settings, out=tmp_path / name)
        train(runs[name])
    assert_same_run(runs["again"].out, runs["first"].out)
    assert results(runs["seed"].out)[0]["loss/box"] != results(runs["first"].out)[0]["loss/box"]


@pytest.mark.slow
def test_training_on_tiles(tmp_path, caplog):
    """Images of 128 px, so nine tiles of 64 px with an overlap of half; validation is that of the tiles. The weights
    are trained ones, and stay."""
    caplog.set_level("INFO", logger="detect")
    data = make_shapes(tmp_path / "shapes", sizes=(4, 8, 1), image_size=128)
    tiles = {"size_px": 64, "overlap": 0.5, "empty": 1.0}
    recipe = make_recipe(epochs=1, tiles=tiles, ema={"decay": 0.0}, optimizer={"lr": 0.0, "warmup_bias_lr": 0.0})
    settings = RunSettings(None, data, recipe, tmp_path / "run", weights=Path("yolov5n-spd-shapes"))
    metrics = train(settings)
    assert "tiles of 64 px: 4 images are 36 tiles" in caplog.text
    assert ", 9 batches an epoch" in caplog.text
    assert "each tile decodes its whole image, 9.0 tiles an image" in caplog.text
    checkpoint = load_checkpoint(settings.out / "best.pt")
    assert checkpoint.tile_px == 64
    keys = {"weights": settings.out / "best.pt", "data": str(tmp_path / "shapes"), "workers": 0, "device": "cpu"}
    caplog.clear()
    tiled = list_of(measure(EvaluationRequest(**keys, tile=64, overlap=0.5)))
    assert tiled["AP50"] == pytest.approx(metrics["AP50"], abs=1e-6)
    assert "trained on tiles" not in caplog.text
    whole = list_of(measure(EvaluationRequest(**keys)))
    assert abs(whole["AP50"] - metrics["AP50"]) > 0.01
    hint = "trained on tiles of 64 px: in whole images objects are smaller than in training; take --tile 64"
    assert hint in caplog.text
    source = next((tmp_path / "shapes" / "images" / "val").iterdir())
    words = ("--weights", settings.out / "best.pt", "--source", source, "--out", "found")
    assert hint in run_here(tmp_path, "predict.py", *words).error
    assert hint not in run_here(tmp_path, "predict.py", *words, "--tile", 64).error


def list_of(lines):
    """Run a generator of lines to its end; give what it returns."""
    while True:
        try:
            next(lines)
        except StopIteration as end:
            return end.value


# -------------------------------------------------------------------------------------------- resuming


def resumed(settings):
    """The settings as ``--resume`` reads them."""
    return dataclasses.replace(settings, resume=True)


CHANGES = {
    "AdamW, average, frozen parts": {"freeze": ["backbone"], "epochs": 2},
    "SGD, no average, accumulation": {
        "optimizer": {"name": "sgd", "lr": 0.01},
        "ema": {"decay": 0.0},
        "batch_size": 2,
        "nominal_batch_size": 4,
        "epochs": 2,
    },
    "Muon": {"optimizer": {"name": "muon", "lr": 0.01, "warmup_min_steps": 1}, "epochs": 2},
    "SDPoint with reduced epochs": {
        "sdpoint": {"ratios": [0.5, 0.75], "norm_batches": 1, "affine": "own"},
        "trd": {"resolution": 32, "probability": 0.5, "exact": True, "guard": 0},
        "epochs": 2,
    },
}


SLOW_CHANGES = ("AdamW, average, frozen parts", "SGD, no average, accumulation", "Muon")


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        pytest.param(changes, times, id=name, marks=pytest.mark.slow if name in SLOW_CHANGES else ())
        for (name, changes), times in zip(CHANGES.items(), (3, 2, 2, 4), strict=True)
    ],
)
def test_resuming_is_the_same_run(tmp_path, data, changes, times):
    """Ended after updates, at the ends of epochs and before validations, resumed each time."""
    whole = make_settings(tmp_path, data, **changes)
    train(whole)
    stopped = dataclasses.replace(whole, out=tmp_path / "stopped")
    assert train_in_pieces(stopped, times) >= 1
    assert_same_run(stopped.out, whole.out)


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_resuming_longer_runs(tmp_path, data, changes):
    whole = make_settings(tmp_path, data, **(changes | {"epochs": 4}))
    train(whole)
    for times in (2, 3, 4):
        stopped = dataclasses.replace(whole, out=tmp_path / f"stopped{times}")
        assert train_in_pieces(stopped, times) >= 2
        assert_same_run(stopped.out, whole.out)


@pytest.mark.slow
def test_resuming_binary_weights(tmp_path, data):
    """``last.pt`` keeps the values that learn; ``best.pt`` only their signs."""
    settings = make_settings(tmp_path, data)
    model = write_model(tmp_path, TINY + "conv: bdsc\n")
    whole = dataclasses.replace(settings, model=model)
    train(whole)
    stopped = dataclasses.replace(whole, out=tmp_path / "stopped")
    assert train_in_pieces(stopped, times=3) >= 2
    assert_same_run(stopped.out, whole.out)
    states = [torch.load(whole.out / name, weights_only=True)["state_dict"] for name in ("best.pt", "last.pt")]
    assert [any(key.endswith(".bits") for key in state) for state in states] == [True, False]


@pytest.mark.slow
def test_a_killed_process_resumes(tmp_path, data):
    """SIGKILL leaves no time to tidy up: whatever it was doing, the run goes on to the same end."""
    recipe = make_recipe(epochs=8)
    whole = make_settings(tmp_path, data, epochs=8)
    train(whole)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(to_plain(recipe)))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(to_plain(data)))
    out = tmp_path / "killed"
    words = {"--model": whole.model, "--data": tmp_path / "data.yaml", "--recipe": tmp_path / "recipe.yaml"}
    command = [sys.executable, str(TOOL), "--out", str(out), "--device", "cpu"]
    command += [str(word) for pair in words.items() for word in pair]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while not (out / "last.pt").exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert 1 <= load_checkpoint(out / "last.pt").training["epoch"] < 8
    train(resumed(dataclasses.replace(whole, out=out)))
    assert_same_run(out, whole.out)


@pytest.mark.parametrize("damage", thin(["truncated", "flipped", "missing"], 1))
def test_a_damaged_checkpoint(tmp_path, runs, caplog, damage):
    """The one before it is taken, which is said, and the run comes to the same end."""
    stopped = copied(runs["stopped"], tmp_path)
    last, content = stopped.out / "last.pt", bytearray((stopped.out / "last.pt").read_bytes())
    last.unlink()  # not written over: previous.pt may be the same file under another name
    if damage == "truncated":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    train(resumed(stopped))
    assert re.search(r"copied/last\.pt: .*; the checkpoint before it is taken: .*/previous\.pt", caplog.text)
    assert_same_run(stopped.out, runs["whole"].out)


def test_no_checkpoint_is_whole(tmp_path, runs):
    settings = copied(runs["stopped"], tmp_path)
    for name in ("last.pt", "previous.pt"):
        (settings.out / name).write_bytes(b"PK damaged")
    with pytest.raises(InputError, match=r"previous\.pt: is not a checkpoint, or is damaged"):
        train(resumed(settings))


@pytest.mark.parametrize(("minutes", "expected"), [(1e-9, [0, 0, 1]), (0.0, [1])])
def test_checkpoints_within_an_epoch(tmp_path, data, monkeypatch, minutes, expected):
    """A run is kept so many minutes after it was last kept, here after each update; with 0 after each epoch only.

    The epoch has two updates. What counts is how many epochs are finished.
    """
    save, kept = checkpoints.save_checkpoint, []

    def noted(path, model, **facts):
        kept.extend([facts["training"]["epoch"]] if facts.get("training") else [])
        save(path, model, **facts)

    monkeypatch.setattr(checkpoints, "save_checkpoint", noted)
    train(make_settings(tmp_path, data, epochs=1, checkpoint_minutes=minutes))
    assert kept == expected


def test_leftovers_of_killed_runs_go_away(runs):
    assert not list(runs["short"].out.glob(".*unfinished*"))
    assert (runs["short"].out / "notes.txt").read_text() == "mine"


def test_resuming_a_finished_run(tmp_path, runs):
    """There is nothing to do, and nothing changes."""
    settings = copied(runs["short"], tmp_path)
    metrics = load_checkpoint(settings.out / "best.pt").metrics
    before = {name: (settings.out / name).read_bytes() for name in ("last.pt", "best.pt", "results.csv", "config.yaml")}
    assert train(resumed(settings)) == metrics
    assert {name: (settings.out / name).read_bytes() for name in before} == before


def test_resuming_from_what_is_no_run(tmp_path, runs):
    settings = copied(runs["short"], tmp_path)
    last, best = settings.out / "last.pt", settings.out / "best.pt"
    sgd = make_recipe(epochs=2, freeze=["backbone"])
    with pytest.raises(InputError, match="the checkpoint's training state does not fit this run: loaded state dict"):
        train(dataclasses.replace(resumed(settings), recipe=sgd))
    last.write_bytes(best.read_bytes())
    with pytest.raises(InputError, match=r"weights only; resuming needs last\.pt of an unfinished run"):
        train(resumed(settings))


def test_resuming_with_other_classes(tmp_path, data, runs):
    settings = copied(runs["short"], tmp_path)
    fewer = dataclasses.replace(data, names=("disc", "ring"))
    with pytest.raises(
        InputError, match=r"last\.pt: was trained on the classes cross, disc, .* the data has disc, ring"
    ):
        train(dataclasses.replace(resumed(settings), data=fewer))
    turned = dataclasses.replace(data, names=("ring", "disc", "cross", "star", "square", "triangle"))
    with pytest.raises(
        InputError, match=r"the data has ring, disc, cross, .* in another order; start a new run with --w"
    ):
        train(dataclasses.replace(resumed(settings), data=turned))


def test_resuming_with_other_data(tmp_path, data, runs, caplog):
    """The folder has moved: the same data. An image more: other data, which is said, and can be wanted."""
    settings = copied(runs["short"], tmp_path)
    shutil.copytree(data.root, tmp_path / "moved")
    again = dataclasses.replace(resumed(settings), data=shapes_at(tmp_path / "moved"))
    train(again)
    annotations = tmp_path / "moved/annotations/val.json"
    content = json.loads(annotations.read_text())
    content["images"].append({**content["images"][0], "id": 999})
    annotations.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"last\.pt: the data is not what .* with: val has 4 -> 5 images; --resume anyway"
    ):
        train(again)
    train(dataclasses.replace(again, accept_other_data=True))
    assert "val has 4 -> 5 images; it goes on, as was asked for" in caplog.text


# ------------------------------------------------------------------------------------- what a run keeps


def test_best_checkpoints_and_when_to_look(tmp_path, data):
    """Validation in every second epoch and the last; each watched metric has its own best checkpoint."""
    settings = make_settings(tmp_path, data, epochs=3, evaluation={"every": 2, "save_best": ["AP50", "AR_100"]})
    metrics = train(settings)
    rows = results(settings.out)
    assert [row["epoch"] for row in rows if row["val/AP"]] == ["2", "3"]
    assert sorted(path.name for path in settings.out.glob("*.pt")) == [
        "best.pt",
        "best_AR_100.pt",
        "last.pt",
        "previous.pt",
    ]
    assert metrics["AP50"] == pytest.approx(max(float(row["val/AP50"]) for row in rows if row["val/AP"]), rel=1e-4)
    best = load_checkpoint(settings.out / "best.pt")
    assert best.training is None
    assert best.provenance["epoch"] in (2, 3)
    assert best.provenance["train_images"] == 8
    assert (best.names[0], best.image_size) == ("cross", 64)
    assert yaml.safe_load((settings.out / "config.yaml").read_text()) == best.provenance["settings"]


def test_early_stopping(tmp_path, data):
    """At a rate of 0 no epoch is better than the first, so patience 1 ends after the second."""
    still = {"name": "sgd", "lr": 0.0, "warmup_epochs": 0, "weight_decay": 0.0}
    settings = make_settings(tmp_path, data, epochs=9, optimizer=still, ema={"decay": 0.0}, evaluation={"patience": 1})
    # Norm statistics still move; frozen sections keep theirs, and with them the metrics.
    settings = dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, freeze=("backbone", "neck")))
    train(settings)
    assert len(results(settings.out)) == 2
    assert load_checkpoint(settings.out / "best.pt").provenance["epoch"] == 1


def test_the_chosen_precision_is_kept(tmp_path, data, monkeypatch):
    """A measurement may come out differently tomorrow; the resumed run must not change its number format."""
    monkeypatch.setattr(
        "detect.training.state.choose_precision", lambda wanted, device: "bf16" if wanted == "auto" else wanted
    )
    settings = make_settings(tmp_path, data, precision="auto")
    task = loop.open_task(settings)
    model = task.prepare_model(settings.model, None)
    state = build_state(task, model, task.loader(model, tmp_path), settings.device)
    assert loop._resolved(settings, state)["recipe"]["precision"] == "bf16"


def test_a_loss_that_is_not_finite_leaves_no_checkpoint(tmp_path, data):
    settings = make_settings(tmp_path, data, loss={"box": 1e300})
    with pytest.raises(InputError, match="the loss is not finite at update 0: box inf, objectness 0"):
        train(settings)
    assert list(settings.out.glob("*.pt")) == []


def test_bad_settings_leave_nothing(tmp_path, data):
    settings = make_settings(tmp_path, data, loss={"balance": [1.0]})
    with pytest.raises(InputError, match=r"loss\.balance: must have a weight for each of .* 3 levels, found 1"):
        train(settings)
    assert not settings.out.exists()
