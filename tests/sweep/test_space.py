"""What a search draws: every mistake in its YAML is told, and the recipe's types are kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detect.config.sweep import load_sweep_config
from detect.config.yaml_files import CONFIGS, parse_overrides
from detect.errors import InputError
from detect.sweep.plan import Parameter, experiment, find_data, open_space, shown, training_arguments
from tests.sweep.small import SWEEP, make_plan_in


def read(folder: Path, text: str):
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return load_sweep_config(str(folder / "space.yaml"))


def with_space(space: str, more: str = "") -> str:
    return f"name: small\nmodel: yolov5n-spd\ndata: shapes\nmetric: AP\nspace: {space}\n{more}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        (with_space("{}"), "space: is empty; name at least one key of the recipe"),
        (with_space("{epochs: {low: 1, high: 2}}", "trails: 3"), "trails: unknown key; did you mean 'trials'"),
        (with_space("{epochs: {low: 1, hihg: 2}}"), "space.epochs.hihg: unknown key; did you mean 'high'"),
        (with_space("{epochs: {low: 1, high: 2}}", "trials: 0"), "trials: 0 is below 1"),
        (with_space("{epochs: {low: 1, high: 2}}", "seed: -1"), "seed: -1 is below 0"),
        ("name: x\nmetric: AP\nspace: {epochs: {low: 1, high: 2}}", "run: is missing; name an experiment, or a model"),
        ("run: demo\nspace: {epochs: {low: 1, high: 2}}", "name: is missing; metric: is missing"),
        (with_space("{epochs: 3}"), "space.epochs: must be a mapping, found 3"),
        (with_space("{epochs: {}}"), "space.epochs: must have low and high, or choices"),
        (with_space("{epochs: {low: 1}}"), "space.epochs: must have low and high, or choices"),
        (with_space("{optimizer.lr: {low: 0.1, high: 0.001}}"), "space.optimizer.lr: low 0.1 is above high 0.001"),
        (with_space("{optimizer.lr: {low: 0, high: 1, log: true}}"), "space.optimizer.lr: low 0 has no logarithm"),
        (with_space("{optimizer.lr: {low: .nan, high: 1}}"), "must be a finite number"),
        (with_space("{epochs: {low: 1, high: 2, choices: [1]}}"), "space.epochs: has choices and a range"),
        (with_space("{epochs: {log: true, choices: [1]}}"), "space.epochs: has choices and a range"),
        (with_space("{epochs: {choices: [1, 1]}}"), "space.epochs: choices: one is a duplicate"),
        (with_space("{epochs: {choices: [[1], [2]]}}"), "space.epochs: choices: must be words, numbers, true or false"),
        (with_space("{epochs: {low: 1, high: 2}}", "set: {epochs: 3}"), "space.epochs: is in set as well"),
    ],
)
def test_a_yaml_that_is_no_search(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (with_space("{optimizer.lrr: {low: 0.1, high: 0.2}}"), "optimizer.lrr: unknown key; did you mean 'lr'"),
        (with_space("{epohcs: {low: 1, high: 2}}"), "epohcs: unknown key; did you mean 'epochs'"),
        (with_space("{optimizer: {choices: [1]}}"), "optimizer: must be a mapping"),
        (with_space("{epochs.lr: {choices: [1]}}"), "epochs.lr: epochs is a value, not a section"),
        (with_space("{epochs: {low: 1.5, high: 3}}"), "epochs: must be a whole number, found 1.5"),
        (with_space("{epochs: {low: 0, high: 3}}"), "epochs: 0 is below 1"),
        (with_space("{optimizer.momentum: {low: 0.9, high: 1.5}}"), "optimizer.momentum: 1.5 is above 0.9999"),
        (with_space("{optimizer.name: {choices: [sgd, adam]}}"), "optimizer.name: 'adam' is not allowed"),
        (with_space("{optimizer.name: {low: 1, high: 2}}"), "optimizer.name: 1 is not allowed"),
        (with_space("{freeze: {choices: [stem]}}"), "freeze: must be a list"),
        (with_space("{epochs: {low: 1, high: 2}}", "set: {optimizer.rl: 3}"), "optimizer.rl: unknown key"),
        (with_space("{epochs: {low: 1, high: 2}}").replace("metric: AP", "metric: top1"), "'top1' is not allowed"),
        (with_space("{epochs: {low: 1, high: 2}}", "recipe: defualt"), "did you mean 'default'"),
        (with_space("{epochs: {low: 1, high: 2}}", "run: dmeo"), "did you mean 'demo'"),
        (with_space("{epochs: {low: 1, high: 2}}").replace("yolov5n-spd", "yolov5x"), "yolov5x"),
    ],
)
def test_a_recipe_that_does_not_take_it(tmp_path, text, message):
    config = read(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(message)):
        open_space(config)


def test_parameters_have_the_types_of_the_recipe(tmp_path):
    """``low: 0, high: 1`` is a range of real numbers where the key is one, ``low: 1.0`` a whole number where not."""
    text = with_space("{augment.mosaic: {low: 0, high: 1}, epochs: {low: 1.0, high: 3}, batch_size: {choices: [8, 4]}}")
    mosaic, epochs, batch = open_space(read(tmp_path, text))
    assert (mosaic, epochs) == (Parameter("augment.mosaic", 0.0, 1.0), Parameter("epochs", 1, 3))
    assert [type(end) for end in (mosaic.low, mosaic.high, epochs.low, epochs.high)] == [float, float, int, int]
    assert batch == Parameter("batch_size", choices=(8, 4))


def test_a_range_of_one_value(tmp_path):
    assert open_space(read(tmp_path, with_space("{epochs: {low: 2, high: 2}}"))) == (Parameter("epochs", 2, 2),)


def test_the_search_stands_on_top_of_the_experiment(tmp_path):
    text = (
        "name: x\nrun: demo\nmodel: yolov5s\nmetric: AP50\nspace: {epochs: {low: 1, high: 2}}\nset: {image_size: 96}\n"
    )
    run = experiment(read(tmp_path, text))
    assert (run.model, run.data, run.set["image_size"]) == ("yolov5s", "digits", 96)
    assert run.set.keys() > {"image_size"}


def test_words_for_training_say_the_same_again(tmp_path):
    """``--set`` reads what was written, whatever YAML would make of it unquoted."""
    text = with_space("{epochs: {low: 1, high: 2}}", "set: {freeze: [stem], optimizer.milestones: [0.5, 0.75]}")
    values = {"optimizer.lr": 1e-05, "optimizer.name": "sgd", "cache": "none", "x": True, "y": "true", "epochs": 2}
    words = training_arguments(read(tmp_path, text), values)
    assert words[:5] == ["--model", "yolov5n-spd", "--data", "shapes", "--set"]
    expected = {"freeze": ["stem"], "optimizer.milestones": [0.5, 0.75], **values}
    assert parse_overrides(words[5:]) == expected
    assert "optimizer.name=sgd" in words


def test_paths_do_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    for name in ("tiny.yaml", "data.yaml", "elsewhere/recipe.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = "name: x\nmodel: tiny.yaml:wide\ndata: data.yaml\nrecipe: recipe.yaml\nmetric: AP\n"
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = read(tmp_path, text + "space: {epochs: {low: 1, high: 2}}\n")
    assert config.model == str(tmp_path / "tiny.yaml:wide")
    assert config.data == str(tmp_path / "data.yaml")
    assert config.recipe == str(tmp_path / "elsewhere" / "recipe.yaml")


def test_data_that_is_not_there(tmp_path):
    plan = make_plan_in(tmp_path, SWEEP.replace("data: shapes", "data: bccd\ndata_root: nowhere"))
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; say with --data-root where the data set is"):
        find_data(plan.config)


def test_numbers_as_people_read_them():
    assert [shown(value) for value in (0.0179312, 0.002113, 64, "sgd", True)] == [
        "0.01793",
        "0.002113",
        "64",
        "sgd",
        "True",
    ]


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped(path):
    assert open_space(load_sweep_config(path.stem))
