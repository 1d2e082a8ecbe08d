"""Command-line words to settings."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path

import pytest
import yaml

from detect.cli.train import request_from_args
from detect.config.base import to_plain
from detect.config.recipe import (
    ClassificationRecipe,
    DetectionRecipe,
    load_classification_recipe,
    load_detection_recipe,
)
from detect.config.yaml_files import CONFIGS
from detect.errors import InputError
from detect.models import catalog
from detect.models.build import build_classifier, build_model
from detect.models.checkpoint import save_checkpoint
from detect.training.recorder import write_settings
from detect.training.settings import open_run

NOT_GIVEN = dict.fromkeys(
    (
        *(
            "run",
            "model",
            "data",
            "recipe",
            "weights",
            "minutes",
            "epochs",
            "batch_size",
            "image_size",
            "workers",
            "threads",
            "seed",
        ),
        *("data_root", "out"),
    )
)


def settings(**given):
    """The settings of a command line; what is not given is as ``tools/train.py`` leaves it."""
    return open_run(
        request_from_args(
            argparse.Namespace(
                **{**NOT_GIVEN, "device": "cpu", "resume": False, "strict": False, "logger": None, "set": [], **given},
            )
        )
    )


def save(path, model):
    """A checkpoint of two classes."""
    facts = {"names": ("a", "b"), "category_ids": (0, 1), "image_size": 32, "metrics": {}, "provenance": {}}
    save_checkpoint(Path(path), model, **facts)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A current folder with a data config and an experiment of its own."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        "name: mine\nroot: data\nsplits:\n  train: {images: a, annotations: b}\n  val: {images: a, annotations: b}\n"
    )
    Path("exp").mkdir()
    Path("exp/own.yaml").write_text("image_size: 96\nepochs: 7\n")
    Path("exp/e.yaml").write_text(
        "model: yolov5n\ndata: bccd\nrecipe: own.yaml\nset: {epochs: 5, optimizer.lr: 0.5, augment.mosaic: 0.25}\n"
    )


def test_names(tmp_path):
    found = settings(model="yolov5s", data="mine.yaml", recipe="spd-paper", out="o")
    assert (found.model, found.out, found.weights, found.resume, found.strict) == (
        "yolov5s",
        Path("o"),
        None,
        False,
        False,
    )
    assert found.data.root == str(tmp_path / "data")
    assert found.recipe.batch_size == 128
    assert found.device.type == "cpu"


def test_what_wins():
    """A flag and --set win over the experiment, which wins over the recipe."""
    found = settings(run="exp/e.yaml", set=["optimizer.lr=0.25", "seed=9"], epochs=3).recipe
    assert (found.image_size, found.augment.mosaic, found.optimizer.lr, found.epochs, found.seed) == (
        96,
        0.25,
        0.25,
        3,
        9,
    )
    assert settings(run="exp/e.yaml").recipe.epochs == 5


def test_every_flag_of_the_recipe():
    flags = {"epochs": 2, "batch_size": 3, "image_size": 64, "workers": 0, "seed": 0}
    found = to_plain(settings(model="yolov5n", data="mine.yaml", **flags).recipe)
    assert {key: found[key] for key in flags} == flags


def test_words_beside_an_experiment(tmp_path):
    found = settings(run="exp/e.yaml", model="yolov5s", data="mine.yaml", recipe="default", data_root="there")
    assert (found.model, found.data.name, found.recipe.image_size) == ("yolov5s", "mine", 640)
    assert found.data.root == str(tmp_path / "there")


def test_the_model_of_a_checkpoint():
    save("best.pt", build_model("yolov5n+width=0.1", 2))
    found = settings(weights="best.pt", data="mine.yaml")
    assert (found.model, found.weights) == (None, Path("best.pt"))
    assert isinstance(found.recipe, DetectionRecipe)


def test_the_head_decides_the_task():
    """The kind of recipe, and which one is the default."""
    found = settings(model="resnet18+width=0.1", data="mine.yaml").recipe
    assert isinstance(found, ClassificationRecipe)
    assert found == load_classification_recipe("classify", {})
    save("classes.pt", build_classifier("resnet18+width=0.1", 2))
    assert settings(weights="classes.pt", data="mine.yaml", epochs=3).recipe == dataclasses.replace(found, epochs=3)
    with pytest.raises(InputError, match=r"augment\.mosaic: unknown key"):
        settings(model="resnet18", data="mine.yaml", set=["augment.mosaic=1"])
    with pytest.raises(InputError, match=r"label_smoothing: unknown key"):
        settings(model="yolov5n", data="mine.yaml", set=["label_smoothing=0.1"])


def test_where_a_run_goes_by_itself():
    assert settings(run="exp/e.yaml").out == Path("runs/e")
    assert settings(model="yolov5n", data="mine.yaml").out == Path("runs/yolov5n-mine")
    assert settings(model="peleenet+efm+width=0.5", data="mine.yaml").out == Path("runs/peleenet+efm+width=0.5-mine")
    folder = CONFIGS / "models"
    assert settings(model=f"{folder}/yolov5.yaml:yolov5s+spd", data="mine.yaml").out == Path("runs/yolov5s+spd-mine")
    assert settings(run="exp/e.yaml", model=f"{folder}/yolov4.yaml").out == Path("runs/e-yolov4")
    save("a/best.pt", build_model("yolov5n+width=0.1", 2))
    assert settings(weights="a/best.pt", data="mine.yaml").out == Path("runs/best-mine")
    Path("runs/e-2").write_text("a file of the user's")
    assert settings(run="exp/e.yaml").out == Path("runs/e-3")
    with pytest.raises(InputError):
        settings(run="exp/e.yaml", device="none")
    assert not Path("runs/e-4").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "--data is missing: name a data set or its YAML (or an experiment with --run)"),
        ({"model": "yolov5n"}, "--data is missing"),
        ({"run": "exp/f.yaml"}, "exp/f.yaml: no such file"),
        ({"run": "bccd-yolov5n-spdd"}, "'bccd-yolov5n-spdd' is neither a .yaml file nor one of configs/runs/; did you"),
        ({"model": "yolov5n", "data": "bcd"}, "configs/data/, nor a folder; did you mean 'bccd'?"),
        ({"model": "yolov5n", "data": "mine.yaml", "recipe": "defualt"}, "configs/train/; did you mean 'default'?"),
        ({"run": "exp/e.yaml", "set": ["optimizer.lrr=1"]}, "optimizer.lrr: unknown key; did you mean 'lr'?"),
        ({"run": "exp/e.yaml", "set": ["epochs"]}, "--set epochs: must be key=value"),
        ({"run": "exp/e.yaml", "set": ["=3"]}, "--set =3: must be key=value"),
        ({"run": "exp/e.yaml", "set": ["epochs.x=3"]}, "epochs.x: epochs is a value, not a section"),
        ({"run": "exp/e.yaml", "set": ["epochs=[1"]}, "--set epochs=[1: the value is not valid YAML"),
        ({"run": "exp/e.yaml", "set": ["epochs=1.5"]}, "epochs: must be a whole number, found 1.5"),
        ({"run": "exp/e.yaml", "set": ["image_size=100"]}, "100 is not a multiple of 32; the nearest are 96 and 128"),
        ({"run": "exp/e.yaml", "image_size": 100}, "100 is not a multiple of 32"),
        ({"run": "exp/e.yaml", "device": "gpu"}, "--device gpu: is not a device"),
        ({"run": "exp/e.yaml", "resume": True}, "--resume needs --out"),
        ({"out": "exp", "resume": True}, "--resume: exp holds no last.pt"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(InputError) as caught:
        settings(**given)
    assert message in str(caught.value)


def test_a_folder_that_holds_a_run():
    Path("o").mkdir()
    assert settings(run="exp/e.yaml", out="o").out == Path("o")
    Path("o/last.pt").touch()
    with pytest.raises(InputError, match=r"--out o: holds a run already; --resume continues it"):
        settings(run="exp/e.yaml", out="o")


# ---------------------------------------------------------------------------------------------- resuming


@pytest.fixture
def begun():
    """A folder with a run that has begun."""
    given = settings(model="yolov5n", data="mine.yaml", set=["anchors.fit=never"], epochs=5, out="o", strict=True)
    plain = {"model": "yolov5n", "weights": "w.pt", "data": to_plain(given.data), "recipe": to_plain(given.recipe)}
    write_settings(given.out, {**plain, "strict": True})
    Path("o/last.pt").touch()
    return given


def test_resuming_takes_the_settings_of_the_run(begun):
    found = settings(out="o", resume=True)
    assert (found.model, found.data, found.recipe, found.out) == (begun.model, begun.data, begun.recipe, begun.out)
    assert (found.resume, found.strict, found.weights) == (True, True, Path("w.pt"))


def test_resuming_where_the_data_has_moved(begun, tmp_path):
    assert settings(out="o", resume=True, data_root="moved").data.root == str(tmp_path / "moved")
    assert not settings(out="o", resume=True).accept_other_data
    assert settings(out="o", resume="anyway").accept_other_data


def test_resuming_with_the_same_words(begun, caplog):
    """The command of the run with --resume behind it: what is the same may be said again, what is not read is told."""
    caplog.set_level(logging.WARNING, logger="detect")
    assert settings(out="o", resume=True, epochs=5, workers=2).recipe == begun.recipe
    assert caplog.messages == []
    settings(out="o", resume=True, model="yolov5n", data="mine.yaml", weights="w.pt")
    assert caplog.messages == [
        f"--resume goes on with the settings in {Path('o/config.yaml')}; ignored: --model, --data, --weights"
    ]


def test_resuming_with_other_resources(begun):
    """They decide nothing that is learnt; a run whose worker processes ran out of memory must be able to go on."""
    found = settings(out="o", resume=True, workers=0, threads=1).recipe
    assert found == dataclasses.replace(begun.recipe, workers=0, threads=1)
    with pytest.raises(InputError, match="--resume: workers: -1 is below 0"):
        settings(out="o", resume=True, workers=-1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 6}, "--epochs"),
        ({"batch_size": 1, "seed": 3}, "--batch-size, --seed"),
        ({"set": ["epochs=5"]}, "--set"),
    ],
)
def test_resuming_changes_nothing(begun, given, words):
    with pytest.raises(InputError, match=rf"so it cannot change {words}; start a new run with --weights"):
        settings(out="o", resume=True, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"epoch": 3}}, "recipe: epoch: unknown key; did you mean 'epochs'?"),
        ({"data": {"name": "x"}}, "data: root: is missing"),
        (None, "cannot be read: No such file"),
    ],
)
def test_settings_that_were_edited(begun, change, message):
    path = Path("o/config.yaml")
    if change is None:
        path.unlink()
    else:
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(InputError) as caught:
        settings(out="o", resume=True)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_torchrun_starts_it_again(begun, monkeypatch, caplog):
    """The same words then mean: go on with what there is."""
    words = {"model": "yolov5n-spd", "data": "mine.yaml", "out": str(begun.out), "set": ["seed=3"]}
    with pytest.raises(InputError, match="holds a run already"):
        settings(**words)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    caplog.set_level(logging.INFO)
    again = settings(**words)
    assert (again.recipe, again.data, again.out, again.resume) == (begun.recipe, begun.data, begun.out, True)
    assert caplog.messages[-1] == f"started again by torchrun (1): the run in {begun.out} goes on"


def test_torchrun_starts_it_again_without_a_folder(monkeypatch):
    """It is the last one that was made; one that has kept nothing yet starts anew."""
    words = {"model": "yolov5n-spd", "data": "mine.yaml"}
    assert settings(**words).out == Path("runs/yolov5n-spd-mine")
    assert settings(**words).out == Path("runs/yolov5n-spd-mine-2")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = settings(**words)
    assert (again.out, again.resume) == (Path("runs/yolov5n-spd-mine-2"), False)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of shipped weights with a start for yolov5n."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "start-yolov5n.pt").touch()
    monkeypatch.setattr(catalog, "WEIGHTS", folder)


def test_a_model_begins_from_its_shipped_start(shipped, caplog):
    caplog.set_level(logging.INFO)
    assert settings(model="yolov5n", data="mine.yaml").weights == Path("start-yolov5n")
    assert "starting from start-yolov5n, trained on generated scenes (--weights none starts" in caplog.text
    assert settings(model="yolov5s", data="mine.yaml").weights is None


def test_from_scratch(shipped):
    assert settings(model="yolov5n", data="mine.yaml", weights="none").weights is None


def test_the_data_set_alone(caplog):
    """``detect train --data mine``: the nano detector from its start, with the recipe for starts."""
    caplog.set_level(logging.INFO)
    found = settings(data="mine.yaml")
    assert (found.model, found.weights) == ("detect-n", Path("start-detect-n"))
    assert found.recipe == load_detection_recipe("fine-tune", {})
    assert "model detect-n, because none is named" in caplog.text
    assert "recipe fine-tune, because none is named" in caplog.text


def test_the_recipe_follows_from_the_weights():
    save("a/best.pt", build_model("yolov5n+width=0.1", 2))
    assert settings(weights="a/best.pt", data="mine.yaml").recipe == load_detection_recipe("fine-tune", {})
    assert settings(data="mine.yaml", weights="none").recipe == load_detection_recipe("default", {})
    assert settings(model="yolov5s", data="mine.yaml").recipe == load_detection_recipe("default", {})  # has no start
    named = settings(data="mine.yaml", recipe="slider", set=["epochs=3"]).recipe
    assert named == load_detection_recipe("slider", {"epochs": 3})


def test_an_experiment_names_its_weights(shipped, tmp_path):
    experiment = tmp_path / "experiment.yaml"
    for weights, expected in (("none", None), ("other", Path("other")), ("beside.pt", tmp_path / "beside.pt")):
        experiment.write_text(f"model: yolov5n\ndata: mine.yaml\nweights: {weights}\n")
        (tmp_path / "beside.pt").touch()
        assert settings(run=str(experiment)).weights == expected
    assert settings(run=str(experiment), weights="none").weights is None
