from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable
from detect.data.checks import BAD_IMAGE, NO_AREA, OUTSIDE
from detect.data.formats import visdrone
from detect.errors import InputError


def _write(root: Path, stem: str, lines: str | bytes, image: str | None = None) -> None:
    """An image of 40 x 30 px and its annotation file."""
    (root / "images").mkdir(exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "images" / (image or f"{stem}.jpg"))
    (root / "annotations" / f"{stem}.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())


def _read(root: Path, names: tuple[str, ...] | None = None, list_file: str | None = None) -> AnnotationTable:
    splits = {"train": SplitConfig("images", "annotations", list_file)}
    return visdrone.read_visdrone(DataConfig("test", str(root), splits, format="visdrone", names=names), "train")


def test_boxes_classes_and_marks(tmp_path: Path) -> None:
    _write(tmp_path, "b", "")
    _write(tmp_path, "a", "1,2,10,20,1,4,0,2\n3,4,5,6,0,1,1,0,\n7.5,8,2,2,1,10,0,0\n")
    table = _read(tmp_path)
    assert table.names == visdrone.NAMES
    assert table.category_ids.tolist() == [*range(1, 11)]
    boxes, labels, is_crowd = table.boxes(0)
    assert boxes.tolist() == [[1, 2, 11, 22], [3, 4, 8, 10], [7.5, 8, 9.5, 10]]
    assert [table.names[label] for label in labels] == ["car", "pedestrian", "motor"]
    assert is_crowd.tolist() == [False, True, False]  # a score of 0 is not evaluated
    assert {name: values.tolist() for name, values in table.marks.items()} == {
        "truncated": [0, 1, 0],
        "occluded": [2, 0, 0],
    }
    assert len(table.boxes(1)[0]) == 0
    assert not table.problems


def test_an_ignored_region_is_one_of_every_class(tmp_path: Path) -> None:
    _write(tmp_path, "a", "1,1,5,5,1,9,0,0\n0,0,40,10,0,0,0,0\n")
    _write(tmp_path, "b", "2,2,5,5,1,4,0,0\n")
    table = _read(tmp_path, names=("bus", "car", "van"))
    boxes, labels, is_crowd = table.boxes(0)
    assert boxes.tolist() == [[1, 1, 6, 6], *[[0, 0, 40, 10]] * 3]
    assert labels.tolist() == [0, 0, 1, 2]
    assert is_crowd.tolist() == [False, True, True, True]
    assert table.boxes(1)[1].tolist() == [1]
    # One that is damaged is counted once, not for every class.
    _write(tmp_path, "a", "0,0,0,10,0,0,0,0\n")
    assert _read(tmp_path, names=("bus", "car")).problems.count(NO_AREA) == 1


def test_category_eleven(tmp_path: Path) -> None:
    _write(tmp_path, "a", "1,1,5,5,1,11,0,0\n1,1,6,6,1,4,0,0\n")
    table = _read(tmp_path)
    assert table.problems.summary() == [f"1 {visdrone.IN_NO_CLASS}: a.txt:1"]
    assert len(table.labels) == 1
    table = _read(tmp_path, names=("car", "others"))
    assert (table.labels.tolist(), table.category_ids.tolist()) == ([1, 0], [4, 11])
    assert not _read(tmp_path, names=("car",)).problems  # left out, as asked


def test_damaged_lines_are_counted_with_their_place(tmp_path: Path) -> None:
    lines = [
        "1,1,5,5,1,4,0",
        "1,1,5,5,1,4,0,0,0",
        "1,1,5,x,1,4,0,0",
        "1,1,5,5,0.7,4,0,0",  # a detection
        "1,1,5,5,2,4,0,0",
        "1,1,5,5,1,4,500,0",
        "1 1 5 5 1 4 0 0",
        "1,1,5,5,1,12,0,0",
        "1,1,5,5,1,-1,0,0",
        "1,1,0,5,1,4,0,0",
        "99,1,5,5,1,4,0,0",
        "",
        "1,1,5,5,1,4,-1,0",
    ]
    _write(tmp_path, "a", "\n".join(lines))
    table = _read(tmp_path)
    counts = {visdrone.BAD_LINE: 7, visdrone.UNKNOWN_CATEGORY: 2, NO_AREA: 1, OUTSIDE: 1}
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)
    assert len(table.labels) == 1
    assert "a.txt:1: '1,1,5,5,1,4,0'; " in table.problems.summary()[0]


def test_files_and_images_without_partner(tmp_path: Path) -> None:
    _write(tmp_path, "a", "1,1,5,5,1,4,0,0\n", image="a.png")
    _write(tmp_path, "b", b"\xff")
    _write(tmp_path, "c", "1,1,5,5,1,4,0,0\n")
    (tmp_path / "images/c.jpg").rename(tmp_path / "images/d.jpg")
    table = _read(tmp_path)
    assert [table.path(row).name for row in range(len(table))] == ["a.png"]
    counts = {visdrone.BAD_FILE: 1, BAD_IMAGE: 1, visdrone.NO_FILE: 1}
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    (tmp_path / "list.txt").write_text("a\n")
    assert not _read(tmp_path, list_file="list.txt").problems
    (tmp_path / "list.txt").write_text("../../b.c\n")
    with pytest.raises(InputError, match="leads out of the images' folder"):
        _read(tmp_path, list_file="list.txt")


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="annotations: no such folder"):
        _read(tmp_path)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(InputError, match="annotations: has no txt file for split 'train' that can be read"):
        _read(tmp_path)
    with pytest.raises(InputError, match=r"names: 'cars' is no class of VisDrone; did you mean 'car'\?"):
        _read(tmp_path, names=("cars",))
    with pytest.raises(InputError, match="names: duplicate class in car, car"):
        _read(tmp_path, names=("car", "car"))
