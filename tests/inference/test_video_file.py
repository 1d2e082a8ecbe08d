from __future__ import annotations

import errno
import resource
import signal
import sys

import numpy as np
import pytest

from detect.inference.video import video_suffix, writing_video
from tests.inference.clips import frames_of, rate_of


def write(path, num_frames, image_hw, fps, image_rgb=None):
    image = np.full((*image_hw, 3), 120, np.uint8) if image_rgb is None else image_rgb
    with writing_video(path, image_hw, fps) as add:
        for _ in range(num_frames):
            add(image, None)


@pytest.mark.parametrize(
    ("image_hw", "expected"),
    [
        ((480, 640), ".mp4"),
        ((2, 2), ".mp4"),
        ((241, 320), ".avi"),
        ((240, 321), ".avi"),
        ((5, 7), ".avi"),
        ((1, 1), ".avi"),
        ((8190, 16), ".mp4"),
        ((16, 8192), ".avi"),
    ],
)
@pytest.mark.parametrize("fps", [12.5, 29.97002997])
def test_size_count_and_rate_are_kept(tmp_path, image_hw, expected, fps):
    assert video_suffix(image_hw) == expected
    path = tmp_path / f"a{expected}"
    write(path, 3, image_hw, fps)
    assert [frame.shape for frame in frames_of(path)] == [(*image_hw, 3)] * 3
    assert rate_of(path) == pytest.approx(fps, abs=0.001)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("fps", [0.1, 1.0, 7.4999, 59.94005994, 119.88011988, 143.856, 240.123, 333.3333, 1000.0])
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_odd_rates(tmp_path, fps, suffix):
    write(tmp_path / f"a{suffix}", 2, (16, 16), fps)
    # Two decimals are kept above 65, and none above 655; OpenCV rounds as soon as it is within 0.001.
    assert rate_of(tmp_path / f"a{suffix}") == pytest.approx(fps, abs=0.0061 if fps > 65 else 0.0011)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_rate_too_low_to_be_written(tmp_path, suffix):
    """Each 25,000th frame of an hour, and less."""
    for fps in (0.001, 0.00001):
        write(tmp_path / f"a{suffix}", 2, (16, 16), fps)
        assert rate_of(tmp_path / f"a{suffix}") == pytest.approx(0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_colours_are_rgb(tmp_path, suffix):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    write(tmp_path / f"a{suffix}", 1, (16, 16), 10, red)
    (frame,) = frames_of(tmp_path / f"a{suffix}")  # BGR
    assert frame[..., 2].mean() > 200 > 60 > frame[..., 0].mean()


def test_another_size_in_the_middle(tmp_path):
    with writing_video(tmp_path / "a.mp4", (32, 48), 10) as add:
        add(np.full((32, 48, 3), 50, np.uint8), None)
        add(np.full((64, 64, 3), 200, np.uint8), None)
    assert [(frame.shape, round(frame.mean(), -1)) for frame in frames_of(tmp_path / "a.mp4")] == [
        ((32, 48, 3), 50),
        ((32, 48, 3), 200),
    ]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(AttributeError), writing_video(tmp_path / "a.mp4", (16, 16), 10) as add:
        add(None, None)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.mp4", b"old")]


@pytest.fixture
def small_disk():
    """A limit on the size of files ends a write in the middle, as a full disk does."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of files")
@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_full_disk(tmp_path, name, small_disk):
    """OpenCV says nothing when a write fails."""
    rng = np.random.default_rng(0)

    def write() -> None:
        with writing_video(tmp_path / name, (64, 64), 10) as add:
            for _ in range(60):
                add(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), None)

    with pytest.raises(OSError, match="No space left") as raised:
        write()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []
