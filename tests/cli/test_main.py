"""The command ``detect``: fast help, exit codes, results on standard output and all else on standard error."""

from __future__ import annotations

import configparser
import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import detect
from detect.cli.checks import EXTRAS
from detect.cli.data import FORMATS
from detect.cli.main import COMMANDS, run_command
from detect.cli.parser import ToolParser
from detect.curation.convert import FORMATS as WRITTEN
from detect.errors import InputError
from detect.exporting.options import DEFAULT_OPSET, Masks
from detect.inference.runtimes.formats import FORMATS as EXPORTED
from tests.test_repository import requirements
from tests.tools.running import make_world

ROOT = Path(__file__).parents[2]
SUBCOMMANDS = ("check", "stats", "convert", "split", "view")
HELP_S = 0.3
"""Seconds of processor time for a help."""
HEAVY = {"torch", "torchvision", "cv2", "numpy", "matplotlib", "yaml", "PIL"}


@pytest.fixture
def here(monkeypatch, capsys):
    """Run a command line in this process; gives standard output and standard error."""

    def run(*words: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["detect", *map(str, words)])
        run_command()
        return capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("cli"))


def process(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "detect", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


# -------------------------------------------------------------------------------------------------- help


def test_help_is_fast_and_lists_the_commands(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = process(tmp_path, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < HELP_S
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in COMMANDS if f"\n  {name} " not in done.stdout] == ["evaluate"]
    assert "exit codes, of every command:" in done.stdout


def test_no_help_imports_a_heavy_library(tmp_path):
    """In one process: what each ``detect COMMAND --help`` does."""
    lines = [*([name] for name in COMMANDS), *(["data", name] for name in SUBCOMMANDS)]
    code = (
        "import contextlib, io, sys\nfrom detect.cli.main import run_command\n"
        f"for words in {lines}:\n"
        "    sys.argv, told = ['detect', *words, '--help'], io.StringIO()\n"
        "    with contextlib.redirect_stdout(told):\n"
        "        try:\n            run_command()\n"
        "        except SystemExit as ended:\n            assert not ended.code\n"
        "    assert told.getvalue().startswith(f\"usage: detect {' '.join(words)}\"), told.getvalue()\n"
        "    assert 'exit codes, of every command:' in told.getvalue()\n"
        f"print(sorted({HEAVY} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_module_has_its_command():
    modules = {path.stem for path in Path(importlib.import_module("detect.cli").__path__[0]).glob("*.py")}
    assert modules - {"__init__", "main", "output", "parser"} == {command.module for command in COMMANDS.values()}


def test_choices_in_the_help_are_those_of_the_package():
    assert FORMATS == WRITTEN
    parser = ToolParser()
    importlib.import_module("detect.cli.export").add_arguments(parser)
    actions = {action.dest: action for action in parser._actions}
    assert actions["masks"].choices == Masks.__args__
    assert actions["opset"].default == DEFAULT_OPSET
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert actions["format"].choices == (*EXPORTED, "web")
    extras = set(config["options.extras_require"]) - {"dev", "docs"}  # those of the repository only
    own = {"detect-small"}  # an extra that has another one in it
    assert {name: set(EXTRAS[name]) for name in EXTRAS} == {name: requirements(name) - own for name in extras}


# -------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian",), "trian: is not a command; did you mean 'train'?; detect --help lists them"),
        (("--qwzx",), "--qwzx: is not a command; allowed: ablate, bench, checks, "),
        (("val",), "the following arguments are required: --weights, --data; --help lists what there is"),
        (("data",), "the following arguments are required: COMMAND"),
        (("version", "--json"), "unrecognized arguments: --json"),
    ],
)
def test_a_wrong_command_line(here, words, message):
    with pytest.raises(InputError) as raised:
        here(*words)
    assert message in str(raised.value)


def test_exit_code_of_bad_input(tmp_path):
    done = process(tmp_path, "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: trian: is not a command")


# ------------------------------------------------------------------------------------------------ results


def test_version(here):
    assert here("version") == (f"{detect.__version__}\n", "")
    assert here("--version") == (f"{detect.__version__}\n", "")


def test_checks(here, monkeypatch):
    monkeypatch.setattr("detect.runtime.device._convolution_seconds", lambda dtype: 1.0)
    output, _ = here("checks", "--json")
    facts = json.loads(output)
    assert facts["detect"] == detect.__version__
    assert facts.keys() > {"python", "torch", "torchvision", "numpy", "device", "precision", "cores", "memory"}
    assert set(facts) >= {f"extra {name}" for name in EXTRAS}
    lines = here("checks")[0].splitlines()
    assert [line.split("  ")[0] for line in lines] == list(facts)


def test_models(here):
    found = json.loads(here("models", "--json")[0])
    assert list(found) == ["models", "backbones", "necks", "heads"]
    assert found["models"]["yolov5n-spd"]
    text = here("models")[0]
    assert text == here("describe", "--list")[0]
    assert [name for group in found.values() for name in group if f"\n  {name} " not in text] == []


def test_config(here):
    text = here("config", "optimizer.lr")[0]
    assert "key       optimizer.lr\n" in text
    assert "default   " in text
    keys = json.loads(here("config", "--json")[0])
    assert {"optimizer.lr", "splits", "image_size"} <= {key["key"] for key in keys}
    assert len(here("config")[0].splitlines()) == len(keys)
    with pytest.raises(InputError, match="did you mean"):
        here("config", "optimizer.lrr")


def test_results_as_json(here, world, monkeypatch):
    """Training, measuring, predicting and exporting one after the other; standard output is JSON and nothing else."""
    monkeypatch.chdir(world)
    words = ("model=tiny.yaml", "data=data.yaml", "recipe=recipe.yaml", "device=cpu", "imgsz=64", "name=a", "epochs=1")
    trained = json.loads(here("train", *words, "anchors.fit=never", "--json")[0])
    assert trained["out"] == "runs/a"
    assert trained["metrics"].keys() >= {"AP", "AP50"}
    recipe = yaml.safe_load((world / "runs/a/config.yaml").read_text())["recipe"]
    assert (recipe["epochs"], recipe["anchors"]["fit"]) == (1, "never")
    best = ("weights=runs/a/best.pt", "device=cpu")
    output, error = here("val", *best, "data=data.yaml", "workers=0", "--json", "--metrics-json", "m.json")
    measured = json.loads(output)
    assert "COCO metrics" in error
    times = {"speed_ms"}
    written = json.loads((world / "m.json").read_text())
    assert {key: measured[key] for key in measured if key not in times} == {
        key: written[key] for key in written if key not in times
    }
    assert measured["AP"] == pytest.approx(trained["metrics"]["AP"])
    output, error = here("predict", *best, "source=shapes/images/val", "conf=0.001", "max_det=2", "--json")
    records = [json.loads(line) for line in output.splitlines()]
    assert len(records) == 4
    assert all(len(record["detections"]) <= 2 for record in records)
    assert records[0]["file_name"].startswith("shapes/images/val/")
    assert records[0]["detections"][0].keys() == {"category", "label", "score", "bbox", "xyxy"}
    assert "drawn images: runs/predict" in error


def test_data_as_json(here, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    with pytest.raises(SystemExit) as ended:
        here("data", "check", "data=data.yaml", "--quick", "workers=0", "--json")
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["verdict"].startswith("clean")
    output, _ = here("data", "stats", "data=data.yaml", "--json")
    assert json.loads(output)["advice"] is not None
