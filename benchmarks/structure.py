"""Figures of the package's structure: how much a reader opens, and what the house style counts.

python benchmarks/structure.py

Nothing is run but the import of ``detect.Detector``; the rest is read from the source.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "detect"
RIDDLES = ("What", "Which", "Whether", "How", "Those", "That")
"""First words of a docstring whose noun comes last."""
PAPERS = {"SDPoint": "sdpoint", "BDSC": "bdsc", "TRD": "trd"}
MAX_ARGUMENTS = 7

TRAINING = """
cli/train training/settings training/loop training/detection data/datasets data/detection/loading
data/detection/augment models/graph models/blocks/conv models/heads training/state training/optimizer training/epoch
losses/detection losses/assignment evaluation/detection
"""
"""Files that a reader opens, in order, each once, to follow one training of a detector (CONTRIBUTING.md)."""
TRAINING_REST = """
api/training config/recipe config/augment config/data data/recognition data/formats/coco data/annotations
data/detection/geometry
data/detection/images data/detection/sampling data/workers models/catalog models/definition models/rows models/model
models/blocks/space_to_depth models/blocks/csp models/blocks/downsample boxes/anchors boxes/coding boxes/nms boxes/iou
structures evaluation/loop evaluation/forward evaluation/coco training/task training/strategy training/checks
training/starts training/checkpoints training/recorder runtime/distributed
"""
"""What a complete reading adds: names of models, reading of files, checks, caches, records, processes."""
PREDICTION = """
cli/predict inference/run inference/sources inference/inputs inference/detector inference/opening
inference/network inference/torch_network models/checkpoint data/letterbox evaluation/forward evaluation/postprocess
models/graph models/blocks/conv models/heads boxes/coding boxes/nms inference/outputs drawing/boxes
"""
"""The same for one image through ``detect predict``."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, ast.Module]:
    """Every module of the package, by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports_of(tree: ast.Module, names: frozenset[str]) -> set[str]:
    """The package's modules that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & names


def closure(statement: str) -> tuple[int, int]:
    """Files and lines of the package that a statement loads."""
    code = (
        f"{statement}\nimport sys\nprint(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'detect'))"
    )
    command = [sys.executable, "-c", code]
    files = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    return len(files), sum(lines_of(Path(file)) for file in files)


def reading(text: str) -> str:
    """Files and lines of a reading."""
    names = text.split()
    return f"{len(names)} / {sum(lines_of(PACKAGE / f'{name}.py') for name in names):,}"


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return path.read_text(encoding="utf-8").count("\n")


def functions_of(tree: ast.Module) -> Iterator[Function]:
    """Every function and method."""
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def docstrings_of(tree: ast.Module) -> Iterator[str]:
    """Every docstring of a module, its classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text


def is_outweighed(function: Function) -> bool:
    """True where the docstring has more lines than the code; a hook without code has nothing to outweigh."""
    text = ast.get_docstring(function, clean=False)
    if not text or function.end_lineno is None or len(function.body) == 1:
        return False
    length = text.count("\n") + 1
    return length > function.end_lineno - function.body[0].lineno - length + 1


def num_arguments(function: Function) -> int:
    """Arguments without ``self``."""
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def figures() -> Iterator[tuple[str, str]]:
    """Titles of the figures, and the figures."""
    trees = modules()
    names = frozenset(trees)
    used = {name: imports_of(tree, names) - {name} for name, tree in trees.items()}
    yield "files / lines to follow one training of a detector", reading(TRAINING)
    yield "the same, complete", reading(TRAINING + TRAINING_REST)
    yield "files / lines to follow one image through `detect predict`", reading(PREDICTION)
    files, lines = closure("from detect import Detector")
    yield "files / lines that `from detect import Detector` loads", f"{files} / {lines:,}"
    for title, paper in PAPERS.items():
        place = f"detect.papers.{paper}"
        outside = [name for name in names if not name.startswith("detect.papers")]
        count = sum(any(other.startswith(place) for other in used[name]) for name in outside)
        yield f"modules outside papers/ that import {title}", str(count)
    importers = Counter(other for others in used.values() for other in others)
    leaves = [name for name, tree in trees.items() if tree.body and importers[name] <= 1]
    by_name = sum(importers[name] == 0 for name in leaves)
    yield "modules with at most one importer", f"{len(leaves)} of {len(names)}, {by_name} of them loaded by name"
    folders = Counter(path.parent for path in PACKAGE.rglob("*.py"))
    folder, most = max(folders.items(), key=lambda item: item[1])
    yield "largest flat folder", f"{most} ({folder.relative_to(ROOT)})"
    texts = [text for tree in trees.values() for text in docstrings_of(tree)]
    yield f"docstrings that begin with {' / '.join(RIDDLES)}", str(sum(text.split()[0] in RIDDLES for text in texts))
    functions = [function for tree in trees.values() for function in functions_of(tree)]
    yield "docstrings longer than their function's code", str(sum(map(is_outweighed, functions)))
    many = sum(num_arguments(function) > MAX_ARGUMENTS for function in functions)
    yield f"functions with more than {MAX_ARGUMENTS} arguments", str(many)
    yield "lines of models/graph.py", str(lines_of(PACKAGE / "models" / "graph.py"))
    yield "lines of the package", f"{sum(lines_of(path) for path in PACKAGE.rglob('*.py')):,}"


def main() -> None:
    """Print the figures."""
    for title, count in figures():
        print(f"{title:<75}{count}")


if __name__ == "__main__":
    main()
