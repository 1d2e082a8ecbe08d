"""``detect ablate`` as a user runs it, with real trainings."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from tests.tools.running import Ended, data_yaml, make_world

COMPARISON = """\
name: tiny
base: {model: tiny.yaml, data: data.yaml, recipe: recipe.yaml, epochs: 1, threads: 1, anchors.fit: never}
cases:
  damaged: {data: damaged.yaml}
  whole: {}
seeds: [0]
metrics: [AP]
"""


def ablate(folder, *words):
    command = [sys.executable, "-m", "detect", "ablate", "tiny-ablation.yaml", "--device", "cpu", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_a_training_that_fails(tmp_path):
    """The others are trained; the end names it, with the exit code of the help. With all failed the code is 2."""
    world = make_world(tmp_path)
    (world / "damaged").mkdir()
    (world / "damaged.yaml").write_text(data_yaml("damaged"))
    (world / "tiny-ablation.yaml").write_text(COMPARISON)
    ended = ablate(world, "--out", "out")
    assert ended.code == 1, ended
    lines = ended.output.splitlines()
    assert lines[-3] == "1 of 2 trainings are not finished"
    assert lines[-1].startswith("out/damaged-seed0 failed: ")
    assert "no such file" in lines[-1]
    with (world / "out/runs.csv").open(newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["whole"]
    (world / "tiny-ablation.yaml").write_text(COMPARISON.replace("  whole: {}\n", ""))
    alone = ablate(world, "--out", "alone")
    assert alone.complaint == "error: alone: no training was finished; the logs in its folders say why"
