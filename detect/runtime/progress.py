"""Progress bars, on a terminal that several processes may share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from detect.errors import visible
from detect.runtime.processes import is_first

T = TypeVar("T")


def progress_bar(
    things: Iterable[T] | None, title: str, total: int | None = None, *, is_shown: bool = True, **options: Any
) -> tqdm[T]:
    """A bar that goes on with each of the things, and away after the last; of several processes only the first has one.

    Args:
        things: what is gone through; None for a bar that is moved by ``update``.
        title: what is going on.
        total: how many things there are, if they do not know it themselves.
        is_shown: False for what is done at once.
        options: others of ``tqdm``, such as ``unit``.
    """
    is_silent = not (is_shown and is_first())
    return tqdm(things, visible(title), total, disable=is_silent, **{"leave": False, "dynamic_ncols": True, **options})
