"""The command line of every command: strict flags, ``key=value`` beside ``--key value``, other tools' names of keys."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from detect.errors import InputError, did_you_mean
from detect.runtime.logs import LOGGER

EXIT_CODES = """\
exit codes, of every command:
  0    done
  1    data check: warnings; otherwise another process of the run is lost
  2    the command line, a file or data is wrong, or cannot be written; data check: errors
  3    done, but the result is not what it must be: export, reproduce
  130  Ctrl-C; 143 the signal to end (SIGTERM)
"""
THREADS_HELP = "computing threads on a CPU; 0 takes what is fastest beside other programs (default: 0)"
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps (default: auto)"
STANDARD_OUTPUT = Path("-")
"""Value of ``--json`` where no file is named."""

HABITS = {
    "imgsz": "image_size",
    "img_size": "image_size",
    "batch": "batch_size",
    "lr0": "optimizer.lr",
    "patience": "evaluation.patience",
    "model": "weights",
    "cfg": "model",
    "save_dir": "out",
}
"""Other tools' names of keys, and ours. A name is ours where a command has a flag of that name."""
FOLDER = ("project", "name")
"""Other tools' keys for the folder of the results, ours is ``out``: ``runs/NAME``, or ``PROJECT/NAME``."""
RECIPE = "--set"
"""The flag that takes keys of a recipe."""

_PAIR = re.compile(r"(?P<key>[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class ToolParser(argparse.ArgumentParser):
    """``ArgumentParser`` whose complaints are one line, like all others; flags must be written out.

    ``key=value`` is ``--key value``; of a command with ``--set`` also a key of the recipe.

    Args:
        description: the tool's docstring, or what a command of it does.
        prog: how the help calls it; default, the file's name.
    """

    def __init__(self, description: str | None = None, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse after ``in_flags``; subcommands come here as well, each with its own flags."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(in_flags(self, words), namespace)

    def error(self, message: str) -> NoReturn:
        """Raise the mistake of the command line."""
        start, _, rest = message.partition(": ")
        unknown = rest.split()[0] if start == "unrecognized arguments" and rest.startswith("--") else ""
        hint = did_you_mean(unknown.partition("=")[0], flags(self)) if unknown else ""
        raise InputError(f"{message}{hint if 'mean' in hint else ''}; --help lists what there is")


def flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The long flags of a command, and of its subcommands, with what they do."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        found |= {flag: action for flag in action.option_strings if flag.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= flags(below)
    return found


def in_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words of a command line with ``key=value`` and other tools' keys as the command's own flags.

    Args:
        parser: of the command; one with subcommands leaves the words to them.
        words: as they were typed. What stands behind a flag that takes several values belongs to that flag.

    Raises:
        InputError: a key that the command does not have.
    """
    if any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
        return list(words)
    return _Translation(flags(parser)).read(words)


class _Translation:
    """The reading of one command line.

    Args:
        known: the command's flags.
    """

    def __init__(self, known: dict[str, argparse.Action]) -> None:
        self._known = known
        self._pairs: dict[str, str] = {}
        self._kept: list[str] = []
        self._told: list[str] = []
        self._takes = 0.0  # words that belong to the flag before

    def read(self, words: Sequence[str]) -> list[str]:
        """The words in flags; pairs come first, where no flag takes them for values of its own."""
        remaining = iter(words)
        for word in remaining:
            if word.startswith("--") and len(word) > 2:
                self._read_flag(word, remaining)
            elif self._takes < 1 and (pair := _PAIR.fullmatch(word)):
                self._read_pair(pair["key"], pair["value"])
            else:
                self._kept.append(word)
                self._takes -= 1
        self._join_folder()
        if self._told:
            LOGGER.info("understood: %s", ", ".join(dict.fromkeys(self._told)))
        return [*(word for pair in self._pairs.items() for word in self._words(*pair)), *self._kept]

    def _read_flag(self, word: str, remaining: Iterator[str]) -> None:
        flag, equals, value = word.partition("=")
        own = _flag(flag[2:])
        if own in self._known:
            self._kept.append(f"{own}{equals}{value}")
            self._takes = 0 if equals else _most_values(self._known[own])
            return
        self._takes = 0
        if key := self._habit(flag[2:].replace("-", "_")):
            self._pairs[key] = value if equals else next(remaining, "")
            self._told.append(f"{flag} is {self._shown(key)}")
        else:
            self._kept.append(word)

    def _read_pair(self, key: str, value: str) -> None:
        if _flag(key) not in self._known and (own := self._habit(key)):
            self._told.append(f"{key} is {self._shown(own)}")
            key = own
        self._pairs[key] = value

    def _habit(self, key: str) -> str | None:
        """Our name of another tool's key, if the command has it."""
        own = "out" if key in FOLDER else HABITS.get(key)
        if own is None or not (_flag(own) in self._known or (RECIPE in self._known and "." in own)):
            return None
        return key if key in FOLDER else own

    def _shown(self, key: str) -> str:
        if key in FOLDER:
            return "part of --out PROJECT/NAME"
        return _flag(key) if _flag(key) in self._known else f"{RECIPE} {key}"

    def _join_folder(self) -> None:
        """Let ``project`` and ``name`` be the folder of the results."""
        project, name = (self._pairs.pop(key, None) for key in FOLDER) if "--out" in self._known else (None, None)
        if project is not None and name is None:
            raise InputError(f"project={project}: needs name=NAME as well, or --out FOLDER in place of both")
        if name is not None:
            self._pairs["out"] = str(Path(project or "runs") / name)

    def _words(self, key: str, value: str) -> Iterator[str]:
        """A pair in the words of the command."""
        flag = _flag(key)
        action = self._known.get(flag)
        if action is None and RECIPE in self._known:
            yield from (RECIPE, f"{key}={value}")
        elif action is None:
            hint = did_you_mean(key, (name[2:].replace("-", "_") for name in self._known))
            raise InputError(f"{key}={value}: unknown key{hint}; --help lists what there is")
        elif action.nargs == 0:
            yield from self._switch(flag, value)
        else:
            yield f"{flag}={value}"

    def _switch(self, flag: str, value: str) -> Iterator[str]:
        if value.lower() in _TRUE:
            yield flag
        elif value.lower() not in _FALSE:
            raise InputError(f"{flag[2:]}={value}: must be true or false")
        elif (opposite := f"--no-{flag[2:]}") in self._known:
            yield opposite


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _most_values(action: argparse.Action) -> float:
    """The number of words that a flag may take; half a one, where the next pair is another key."""
    if isinstance(action.nargs, int):
        return action.nargs
    return {None: 1, "?": 0.5}.get(action.nargs, float("inf"))


def positive_int(text: str) -> int:
    """An ``argparse`` type: a whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, found {text!r}")
    return int(text)


def non_negative_int(text: str) -> int:
    """An ``argparse`` type: a whole number from 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, found {text!r}")
    return int(text)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data`` and ``--data-root``."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE|DIR",
        help="a data config's file, its name in configs/data, a YOLO data.yaml, or a data set's folder",
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="the data set's folder, instead of the one in the data config"
    )


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, ``--precision`` and ``--threads``."""
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the network"
    )
    parser.add_argument("--threads", type=non_negative_int, default=0, metavar="N", help=THREADS_HELP)


def add_json(parser: argparse.ArgumentParser, content: str) -> None:
    """Add ``--json``.

    Args:
        parser: of a command whose result is one document.
        content: of the document.
    """
    parser.add_argument("--json", action="store_true", help=f"print {content} as JSON; everything else on stderr")
