"""Training in two processes is training in one: the same samples, losses, statistics, weights and metrics."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detect.models.checkpoint import load_checkpoint
from detect.training.loop import train
from tests.training import process_runs
from tests.training import test_classification as classes
from tests.training.small import make_shapes

ROOT = Path(__file__).parents[2]
NAMES = [*process_runs.CHANGES, "classes"]


def torchrun(*words: object, cwd: Path | None = None, **options: object) -> subprocess.Popen[str]:
    """Start a script in two processes of this machine, each with one thread; ``options`` are torchrun's."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *map(str, words)],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folders of the runs in one process and in two."""
    folder = tmp_path_factory.mktemp("runs")
    make_shapes(folder / "shapes", sizes=(16, 5, 1))
    classes.make_classes(folder / "colours")
    with torchrun(process_runs.__file__, folder / "two", folder) as process:
        for settings in process_runs.runs(folder / "one", folder).values():
            train(settings)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return folder / "one", folder / "two"


def rows_of(run: Path) -> list[dict[str, float]]:
    with (run / "results.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_metrics(both, name):
    one, two = (rows_of(folder / name) for folder in both)
    assert len(one) == len(two) > 0
    for expected, found in zip(one, two, strict=True):
        assert found.keys() == expected.keys()
        for key in expected.keys() - {"time/epoch_s"}:
            # To 1e-5; metrics change in steps, of an answer of the twelve images for example.
            tolerance = 0.02 if key.startswith(("val/AP", "val/AR")) else 1e-5
            if name == "parts" and not key.startswith("trd/"):
                continue  # half of each share is reduced, which is not the half of the whole
            assert found[key] == pytest.approx(expected[key], abs=tolerance), key


@pytest.mark.parametrize("name", [name for name in NAMES if name != "parts"])
def test_weights_and_statistics(both, name):
    one, two = (load_checkpoint(folder / name / "last.pt").training["model"] for folder in both)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=2e-4, msg=lambda text, key=key: f"{key}: {text}")
