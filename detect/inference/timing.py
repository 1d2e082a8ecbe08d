"""Median times of several networks that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from detect.runtime.progress import progress_bar

MAX_ROUNDS, MIN_ROUNDS, ENOUGH_SECONDS = 51, 5, 20.0
"""Maximum runs, minimum runs, time budget in seconds."""


def median_ms(runs: Sequence[Callable[[], float]]) -> list[float]:
    """Milliseconds of each run: the median, after a first one that does not count.

    The runs take turns, so that a machine that is slow for a while is slow for all.

    Args:
        runs: functions that return the seconds that they measured.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    start = time.perf_counter()
    for number in progress_bar(range(MAX_ROUNDS), "milliseconds", unit="round"):
        if number >= MIN_ROUNDS and time.perf_counter() - start > ENOUGH_SECONDS:
            break
        for run, found in zip(runs, seconds, strict=True):
            found.append(run())
    return [1000 * median(found) for found in seconds]
