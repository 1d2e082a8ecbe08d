"""The first seconds of a tool, while it imports PyTorch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.running import TOOLS

ROOT = TOOLS.parent
WORDS = {
    "compare_costs.py": ("--weights", "w.pt", "--source", "a.jpg"),
    "data.py": ("check", "--data", "data.yaml"),
    "demo.py": (),
    "describe.py": ("--list",),
    "evaluate.py": ("--weights", "w.pt", "--data", "data.yaml"),
    "export.py": ("--weights", "w.pt"),
    "import_weights.py": ("--weights", "w.pt", "--out", "x.pt"),
    "predict.py": ("--weights", "w.pt", "--source", "a.jpg"),
    "reproduce.py": ("--list",),
    "ship.py": ("--weights", "w.pt", "--out", "x.pt"),
    "sweep.py": (),
    "train.py": (),
}
"""Command lines after which a tool imports what it works with."""

DOOR = re.compile(
    r'"""``detect [a-z]+`` from a checkout."""\n\n'
    r"from __future__ import annotations\n\nfrom detect.cli import start\n\n"
    r'if __name__ == "__main__":\n    start\("[a-z]+"\)\n'
)
"""What a file in ``tools/`` holds."""

TORCH = """
import os, signal
os.kill(os.getpid(), signal.{})
while True:
    pass
"""


def _hear() -> None:
    """A shell that starts the tests in the background lets all their children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(tool: str, folder: Path, number: str) -> tuple[int, str, str]:
    """How a tool ends that gets a signal in the middle of ``import torch``, or of another heavy library."""
    for name in ("torch", "numpy", "cv2", "yaml"):
        (folder / f"{name}.py").write_text(TORCH.format(number))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, str(TOOLS / tool), *WORDS[tool]]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, cwd=folder, preexec_fn=_hear
    )
    return done.returncode, done.stdout, done.stderr


def test_every_tool_is_started() -> None:
    assert sorted(WORDS) == sorted(path.name for path in TOOLS.glob("*.py"))


def test_every_tool_starts_its_command() -> None:
    """But for the demo, all are the same few lines."""
    for path in TOOLS.glob("*.py"):
        if path.stem != "demo":
            assert DOOR.fullmatch(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "tool", [tool if tool in ("train.py", "demo.py") else pytest.param(tool, marks=pytest.mark.slow) for tool in WORDS]
)
def test_ctrl_c(tool, tmp_path):
    assert start(tool, tmp_path, "SIGINT") == (130, "", "interrupted\n")


def test_sigterm(tmp_path):
    assert start("train.py", tmp_path, "SIGTERM") == (143, "", "terminated\n")
