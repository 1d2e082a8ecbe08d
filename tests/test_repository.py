"""What holds for the repository as a whole: no unsafe calls, shipped configs that load, no traces of a machine."""

from __future__ import annotations

import ast
import configparser
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detect.config.data import load_data_config
from detect.config.yaml_files import CONFIGS, find_config

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("detect", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a source."""
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(body: list[Any]) -> Iterator[ast.AST]:
    """All statements, also within others: a tenth of the nodes that ``ast.walk`` visits."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from statements(getattr(node, name, []))


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    """Run this interpreter in the repository, without a display, a terminal or inherited import paths."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"COLUMNS": "200"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


# ----------------------------------------------------------------------------------------- unsafe calls


DECISIVE = ("weights_only", "allow_pickle", "shell")
"""Keywords that make a call safe or unsafe."""
PICKLES = ("pickle", "marshal", "shelve", "dill", "joblib")


def dotted(function: ast.expr) -> str:
    """``a.b.c`` of what is called; empty for other expressions."""
    if isinstance(function, ast.Attribute):
        return f"{dotted(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def unsafe(tree: ast.Module) -> Iterator[str]:
    """Lines of a source that let a file run code, or hide an error."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.ImportFrom) and node.module in PICKLES:
            names = {alias.name for alias in node.names} - {"PickleError", "UnpicklingError"}
            yield from (f"{line}: imports {node.module}.{name}" for name in names)
        elif isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            if re.search(r"\b(everything|Exception|BaseException)\b", caught):
                yield f"{line}: except {caught}"
        elif isinstance(node, ast.Call):
            called = dotted(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg in DECISIVE}
            if called.split(".")[0] in PICKLES:
                yield f"{line}: {called}()"
            if called in ("eval", "exec", "os.system", "os.popen", "builtins.eval", "builtins.exec"):
                yield f"{line}: {called}()"
            if called == "torch.load" and keywords.get("weights_only") != "True":
                yield f"{line}: torch.load without weights_only=True"
            if called in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
                yield f"{line}: {called} of a pickle"
            if keywords.get("shell") == "True":
                yield f"{line}: {called} through a shell"


def test_nothing_unsafe() -> None:
    assert {path.relative_to(ROOT): found for path in SOURCES if (found := list(unsafe(parsed(path))))} == {}


def test_unsafe_is_found() -> None:
    for source in (
        "eval('1')",
        "pickle.loads(data)",
        "pickle.Unpickler(file)",
        "from pickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
        "try: pass\nexcept: pass",
        "try: pass\nexcept Exception: pass",
        "try: pass\nexcept (OSError, BaseException): pass",
    ):
        assert len(list(unsafe(ast.parse(source)))) == 1, source


def test_safe_is_left_alone() -> None:
    for source in (
        "torch.load(p, weights_only=True)",
        "model.eval()",
        "import pickle\ntry: pass\nexcept (OSError, pickle.UnpicklingError): pass",
    ):
        assert list(unsafe(ast.parse(source))) == [], source


# ------------------------------------------------------------------------------- what an import brings


def test_every_package_has_an_init() -> None:
    """``find_packages`` leaves out a folder without one, and the installed package would lack it."""
    folders = {path.parent for path in (ROOT / "detect").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_import_detect_is_cheap() -> None:
    done = run_python("-c", "import sys, detect; print(sorted({'torch', 'cv2', 'numpy', 'yaml'} & set(sys.modules)))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


RUNNER = ROOT / "detect" / "exporting" / "onnx_runner.py"
"""A program of its own, which users take with them; the package imports it when it exports."""


@pytest.mark.slow
def test_imports_reach_for_nothing() -> None:
    """Importing each module opens no connection, takes no optional dependency, changes no threads' settings."""
    done = run_python(
        "-c",
        "import importlib, os, pkgutil, sys\n"
        "before = dict(os.environ)\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.bind'):\n"
        "        sys.exit(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
        "import detect\n"
        "for module in pkgutil.walk_packages(detect.__path__, 'detect.'):\n"
        f"    if module.name != 'detect.exporting.{RUNNER.stem}':\n"
        "        importlib.import_module(module.name)\n"
        "optional = {'albumentations', 'matplotlib.pyplot', 'onnxruntime', 'onnxscript', 'hotcoco', 'optuna'}\n"
        "optional |= {'trackers', 'supervision', 'pandas', 'starlette', 'uvicorn', 'sahi', 'fiftyone'}\n"
        "optional |= {'mlflow', 'wandb', 'huggingface_hub', 'safetensors'}\n"
        "print(sorted(optional & set(sys.modules)))\n"
        "changed = {name for name, value in os.environ.items() if before.get(name) != value}\n"
        "assert not [name for name in changed if 'OMP' in name or 'MKL' in name], changed\n",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


DISTRIBUTIONS = {
    "annotated_types": "annotated-types",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "ai_edge_litert": "ai-edge-litert",
    "litert_torch": "litert-torch",
    "PIL": "pillow",
    "pydantic_core": "pydantic",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}


def requirements(section: str) -> set[str]:
    """The names of the distributions that a section of setup.cfg asks for."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    text = config["options"]["install_requires"] if section == "" else config["options.extras_require"][section]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {re.split(r"[<>=!~\[; ]", line.strip())[0].lower() for line in lines}


def third_parties(nodes: Iterator[ast.AST] | list[ast.stmt]) -> set[str]:
    """The distributions that absolute imports among ``nodes`` take."""
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add((node.module or "").split(".")[0])
    ours = {"detect", "__future__", *(path.stem for path in (ROOT / "tools").glob("*.py"))}
    return {DISTRIBUTIONS.get(module, module).lower() for module in modules - ours - sys.stdlib_module_names}


def test_imports_are_declared() -> None:
    """What is imported is required; what only an extra brings is imported where it is used, not at the top."""
    always = requirements("")
    heavy = ["hub", "litert", "mlflow", "ncnn", "openvino", "sahi", "track", "wandb"]
    extras = {name for section in ["export", "fast", "serve", "sweep", *heavy] for name in requirements(section)}
    extras.add("typing_extensions")  # mypy brings it; for what only a type checker reads
    for path in SOURCES:
        if "benchmarks" not in path.parts:
            required = always | ({"onnxruntime"} if path == RUNNER else set())
            assert third_parties(parsed(path).body) - required == set(), path
            assert third_parties(statements(parsed(path).body)) - required - extras == set(), path


# ---------------------------------------------------------------------------------------------- configs


def test_data_configs_load() -> None:
    for path in (CONFIGS / "data").glob("*.yaml"):
        assert load_data_config(path.stem).splits


def test_configs_introduce_themselves() -> None:
    paths = list(CONFIGS.glob("*/*.yaml"))
    assert paths
    assert [path for path in paths if not path.read_text(encoding="utf-8").startswith("# ")] == []


def test_what_the_documentation_names_is_shipped() -> None:
    assert find_config("train", "default").is_file()
    for name in ("bccd", "coco", "deeppcb", "shapes"):
        assert find_config("data", name).is_file()


# ------------------------------------------------------------------------------------------------ files


def tracked_files() -> list[Path]:
    """The files of the repository, without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_machine() -> None:
    """Paths of the machine that something was written on are of no use to anybody else."""
    machine = re.compile("|".join([r"(?<![\w.])/" + "(work|root|Users)/", "/tmp/" + "venv"]))
    found = []
    for path in tracked_files():
        if (
            path.suffix in (".py", ".md", ".yaml", ".cfg", ".toml", ".json", ".txt", ".csv", "")
            and path.name != "LICENSE"
        ):
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in machine.finditer(text)]
    assert found == []


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
