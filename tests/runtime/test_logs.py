"""As a library the toolkit is silent; what an application does with its messages is the application's matter."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tqdm import tqdm

from detect.runtime.logs import LOGGER, configure_logging


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tools' logging, undone afterwards."""
    monkeypatch.setattr(LOGGER, "handlers", list(LOGGER.handlers))
    monkeypatch.setattr(LOGGER, "propagate", LOGGER.propagate)
    level = LOGGER.level
    configure_logging()
    yield
    LOGGER.setLevel(level)


def test_a_library_is_silent() -> None:
    """Without a handler Python would print warnings by itself."""
    code = "from detect.runtime.logs import LOGGER; LOGGER.warning('unheard')"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_application_hears_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="detect"):
        LOGGER.info("3 images")
    assert caplog.messages == ["3 images"]


@pytest.mark.usefixtures("configured")
def test_configuring_twice_says_it_once(capsys: pytest.CaptureFixture) -> None:
    configure_logging()
    LOGGER.info("once")
    assert capsys.readouterr().err == "once\n"


@pytest.mark.usefixtures("configured")
def test_a_progress_bar_is_drawn_again_below(capsys: pytest.CaptureFixture) -> None:
    with tqdm(total=10, file=sys.stderr, ascii=True, ncols=40) as bar:
        bar.update(5)
        LOGGER.warning("in between")
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "warning: in between" in lines  # on a line of its own
    assert "5/10" in "".join(lines[lines.index("warning: in between") + 1 :])
