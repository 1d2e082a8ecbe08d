"""The notebooks: kept without outputs, commands that the programs accept, and in the slow suite all of their cells."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents.pages import ROOT, identity
from tests.documents.test_commands import check_command

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGE = ROOT / "docs" / "tutorials" / "notebooks.md"


def code(path: Path) -> list[str]:
    """The code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_page_lists_them() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 3
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in text] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=identity)
def test_no_outputs_are_kept(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert kept == []
    assert "find_spec" in code(path)[0]  # it installs the package where that is missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=identity)
def test_commands_are_accepted(path: Path) -> None:
    lines = [line.strip() for cell in code(path) for line in cell.splitlines()]
    commands = [line.removeprefix("!").partition(" | ")[0] for line in lines if line.startswith("!detect ")]
    assert commands
    for command in commands:
        check_command(shlex.split(command.replace("{model}", "yolov5n-spd"))[1:], is_whole=True)


def said(cell: Any) -> str:
    """What a cell has printed."""
    return "".join(output.get("text", "") for output in cell.get("outputs", ()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Jupyter's
@pytest.mark.parametrize("path", NOTEBOOKS, ids=identity)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, in an empty folder; a command that fails says so, which IPython does not mind."""
    nbformat = pytest.importorskip("nbformat", reason="Jupyter is not installed: pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="Jupyter is not installed: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="Jupyter is not installed: pip install nbclient ipykernel")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("detect", "-m detect"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]))
    folder = tmp_path / "folder"
    folder.mkdir()
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    wrong = [cell.source for cell in cells if "error: " in said(cell) or "Traceback" in said(cell)]
    assert wrong == []
    if report := os.environ.get("DETECT_NOTEBOOK_OUTPUTS"):  # a folder to look at them
        nbformat.write(notebook, Path(report) / path.name)
