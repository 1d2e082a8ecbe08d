"""Results on standard output: lines of text, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def print_lines(lines: Iterable[str], *, is_json: bool = False) -> None:
    """Print lines as they are generated; on standard error if standard output is for JSON."""
    for line in lines:
        print(line, file=sys.stderr if is_json else sys.stdout)


def print_all(lines: Generator[str, None, T], *, is_json: bool = False, is_silent: bool = False) -> T:
    """Print the lines of a generator as ``print_lines``, unless ``is_silent``, and return its return value."""
    while True:
        try:
            line = next(lines)
        except StopIteration as ended:
            return ended.value
        if not is_silent:
            print_lines([line], is_json=is_json)


def print_json(content: Any) -> None:
    """Print a JSON document: ASCII, no NaN."""
    print(json.dumps(content, indent=1, allow_nan=False))
