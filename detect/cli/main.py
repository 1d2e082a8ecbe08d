"""Table of the commands, and their dispatch by the first word of the command line."""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple, NoReturn

from detect.cli.parser import EXIT_CODES, ToolParser
from detect.errors import InputError, did_you_mean

PROGRAM = "detect"


class Command(NamedTuple):
    """A command.

    Args:
        module: in ``detect.cli``, with ``add_arguments(parser)`` and ``run(args)``; its docstring is the help text.
        about: one line of ``detect --help``; empty for an alias.
    """

    module: str
    about: str


COMMANDS = {
    "train": Command("train", "train a detector or a classifier"),
    "val": Command("val", "measure a trained model on a split; also called evaluate"),
    "evaluate": Command("val", ""),
    "predict": Command("predict", "run a model on images, videos and streams"),
    "serve": Command("serve", "show a detector as a local web page, with a camera and the cost slider"),
    "export": Command("export", "write a model as ONNX and check it"),
    "bench": Command("bench", "measure accuracy and speed of detector files in one run"),
    "data": Command("data", "check, measure, convert, split and view a data set"),
    "describe": Command("describe", "print a model's graph and its cost"),
    "models": Command("models", "list the shipped models, backbones, necks and heads"),
    "import": Command("import_weights", "convert weights that others trained to a checkpoint"),
    "ship": Command("ship", "prepare a checkpoint for publication"),
    "hub": Command("hub", "publish a model on the Hugging Face Hub, or fetch one"),
    "sweep": Command("sweep", "search a recipe's settings"),
    "ablate": Command("ablate", "compare trainings that differ in a few settings, over several seeds"),
    "compare": Command("compare", "show where two models differ, or one network at several costs"),
    "reproduce": Command("reproduce", "print a paper's table beside the measurements here"),
    "config": Command("config", "explain the keys of recipes and data configs"),
    "checks": Command("checks", "print versions and hardware, for a bug report"),
    "version": Command("version", "print the version"),
}
"""Commands by name, in the order of the help."""


def run_command(name: str | None = None) -> None:
    """Parse ``sys.argv`` and run the command.

    Args:
        name: the command; default, the first word.

    Raises:
        InputError: the command line or a file that it names is wrong.
    """
    if name is not None:
        _run(name, sys.argv[1:], prog=None)
        return
    sys.argv[0] = PROGRAM  # the command in a checkpoint's provenance
    words = sys.argv[1:] or ["--help"]
    if words[0] in ("-h", "--help"):
        _print_help()
    name = "version" if words[0] == "--version" else words[0]
    if name not in COMMANDS:
        raise InputError(f"{name}: is not a command{did_you_mean(name, COMMANDS)}; {PROGRAM} --help lists them")
    _run(name, words[1:], f"{PROGRAM} {name}")


def _run(name: str, words: list[str], prog: str | None) -> None:
    module = importlib.import_module(f"{__package__}.{COMMANDS[name].module}")
    parser = ToolParser(module.__doc__, prog)
    module.add_arguments(parser)
    module.run(parser.parse_args(words))


def _print_help() -> NoReturn:
    lines = [f"  {name:<10} {command.about}" for name, command in COMMANDS.items() if command.about]
    print(f"usage: {PROGRAM} COMMAND ...\n\nDetection of small objects, and classification.\n\ncommands:")
    print("\n".join(lines))
    print(f"\n{PROGRAM} COMMAND --help explains a command; KEY=VALUE is --KEY VALUE\n\n{EXIT_CODES}", end="")
    sys.exit(0)
