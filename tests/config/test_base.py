"""Every mistake a YAML can hold is told in one line that names where, what and what instead."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from detect.config import yaml_files
from detect.config.augment import AlbumentationConfig
from detect.config.base import build, to_plain
from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.config.recipe import DetectionRecipe, load_classification_recipe, load_detection_recipe
from detect.config.run import RunConfig, load_run_config
from detect.config.yaml_files import find_config, load_yaml, parse_overrides
from detect.errors import InputError

DATA = "name: cells\nroot: pictures\nsplits:\n  train: {images: a, annotations: a.json}\n"


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    """A file with the text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def message(function: Any, *arguments: Any) -> str:
    """The message of the InputError that the call raises."""
    with pytest.raises(InputError) as caught:
        function(*arguments)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- load_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", {}),
        ("a: 1e-3", {"a": 0.001}),  # PyYAML alone reads the text "1e-3"
        ("a: -1E3", {"a": -1000.0}),
        ("a: 1.5e+2", {"a": 150.0}),
        ("a: .5e1", {"a": 5.0}),
        ("a: '1e-3'", {"a": "1e-3"}),  # quoted stays text
        ("a: 1e-3x", {"a": "1e-3x"}),
        ("a: null", {"a": None}),
        ("a: {b: [1, x]}", {"a": {"b": [1, "x"]}}),
        ("a: é", {"a": "é"}),
        ("a: 2020-13-45", {"a": "2020-13-45"}),  # no date, and none that could be wrong
        ("a: " + "9" * 101, {"a": "9" * 101}),  # longer than any number that is meant
        ("a: " + "1" * 900_000 + "e", {"a": "1" * 900_000 + "e"}),  # not in time proportional to the square of it
        ("a: " + "59:" * 300_000 + "59", {"a": "59:" * 300_000 + "59"}),  # in YAML 1.1 a number to the base 60
        ("a: " + "[" * 49 + "]" * 49, {"a": json.loads("[" * 49 + "]" * 49)}),
    ],
)
def test_load_yaml(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    assert load_yaml(write(tmp_path, text)) == expected


def test_a_file_that_is_read_twice(tmp_path: Path) -> None:
    """A text is parsed once; who changes what was read changes it for nobody else."""
    path = tmp_path / "a.yaml"
    path.write_text("a: [1]")
    load_yaml(path)["a"].append(2)
    assert load_yaml(path) == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"must be a mapping \(key: value\), found nothing"),
        ("- 1", r"must be a mapping \(key: value\), found a list"),
        ("word", r"must be a mapping \(key: value\), found text"),
        ("3", r"must be a mapping \(key: value\), found 3"),
        ("a: 1\nb: 2\na: 3", r"a\.yaml:3: is not valid YAML: duplicate key 'a'"),
        ("x:\n  a: 1\n  a: 1", r"a\.yaml:3: is not valid YAML: duplicate key 'a'"),
        ("x: [{a: 1, a: 2}]", r"a\.yaml:1: is not valid YAML: duplicate key 'a'"),
        ("1: x\n1: y", r"a\.yaml:2: is not valid YAML: duplicate key 1"),
        ("a: &b [1]\nc: *b", r"a\.yaml:2: is not valid YAML: aliases \(\*name\) are not allowed"),
        ("[1, 2]: x", r"a\.yaml:1: is not valid YAML: a key must be a scalar"),
        ("a: [1", r"a\.yaml:1: is not valid YAML: expected ',' or ']'"),
        ("a: b: c", r"a\.yaml:1: is not valid YAML: mapping values are not allowed here"),
        ("a:\n\t- 1", r"a\.yaml:2: is not valid YAML: found character '\\t'"),
        ("a: !!python/object/apply:os.getcwd []", r"a\.yaml:1: is not valid YAML: tags \(!name\) are not allowed"),
        ("a: \x07", r"is not valid YAML: unacceptable character"),
        ("a: 1\n---\nb: 2", r"a\.yaml:2: is not valid YAML: but found another document"),
        ('a: "\\uD800"', r"a\.yaml:1: is not valid YAML: a lone surrogate"),
        ("<<: {a: 1}\nb: 2", r"a\.yaml:1: is not valid YAML"),  # merge keys hide what a file says, as aliases do
        ("a: " + "[" * 50, r"a\.yaml:1: is not valid YAML: is nested in more than 50 levels"),
        ("[" * 3000, r"is not valid YAML"),
    ],
)
def test_load_yaml_refuses(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    found = message(load_yaml, path)
    assert re.search(said, found)
    assert found.startswith(str(path))
    assert "\n" not in found


def test_load_yaml_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_yaml(tmp_path / "none.yaml")


def test_load_yaml_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)


def test_load_yaml_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.yaml: is not UTF-8 text"):
        load_yaml(path)


def test_load_yaml_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "MAX_YAML_BYTES", 2**20)
    path = write(tmp_path, "a: " + "x" * 2**20)
    with pytest.raises(InputError, match=r"a\.yaml: larger than 1 MiB"):
        load_yaml(path)


# ----------------------------------------------------------------------------------------- find_config


def test_find_config_path(tmp_path: Path) -> None:
    path = write(tmp_path, "{}", "mine.yml")
    assert find_config("data", str(path)) == path
    with pytest.raises(InputError, match=r"gone\.yaml: no such file"):
        find_config("data", str(tmp_path / "gone.yaml"))


def test_find_config_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    path = write(tmp_path / "data", "{}", "bccd.yaml")
    monkeypatch.setattr(yaml_files, "CONFIGS", tmp_path)
    assert find_config("data", "bccd") == path
    with pytest.raises(
        InputError, match=r"neither a \.yaml file nor one of configs/data/, nor a folder; did you mean 'bccd'"
    ):
        find_config("data", "bcd")
    with pytest.raises(InputError, match=r"configs/data/, nor a folder; allowed: bccd"):
        find_config("data", "../data/imagenet")


# ----------------------------------------------------------------------------------------------- build


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 1}, "recipe: epoch: unknown key; did you mean 'epochs'?"),
        ({"optimizer": {"learning": 1}}, "recipe: optimizer.learning: unknown key; allowed: "),
        ({"optimizer": {"momentun": 1}}, "recipe: optimizer.momentun: unknown key; did you mean 'momentum'?"),
        ({1: 1}, "recipe: 1: unknown key; allowed: "),
        ({"epochs": "3"}, "recipe: epochs: must be a whole number, found '3'"),
        ({"epochs": 3.0}, "recipe: epochs: must be a whole number, found 3.0"),
        ({"epochs": True}, "recipe: epochs: must be a whole number, found True"),
        ({"epochs": None}, "recipe: epochs: must be a whole number, found None"),
        ({"multi_scale": False}, "recipe: multi_scale: must be a finite number, found False"),
        ({"multi_scale": float("nan")}, "recipe: multi_scale: must be a finite number, found nan"),
        (
            {"multi_scale_px": [608, 320]},
            "recipe: multi_scale_px: must be the smallest and the largest, found [608, 320]",
        ),
        ({"multi_scale_px": [64]}, "recipe: multi_scale_px: must be the smallest and the largest, found [64]"),
        (
            {"multi_scale_px": [64, 96], "multi_scale": 0.5},
            "recipe: multi_scale_px: takes the place of multi_scale; give one of them",
        ),
        ({"optimizer": {"lr": float("inf")}}, "recipe: optimizer.lr: must be a finite number, found inf"),
        ({"optimizer": {"lr": "None"}}, "optimizer.lr: must be a finite number, found 'None' (write null for nothing)"),
        ({"optimizer": {"lr": 10**400}}, "recipe: optimizer.lr: must be a finite number, found 1000"),
        ({"seed": 2**64}, "recipe: seed: 18446744073709551616 is above "),  # PyTorch takes seeds of 64 bits
        ({"epochs": 0}, "recipe: epochs: 0 is below 1"),
        ({"optimizer": {"lr": 11}}, "recipe: optimizer.lr: 11 is above 10"),
        ({"optimizer": {"lr": -1e-9}}, "recipe: optimizer.lr: -1e-09 is below 0"),
        ({"cache": "disc"}, "recipe: cache: 'disc' is not allowed; did you mean 'disk'?"),
        ({"cache": False}, "recipe: cache: False is not allowed; allowed: none, ram, disk"),
        ({"cache": None}, "recipe: cache: None is not allowed; allowed: none, ram, disk"),
        ({"cache": ["ram"]}, "recipe: cache: ['ram'] is not allowed; allowed: none, ram, disk"),
        ({"freeze": "stem"}, "recipe: freeze: must be a list, found text"),
        ({"freeze": ["stem", 3]}, "recipe: freeze[1]: must be text, found 3"),
        ({"optimizer": 3}, "recipe: optimizer: must be a mapping, found 3"),
        ({"optimizer": None}, "recipe: optimizer: must be a mapping, found nothing"),
        ({"optimizer": {"milestones": [0.8, 1.5]}}, "recipe: optimizer.milestones[1]: 1.5 is above 1"),
        ({"loss": {"balance": [-1]}}, "recipe: loss.balance[0]: -1 is below 0"),
        ({"augment": {"albumentations": [{"p": 2}]}}, "augment.albumentations[0].p: 2 is above 1"),
        ({"augment": {"albumentations": [{"p": 1}]}}, "recipe: augment.albumentations[0].name: is missing"),
        (
            {"evaluation": {"save_best": ["AP", "mAP"]}},
            "evaluation.save_best[1]: 'mAP' is not allowed; did you mean 'AP'?",
        ),
    ],
)
def test_build_refuses(content: dict[Any, Any], said: str) -> None:
    assert said in message(build, DetectionRecipe, content, "recipe")


def test_build_tells_all_errors_in_one_line() -> None:
    content = {"epochs": 0, "seeed": 1, "optimizer": {"lr": "fast"}}
    assert message(build, DetectionRecipe, content, "a.yaml") == (
        "a.yaml: epochs: 0 is below 1; seeed: unknown key; did you mean 'seed'?; "
        "optimizer.lr: must be a finite number, found 'fast'"
    )


def test_build_missing_keys() -> None:
    content = {"root": ".", "splits": {"train": {"annotations": "a"}}}
    assert message(build, DataConfig, content, "d") == "d: splits.train.images: is missing; name: is missing"


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (["train"], "d: splits: must be a mapping, found a list"),
        ({"train": "a"}, "d: splits.train: must be a mapping, found text"),
        ({"train": {"images": "a", "annotations": 3}}, "d: splits.train.annotations: must be text, found 3"),
    ],
)
def test_build_refuses_splits(splits: Any, said: str) -> None:
    assert message(build, DataConfig, {"name": "n", "root": ".", "splits": splits}, "d") == said


def test_build_defaults_and_types() -> None:
    config = build(DetectionRecipe, {"optimizer": {"lr": 1}, "freeze": ["stem"], "multi_scale": 0}, "recipe")
    assert config.optimizer.lr == 1.0
    assert isinstance(config.optimizer.lr, float)  # a whole number in the YAML is a number all the same
    assert config.freeze == ("stem",)
    assert config.optimizer.momentum == DetectionRecipe().optimizer.momentum
    assert build(DetectionRecipe, {}, "recipe") == DetectionRecipe()


def test_build_nested_list_of_mappings() -> None:
    content = {"augment": {"albumentations": [{"name": "Blur", "p": 0.1, "args": {"blur_limit": [3, 7]}}]}}
    assert build(DetectionRecipe, content, "recipe").augment.albumentations == (
        AlbumentationConfig("Blur", 0.1, {"blur_limit": [3, 7]}),
    )


def test_build_optional() -> None:
    content: dict[str, Any] = {
        "name": "n",
        "root": ".",
        "splits": {"a": {"images": "i", "annotations": "j", "list": None}},
    }
    config = build(DataConfig, content | {"names": None}, "d")
    assert config.names is None
    assert config.splits["a"] == SplitConfig("i", "j", None)
    assert build(DataConfig, content | {"names": ["x"]}, "d").names == ("x",)


# -------------------------------------------------------------------------------------- load_*_config


def test_load_data_config_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``root`` is relative to the file, ``data_root`` to the current folder."""
    path = write(tmp_path, DATA)
    monkeypatch.chdir("/")
    assert load_data_config(str(path)).root == str((tmp_path / "pictures").resolve())
    assert load_data_config(str(path), "elsewhere").root == "/elsewhere"
    assert load_data_config(str(path), "~").root == str(Path.home().resolve())


def test_load_data_config_without_splits(tmp_path: Path) -> None:
    path = write(tmp_path, "name: n\nroot: .\nsplits: {}\n")
    with pytest.raises(InputError, match=r"a\.yaml: splits: is empty; name at least train and val"):
        load_data_config(str(path))


def test_a_recipe_for_the_other_task() -> None:
    """One line, not one for each key that the other kind does not have."""
    with pytest.raises(InputError, match=r"default\.yaml: is a recipe for detectors, but the model is a classifier$"):
        load_classification_recipe("default", {"epochs": 3})
    with pytest.raises(InputError, match=r"classify\.yaml: is a recipe for classifiers, but the model is a detector$"):
        load_detection_recipe("classify", {})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"augment.crop": "resize"}, "augment.resize_px: must be the smallest and the largest, found []"),
        (
            {"augment.crop": "resize", "augment.resize_px": [40, 32]},
            "augment.resize_px: must be the smallest and the largest, found [40, 32]",
        ),
        (
            {"augment.crop": "resize", "augment.resize_px": [24, 40]},
            "augment.resize_px: must not be below image_size 32, found 24",
        ),
        ({"augment.crop": "area", "augment.area": [0.5]}, "augment.area: must be the smallest and the largest"),
        ({"augment.mixup": 0.6, "augment.cutmix": 0.6}, "mixup and cutmix exclude each other"),
        ({"cache": "disk"}, "cache: disk is for detection; allowed here: none, ram"),
        ({"augment.crop": "pads"}, "augment.crop: 'pads' is not allowed; did you mean 'pad'?"),
        ({"evaluation.save_best": ["AP"]}, "evaluation.save_best[0]: 'AP' is not allowed; allowed: top1, top5"),
        ({"evaluation.save_best": []}, "evaluation.save_best: is empty; name at least one metric, such as top1"),
    ],
)
def test_load_classification_recipe_refuses(overrides: dict[str, Any], said: str) -> None:
    assert said in message(load_classification_recipe, "classify", overrides)


def test_load_detection_recipe_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "epochs: 3\noptimizer: {lr: 0.1}\n")
    config = load_detection_recipe(str(path), {"optimizer.lr": 0.2, "loss.box": 1, "seed": 4})
    assert (config.epochs, config.optimizer.lr, config.loss.box, config.seed) == (3, 0.2, 1.0, 4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"optimizer.lrr": 1}, "optimizer.lrr: unknown key; did you mean 'lr'?"),
        ({"epochs.lr": 1}, "epochs.lr: epochs is a value, not a section"),
        ({"image_size": 100}, "image_size: 100 is not a multiple of 32; the nearest are 96 and 128"),
        ({"epochs": "many"}, "(with overrides): epochs: must be a whole number, found 'many'"),
    ],
)
def test_load_detection_recipe_refuses(tmp_path: Path, overrides: dict[str, Any], said: str) -> None:
    path = write(tmp_path, "epochs: 3\noptimizer: {lr: 0.1}\n")
    assert said in message(load_detection_recipe, str(path), overrides)


def test_load_run_config_looks_beside_the_file_first(tmp_path: Path) -> None:
    write(tmp_path, "", "mine.yaml")
    path = write(tmp_path, "model: mine.yaml\ndata: bccd\nrecipe: other.yaml\nset: {optimizer.lr: 1e-2}\n", "run.yaml")
    assert load_run_config(str(path)) == RunConfig(
        model=str(tmp_path / "mine.yaml"),  # stands beside the run
        data="bccd",  # a shipped name stays one
        recipe="other.yaml",  # not there: left for the reader, who says so
        set={"optimizer.lr": 0.01},
    )


# ------------------------------------------------------------------------------------- parse_overrides


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("optimizer.lr=1e-3", {"optimizer.lr": 0.001}),
        ("seed=3", {"seed": 3}),
        ("freeze=[stem, backbone]", {"freeze": ["stem", "backbone"]}),
        ("augment.hsv_hue=0", {"augment.hsv_hue": 0}),
        ("cache=none", {"cache": "none"}),
        ("x=a=b", {"x": "a=b"}),  # only the first = divides
        ("x=", {"x": None}),
        ("x=true", {"x": True}),
    ],
)
def test_parse_overrides(pair: str, expected: dict[str, Any]) -> None:
    assert parse_overrides([pair]) == expected


def test_parse_overrides_of_nothing() -> None:
    assert parse_overrides([]) == {}


def test_parse_overrides_of_one_key_twice() -> None:
    with pytest.raises(InputError, match=r"--set a\.b=2: a\.b is given twice"):
        parse_overrides(["a.b=1", "a.b=2"])


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("lr", r"--set lr: must be key=value, as in --set optimizer\.lr=0\.02"),
        ("=3", r"--set =3: must be key=value"),
        ("", r"must be key=value"),
        ("a=[1", r"--set a=\[1: the value is not valid YAML"),
        ("a={b: 1, b: 2}", r"the value is not valid YAML"),
        ("a=!!int x", r"the value is not valid YAML"),
        ("a=" + "[" * 3000, r"the value is not valid YAML"),
    ],
)
def test_parse_overrides_refuses(pair: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_overrides([pair])


# -------------------------------------------------------------------------------------------- to_plain


def test_to_plain_is_yaml() -> None:
    """Through a file and back, by nothing but plain types."""
    config = DetectionRecipe(freeze=("stem",))
    plain = to_plain(config)
    assert plain["freeze"] == ["stem"]
    assert plain["optimizer"]["lr"] == config.optimizer.lr
    assert build(DetectionRecipe, yaml.safe_load(yaml.safe_dump(plain)), "recipe") == config


@pytest.mark.parametrize("model", ["own.yaml", "own.yaml:large"])
def test_files_of_a_run_are_looked_up_beside_it(tmp_path: Path, model: str) -> None:
    (tmp_path / "own.yaml").touch()
    (tmp_path / "run.yaml").write_text(f"model: {model}\ndata: bccd\nrecipe: elsewhere.yaml\n")
    run = load_run_config(str(tmp_path / "run.yaml"))
    assert (run.model, run.data, run.recipe) == (str(tmp_path / model), "bccd", "elsewhere.yaml")


def test_best_checkpoints_need_a_metric() -> None:
    with pytest.raises(InputError, match=r"evaluation.save_best: is empty"):
        load_detection_recipe("default", {"evaluation.save_best": []})
