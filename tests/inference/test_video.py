from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.inference import video
from detect.inference.sources import expand_sources
from detect.inference.video import USUAL_FPS, Clip, Video, VideoError, quiet
from tests.inference.clips import HW, camera, gray, number_of, write_clip


def opened(source, every=1):
    return Video(expand_sources(source)[0], every)


@pytest.fixture
def short_patience(monkeypatch):
    """Give a stream up after a second."""
    monkeypatch.setattr(video, "STALL_SECONDS", 1.0)


def test_every_frame_comes_with_its_number_and_time(tmp_path, caplog):
    clip = opened(write_clip(tmp_path / "a.mp4"))
    assert clip.clip == Clip(fps=10.0, num_frames=12, is_live=False)
    frames = list(clip.frames())
    assert [index for index, _, _ in frames] == list(range(12))
    np.testing.assert_allclose([time_s for _, time_s, _ in frames], np.arange(12) / 10, atol=1e-6)
    assert [number_of(image) for _, _, image in frames] == list(range(12))
    assert all(image.shape == (*HW, 3) and image.dtype == np.uint8 for _, _, image in frames)
    assert caplog.text == ""


def test_every_third_frame(tmp_path):
    clip = opened(write_clip(tmp_path / "a.mp4", num_frames=11), every=3)
    # 0, 3, 6, 9 of 11 frames; a third of 10 frames per second.
    assert clip.clip == Clip(fps=pytest.approx(10 / 3), num_frames=4, is_live=False)
    assert [(index, number_of(image)) for index, _, image in clip.frames()] == [(0, 0), (3, 3), (6, 6), (9, 9)]


def test_colours_are_rgb(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, HW[::-1])
    writer.write(np.full((*HW, 3), (255, 0, 0), np.uint8))  # blue, in OpenCV's order
    writer.release()
    ((_, _, image),) = opened(tmp_path / "a.mp4").frames()
    assert image[..., 2].mean() > 200 > 60 > image[..., 0].mean()


def test_the_rotation_is_applied(tmp_path):
    """A telephone that was held upright stores the picture lying and a matrix: here a quarter turn clockwise."""
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, HW[::-1])
    image = np.zeros((*HW, 3), np.uint8)
    image[:, HW[1] // 2 :] = 255  # the right half is white
    writer.write(image)
    writer.release()
    content = bytearray(path.read_bytes())
    # ISO 14496-12, 8.3.2: 40 bytes stand between the box's name and its matrix (16.16, the last column 2.30).
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    ((_, _, turned),) = opened(path).frames()
    assert turned.shape == (HW[1], HW[0], 3)
    assert turned[: HW[1] // 2 - 4].mean() < 20  # clockwise, the left side comes up and the right side goes down
    assert turned[HW[1] // 2 + 4 :].mean() > 235


def test_a_file_that_is_cut_off(tmp_path, caplog):
    """The header of an AVI is at its start and counts the frames; an MP4 of OpenCV has it at the end."""
    place = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(place), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, HW[::-1])
    for number in range(24):
        writer.write(gray(number))
    writer.release()
    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    frames = list(opened(place).frames())
    assert 8 <= len(frames) <= 14  # about half of them
    assert f"{place}: ended after {len(frames)} of 24 frames; is it cut off?" in caplog.text
    content = write_clip(tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match=r"b\.mp4: cannot be opened: is no video, or is cut off or damaged"):
        opened(tmp_path / "b.mp4")


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 5000, b"\xff\xd8\xff"])
def test_no_video(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4: (cannot be opened: is no video|holds no frame)"):
        list(opened(tmp_path / "a.mp4").frames())


@pytest.mark.parametrize("name", ["a:b.mp4", "%03d.mp4", "concat:x.mp4", "a\nb.mp4", "-i.mp4", "ü 猫.mp4"])
def test_names_that_mean_something_elsewhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4").rename(name)
    assert len(list(opened(name).frames())) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="the file system takes no such name")
def test_a_name_that_is_not_text(tmp_path):
    name = tmp_path / os.fsdecode(b"\xff.mp4")
    write_clip(tmp_path / "a.mp4").rename(name)
    with pytest.raises(VideoError, match=r"the name of a video must be valid UTF-8; rename it"):
        opened(name)


def test_a_missing_camera():
    with pytest.raises(VideoError, match=r"camera 99: cannot be opened: there is no such camera, or it is in use"):
        opened(99)


def test_a_stream(caplog):
    with camera(6, stalls=False) as address:
        stream = opened(address)
        assert stream.clip == Clip(fps=USUAL_FPS, num_frames=None, is_live=True)
        frames = list(stream.frames())
    assert [number_of(image) for _, _, image in frames] == list(range(6))
    times = [time_s for _, time_s, _ in frames]
    assert times == sorted(times)
    assert f"{address}: ended after 6 frames" in caplog.text


@pytest.mark.usefixtures("short_patience")
def test_a_stream_that_stalls(caplog):
    with camera(20, stalls=True) as address:
        started = time.monotonic()
        frames = list(opened(address).frames())
        assert time.monotonic() - started < 20
    assert [number_of(image) for _, _, image in frames] == list(range(20))
    assert f"{address}: gave no frame for 1 s and was given up after {len(frames)} frames" in caplog.text


@pytest.mark.usefixtures("short_patience")
def test_a_stream_that_never_begins():
    with camera(0, stalls=True) as address, pytest.raises(VideoError, match=r"/live: (cannot be opened|gave no frame)"):
        list(opened(address).frames())


def test_nobody_answers():
    with pytest.raises(VideoError, match=r"http://127\.0\.0\.1:9/x: cannot be opened: nobody answers"):
        opened("http://me:secret@127.0.0.1:9/x")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not say what is open")
def test_stopping_early_closes_the_file(tmp_path):
    frames = opened(write_clip(tmp_path / "a.mp4")).frames()
    next(frames)
    frames.close()
    assert str(tmp_path / "a.mp4") not in {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}


def test_opencv_is_silent():
    """FFmpeg reads the variable at its first use, perhaps before the tests."""
    level = cv2.utils.logging.getLogLevel()
    with quiet():
        assert os.environ["OPENCV_FFMPEG_LOGLEVEL"] == "-8"
        assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT
    assert cv2.utils.logging.getLogLevel() == level
