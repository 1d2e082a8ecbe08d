from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from detect.errors import InputError
from detect.inference.inputs import Source
from detect.inference.outputs import OutputOptions, PredictionWriter, file_name, output_names, source_names
from detect.inference.video import Clip
from detect.safety.ownership import LIST_NAME
from tests.inference.clips import frames_of, rate_of
from tests.inference.samples import IMAGE, make_detections, seen, seen_frame, still

ALL = OutputOptions(json=True, csv=True, txt=True, crops=True, frames=True)


def files(folder):
    """Every file below ``folder``, but for the list of what was written."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != LIST_NAME)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], []),
        (["x/a.jpg"], ["a"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["x/a.jpg", "x/z/a.jpg"], ["a", "z/a"]),
        (["a.jpg", "a.png", "A.tif"], ["a", "a-2", "A-3"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
        (["../q/a.jpg", "a.jpg"], ["q/a", "here/a"]),
    ],
)
def test_output_names(paths, expected, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert list(output_names([Path(path) for path in paths]).values()) == expected


def test_names_of_all_kinds_of_sources():
    sources = [
        still("x/a.jpg"),
        Source("x/a.mp4", "file", Path("x/a.mp4")),
        Source("camera 0", "live", 0),
        Source("rtsp://host:554/a?b", "live", "rtsp://host:554/a?b"),
        Source("http://host:554/a?b", "live", "http://host:554/a?b"),
    ]
    assert list(source_names(sources).values()) == ["a", "a-2", "camera 0", "host_554_a_b", "host_554_a_b-2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"),
        ("", "_"),
        ("..", "_"),
        ("a/b\\c:d", "a_b_c_d"),
        ("x\n", "x_"),
        ("猫", "猫"),
        ("x" * 100, "x" * 64),
        ("🐈" * 64, "🐈" * 50),  # four bytes each, and file systems count bytes
        ("a\x1b\u202e\x9bb", "a___b"),
    ],
)
def test_class_names_as_folders(name, expected):
    assert file_name(name) == expected


def test_only_drawings_are_written_by_default(tmp_path):
    with PredictionWriter(tmp_path / "out", [still("x/a.png")], OutputOptions()) as writer:
        drawn = writer.add(seen("x/a.png"))
    assert writer.summary() == [f"drawn images: {tmp_path / 'out'}"]
    assert files(tmp_path / "out") == ["a.jpg"]
    written = cv2.imread(str(tmp_path / "out" / "a.jpg"))[..., ::-1].astype(int)
    assert abs(written - drawn).mean() < abs(written - IMAGE).mean()
    assert (drawn != IMAGE).any()


def test_everything(tmp_path):
    with PredictionWriter(tmp_path, [still("x/a.jpg"), still("y/a.jpg")], ALL) as writer:
        writer.add(seen("x/a.jpg"))
        writer.add(seen("y/a.jpg", make_detections([])))
    assert len(writer.summary()) == 5
    assert files(tmp_path) == [
        "crops/cat/x/a-1.jpg",
        "crops/dog/x/a-0.jpg",
        "labels/x/a.txt",
        "labels/y/a.txt",
        "predictions.csv",
        "predictions.json",
        "x/a.jpg",
        "y/a.jpg",
    ]
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["category"] for entry in entries] == ["dog", "cat"]
    assert (tmp_path / "labels/y/a.txt").read_text() == ""
    assert cv2.imread(str(tmp_path / "crops/dog/x/a-0.jpg")).shape == (40, 40, 3)
    assert cv2.imread(str(tmp_path / "crops/cat/x/a-1.jpg")).shape == (100, 100, 3)  # 100.25 is within pixel 100


def test_crops_of_less_than_a_pixel(tmp_path):
    with PredictionWriter(tmp_path, [still("a.jpg")], OutputOptions(crops=True)) as writer:
        writer.add(seen("a.jpg", make_detections([(0, 199.4, 99.2, 199.6, 99.4, 0.5)])))
    assert cv2.imread(str(tmp_path / "crops/cat/a-0.jpg")).shape == (1, 1, 3)


def clip(path):
    """A video file as a source."""
    return Source(str(path), "file", Path(path))


def test_a_video(tmp_path):
    with PredictionWriter(tmp_path, [clip("x/a.mov"), still("x/b.jpg")], ALL) as writer:
        for index in range(4):
            writer.add(seen_frame("x/a.mov", index, make_detections([(0, 20, 10, 60, 50, 0.5)] if index == 2 else [])))
        writer.add(seen("x/b.jpg", make_detections([])))
    assert files(tmp_path) == [
        "a.mp4",
        "b.jpg",
        "crops/cat/a.mov/000002-0.jpg",
        *(f"frames/a.mov/00000{index}.jpg" for index in range(4)),
        *(f"labels/a.mov/00000{index}.txt" for index in range(4)),
        "labels/b.txt",
        "predictions.csv",
        "predictions.json",
    ]
    drawn = frames_of(tmp_path / "a.mp4")
    assert [frame.shape for frame in drawn] == [IMAGE.shape] * 4
    assert [bool((abs(frame.astype(int) - 90) > 30).any()) for frame in drawn] == [False, False, True, False]
    assert rate_of(tmp_path / "a.mp4") == 10
    (entry,) = json.loads((tmp_path / "predictions.json").read_text())
    assert (entry["file_name"], entry["frame"], entry["time"]) == ("x/a.mov", 2, 0.2)
    assert (cv2.imread(str(tmp_path / "frames/a.mov/000002.jpg")) == 90).all()  # not drawn into


def test_several_videos_one_after_the_other(tmp_path):
    with PredictionWriter(tmp_path, [clip("a.mp4"), clip("b.mp4")], OutputOptions()) as writer:
        for path, count in (("a.mp4", 3), ("b.mp4", 2)):
            for index in range(count):
                writer.add(seen_frame(path, index))
            assert "a.mp4" in files(tmp_path) or path == "a.mp4"  # the first is whole as soon as the second begins
    assert writer.summary() == [f"drawn videos: {tmp_path}"]
    assert [len(frames_of(tmp_path / name)) for name in ("a.mp4", "b.mp4")] == [3, 2]


def test_frames_of_a_camera_play_as_fast_as_they_came(tmp_path):
    # At 10 frames per second the times 0, 0.3 and 0.5 s are the frames 0, 3 and 5: six in all.
    live = Clip(10.0, None, is_live=True)
    with PredictionWriter(tmp_path, [Source("camera 0", "live", 0)], OutputOptions()) as writer:
        for index in (0, 3, 5):
            writer.add(seen_frame("camera 0", index, clip=live))
    assert len(frames_of(tmp_path / "camera 0.mp4")) == 6


def test_an_error_leaves_what_was_done(tmp_path):
    with pytest.raises(KeyboardInterrupt), PredictionWriter(tmp_path, [clip("a.mp4")], ALL) as writer:  # noqa: PT012
        writer.add(seen_frame("a.mp4", 0))
        raise KeyboardInterrupt
    assert len(frames_of(tmp_path / "a.mp4")) == 1
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 2
    assert not list(tmp_path.glob(".a*"))


def test_a_run_without_a_frame_leaves_nothing(tmp_path):
    with pytest.raises(InputError), PredictionWriter(tmp_path / "out", [still("a.jpg")], ALL):
        raise InputError("nothing could be read")
    assert not (tmp_path / "out").exists()


def test_a_video_is_not_replaced_by_its_drawing(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"a\.mp4 would replace an image of --source; choose another folder"):
        PredictionWriter(tmp_path, [clip(tmp_path / "a.mp4")], OutputOptions())


def predict_into(folder, paths, options=ALL):
    """A prediction run that finds the same in every image."""
    with PredictionWriter(folder, [still(path) for path in paths], options) as writer:
        for path in paths:
            writer.add(seen(path))


def photos(tmp_path, *names):
    """Files that stand for the user's."""
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"precious")
    return [tmp_path / name for name in names]


def test_a_run_may_be_repeated(tmp_path):
    predict_into(tmp_path / "out", [Path("x/a.jpg")])
    first = files(tmp_path / "out")
    predict_into(tmp_path / "out", [Path("x/a.jpg"), Path("x/b.jpg")])
    assert set(first) < set(files(tmp_path / "out"))


def test_a_run_that_was_cut_short_may_be_repeated(tmp_path):
    writer = PredictionWriter(tmp_path / "out", [still("x/a.jpg"), still("x/b.jpg")], ALL)
    writer.add(seen("x/a.jpg"))
    with (tmp_path / "out" / LIST_NAME).open("ab") as file:
        file.write(b"b.j")  # the power went
    predict_into(tmp_path / "out", [Path("x/a.jpg"), Path("x/b.jpg")])
    assert "predictions.json" in files(tmp_path / "out")


@pytest.mark.parametrize("link", ["", "symlink", "hard link"])
def test_images_are_not_replaced_by_their_drawings(tmp_path, link):
    sources = photos(tmp_path, "photos/a.jpg", "photos/b.jpg")
    out = tmp_path / "photos"
    if link:
        out = tmp_path / "out"
        out.mkdir()
        (out / "b.jpg").symlink_to(sources[1]) if link == "symlink" else (out / "b.jpg").hardlink_to(sources[1])
    before = files(tmp_path)
    with pytest.raises(
        InputError, match=r"--out .*[ab]\.jpg would replace an image of --source; choose another folder"
    ):
        predict_into(out, sources)
    assert files(tmp_path) == before
    assert {source.read_bytes() for source in sources} == {b"precious"}


def test_drawings_and_crops_as_sources_are_not_replaced(tmp_path):
    predict_into(tmp_path / "out", [Path("x/a.jpg")])
    with pytest.raises(InputError, match=r"out/a\.jpg would replace an image of --source"):
        predict_into(tmp_path / "out", [tmp_path / "out/a.jpg"])
    with pytest.raises(InputError, match=r"out/crops would replace an image of --source"):
        predict_into(tmp_path / "out", [tmp_path / "out/crops/dog/a-0.jpg"])


@pytest.mark.parametrize(
    ("existing", "options"),
    [
        ("a.jpg", OutputOptions()),
        ("labels/a.txt", OutputOptions(txt=True)),
        ("labels/other.txt", OutputOptions(txt=True)),
        ("crops/a.png", OutputOptions(crops=True)),
        ("predictions.json", OutputOptions(json=True)),
    ],
)
def test_files_of_others_are_not_replaced(tmp_path, existing, options):
    (file,) = photos(tmp_path, existing)
    with pytest.raises(InputError, match="is there and not from an earlier prediction"):
        predict_into(tmp_path, [Path("x/a.png")], options)
    assert files(tmp_path) == [existing]
    assert file.read_bytes() == b"precious"


def test_files_that_are_not_in_the_way_stay(tmp_path):
    others = photos(tmp_path, "a.png", "labels/a.txt", "predictions.json")
    predict_into(tmp_path, [others[0]], OutputOptions())
    assert files(tmp_path) == ["a.jpg", "a.png", "labels/a.txt", "predictions.json"]
    with pytest.raises(InputError, match="labels is there and not from an earlier prediction"):
        predict_into(tmp_path, [others[0]], OutputOptions(txt=True))
    assert {other.read_bytes() for other in others} == {b"precious"}
