"""Command-line parsing: strict flags, ``key=value`` as ``--key value``, aliases from other toolkits."""

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
  1    data check: warnings; ablate: a training failed; otherwise another process of the run is lost
  2    the command line, a file or data is wrong, or a file cannot be written; data check: errors
  3    done, but the result is out of tolerance: export, reproduce
  130  Ctrl-C; 143 SIGTERM
"""
THREADS_HELP = "computing threads on a CPU; 0 is the fastest number beside other programs (default: 0)"
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps (default: auto)"
STANDARD_OUTPUT = Path("-")
"""Value of ``--json`` without a file."""

ALIASES = {
    "imgsz": "image_size",
    "img_size": "image_size",
    "batch": "batch_size",
    "lr0": "optimizer.lr",
    "patience": "evaluation.patience",
    "model": "weights",
    "cfg": "model",
    "save_dir": "out",
}
"""Keys of other toolkits, and ours; a flag of the command with that name comes first."""
FOLDER = ("project", "name")
"""Keys of other toolkits for the output folder; ``out`` becomes ``PROJECT/NAME``, or ``runs/NAME``."""
RECIPE = "--set"
"""Flag for keys of a recipe."""

_PAIR = re.compile(r"(?P<key>[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class ToolParser(argparse.ArgumentParser):
    """``ArgumentParser`` that raises ``InputError`` and accepts no abbreviated flags.

    ``key=value`` is ``--key value``; in a command with ``--set``, an unknown key is a key of the recipe.
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
        """Translate the words with ``as_flags`` and parse them; subcommands call this with their own flags."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(as_flags(self, words), namespace)

    def error(self, message: str) -> NoReturn:
        start, _, rest = message.partition(": ")
        unknown = rest.split()[0] if start == "unrecognized arguments" and rest.startswith("--") else ""
        hint = did_you_mean(unknown.partition("=")[0], flags(self)) if unknown else ""
        raise InputError(f"{message}{hint if 'mean' in hint else ''}; --help lists what there is")


def flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the long flags of a command and of its subcommands."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        found |= {flag: action for flag in action.option_strings if flag.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= flags(below)
    return found


def as_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Translate ``key=value`` and aliases into flags of the command; subcommands translate their own words.
    Values of a flag that takes several are not translated. An unknown key raises ``InputError``.
    """
    if any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
        return list(words)
    return _Translation(flags(parser)).read(words)


class _Translation:
    def __init__(self, known: dict[str, argparse.Action]) -> None:
        self._known = known
        self._pairs: dict[str, str] = {}
        self._given: set[str] = set()  # flags
        self._kept: list[str] = []
        self._aliases: list[str] = []
        self._takes = 0.0  # values that the previous flag may still take

    def read(self, words: Sequence[str]) -> list[str]:
        """Return the words as flags; pairs come first, so that no flag takes them as its values."""
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
        if self._aliases:
            LOGGER.info("aliases: %s", ", ".join(dict.fromkeys(self._aliases)))
        return [*(word for pair in self._pairs.items() for word in self._words(*pair)), *self._kept]

    def _read_flag(self, word: str, remaining: Iterator[str]) -> None:
        flag, equals, value = word.partition("=")
        own = _flag(flag[2:])
        if own in self._known:
            self._given.add(own)
            self._kept.append(f"{own}{equals}{value}")
            self._takes = 0 if equals else _most_values(self._known[own])
            return
        self._takes = 0
        if key := self._alias(flag[2:].replace("-", "_")):
            self._add(key, value if equals else next(remaining, ""))
            self._aliases.append(f"{flag} is {self._shown(key)}")
        else:
            self._kept.append(word)

    def _read_pair(self, key: str, value: str) -> None:
        if _flag(key) not in self._known and (own := self._alias(key)):
            self._aliases.append(f"{key} is {self._shown(own)}")
            key = own
        self._add(key, value)

    def _add(self, key: str, value: str) -> None:
        if key in self._pairs:
            raise InputError(f"{key}={value}: {key} is given twice, the other time {self._pairs[key]}")
        self._pairs[key] = value

    def _alias(self, key: str) -> str | None:
        """Return our name of an alias if the command has it."""
        own = "out" if key in FOLDER else ALIASES.get(key)
        if own is None or not (_flag(own) in self._known or (RECIPE in self._known and "." in own)):
            return None
        return key if key in FOLDER else own

    def _shown(self, key: str) -> str:
        if key in FOLDER:
            return "part of --out PROJECT/NAME"
        return _flag(key) if _flag(key) in self._known else f"{RECIPE} {key}"

    def _join_folder(self) -> None:
        project, name = (self._pairs.pop(key, None) for key in FOLDER) if "--out" in self._known else (None, None)
        if project is not None and name is None:
            raise InputError(f"project={project}: needs name=NAME as well, or --out FOLDER in place of both")
        if name is not None:
            self._pairs["out"] = str(Path(project or "runs") / name)

    def _words(self, key: str, value: str) -> Iterator[str]:
        flag = _flag(key)
        action = self._known.get(flag)
        if flag in self._given:
            raise InputError(f"{key}={value}: {flag} is there as well; give one of the two")
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
    """Return the maximum number of values; 0.5 for an optional one, which is never a ``key=value`` word."""
    if isinstance(action.nargs, int):
        return action.nargs
    return {None: 1, "?": 0.5}.get(action.nargs, float("inf"))


def positive_int(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, found {text!r}")
    return int(text)


def non_negative_int(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, found {text!r}")
    return int(text)


def add_data(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="float type of the network (default: fp32)",
    )
    parser.add_argument("--threads", type=non_negative_int, default=0, metavar="N", help=THREADS_HELP)


def add_json(parser: argparse.ArgumentParser, content: str) -> None:
    """Add ``--json``, which prints ``content``."""
    parser.add_argument("--json", action="store_true", help=f"print {content} as JSON; everything else on stderr")
