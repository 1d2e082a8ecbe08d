"""Progress of long work: a bar on a terminal, which several processes may share; elsewhere a line now and then."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from detect.errors import visible
from detect.runtime.distributed import is_main_process
from detect.runtime.logs import LOGGER

T = TypeVar("T")

LINE_S = 30.0
"""Seconds between two lines where there is no terminal; shorter work has none."""


def progress_bar(
    things: Iterable[T] | None, title: str, total: int | None = None, *, is_shown: bool = True, **options: Any
) -> tqdm[T]:
    """A bar that goes on with each of the things, and away after the last; of several processes only the first has one.

    Where standard error is no terminal, a message of the log every ``LINE_S`` seconds takes its place.

    Args:
        things: what is gone through; None for a bar that is moved by ``update``.
        title: what is going on.
        total: how many things there are, if they do not know it themselves.
        is_shown: False for what is done at once.
        options: others of ``tqdm``, such as ``unit``.
    """
    is_silent = not (is_shown and is_main_process())
    if sys.stderr is not None and sys.stderr.isatty():
        options = {"leave": False, "dynamic_ncols": True, **options}
        return tqdm(things, visible(title), total, disable=is_silent, **options)
    # Steps of half a second: tqdm asks for a line so often, which ``_Lines`` gives every ``LINE_S``.
    options |= {"leave": False, "mininterval": 0.5, "miniters": 1, "maxinterval": 0, "file": io.StringIO()}
    return _Lines(things, title, total, disable=is_silent, **options)


class _Lines(tqdm):
    """A bar that is never drawn, but written about."""

    monitor_interval = 0  # no thread that draws bars which stand still

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._line_at = time.monotonic()
        super().__init__(*arguments, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line if it is time; the arguments are those of a bar."""
        now = time.monotonic()
        if msg is None and now - self._line_at >= LINE_S:
            self._line_at = now
            LOGGER.info("%s", self.line())
        return True

    def line(self) -> str:
        """How far the work has come, in words."""
        seconds = self.format_dict["elapsed"]
        details = f" ({self.postfix})" if self.postfix else ""
        title = self.desc.removesuffix(": ")
        if not self.total:
            return f"{title}: {self.n} {self.unit.strip()} in {tqdm.format_interval(seconds)}{details}"
        done = self.n - self.initial
        left = tqdm.format_interval(seconds / done * (self.total - self.n)) if done else "unknown time"
        return f"{title}: {100 * self.n / self.total:.0f} %, {self.n}/{self.total}, {left} left{details}"

    def clear(self, *_: Any, **__: Any) -> None:
        """Nothing is drawn."""
