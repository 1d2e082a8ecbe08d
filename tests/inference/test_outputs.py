from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.errors import InputError
from detect.inference.outputs import OutputOptions, PredictionWriter, file_name, output_names, to_entries, to_txt
from detect.inference.ownership import LIST_NAME
from tests.inference.samples import make_detections

IMAGE = np.full((100, 200, 3), 90, np.uint8)
FOUND = make_detections([(1, 20, 10, 60, 50, 0.875), (0, 100.25, 0, 200, 100, 0.5)])


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


def test_entries_have_the_box_twice():
    assert to_entries(Path("a.jpg"), make_detections([])) == []
    assert to_entries(Path("x/a.jpg"), FOUND)[0] == {
        "file_name": "x/a.jpg",
        "category": "dog",
        "label": 1,
        "score": 0.875,
        "bbox": [20.0, 10.0, 40.0, 40.0],
        "xyxy": [20.0, 10.0, 60.0, 50.0],
    }


def test_txt_lines_are_shares_of_the_image():
    # Box 20..60 x 10..50 of 200 x 100: centre (40, 30), size 40 x 40.
    assert to_txt(make_detections([])) == ""
    assert to_txt(FOUND).splitlines()[0] == "1 0.200000 0.300000 0.200000 0.400000 0.87500"


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
    ],
)
def test_class_names_as_folders(name, expected):
    assert file_name(name) == expected


def test_only_drawings_are_written_by_default(tmp_path):
    writer = PredictionWriter(tmp_path / "out", [Path("x/a.png")], OutputOptions())
    drawn = writer.add(Path("x/a.png"), IMAGE, FOUND)
    assert drawn == tmp_path / "out" / "a.jpg"
    assert writer.finish() == [f"drawn images: {tmp_path / 'out'}"]
    assert files(tmp_path / "out") == ["a.jpg"]
    assert cv2.imread(str(drawn)).shape == (100, 200, 3)


def test_everything(tmp_path):
    paths = [Path("x/a.jpg"), Path("y/a.jpg")]
    writer = PredictionWriter(tmp_path, paths, OutputOptions(json=True, txt=True, crops=True))
    writer.add(paths[0], IMAGE, FOUND)
    writer.add(paths[1], IMAGE, make_detections([]))
    assert len(writer.finish()) == 4
    assert files(tmp_path) == [
        "crops/cat/x/a-1.jpg",
        "crops/dog/x/a-0.jpg",
        "labels/x/a.txt",
        "labels/y/a.txt",
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
    writer = PredictionWriter(tmp_path, [Path("a.jpg")], OutputOptions(crops=True))
    writer.add(Path("a.jpg"), IMAGE, make_detections([(0, 199.4, 99.2, 199.6, 99.4, 0.5)]))
    assert cv2.imread(str(tmp_path / "crops/cat/a-0.jpg")).shape == (1, 1, 3)


ALL = OutputOptions(json=True, txt=True, crops=True)


def predict_into(folder, sources, options=ALL):
    """A prediction run that finds the same in every image."""
    writer = PredictionWriter(folder, sources, options)
    for source in sources:
        writer.add(source, IMAGE, FOUND)
    writer.finish()


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
    writer = PredictionWriter(tmp_path / "out", [Path("x/a.jpg"), Path("x/b.jpg")], ALL)
    writer.add(Path("x/a.jpg"), IMAGE, FOUND)
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
