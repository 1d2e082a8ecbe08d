"""CPU times that can be compared on a machine that others use too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable
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
