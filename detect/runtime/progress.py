"""Progress of long work: a bar on a terminal, elsewhere a log line from time to time."""

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
    """Iterate with a progress bar that vanishes at the end; only the main process shows one.

    Where standard error is no terminal, a log line every ``LINE_S`` seconds takes its place. ``things`` is None for a
    bar that is moved by ``update``; ``total`` is for things without a length; ``is_shown`` is False for work that is
    done at once; ``options`` are others of ``tqdm``, such as ``unit``.
    """
    is_silent = not (is_shown and is_main_process())
    if sys.stderr is not None and sys.stderr.isatty():
        options = {"leave": False, "dynamic_ncols": True, **options}
        return tqdm(things, visible(title), total, disable=is_silent, **options)
    # tqdm calls `display` every half second; `_LogBar` writes every LINE_S.
    options |= {"leave": False, "mininterval": 0.5, "miniters": 1, "maxinterval": 0, "file": io.StringIO()}
    return _LogBar(things, title, total, disable=is_silent, **options)


class _LogBar(tqdm):
    monitor_interval = 0  # no thread that redraws stalled bars

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._logged_at = time.monotonic()
        super().__init__(*arguments, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        now = time.monotonic()
        if msg is None and now - self._logged_at >= LINE_S:
            self._logged_at = now
            LOGGER.info("%s", self.line())
        return True

    def line(self) -> str:
        seconds = self.format_dict["elapsed"]
        details = f" ({self.postfix})" if self.postfix else ""
        title = self.desc.removesuffix(": ")
        if not self.total:
            return f"{title}: {self.n} {self.unit.strip()} in {tqdm.format_interval(seconds)}{details}"
        done = self.n - self.initial
        left = tqdm.format_interval(seconds / done * (self.total - self.n)) if done else "unknown time"
        return f"{title}: {100 * self.n / self.total:.0f} %, {self.n}/{self.total}, {left} left{details}"

    def clear(self, *_: Any, **__: Any) -> None:
        pass
