"""Runs that are killed, stopped, or find the disk full go on to the same end, bit by bit.

``python -m pytest tests/slow/test_survival.py -m slow -s`` prints what ``docs/results/survival.md`` says.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from detect.config.base import to_plain
from detect.models.checkpoint import load_checkpoint
from tests.tools.running import Ended
from tests.training.small import make_recipe, make_shapes, write_model
from tests.training.test_loop import assert_same_run
from tests.training.test_processes import torchrun

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parents[2] / "tools" / "train.py"
KILLS = 20
EPOCHS = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data, model and recipe, and the run ``whole`` that nothing happened to."""
    folder = tmp_path_factory.mktemp("world")
    data = make_shapes(folder / "shapes", sizes=(48, 4, 1))
    recipe = make_recipe(epochs=EPOCHS, workers=1, checkpoint_minutes=0.0001, evaluation={"every": 3})
    (folder / "data.yaml").write_text(yaml.safe_dump(to_plain(data)))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(to_plain(recipe)))
    write_model(folder)
    with start(folder, "whole") as process:
        assert ended(process).code == 0
    return folder


def words(out: str, *more: object) -> list[str]:
    given = ("--model", "tiny.yaml", "--data", "data.yaml", "--recipe", "recipe.yaml", "--device", "cpu", "--out", out)
    return [str(TOOL), *given, *map(str, more)]


def start(folder: Path, out: str, *more: object) -> subprocess.Popen[str]:
    """A run of the tool, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *words(out, *more)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def resume(folder: Path, out: str) -> subprocess.Popen[str]:
    """Go on with a run, or start it if it has kept nothing yet."""
    return start(folder, out, *(["--resume"] if (folder / out / "last.pt").exists() else []))


def ended(process: subprocess.Popen[str]) -> Ended:
    _, error = process.communicate(timeout=300)
    return Ended(process.returncode, "", error)


def is_writing(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(run.glob(".last-unfinished-*"))


def wait_for_the_next(file: Path, process: subprocess.Popen[str]) -> None:
    """Until a file has been written, or written again."""
    before = file.stat().st_mtime_ns if file.exists() else None
    wait_until(lambda: file.exists() and file.stat().st_mtime_ns != before, process)


def wait_until(happens: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happens() and process.poll() is None:
        time.sleep(0.0002)


def test_sigkill_at_random_moments(world):
    """Every other time while a checkpoint is being written, else anywhere between the start and two seconds of work."""
    rng, run = random.Random(0), world / "killed"
    kinds: dict[str, int] = {}
    for kill in range(KILLS):
        with resume(world, "killed") as process:
            wait_for_the_next(run / "last.pt", process)
            if kill % 2:
                time.sleep(rng.uniform(0, 0.3))
                wait_until(functools.partial(is_writing, run), process)
            else:
                time.sleep(rng.uniform(0, 0.6))
            assert process.poll() is None, ended(process)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        kind = "while a checkpoint was written" if is_writing(run) else "elsewhere"
        kinds[kind] = kinds.get(kind, 0) + 1
        training = load_checkpoint(run / "last.pt").training
        print(f"kill {kill + 1}: after epoch {training['epoch']}, batch {training['batches']}")
    with resume(world, "killed") as process:
        assert ended(process).code == 0
    print(f"{KILLS} kills: {kinds}")
    assert min(kinds.values()) >= 5
    assert_same_run(run, world / "whole")


def test_a_killed_worker_under_torchrun(world):
    """torchrun starts all processes again, and the run goes on from its last checkpoint."""
    run = world / "two"
    with torchrun(*words(str(run)), max_restarts=3, cwd=world) as agent:
        wait_until(
            lambda: (run / "last.pt").exists() and load_checkpoint(run / "last.pt").training["epoch"] >= 2, agent
        )
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(workers[-1], signal.SIGKILL)
        output, _ = agent.communicate(timeout=300)
    assert agent.returncode == 0, output
    assert "started again by torchrun (1): the run in" in output
    assert "resuming after epoch" in output
    with torchrun(*words(str(world / "undisturbed")), cwd=world) as agent:
        output, _ = agent.communicate(timeout=300)
    assert agent.returncode == 0, output
    assert_same_run(run, world / "undisturbed")


def test_torchrun_is_terminated(world):
    """All processes keep the run together; one alone goes on with it."""
    run = world / "ended"
    with torchrun(*words(str(run)), cwd=world) as agent:
        wait_for_the_next(run / "last.pt", agent)
        agent.send_signal(signal.SIGTERM)
        output, _ = agent.communicate(timeout=60)
    assert agent.returncode != 0
    assert "to go on: detect train --resume --out" in output, output
    with resume(world, "ended") as process:
        assert ended(process).code == 0


def test_a_full_disk(world, tmp_path):
    """On a small file system that fills up during the run: one line, what was kept is whole, and the run can go on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o size=3m tmpfs {disk} || exit 99
        (while [ ! -f {disk}/run/last.pt ]; do sleep 0.05; done; cat /dev/zero > {disk}/filler) 2> /dev/null &
        {sys.executable} {" ".join(words(f"{disk}/run"))}
        code=$?
        wait
        cp -r {disk}/run {world}/full
        exit $code
    """
    isolated = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare")
    process = subprocess.run(isolated, cwd=world, capture_output=True, text=True, timeout=300, check=False)
    if process.returncode in (1, 99):
        pytest.skip(f"this machine does not let a test mount a file system: {process.stderr[-200:]}")
    last = process.stderr.replace("\\r", "\\n").splitlines()[-1]
    print(f"exit code {process.returncode}: {last}")
    assert process.returncode == 2
    assert last.endswith("the disk is full; nothing that was there before has changed")
    assert "Traceback" not in process.stderr
    assert load_checkpoint(world / "full" / "last.pt").training["epoch"] < EPOCHS
    with resume(world, "full") as resumed:
        assert ended(resumed).code == 0
    assert_same_run(world / "full", world / "whole")
