"""Training in two processes is training in one: the same samples, losses, statistics, weights and metrics."""

from __future__ import annotations

import csv
import multiprocessing
import os
import socket
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
ALL = (*process_runs.CHANGES, "classes")


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


@pytest.fixture(scope="module", params=[("uneven",), pytest.param(ALL, marks=pytest.mark.slow)], ids=len)
def both(request, tmp_path_factory):
    """The folders of the runs in one process and in two, and the names of the runs."""
    folder, names = tmp_path_factory.mktemp("runs"), request.param
    make_shapes(folder / "shapes", sizes=(8, 3, 1))
    classes.make_classes(folder / "colours")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")  # one import of PyTorch for both
    context.set_forkserver_preload(["tests.training.process_runs"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        processes = [
            context.Process(target=process_runs.work, args=(rank, port, folder / "two", folder, names))
            for rank in (0, 1)
        ]
        for process in processes:
            process.start()
    for settings in process_runs.runs(folder / "one", folder, names).values():
        train(settings)
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder / "one", folder / "two", names


def rows_of(run: Path) -> list[dict[str, float]]:
    with (run / "results.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_losses_metrics_weights_and_statistics(both):
    *folders, names = both
    for name in names:
        one, two = (rows_of(folder / name) for folder in folders)
        assert len(one) == len(two) > 0
        for expected, found in zip(one, two, strict=True):
            assert found.keys() == expected.keys()
            for key in expected.keys() - {"time/epoch_s"}:
                # To 1e-5; metrics change in steps, of an answer of the twelve images for example.
                tolerance = 0.02 if key.startswith(("val/AP", "val/AR")) else 1e-5
                if name == "parts" and not key.startswith("trd/"):
                    continue  # half of each share is reduced, which is not the half of the whole
                assert found[key] == pytest.approx(expected[key], abs=tolerance), f"{name} {key}"
        if name != "parts":
            one, two = (load_checkpoint(folder / name / "last.pt").training["model"] for folder in folders)
            assert one.keys() == two.keys()
            for key in one:
                torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=2e-4, msg=f"{name} {key}")
