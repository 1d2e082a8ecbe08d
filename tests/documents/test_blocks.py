"""Blocks of the pages: YAML is accepted by its schema, Python runs, and in the slow suite so does every command."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from detect.cli.parser import ALIASES
from detect.cli.train import request_from_args
from detect.config.ablation import AblationConfig
from detect.config.base import build
from detect.config.data import DataConfig
from detect.config.model import ModelConfig
from detect.config.recipe import DetectionRecipe
from detect.config.run import RunConfig
from detect.config.sweep import SweepConfig
from tests.documents.pages import PAGES, ROOT, Block, blocks, identity, make_workshop, shell_lines

sys.path.append(str(ROOT / "docs"))

from generate import parser_of

LANGUAGES = {"bash", "cpp", "javascript", "python", "text", "yaml", ""}
"""Of blocks; a directive of the site has braces."""
RUNNER = ROOT / "detect" / "exporting" / "onnx_runner.py"
KINDS: dict[str, Any] = {
    "splits": DataConfig,
    "backbone": ModelConfig,
    "space": SweepConfig,
    "vary": AblationConfig,
    "data": RunConfig,
}
"""A key, and the kind of YAML that has it; what has none of them is a recipe."""
SMALL = (
    *("--epochs", "1", "--batch-size", "4", "--image-size", "64", "--threads", "1", "--workers", "0"),
    *("min_updates=0", "train_images=16"),
)
"""What makes a training of the pages one of a second."""
OUTSIDE = {
    r"^(pip|make|torchrun) ": "changes the environment, or is tested elsewhere",
    r"rtsp://|http://|--source 0": "a camera",
    r"--resume": "a run that was stopped: tests/runtime/test_interruption.py",
    r"^detect import ": "weights of others: tests/models/foreign",
    r"--track": "the extra track",
    r"--data-root|FOLDER|--weights yolov3.pt|yolov5s-imported": "data of the reader",
    r"^python onnx_runner.py ": "tests/exporting/test_runner.py",
    r"^detect reproduce \w": "papers' tables: tests/papers/tables",
    r"--devices cpu": "trains twelve times: tests/sweep",
    r"^detect serve ": "runs until it is stopped: tests/serving",
    r"--logger ": "the extras mlflow and wandb: tests/training/test_loggers.py",
    r"(--to|--from) me/": "the Hub: tests/exporting/test_hub.py",
    r"--format (openvino|ncnn|litert)|model\.(xml|ncnn)": "needs its runtime: tests/exporting/test_formats.py",
    r"--minutes": "takes its time: tests/training/test_time_budget.py",
    r"^detect ablate ": "trains twelve times: tests/ablation",
}
"""Commands that are not run here, and why."""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def plain_blocks(path: Path, language: str) -> list[Block]:
    """The blocks of a language that need nothing but the workshop."""
    return [block for block in blocks(text_of(path)) if block.language == language and not block.note]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to copy; see ``make_workshop``."""
    folder = tmp_path_factory.mktemp("documents") / "workshop"
    make_workshop(folder)
    return folder


@pytest.fixture
def place(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workshop as the current folder."""
    folder = tmp_path / "place"
    shutil.copytree(workshop, folder)
    monkeypatch.chdir(folder)
    return folder


def run_python(block: Block, folder: Path) -> dict[str, Any]:
    """Run a block as a program, in the current folder; returns its names."""
    program = folder / "block.py"
    program.write_text(block.text, encoding="utf-8")
    return runpy.run_path(str(program))


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_blocks_have_a_language(path: Path) -> None:
    found = blocks(text_of(path))
    assert {block.language for block in found if not block.language.startswith("{")} <= LANGUAGES
    assert len(found) * 2 == len(re.findall(r"^```", text_of(path), re.MULTILINE))  # none is left out


@pytest.mark.parametrize("path", [path for path in PAGES if "```yaml" in text_of(path)], ids=identity)
def test_yaml_is_accepted(path: Path) -> None:
    for block in blocks(text_of(path)):
        if block.language == "yaml":
            content = yaml.safe_load(block.text)
            schema = next((kind for key, kind in KINDS.items() if key in content), DetectionRecipe)
            build(schema, content, identity(path))


@pytest.mark.parametrize("path", [path for path in PAGES if plain_blocks(path, "python")], ids=identity)
def test_python_runs(path: Path, place: Path) -> None:
    for block in plain_blocks(path, "python"):
        run_python(block, place)


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@pytest.mark.parametrize("path", [path for path in PAGES if "```python" in text_of(path)], ids=identity)
def test_python_imports_what_there_is(path: Path) -> None:
    for block in blocks(text_of(path)):
        if block.language == "python" and ("." in block.needs or is_installed(block.needs or "detect")):
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "detect":
                    module = __import__(node.module, fromlist=["detect"])
                    assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("path", [path for path in PAGES if "detect train" in text_of(path)], ids=identity)
def test_shortened_trainings_are_accepted(path: Path) -> None:
    """Of what the slow suite runs."""
    lines = [words for block in blocks(text_of(path)) if block.language == "bash" for words in shell_lines(block)]
    for command in filter(None, map(command_of, lines)):
        if command[1:4] == ["-m", "detect", "train"]:
            request_from_args(parser_of("train").parse_args(command[4:]))


# ------------------------------------------------------------------------------------- the slow suite


def command_of(words: list[str]) -> list[str] | None:
    """A command as it is run here; None if it is not."""
    line = " ".join(words)
    if any(re.search(pattern, line) for pattern in OUTSIDE):
        return None
    if words[0] != "detect":
        return words
    if words[1] == "train":
        words = [*(word for word in words if not is_replaced(word)), *SMALL]
    return [sys.executable, "-m", "detect", *words[1:]]


def is_replaced(word: str) -> bool:
    """Whether a word is ``KEY=VALUE`` of an option of ``SMALL``: both are refused, while of ``--KEY`` the last wins."""
    key, is_pair, _ = word.partition("=")
    return bool(is_pair) and f"--{ALIASES.get(key, key).replace('_', '-')}" in SMALL


class OneEpoch(ast.NodeTransformer):
    """Makes the trainings of a program short, as ``SMALL`` does those of commands."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        values = {"epochs": 1, "image_size": 64, "min_updates": 0, "train_images": 16}
        if any(keyword.arg == "epochs" for keyword in node.keywords):
            kept = [keyword for keyword in node.keywords if keyword.arg not in values]
            node.keywords = kept + [ast.keyword(name, ast.Constant(value)) for name, value in values.items()]
        return node


def small(block: Block) -> Block:
    return block._replace(text=ast.unparse(ast.fix_missing_locations(OneEpoch().visit(ast.parse(block.text)))))


def run_commands(block: Block, folder: Path) -> None:
    for words in shell_lines(block):
        if words[1:3] == ["data", "convert"]:  # the tutorials make what the workshop has
            shutil.rmtree(folder / words[words.index("--out") + 1], ignore_errors=True)
        if command := command_of(words):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
            allowed = (0, 1) if words[1:3] == ["data", "check"] else (0,)
            assert done.returncode in allowed, (words, done.stderr[-2000:])


def is_there(folder: Path, needed: str) -> bool:
    """Whether a file of the page's commands is there, or a package is installed."""
    return (folder / needed).exists() or ("." not in needed and is_installed(needed))


def run_block(block: Block, folder: Path) -> None:
    """Run a block as far as it can be; Python whose ``needs`` is not there is left out."""
    if block.language == "bash":
        run_commands(block, folder)
    elif block.file:
        (folder / block.file).write_text(block.text, encoding="utf-8")
    elif block.language == "python" and (not block.needs or is_there(folder, block.needs)):
        run_python(small(block) if block.note.startswith("small") else block, folder)
    elif block.language == "python" and "." not in block.needs:
        assert_paths_exist(block, folder)


def assert_paths_exist(block: Block, folder: Path) -> None:
    """Of Python whose package is not installed: its paths in the folders that the page's commands made."""
    constants = [node.value for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Constant)]
    paths = [text for text in constants if isinstance(text, str) and (folder / text.partition("/")[0]).is_dir()]
    assert [path for path in paths if not (folder / path).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PAGES if "```bash" in text_of(path)], ids=identity)
def test_page_runs(path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page one after the other, as its reader would."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    shutil.copy(RUNNER, place)
    monkeypatch.syspath_prepend(str(place))
    found = blocks(text_of(path))
    for block in [*(block for block in found if block.file), *(block for block in found if not block.file)]:
        run_block(block, place)
