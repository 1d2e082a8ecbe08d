"""What libjpeg writes about a damaged image has the image's name."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.data.images import read_image
from detect.runtime import logs
from detect.runtime.logs import listen_to_decoders, named_messages


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A JPEG with bytes that libjpeg complains of, and goes on after."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    content = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    content[-2:-2] = bytes(88)
    (tmp_path / "a.jpg").write_bytes(content)
    return tmp_path / "a.jpg"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_CAPTURE", logs._Capture())


def read(path: Path) -> None:
    with named_messages(path):
        assert read_image(path).shape == (40, 50, 3)


def test_tools_say_it_once_with_the_name(
    damaged: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    listen_to_decoders()
    read(damaged)
    read(damaged)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(f"{damaged}: Corrupt JPEG data: ")
    os.write(2, b"afterwards\n")  # the descriptor leads to where it led before
    error = capfd.readouterr().err
    assert "afterwards" in error
    assert error.count("Corrupt") == error.count(str(damaged))  # by the log alone, if it is shown at all


def test_other_programs_and_threads_are_left_alone(
    damaged: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    read(damaged)
    assert "Corrupt JPEG data" in capfd.readouterr().err
    listen_to_decoders()
    thread = threading.Thread(target=read, args=(damaged,))
    thread.start()
    thread.join()
    assert "Corrupt JPEG data" in capfd.readouterr().err
    assert not caplog.records


def test_a_child_process_has_its_own(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    listen_to_decoders()
    read(damaged)
    before = os.dup(logs._CAPTURE.opened())
    child = os.fork()
    if not child:
        try:
            own = logs._CAPTURE.opened()
            os._exit(int(os.path.sameopenfile(own, before) or os.fstat(own).st_size > 0))
        finally:  # never back into the tests
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
