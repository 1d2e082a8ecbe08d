"""Steps of a pipeline that work at the same time, each in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()


def prefetch(things: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """Iterate over ``things`` in order, while a thread computes up to ``size`` of the following ones.

    An error of the thread is raised here, in its place in the order. The thread begins with the first item; it ends,
    and ``things`` is closed, when this iterator is closed or has ended, for whatever reason; one item that is being
    computed is waited for.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting = deque(worker.submit(_next, things) for _ in range(size))
        while (thing := waiting.popleft().result()) is not _END:
            waiting.append(worker.submit(_next, things))
            yield thing
            del thing  # it is freed before the next one is waited for
    finally:
        worker.shutdown(cancel_futures=True)
        things.close()


def _next(things: Generator[Any, None, None]) -> Any:
    return next(things, _END)
