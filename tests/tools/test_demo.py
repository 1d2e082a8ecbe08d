"""tools/demo.py: its parts, and the whole of it where there is time."""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import onnx
import pytest

from detect.config.data import load_data_config
from detect.config.recipe import load_detection_recipe
from detect.config.run import load_run_config
from detect.inference.sources import IMAGE_SUFFIXES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo():
    """The names of tools/demo.py."""
    return runpy.run_path(str(ROOT / "tools" / "demo.py"))


class Parsed(BaseException):
    """The command line was understood."""


def test_the_tools_understand_their_commands(demo, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, *arguments):
        raise Parsed(parse(self, *arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr("detect.runtime.cli.run_tool", lambda command: command())
    for tool, *arguments in demo["commands"]("runs/demo"):
        monkeypatch.setattr(sys, "argv", [tool, *arguments])
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / tool), run_name="__main__")


def test_the_commands_fit_together(demo):
    """What one writes is what the next one reads."""
    train, evaluate, predict, export = demo["commands"]("runs/x")
    run = load_run_config(str(ROOT / train[train.index("--run") + 1]))
    assert run.data == evaluate[evaluate.index("--data") + 1] == "digits"
    assert {command[command.index("--weights") + 1] for command in (evaluate, predict, export)} == {"runs/x/best.pt"}
    data = load_data_config(run.data)
    assert ROOT / demo["TEST_IMAGES"] == Path(data.root) / data.splits["test"].images
    assert ".jpg" in IMAGE_SUFFIXES


def test_the_recipe_is_short():
    """The 480 pages of 160 px take about 20 seconds of a core in each epoch."""
    run = load_run_config("demo")
    recipe = load_detection_recipe(run.recipe or "default", run.set)
    assert (run.model, run.weights) == ("detect-n", "start-detect-n")
    assert recipe.image_size * recipe.image_size * recipe.epochs <= 160 * 160 * 5
    assert recipe.batch_size >= 8  # the optimizer takes as long for a batch of any size


def test_a_failing_command_ends_the_demo(demo, capfd, tmp_path):
    failing = tmp_path / "fail.py"
    failing.write_text("import sys; print('trying', *sys.argv[1:]); sys.exit(3)")
    with pytest.raises(SystemExit) as ended:
        demo["run"]([str(failing), "a b", "*.jpg"])
    assert ended.value.code == 3
    out, err = capfd.readouterr()
    assert out == f"\n$ python {failing} 'a b' '*.jpg'\ntrying a b *.jpg\n"
    assert err == f"error: the demo ends here, because {failing} ended with exit code 3\n"


def test_summary(demo, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"AP": 0.4, "AP50": 0.6, "AP_S": 0.3}))
    lines = demo["summary"](str(tmp_path), 2.25).splitlines()
    assert lines[0] == "2.2 minutes; on the test images: AP 0.400, AP50 0.600, AP_S 0.300"
    assert [line.split()[0] for line in lines[1:]] == [
        str(tmp_path / name)
        for name in ("index.html", "best.pt", "metrics.json", "test", "predictions", "model.onnx", "results.csv")
    ]


@pytest.mark.slow
def test_demo(demo):
    """The promise of ``make demo``; a second one replaces the first."""
    leftover = ROOT / "runs" / "demo" / "leftover"
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.touch()
    done = subprocess.run([sys.executable, "tools/demo.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("removing the earlier demo in runs/demo\n")
    assert "COCO metrics\n  AP " in done.stdout
    assert not leftover.exists()
    folder = ROOT / "runs" / "demo"
    assert json.loads((folder / "metrics.json").read_text())["AP50"] >= 0.9
    drawn = sorted((folder / "predictions").glob("*.jpg"))
    assert len(drawn) == 12
    assert cv2.imread(str(drawn[0])).shape == (160, 160, 3)
    onnx.checker.check_model(folder / "model.onnx")
    for line in done.stdout.splitlines()[-7:]:
        assert (ROOT / line.split()[0]).exists(), line
