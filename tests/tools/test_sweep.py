"""tools/sweep.py as a user runs it: trials are real trainings where there is time."""

from __future__ import annotations

import csv
import re
import shlex

import cv2
import pytest
import yaml

from tests.tools.running import make_world, run_here, run_process

SPACE = """\
name: tiny search
model: tiny.yaml
data: data.yaml
recipe: recipe.yaml
metric: AP
trials: 3
seed: 5
space:
  optimizer.lr: {low: 0.001, high: 0.1, log: true}
  batch_size: {choices: [2, 4]}
  epochs: {low: 1, high: 2}
set: {threads: 1, anchors.fit: never}
"""
SWEEP = ("sweep.py", "--space", "space.yaml", "--devices", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Model, data, recipe and a space."""
    folder = make_world(tmp_path_factory.mktemp("sweep"))
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def ended(world):
    """How a sweep of three trials on two devices has ended; it is in ``out``."""
    return run_here(world, *SWEEP, "cpu", "--out", "out")


def rows(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep(world, ended):
    assert ended.code == 0, ended.error
    found = rows(world / "out")
    assert [row["state"] for row in found] == ["complete"] * 3
    for row in found:
        folder = world / "out" / "trials" / f"{int(row['number']):04d}"
        recipe = yaml.safe_load((folder / "config.yaml").read_text())["recipe"]
        assert recipe["optimizer"]["lr"] == float(row["optimizer.lr"])
        assert (recipe["batch_size"], recipe["epochs"]) == (int(row["batch_size"]), int(row["epochs"]))
        assert (recipe["threads"], recipe["anchors"]["fit"]) == (1, "never")
        with (folder / "results.csv").open(newline="") as file:
            assert float(row["AP"]) == max(float(epoch["val/AP"]) for epoch in csv.DictReader(file))
        assert "training tiny in fp32 on cpu" in (folder / "log.txt").read_text()


@pytest.mark.slow
def test_what_a_sweep_says_and_leaves(world, ended):
    lines = ended.output.splitlines()
    assert lines[0].split() == ["trial", "AP", "optimizer.lr", "batch_size", "epochs", "seconds"]
    assert re.fullmatch(r"best: trial [0-2], AP -?\d\.\d{4}; to train it again:", lines[6])
    assert lines[8].startswith("out: trials.csv, parallel_coordinates.png, hparams (")
    assert len(re.findall(r"trial \d: AP -?\d\.\d{4} in \d+ s on cpu with optimizer.lr 0.0", ended.error)) == 3
    assert "tiny search: 100%" in ended.error
    assert cv2.imread(str(world / "out/parallel_coordinates.png")) is not None
    assert len([path for path in (world / "out/hparams").iterdir() if path.is_dir()]) == 3
    python, *words = shlex.split(lines[7])
    assert (python, words[0]) == ("detect", "train")
    again = run_process(world, "train.py", *words[1:], "--out", "again", "--device", "cpu")
    assert again.code == 0, again.error


@pytest.mark.slow
def test_a_sweep_is_continued_or_left_alone(world, ended):
    before = rows(world / "out")
    assert run_here(world, *SWEEP, "--out", "out").complaint == (
        "error: --out out: holds a sweep already; --resume continues it, another --out starts anew"
    )
    # One more trial; neither the space nor the folder of the data need be said again.
    more = run_here(world, "sweep.py", "--out", "out", "--resume", "--trials", 4, "--devices", "cpu")
    assert more.code == 0, more.error
    assert rows(world / "out")[:3] == before
    assert len(rows(world / "out")) == 4
    (world / "other.yaml").write_text(SPACE.replace("high: 0.1", "high: 0.2"))
    ended = run_here(world, "sweep.py", "--space", "other.yaml", "--out", "out", "--resume", "--devices", "cpu")
    assert "--resume continues a sweep as it was started, but other.yaml says something else than" in ended.complaint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--devices", "cpu"), "--space is missing"),
        (("--resume", "--devices", "cpu"), "--space is missing"),
        (("--space", "space.yaml", "--devices", "gpu"), "--device gpu: is not a device"),
        (("--space", "space.yaml", "--trials", 0), "must be a whole number above 0"),
        (("--space", "resnet18"), "'resnet18' is neither a .yaml file nor one of configs/sweeps/"),
        (("--space", "none.yaml"), "none.yaml: no such file"),
        (("--space", "space.yaml", "--out", "new", "--resume"), "--resume: new holds no sweep"),
        (("--space", "space.yaml", "--out", "new", "--data-root", "away"), "away; say with --data-root where"),
        (("--space", "bad.yaml", "--out", "new"), "sweep tiny search: recipe.yaml (with overrides): epohcs"),
    ],
)
def test_what_is_wrong_is_told_before_the_first_trial(world, words, message):
    (world / "bad.yaml").write_text(SPACE.replace("epochs:", "epohcs:"))
    text = run_here(world, "sweep.py", *words).complaint
    assert message in text.replace(f"{world}/", "")
    assert not (world / "new").exists()
    assert not (world / "runs").exists()


@pytest.mark.slow
def test_a_sweep_that_never_succeeds(world):
    """The trial fails for what no key alone makes wrong; the sweep says so at its end."""
    text = SPACE.replace("trials: 3", "trials: 1").replace("anchors.fit: never", "augment.mixup: 1, augment.cutmix: 1")
    (world / "hopeless.yaml").write_text(text)
    ended = run_here(world, "sweep.py", "--space", "hopeless.yaml", "--out", "hopeless", "--devices", "cpu")
    assert ended.complaint == (
        "error: hopeless: no trial was trained to its end; hopeless/trials/0000/log.txt says why"
    )
    (row,) = rows(world / "hopeless")
    assert (row["state"], row["AP"]) == ("failed", "")
    assert "mixup" in row["problem"]
    assert row["problem"] in ended.output
