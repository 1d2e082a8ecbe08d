"""Docstrings that contradict the code they describe.

``python tests/check_docstrings.py FOLDER ...`` reads the sources and ends with 1 when a Google-style section

* ``Args`` names other parameters than the signature (for a dataclass: than its fields), or in another order;
* ``Returns`` stands at a function that returns nothing, or ``Yields`` at one that is no generator;
* ``Raises`` leaves out an exception that the function raises itself.

A docstring without such sections is fine. What the texts say, readers must judge.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Sections = dict[str, list[str]]

_SECTION = re.compile(r"(Args|Returns|Yields|Raises):$")
_ENTRY = re.compile(r" {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): ?")


def sections_of(node: Function | ast.ClassDef) -> Sections:
    """The docstring's sections: the heading, and the names of its entries in order."""
    sections: Sections = {}
    entries: list[str] = []
    for line in inspect.cleandoc(ast.get_docstring(node) or "").splitlines():
        if heading := _SECTION.match(line):
            entries = sections.setdefault(heading[1], [])
        elif line and not line.startswith(" "):
            entries = []
        elif entry := _ENTRY.match(line):
            entries += [name.lstrip("*") for name in entry[1].split(", ")]
    return sections


def parameters_of(function: Function) -> list[str]:
    """The names in the signature, in its order, without ``self`` and ``cls``."""
    a = function.args
    names = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    return [name.arg for name in names if name.arg not in ("self", "cls")]


def fields_of(node: ast.ClassDef) -> list[str]:
    """The public fields of a dataclass that its constructor takes."""
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    kept = [item for item in fields if not re.search(r"\bClassVar\b|init=False", ast.unparse(item))]
    return [item.target.id for item in kept if not item.target.id.startswith("_")]


def walk_own(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions and classes inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def check_function(function: Function) -> Iterator[str]:
    """What the docstring of a function says wrongly."""
    sections, own = sections_of(function), list(walk_own(function))
    if "Args" in sections and sections["Args"] != parameters_of(function):
        yield f"Args are {sections['Args']}, the signature has {parameters_of(function)}"
    if "Returns" in sections and function.returns is not None and ast.unparse(function.returns) == "None":
        yield "has Returns, but returns nothing"
    if "Yields" in sections and not any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in own):
        yield "has Yields, but yields nothing"
    if "Raises" in sections:
        calls = [node.exc for node in own if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
        raised = {call.func.id for call in calls if isinstance(call.func, ast.Name) and call.func.id[0].isupper()}
        for missing in sorted(raised - set(sections["Raises"])):
            yield f"raises {missing}, which Raises leaves out"


def check_class(node: ast.ClassDef) -> Iterator[str]:
    """What the docstring of a class says wrongly about its constructor or fields."""
    documented = sections_of(node).get("Args")
    if documented is None:
        return
    constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    actual = parameters_of(constructors[0]) if constructors else fields_of(node)
    inherited = bool(node.bases) and not constructors
    if inherited:  # fields of the base class may be described again
        documented = [name for name in documented if name in actual]
    if documented != actual:
        yield f"Args are {documented}, the {'constructor' if constructors else 'fields'} {actual}"


def check_file(path: Path) -> Iterator[str]:
    """``file:line: name: what is wrong`` for each contradiction in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            problems = check_function(node)
        elif isinstance(node, ast.ClassDef):
            problems = check_class(node)
        else:
            continue
        yield from (f"{path}:{node.lineno}: {node.name}: {problem}" for problem in problems)


if __name__ == "__main__":
    sources = [path for folder in sys.argv[1:] for path in sorted(Path(folder).rglob("*.py"))]
    found = [problem for source in sources for problem in check_file(source)]
    print("\n".join(found) or f"docstrings agree with the signatures in {len(sources)} files")
    sys.exit(1 if found else 0)
