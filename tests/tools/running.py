"""Running the command-line tools, and the small world that they run in."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from detect.runtime.logs import LOGGER
from tests.training.small import make_shapes, write_model

TOOLS = Path(__file__).parents[2] / "tools"

RECIPE = """\
epochs: 2
batch_size: 4
nominal_batch_size: 4
image_size: 64
workers: 0
precision: fp32
optimizer: {name: adamw, lr: 0.003, warmup_min_steps: 1}
ema: {decay: 0.9, ramp_steps: 2}
"""

TRAIN = ("train.py", "--model", "tiny.yaml", "--data", "data.yaml", "--recipe", "recipe.yaml", "--device", "cpu")
"""The command of a run in a folder of ``make_world``."""


class Ended(NamedTuple):
    """How a tool ended.

    Args:
        code: its exit code.
        output: its standard output.
        error: its standard error.
    """

    code: int
    output: str
    error: str

    @property
    def complaint(self) -> str:
        """The one line of an ``error: ...`` that ends the tool, checked to be all that is wrong."""
        last = self.error.replace("\r", "\n").splitlines()[-1]
        assert self.code == 2, self
        assert last.startswith("error: "), self
        assert self.error.count("error: ") == 1, self
        assert "Traceback" not in self.error, self
        return last


def run_here(folder: Path, tool: str, *arguments: object, output: TextIO | None = None) -> Ended:
    """Run a tool as ``__main__`` of this process, in ``folder``: without the seconds that importing PyTorch takes."""
    handlers, level, propagate, hook = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate, threading.excepthook
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before, words = Path.cwd(), sys.argv
    output, error = output or io.StringIO(), io.StringIO()
    sys.argv = [tool, *map(str, arguments)]
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
            runpy.run_path(str(TOOLS / tool), run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os.chdir(before)
        sys.argv = words
        for number, handler in signals.items():
            signal.signal(number, handler)
        LOGGER.handlers[:], LOGGER.level, LOGGER.propagate, threading.excepthook = handlers, level, propagate, hook
    return Ended(code, output.getvalue() if isinstance(output, io.StringIO) else "", error.getvalue())


def run_unheard(folder: Path, tool: str, *arguments: object) -> Ended:
    """As ``run_here``, into a pipe whose reader has gone away."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        return run_here(folder, tool, *arguments, output=nobody)


def run_process(folder: Path, tool: str, *arguments: object) -> Ended:
    """Run a tool in a process of its own, in ``folder``."""
    command = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return Ended(done.returncode, done.stdout, done.stderr)


def run_forked(folder: Path, tool: str, *arguments: object, max_file_bytes: int | None = None) -> Ended:
    """As ``run_here``, in a process that is forked from this one.

    Args:
        folder: the current folder of the tool.
        tool: file in ``tools/``.
        arguments: its command line.
        max_file_bytes: limit on the size of files, which ends a write in the middle as a full disk does.
    """
    return _forked(folder, tool, arguments, [{}], max_file_bytes)[0]


def run_by_two(folder: Path, tool: str, *arguments: object) -> list[Ended]:
    """As ``run_here``, in two forked processes that torchrun might have started; gives how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return _forked(folder, tool, arguments, [group | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")])


def _forked(
    folder: Path,
    tool: str,
    arguments: tuple[object, ...],
    environments: list[dict[str, str]],
    max_file_bytes: int | None = None,
) -> list[Ended]:
    fork = multiprocessing.get_context("fork")

    def run(environment: dict[str, str], answers: Any) -> None:
        os.environ |= environment
        if max_file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))
        answers.put(run_here(folder, tool, *arguments))

    queues = [fork.SimpleQueue() for _ in environments]
    processes = [fork.Process(target=run, args=pair) for pair in zip(environments, queues, strict=True)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, process
    return [queue.get() for queue in queues]


def data_yaml(root: str = "shapes", more: str = "") -> str:
    """A data config for the embedded data set."""
    splits = "".join(
        f"  {name}: {{images: images/{name}, annotations: annotations/{name}.json}}\n"
        for name in ("train", "val", "test")
    )
    return f"name: shapes\nroot: {root}\nformat: coco\nsplits:\n{splits}{more}"


def make_world(folder: Path) -> Path:
    """A folder with ``tiny.yaml``, ``data.yaml``, ``recipe.yaml`` and the data set ``shapes``."""
    make_shapes(folder / "shapes")
    write_model(folder)
    (folder / "data.yaml").write_text(data_yaml())
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def make_trained_world(folder: Path) -> Path:
    """A folder of ``make_world`` with a detector that was trained for one epoch, in ``run``."""
    make_world(folder)
    ended = run_here(folder, *TRAIN, "--epochs", 1, "--out", "run")
    assert ended.code == 0, ended.error
    return folder
