"""The packages form a line: each imports only from those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_repository import parsed, statements

PACKAGE = Path(__file__).parents[1] / "detect"

ORDER = (
    "errors",
    "class_names",
    "boxes",
    "drawing",
    "browser",
    "structures",
    "safety",
    "runtime",
    "config",
    "models",
    "analysis",
    "data",
    "losses",
    "evaluation",
    "curation",
    "inference",
    "training",
    "exporting",
    "bench",
    "sweep",
    "ablation",
    "serving",
    "papers",
    "api",
    "cli",
    "__main__",
)

# `from detect import Detector` is the front door; it opens on demand: `import detect` is cheap.
LAZY = {("__init__.py", f"detect.inference.{name}") for name in ("classifier", "detector")}
LAZY |= {("__init__.py", f"detect.api.{name}") for name in ("training", "evaluation", "exporting")}

SAYS_NOTHING = {"utils", "util", "misc", "common", "helpers", "helper", "general", "tools"}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported_modules(tree: ast.Module, file: str) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import of ours, also inside functions and under TYPE_CHECKING."""
    package = ["detect", *Path(file).parts[:-1]]
    for node in statements(tree.body):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
            base = base if node.level else str(node.module)
            names = [f"detect.{alias.name}" for alias in node.names] if base == "detect" else [base]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "detect")


def violations(tree: ast.Module, file: str) -> list[str]:
    """Imports of a file that come after its own package."""
    own = Path(file).parts[0].removesuffix(".py")
    rank = -1 if own == "__init__" else ORDER.index(own)
    found = []
    for line, module in imported_modules(tree, file):
        other = module.split(".")[1] if "." in module else ""
        # `from detect import __version__` and `import detect` touch nothing but the front door.
        if other in ORDER and ORDER.index(other) > rank and (file, module) not in LAZY:
            found.append(f"detect/{file}:{line}: imports {module}, which comes after {own}")
    return found


def test_every_package_has_its_place() -> None:
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert packages | modules == set(ORDER)


def test_imports_only_from_above() -> None:
    assert [one for file in FILES for one in violations(parsed(PACKAGE / file), file)] == []


def test_no_circles() -> None:
    """Imports inside functions and for type checkers count: files that need each other are one, or want a third."""
    imports = {
        "detect." + file.removesuffix(".py").replace("/", "."): {
            module for _, module in imported_modules(parsed(PACKAGE / file), file)
        }
        for file in FILES
        if not file.endswith("__init__.py")
    }
    TopologicalSorter(imports).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({**imports, "detect.errors": {"detect.cli.main"}}).prepare()


def test_the_check_itself() -> None:
    for source, file, expected in (
        ("", "boxes/nms.py", 0),
        ("from detect.errors import InputError", "boxes/nms.py", 0),
        ("from detect.boxes.iou import iou", "boxes/nms.py", 0),
        ("from detect import __version__", "models/checkpoint.py", 0),
        ("from detect.data.images import read_image", "boxes/nms.py", 1),
        ("import detect.exporting", "boxes/nms.py", 1),
        ("from detect import training", "boxes/nms.py", 1),
        ("from ..training import loop", "boxes/nms.py", 1),
        ("from . import iou", "boxes/nms.py", 0),
        ("def f():\n    from detect.training import loop", "boxes/nms.py", 1),
        ("if TYPE_CHECKING:\n    from detect.training import loop", "boxes/nms.py", 1),
        ("from detect.errors import InputError", "__init__.py", 1),
        ("def f():\n    from detect.inference.detector import Detector", "__init__.py", 0),
    ):
        assert len(violations(ast.parse(source), file)) == expected, source


def test_names_say_something() -> None:
    parts = {part.removesuffix(".py") for file in FILES for part in Path(file).parts}
    assert not parts & SAYS_NOTHING
