"""Every command in a document is one that the programs accept: flags, values, names of models and keys of recipes."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detect.config.run import RunConfig
from detect.config.yaml_files import find_config, parse_overrides
from detect.errors import InputError
from detect.models.catalog import find_definition, shipped_weights
from detect.training.settings import load_recipe
from tests.documents.pages import DOCUMENTS, PAGES, ROOT, blocks, commands, identity, shell_lines

sys.path.append(str(ROOT / "docs"))

from generate import commands_page, parser_of

TOOLS = {"evaluate": "val", "import_weights": "import", "compare_costs": "compare"}
"""Files in ``tools`` whose command has another name."""
OTHER_PROGRAMS = {"pip", "make", "cp", "python", "torchrun"}
MISTAKE = ["describe", "--model", "yolov5n-spdd"]
"""A mistake that a page shows on purpose."""
EXAMPLES = {
    "my-data",
    "my-classes",
    "my-coco",
    "my-folder",
    "my-yolo",
    "mine",
    "parts",
    "photos",
    "labelme-data",
    "via-data",
    "supervisely-data",
    "mended",
    "from-fiftyone",
}
"""Data sets of the reader."""


def relaxed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """A parser that takes a part of a command, as text mentions it."""
    for action in parser._actions:
        action.required = isinstance(action, argparse._SubParsersAction)
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                relaxed(below)
    for group in parser._mutually_exclusive_groups:
        group.required = False
    return parser


def is_shipped_name(value: str) -> bool:
    """Tell whether a value must be a name of the catalogue: not a file, a folder, or a stand-in such as ``NAME``."""
    return not re.search(r"[./\\]|^[A-Z]+$|\{", value.split("+")[0]) and value not in EXAMPLES


def check_values(args: argparse.Namespace) -> None:
    """Look up what a parsed command names; ``InputError`` if there is no such model, experiment, weight or key."""
    given = vars(args)
    models = given.get("model") or []
    for model in [models] if isinstance(models, str) else models:
        if is_shipped_name(model):
            find_definition(model)
    for key, kind in (("data", "data"), ("run", "runs"), ("space", "sweeps"), ("recipe", "train")):
        if given.get(key) and is_shipped_name(given[key]):
            find_config(kind, given[key])
    weights = given.get("weights") or []
    for name in map(str, weights if isinstance(weights, list) else [weights]):
        assert not is_shipped_name(name) or name in {*shipped_weights(), "none"}, name
    if given.get("set"):
        model = models if models and is_shipped_name(models) else "yolov5n"
        load_recipe(
            find_definition(model),
            RunConfig(model, ""),
            parse_overrides([pair for pair in given["set"] if "=" in pair]),
        )


def check_command(words: list[str], is_whole: bool) -> None:
    """Parse a command of ``detect`` with its own parser."""
    name, *rest = words
    parser = parser_of(name)
    if "--help" not in rest:
        check_values((parser if is_whole else relaxed(parser)).parse_args(rest))


def whole_commands(text: str) -> Iterator[list[str]]:
    """The words behind ``detect`` of each line in the blocks of a page."""
    for block in blocks(text):
        if block.language == "bash":
            for words in shell_lines(block):
                assert words[0] in OTHER_PROGRAMS | {"detect"}, words
                if words[0] == "detect":
                    yield words[1:]
                elif words[0] == "torchrun":
                    yield words[words.index("detect") + 1 :]


@pytest.mark.parametrize("path", PAGES, ids=identity)
def test_commands_in_blocks_are_accepted(path: Path) -> None:
    for words in whole_commands(path.read_text(encoding="utf-8")):
        check_command(words, is_whole=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=identity)
def test_commands_in_text_are_accepted(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for program, *words in commands(path.read_text(encoding="utf-8")):
        if program == "make":
            assert words[0] in targets, f"make {words[0]}"
        elif program.startswith("benchmarks/"):
            source = (ROOT / program).read_text(encoding="utf-8")
            flags = [word.split("=")[0] for word in words if word.startswith("--")]
            assert [flag for flag in flags if f'"{flag}"' not in source] == [], program
        elif program != "tools/demo.py":
            assert program == "detect" or (ROOT / program).is_file(), program
            stem = Path(program).stem
            words = words if program == "detect" else [TOOLS.get(stem, stem), *words]
            if words != MISTAKE:
                check_command(words, is_whole=False)


def test_examples_in_help_are_accepted() -> None:
    found = list(whole_commands(commands_page()))
    assert len(found) > 30
    for words in found:
        check_command(words, is_whole=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --model yolov5n --data my-data --epoch 5", "--epoch"),
        ("train --model yolov5n-spdd --data my-data", "yolov5n-spdd"),
        ("train --model yolov5n --data my-data optimizer.lrr=0.1", "lrr"),
        ("train --model yolov5n --data bcdc", "bcdc"),
        ("val --data my-data", "--weights"),
        ("predict --weights a.pt --source b.jpg --conf much", "much"),
        ("data spilt --data my-data", "spilt"),
    ],
)
def test_wrong_commands_are_found(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_command(line.split(), is_whole=True)


def test_commands_are_found() -> None:
    text = (
        "Run `make test`.\n"
        "    .venv/bin/python tools/train.py --run x.yaml \\\n  --seed 1  # comment\n"
        "$ make demo PYTHON=p  # why\n"
        "make sure of it\n"
        "detect train model=yolov5n --seed 1  # comment\n"
        "torchrun --nproc-per-node 4 -m detect val ...\n"
        "as `detect data check --quick` says, detect what is\n"
    )
    assert list(commands(text)) == [
        ["make", "test"],
        ["tools/train.py", "--run", "x.yaml", "--seed", "1"],
        ["make", "demo"],
        ["detect", "train", "model=yolov5n", "--seed", "1"],
        ["detect", "val"],
        ["detect", "data", "check", "--quick"],
    ]
