"""As a library the toolkit is silent; what an application does with its messages is the application's matter."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tqdm import tqdm

from detect.data.images import read_image
from detect.runtime import logs
from detect.runtime.logs import LOGGER, capture_decoder_messages, configure_logging, decoder_warnings


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


# ------------------------------------------------------------------------- messages of image decoders


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A JPEG with bytes that libjpeg complains of, and goes on after."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    content = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    content[-2:-2] = bytes(88)
    (tmp_path / "a.jpg").write_bytes(content)
    return tmp_path / "a.jpg"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CAPTURE", logs._Capture())


def read(path: Path) -> None:
    with decoder_warnings(path):
        assert read_image(path).shape == (40, 50, 3)


@pytest.mark.usefixtures("fresh")
def test_tools_say_it_once_with_the_name(
    damaged: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    capture_decoder_messages()
    read(damaged)
    read(damaged)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(f"{damaged}: Corrupt JPEG data: ")
    os.write(2, b"afterwards\n")  # the descriptor leads to where it led before
    error = capfd.readouterr().err
    assert "afterwards" in error
    assert error.count("Corrupt") == error.count(str(damaged))  # by the log alone, if it is shown at all


@pytest.mark.usefixtures("fresh")
def test_other_programs_and_threads_are_left_alone(
    damaged: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    read(damaged)
    assert "Corrupt JPEG data" in capfd.readouterr().err
    capture_decoder_messages()
    thread = threading.Thread(target=read, args=(damaged,))
    thread.start()
    thread.join()
    assert "Corrupt JPEG data" in capfd.readouterr().err
    assert not caplog.records


@pytest.mark.usefixtures("fresh")
def test_a_child_process_has_its_own(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    capture_decoder_messages()
    read(damaged)
    before = os.dup(logs._CAPTURE.descriptor())
    child = os.fork()
    if not child:
        try:
            own = logs._CAPTURE.descriptor()
            os._exit(int(os.path.sameopenfile(own, before) or os.fstat(own).st_size > 0))
        finally:  # never back into the tests
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
