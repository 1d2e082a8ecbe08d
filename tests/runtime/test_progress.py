"""A bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import sys
import termios

import pytest

from detect.runtime import progress
from detect.runtime.logs import LOGGER
from detect.runtime.progress import progress_bar


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the lines go by; the list's last."""
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[-1])
    return seconds


@pytest.fixture
def lines(caplog, monkeypatch):
    """The messages; pytest's standard error is no terminal, and no tool that ran before writes to it."""
    monkeypatch.setattr(LOGGER, "handlers", [])
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def worked(bar, clock, steps, step_s):
    """Steps of work; tqdm asks for a line only every half second of its own clock."""
    for _ in range(steps):
        clock.append(clock[-1] + step_s)
        bar.last_print_t -= 1
        bar.update()


def test_lines_every_half_minute(clock, lines, capsys):
    with progress_bar(None, "training", 8, unit="batch") as bar:
        bar.start_t -= 40  # half of it took 40 s
        worked(bar, clock, 4, 10)
    assert lines.messages == ["training: 38 %, 3/8, 01:06 left"]  # at 30 s: 5 of 8 are left, 40 / 3 s each
    assert capsys.readouterr().err == ""


def test_work_of_unknown_length(clock, lines):
    with progress_bar(None, "a.mp4", unit=" frames") as bar:
        bar.set_postfix_str("best 1")
        bar.start_t -= 100
        worked(bar, clock, 2, 31)
    assert lines.messages == ["a.mp4: 1 frames in 01:40 (best 1)", "a.mp4: 2 frames in 01:40 (best 1)"]


def test_short_work_says_nothing(lines, capsys):
    assert list(progress_bar([1, 2], "work")) == [1, 2]
    with progress_bar([1, 2], "work", leave=True) as bar:
        for number in bar:
            bar.set_postfix(number=number)
    assert list(progress_bar([1, 2], "work", is_shown=False)) == [1, 2]
    assert lines.messages == []
    assert capsys.readouterr().err == ""


def written(screen, terminal):
    """What a terminal has got since the last time, up to a mark."""
    terminal.write("\x00")
    terminal.flush()
    shown = ""
    while not shown.endswith("\x00"):
        shown += os.read(screen, 10_000).decode()
    return shown[:-1]


def test_a_bar_on_a_terminal(monkeypatch):
    first, second = os.openpty()
    fcntl.ioctl(second, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(second, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert list(progress_bar([1, 2], "work", mininterval=0)) == [1, 2]
        shown = written(first, terminal)
        assert list(progress_bar([1, 2], "work", is_shown=False)) == [1, 2]
        assert written(first, terminal) == ""
    os.close(first)
    assert "work:   0%" in shown
    assert "2/2" in shown
