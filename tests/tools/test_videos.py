"""tools/predict.py on videos, cameras and streams, as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detect.data.images import write_image
from detect.models.build import build_model
from detect.models.checkpoint import save_checkpoint
from tests.inference.clips import camera, frames_of, gray, number_of, rate_of, write_clip
from tests.models.thin import thin
from tests.tools.running import TOOLS, Ended, run_here

AT_THE_LIMIT = (
    "reached the limit of 3 detections and may have more objects; raise --max-det (of export for a file with "
    "suppression inside)"
)


DAMAGED = "cannot be opened: is no video, or is cut off or damaged"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained detector: what it finds means nothing, but it finds something at a low score."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    network = build_model("yolov5n+width=0.1", num_classes=2)
    save_checkpoint(path, network, names=("cat", "dog"), category_ids=(3, 9), image_size=64, metrics={}, provenance={})
    return path


def command(model, *sources):
    """The words of a run that finds three objects in each image."""
    return ("predict.py", "--weights", model, "--out", "out", "--conf", 0, "--max-det", 3, "--source", *sources)


def written(folder):
    """Every file below ``folder``, but for the list of what was written."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != ".detect-outputs")


def said(ended):
    """The lines on standard error, without the progress bar."""
    lines = ended.error.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "frames/s" not in line]


def test_a_video_with_all_that_can_be_written(model, tmp_path):
    write_clip(tmp_path / "a.mov", num_frames=5, fps=29.97)
    ended = run_here(
        tmp_path,
        *command(model, "a.mov"),
        *("--save-json", "--save-csv", "--save-txt", "--save-crops", "--save-frames", "--batch-size", 2),
    )
    assert ended.code == 0, ended
    lines = ended.output.splitlines()
    assert re.fullmatch(r"a\.mov: 5 frames, \d+ (cat|dog)(, \d+ (cat|dog))?", lines[0])
    assert lines[1:] == [
        "drawn videos: out",
        "all detections: out/predictions.json",
        "table of all detections: out/predictions.csv",
        "text files: out/labels",
        "crops: out/crops",
        "frames: out/frames",
    ]
    assert len(frames_of(tmp_path / "out/a.mp4")) == 5
    assert rate_of(tmp_path / "out/a.mp4") == pytest.approx(29.97, abs=1e-3)
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [entry["frame"] for entry in entries] == [frame for frame in range(5) for _ in range(3)]
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["frame"]), row["category"]) for row in rows] == [(e["frame"], e["category"]) for e in entries]
    assert len((tmp_path / "out/labels/a.mov/000004.txt").read_text().splitlines()) == 3
    assert len([name for name in written(tmp_path / "out") if name.startswith("crops/")]) == 15
    saved = [cv2.imread(str(tmp_path / f"out/frames/a.mov/00000{index}.jpg")) for index in range(5)]
    assert [number_of(frame) for frame in saved] == list(range(5))


def test_every_third_frame_lasts_three_times_as_long(model, tmp_path):
    write_clip(tmp_path / "a.mp4", num_frames=12, fps=30.0)
    ended = run_here(tmp_path, *command(model, "a.mp4"), "--every", 3)
    assert ended.output.startswith("a.mp4: 4 frames, ")
    assert len(frames_of(tmp_path / "out/a.mp4")) == 4
    assert rate_of(tmp_path / "out/a.mp4") == 10


def test_odd_sides_are_kept(model, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "a.avi"), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (321, 241)
    )
    for _ in range(3):
        writer.write(np.zeros((241, 321, 3), np.uint8))
    writer.release()
    ended = run_here(tmp_path, *command(model, "a.avi"))
    assert ended.code == 0, ended
    assert [frame.shape for frame in frames_of(tmp_path / "out/a.avi")] == [(241, 321, 3)] * 3
    assert rate_of(tmp_path / "out/a.avi") == 25


def test_a_list_of_images_videos_and_streams(model, tmp_path):
    write_clip(tmp_path / "in/a.mp4", num_frames=3)
    write_image(tmp_path / "in/b.png", gray(5))
    with camera(4, stalls=False) as address:
        (tmp_path / "in/list.txt").write_text(f"# two files and a camera\na.mp4\n{address}\nb.png\n")
        ended = run_here(tmp_path, *command(model, "in/list.txt"), "--save-json")
    assert ended.code == 0, ended
    assert [line.split(", ")[0].split(": ", 1)[1] for line in ended.output.splitlines()[:2]] == ["3 frames", "4 frames"]
    stream = re.sub(r"[:/]", "_", address.removeprefix("http://"))
    assert written(tmp_path / "out") == [f"{stream}.mp4", "a.mp4", "b.jpg", "predictions.json"]
    assert said(ended) == [
        f"warning: {address}: ended after 4 frames",
        f"warning: 8 of 8 images {AT_THE_LIMIT}",
    ]


@pytest.mark.slow
@pytest.mark.real
def test_a_real_video_keeps_count_rate_and_size(model, tmp_path, real_data):
    """377 frames of 768 x 432 pixels at 12.5 frames per second."""
    source = real_data / "video/car-detection.mp4"
    ended = run_here(tmp_path, *command(model, source), "--save-json", "--save-csv")
    assert ended.code == 0, ended
    frames = frames_of(tmp_path / "out/car-detection.mp4")
    assert len(frames) == 377
    assert frames[0].shape == (432, 768, 3)
    assert rate_of(tmp_path / "out/car-detection.mp4") == 12.5
    assert "\r" not in ended.error  # no bar where nobody sees it
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [entry["frame"] for entry in entries] == [frame for frame in range(377) for _ in range(3)]
    assert entries[-1]["time"] == pytest.approx(376 / 12.5)


SIGNALS = thin([(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")], 0)
SAVED = ("--save-json", "--save-csv", "--save-txt")


@pytest.fixture
def long_video(tmp_path):
    """``a.mp4`` of 5,000 frames, and two damaged videos."""
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for each in range(5000):
        writer.write(gray(each % 25))
    writer.release()
    damage(tmp_path)
    return tmp_path


def wait_for_frames(folder, until):
    """Wait for the tenth frame, at most until a time; False if it has not come."""
    while not (folder / "out/labels/a.mp4/000009.txt").exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def check_stopped(folder, ended, code, word):
    """What was done until the signal is there and whole."""
    assert ended.code == code, ended
    first, second, limit, last = said(ended)
    assert [first, second] == [f"warning: {name}.mp4: {DAMAGED} (skipped)" for name in ("no", "cut")]
    assert limit.endswith(AT_THE_LIMIT)
    assert last == word
    frames = frames_of(folder / "out/a.mp4")
    assert 10 <= len(frames) < 5000
    assert ended.output.startswith(f"a.mp4: {len(frames)} frames, ")
    entries = json.loads((folder / "out/predictions.json").read_text())
    assert [entry["frame"] for entry in entries] == [frame for frame in range(len(frames)) for _ in range(3)]
    with (folder / "out/predictions.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(entries)
    assert len(list((folder / "out/labels").rglob("*.txt"))) == len(frames)
    assert {path.name for path in (folder / "out").glob(".*")} == {".detect-outputs"}


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_stopped_half_way(model, long_video, number, code, word):
    done = threading.Event()

    def send() -> None:
        if wait_for_frames(long_video, time.monotonic() + 60) and not done.is_set():
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    sender = threading.Thread(target=send)
    sender.start()
    ended = run_here(long_video, *command(model, "no.mp4", "cut.mp4", "a.mp4"), *SAVED)
    done.set()
    sender.join()
    signal.signal(signal.SIGINT, before)
    check_stopped(long_video, ended, code, word)


HEARD = """
import runpy, signal, sys
# A shell that starts the tests in the background lets all their children ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_a_process_stopped_half_way(model, long_video, number, code, word):
    """FFmpeg and OpenCV, which write to standard error themselves, are silent."""
    words = [*command(model, "no.mp4", "cut.mp4", "a.mp4"), *SAVED]
    start = [sys.executable, "-c", HEARD, str(TOOLS / words[0]), *map(str, words[1:])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(start, cwd=long_video, **pipes) as process:
        wait_for_frames(long_video, time.monotonic() + 60)
        process.send_signal(number)
        output, error = process.communicate()
    check_stopped(long_video, Ended(process.returncode, output, error), code, word)


def damage(folder):
    (folder / "no.mp4").write_bytes(b"hello")
    content = write_clip(folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])


def test_a_damaged_video(model, tmp_path):
    damage(tmp_path)
    write_clip(tmp_path / "a.mp4")
    alone = run_here(tmp_path, *command(model, "no.mp4"))
    assert alone.complaint == f"error: no.mp4: {DAMAGED}"
    assert not (tmp_path / "out").exists()
    together = run_here(tmp_path, *command(model, "no.mp4", "a.mp4", "cut.mp4"))
    assert together.code == 0
    assert said(together) == [
        f"warning: no.mp4: {DAMAGED} (skipped)",
        f"warning: cut.mp4: {DAMAGED} (skipped)",
        "warning: 2 of 3 sources could not be read and were skipped",
        f"warning: 12 of 12 images {AT_THE_LIMIT}",
    ]
    assert written(tmp_path / "out") == ["a.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such names")
def test_hostile_names(model, tmp_path):
    names = ["two\nlines.jpg", '=1+1,"x".jpg', os.fsdecode(b"\xff.jpg"), "-x.jpg"]
    for name in names:
        write_image(tmp_path / "in/plain.jpg", gray(9))
        (tmp_path / "in/plain.jpg").rename(tmp_path / "in" / name)
    write_clip(tmp_path / "in/new\nline.mp4", num_frames=2)
    ended = run_here(tmp_path / "in", *command(model, "."), "--save-csv", "--save-json", "--save-txt")
    assert ended.code == 0, ended
    entries = json.loads((tmp_path / "in/out/predictions.json").read_text(encoding="utf-8"))
    assert {entry["file_name"] for entry in entries} == {*names, "new\nline.mp4"}
    with (tmp_path / "in/out/predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(entries) == 3 * (len(names) + 2)
    assert {row["file_name"] for row in rows} == {
        *("two\nlines.jpg", './=1+1,"x".jpg', "\\udcff.jpg", "./-x.jpg", "new\nline.mp4")
    }


@pytest.mark.slow
@pytest.mark.real
def test_each_hostile_file_is_drawn_or_told_in_one_line(model, tmp_path, real_data):
    write_clip(tmp_path / "last.mp4", num_frames=2)
    files = [path for path in (real_data / "hostile").iterdir() if path.suffix]
    ended = run_here(tmp_path, *command(model, real_data / "hostile", "last.mp4"), "--batch-size", 4)
    assert ended.code == 0, ended
    left_out, *lines, last, limit = said(ended)
    assert "left out, no images or videos by their suffix: 1 without a suffix" in left_out
    assert limit.endswith(AT_THE_LIMIT)
    skipped = [line for line in lines if line.endswith("(skipped)")]
    used = (
        r"warning: \S+: (has more than 8 bits a channel, .*|.* \(the decoder's message; the image is used as it is\))"
    )
    assert all(re.fullmatch(used, line) for line in set(lines) - set(skipped)), ended.error
    assert all(re.fullmatch(r"warning: \S+: .* \(skipped\)", line) for line in skipped), ended.error
    told = [line.split(": ")[1] for line in skipped]
    drawn = [line.split(": ")[0] for line in ended.output.splitlines()[:-2]]
    assert sorted([*told, *drawn]) == sorted([*map(str, files), "last.mp4"])
    assert 5 <= len(told) < len(drawn)
    assert last == f"warning: {len(told)} of {len(files) + 1} sources could not be read and were skipped"
    (last_video,) = (tmp_path / "out").rglob("last.mp4")
    assert len(frames_of(last_video)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--source", "none.mp4"), "source none.mp4: no such file or folder"),
        (("--source", "99"), "camera 99: cannot be opened: there is no such camera, or it is in use"),
        (("--source", "rtsp://u:p@127.0.0.1:9/x"), "rtsp://127.0.0.1:9/x: cannot be opened: nobody answers"),
        (("--every", "0"), "every: must be at least 1, found 0"),
        (("--source", "a.jpg", "--track"), "tracking needs a video, a camera or a stream"),
    ],
)
def test_refused_in_one_line(model, tmp_path, words, message):
    write_clip(tmp_path / "a.mp4")
    write_image(tmp_path / "a.jpg", gray(1))
    ended = run_here(tmp_path, *command(model, "a.mp4"), *words)
    assert message in ended.complaint
    assert not (tmp_path / "out").exists()


def test_show_without_windows(model, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "", raising=False)
    write_clip(tmp_path / "a.mp4")
    ended = run_here(tmp_path, *command(model, "a.mp4"), "--show")
    assert ended.complaint.startswith("error: --show: this OpenCV has no windows; pip uninstall opencv-python-headless")
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform == "linux":
        ended = run_here(tmp_path, *command(model, "a.mp4"), "--show")
        assert ended.complaint == "error: --show: there is no display (DISPLAY is not set)"
    assert not (tmp_path / "out").exists()


def test_track_without_its_library(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "supervision", None)
    write_clip(tmp_path / "a.mp4")
    ended = run_here(tmp_path, *command(model, "a.mp4"), "--track")
    assert re.search(r"tracking needs the package \w+: pip install 'detect-small\[track\]'$", ended.complaint)


def test_tracks_are_in_the_files(model, tmp_path):
    pytest.importorskip("trackers")
    write_clip(tmp_path / "a.mp4", num_frames=4)
    ended = run_here(tmp_path, *command(model, "a.mp4"), "--track", "--save-json", "--save-csv")
    assert ended.code == 0, ended
    entries = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {entry["track_id"] for entry in entries if entry["frame"] == 0} == {None}
    assert {1, 2, 3} <= {entry["track_id"] for entry in entries}
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        assert [row["track_id"] for row in csv.DictReader(file)] == [str(e["track_id"] or "") for e in entries]


MEMORY = """
import os, sys
from pathlib import Path
from detect import Detector
from detect.inference.outputs import OutputOptions, PredictionWriter
from detect.inference.run import write_found
from detect.inference.sources import expand_sources

model, video, out = sys.argv[1:]
sources = expand_sources(video)
frames = Detector(model, device="cpu").stream(sources, batch_size=4, conf=0.0, max_det=3)
resident = []

def should_stop():
    resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    return False

with PredictionWriter(Path(out), sources, OutputOptions(json=True, csv=True)) as writer:
    list(write_found(frames, writer, should_stop=should_stop))
print(len(resident), resident[100], max(resident[100:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory is in use")
def test_memory_is_flat(model, tmp_path):
    """700 frames of 640 x 480 pixels are 615 MiB; what grows between frame 100 and the end is less than a twentieth."""
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 480))
    for each in range(700):
        writer.write(np.full((480, 640, 3), each % 256, np.uint8))
    writer.release()
    words = [sys.executable, "-c", MEMORY, str(model), str(tmp_path / "a.mp4"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=TOOLS.parent)
    assert done.returncode == 0, done.stderr
    count, early, most = map(float, done.stdout.split())
    assert count >= 700
    assert most - early < 30
