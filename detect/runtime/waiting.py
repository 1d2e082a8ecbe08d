"""Waiting that can be looked at, and ended, from outside."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_S = 1.0


@contextmanager
def ticking(on_tick: Callable[[], None]) -> Iterator[None]:
    """Call ``on_tick`` every ``TICK_S`` seconds while the block waits; it may raise an error, which ends the block.

    A machine or a process that is suspended for an hour counts one tick. The clock is SIGALRM in the main thread; in
    other threads, and where the application itself uses that signal, there are no ticks.

    Args:
        on_tick: called between two steps of Python code.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGALRM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGALRM, lambda number, frame: on_tick())
    try:
        signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
