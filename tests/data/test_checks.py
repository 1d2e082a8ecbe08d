from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig
from detect.data.annotations import Problems
from detect.data.checks import (
    BAD_IMAGE,
    NO_AREA,
    NOT_FINITE,
    OUTSIDE,
    PARTLY_OUTSIDE,
    REPEATED,
    UNROTATED_SIZE,
    WRONG_SIZE,
    check_boxes,
    find_file,
    find_folder,
    inspect_images,
    path_inside,
    report_repeated,
)
from detect.errors import InputError


def _save(path: Path, width: int, height: int, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)
    return path


# In an image 100 wide and 50 high; the kind of problem, and whether the box is kept.
@pytest.mark.parametrize(
    ("box_xywh", "kind", "is_kept"),
    [
        ([0, 0, 100, 50], None, True),
        ([10, 10, 0.01, 0.01], None, True),
        ([-1, -1, 102, 52], None, True),  # a pixel out on each side: rounding
        ([-1.01, 0, 50, 50], PARTLY_OUTSIDE, True),
        ([50, 10, 51.01, 5], PARTLY_OUTSIDE, True),
        ([0, 40, 10, 11.01], PARTLY_OUTSIDE, True),
        ([100, 0, 5, 5], OUTSIDE, False),  # starts where the image ends
        ([0, 50, 5, 5], OUTSIDE, False),
        ([-5, 0, 5, 5], OUTSIDE, False),  # ends where the image starts
        ([0, -9, 5, 5], OUTSIDE, False),
        ([5, 5, 0, 5], NO_AREA, False),
        ([5, 5, 5, 0], NO_AREA, False),
        ([5, 5, -3, 5], NO_AREA, False),
        ([500, 500, 0, 0], NO_AREA, False),  # one kind for each box
        ([np.nan, 0, 5, 5], NOT_FINITE, False),
        ([0, 0, np.inf, 5], NOT_FINITE, False),
        ([1e308, 0, 1e308, 5], NOT_FINITE, False),  # its right side is beyond the floats
        ([0, 0, 1e200, 1e200], NOT_FINITE, False),  # its area is
    ],
)
def test_each_kind_of_box(box_xywh: list[float], kind: str | None, is_kept: bool) -> None:
    problems = Problems()
    keep = check_boxes(np.array([box_xywh], np.float64), np.array([[50, 100]]), lambda index: f"box {index}", problems)
    assert keep.tolist() == [is_kept]
    if kind is None:
        assert not problems
    else:
        assert problems.count(kind) == 1
        assert len(problems.summary()) == 1
        assert "box 0: [" in problems.summary()[0]


def test_no_boxes() -> None:
    problems = Problems()
    nothing = np.zeros((0, 4))
    assert check_boxes(nothing, np.zeros((0, 2), np.int32), str, problems).shape == (0,)
    report_repeated(nothing, np.zeros(0, np.int64), np.zeros(0, np.int64), str, problems)
    assert not problems


def test_repeated_boxes_need_the_same_image_class_and_place() -> None:
    problems = Problems()
    boxes = np.array([[1, 2, 3, 4]] * 5 + [[1, 2, 3, 5]], np.float64)
    rows = np.array([0, 0, 1, 0, 0, 0])
    labels = np.array([0, 1, 0, 0, 0, 0])
    # 0, 3 and 4 are the same: two of them repeat another one. 1 is of another class, 2 in another image, 5 elsewhere.
    report_repeated(boxes, rows, labels, lambda index: f"box {index}", problems)
    assert problems.count(REPEATED) == 2
    assert "box 3: [1, 2, 3, 4]; box 4" in problems.summary()[0]


def test_images_are_compared_with_their_annotations(tmp_path: Path) -> None:
    paths = [
        _save(tmp_path / "good.jpg", 20, 10),
        _save(tmp_path / "unknown.jpg", 20, 10),
        _save(tmp_path / "wrong.jpg", 20, 10),
        _save(tmp_path / "unrotated.jpg", 20, 10, orientation=6),
        _save(tmp_path / "rotated.jpg", 20, 10, orientation=6),
        _save(tmp_path / "swapped.jpg", 20, 10),  # height and width swapped without a rotation
        tmp_path / "missing.jpg",
    ]
    declared_hw = np.array([[10, 20], [0, 0], [10, 21], [10, 20], [20, 10], [20, 10], [10, 20]])
    problems = Problems()
    sizes_hw, is_good = inspect_images(paths, declared_hw, problems, "test")
    assert is_good.tolist() == [True, True, False, True, True, False, False]
    assert sizes_hw[is_good].tolist() == [[10, 20], [10, 20], [20, 10], [20, 10]]
    counts = [problems.count(kind) for kind in (WRONG_SIZE, UNROTATED_SIZE, BAD_IMAGE)]
    assert counts == [2, 1, 1]
    assert "wrong.jpg is 20 x 10, its annotations say 21 x 10" in problems.summary()[0]


def test_more_images_than_one_task_keep_their_order(tmp_path: Path) -> None:
    paths = [_save(tmp_path / f"{width}.png", width, 3) for width in range(1, 151)]
    sizes_hw, is_good = inspect_images(paths, np.zeros((150, 2), np.int64), Problems(), "test")
    assert is_good.all()
    assert sizes_hw[:, 1].tolist() == list(range(1, 151))


def test_no_usable_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test: none of the 2 images can be used; the first: .*a.jpg: no such file"):
        inspect_images([tmp_path / "a.jpg", tmp_path / "b.jpg"], np.zeros((2, 2), np.int64), Problems(), "test")


@pytest.mark.parametrize("name", ["a.jpg", "sub/a.jpg", "./a.jpg", "sub/../a.jpg", "/data/images/a.jpg", "..a.jpg"])
def test_paths_inside(name: str) -> None:
    assert path_inside(Path("/data/images"), name, "here").is_relative_to("/data/images")


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg",
        "/etc/passwd",
        "sub/../../a.jpg",
        "/data/images/../a.jpg",
        "../images2/a.jpg",
        "",
        ".",
        "a\0.jpg",
        "\ud800",
    ],
)
def test_paths_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"here: file name .* leads out of the images' folder /data/images; refused"):
        path_inside(Path("/data/images"), name, "here")


def test_missing_files_tell_what_is_there(tmp_path: Path) -> None:
    config = DataConfig("test", str(tmp_path), {})
    for find in (find_file, find_folder):
        with pytest.raises(InputError, match=rf"no such .*; the data set's root {tmp_path} has nothing;.*--data-root"):
            find(config, "train")
    (tmp_path / "images").mkdir()
    (tmp_path / "a.json").touch()
    for find in (find_file, find_folder):
        with pytest.raises(InputError, match=r"has a.json, images/; is it the right one\?"):
            find(config, "train")
    with pytest.raises(InputError, match=r"nowhere does not exist either; name it with --data-root"):
        find_folder(DataConfig("test", str(tmp_path / "nowhere"), {}), "train")


def test_an_annotation_file_beside_the_images_is_found(tmp_path: Path) -> None:
    config = DataConfig("test", str(tmp_path), {})
    (tmp_path / "train.json").touch()
    assert find_file(config, "annotations/train.json") == tmp_path / "train.json"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").touch()  # where it should be comes first
    assert find_file(config, "annotations/train.json") == tmp_path / "annotations" / "train.json"
