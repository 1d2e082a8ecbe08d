"""A run whose steps have threads of their own: who does what, and that nothing is left of it, however it ends."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from detect.errors import InputError
from detect.inference.detector import Detector
from detect.inference.outputs import OutputOptions
from detect.inference.run import detect_sources
from detect.inference.sources import expand_sources
from detect.models.build import build_model
from detect.models.checkpoint import Checkpoint
from tests.inference.clips import frames_of, number_of, write_clip


class Noting(Detector):
    """A detector that notes its threads, and fails at a frame, counted from 1, if there is one to fail at."""

    threads: set[str]
    fails_at: int | None = None

    def predict(self, source, **options):
        self.threads.add(threading.current_thread().name)
        if self.fails_at == number_of(source[0]) + 1:
            raise InputError("a frame that cannot be predicted")
        return super().predict(source, **options)


@pytest.fixture
def detector():
    """An untrained one; with the score 0 it finds something everywhere."""
    torch.manual_seed(0)
    model = build_model("yolov5n+width=0.1", num_classes=2).eval()
    found = Noting(Checkpoint(model, ("cat", "dog"), (1, 2), 64, {}, {}, None, 1.0, {}), "cpu")
    found.threads = set()
    return found


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")] == []


def run(detector, clip, folder, on_record=None, **options):
    sources = expand_sources(clip)
    options = {"conf": 0.0, "max_det": 3, **options}
    return list(detect_sources(detector, sources, folder, OutputOptions(json=True), None, on_record, **options))


def test_the_network_has_a_thread_and_the_order_is_kept(detector, tmp_path):
    seen = []

    def note(record):
        seen.append((record["frame"], threading.current_thread() is threading.main_thread()))

    run(detector, write_clip(tmp_path / "a.mp4", 20), tmp_path / "out", note, batch_size=3)
    assert seen == [(number, True) for number in range(20)]
    assert len(detector.threads) == 1
    assert next(iter(detector.threads)).startswith("prefetch")
    drawn = frames_of(tmp_path / "out/a.mp4")
    brightness = [float(np.median(image)) for image in drawn]
    assert len(drawn) == 20
    assert brightness == sorted(brightness)


def test_tiles_have_one_image_at_a_time(detector, tmp_path):
    run(detector, write_clip(tmp_path / "a.mp4", 3), tmp_path / "out", tile=64)
    assert detector.threads == {"MainThread"}


def test_a_failure_of_the_network_ends_the_run(detector, tmp_path):
    """One error; the frames before it are in the video and the table."""
    detector.fails_at = 8
    with pytest.raises(InputError, match=r"^a frame that cannot be predicted$"):
        run(detector, write_clip(tmp_path / "a.mp4", 20), tmp_path / "out")
    assert len(frames_of(tmp_path / "out/a.mp4")) == 7
    assert (tmp_path / "out/predictions.json").is_file()


def test_a_failure_of_the_writer_ends_the_run(detector, tmp_path):
    def stop(record):
        if record["frame"] == 5:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        run(detector, write_clip(tmp_path / "a.mp4", 20), tmp_path / "out", stop)
