"""CPU times that can be compared on a machine that others use too, and processes that keep its cores busy."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def alternate(runs: dict[Key, Callable[[], None]], rounds: int) -> dict[Key, float]:
    """Time some functions in turn, A B A B, so that what disturbs one disturbs the other.

    Args:
        runs: name to function.
        rounds: how often each is timed, after one call that does not count.

    Returns:
        Name to the median of the CPU seconds of a call: of this process, all its threads together.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if round_number > 0:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(measured) for name, measured in seconds.items()}


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that each keep a core busy."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
