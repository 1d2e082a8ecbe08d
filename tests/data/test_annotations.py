from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from detect.data.annotations import AnnotationTable, Problems, encode_paths, offsets_of


def _table() -> AnnotationTable:
    """Three images with 2, 0 and 1 boxes, the last a crowd region; category ids with a gap."""
    return AnnotationTable(
        image_paths=encode_paths([Path("/data/a.jpg"), Path("/data/longer name é.jpg"), Path("/data/c.jpg")]),
        image_ids=np.array([7, 0, 9], np.int64),
        has_own_ids=True,
        sizes_hw=np.array([[10, 20], [30, 40], [50, 60]], np.int32),
        box_offsets=offsets_of(np.array([2, 0, 1])),
        boxes_xyxy_px=np.array([[1, 2, 4, 6], [0, 0, 20, 10], [5, 5, 6, 7]], np.float64),
        labels=np.array([1, 0, 1], np.int64),
        is_crowd=np.array([False, False, True]),
        areas=np.array([12.0, 99.5, 2.0]),
        names=("cat", "dog"),
        category_ids=np.array([3, 18], np.int64),
    )


def _empty() -> AnnotationTable:
    return AnnotationTable(
        image_paths=encode_paths([]),
        image_ids=np.zeros(0, np.int64),
        has_own_ids=False,
        sizes_hw=np.zeros((0, 2), np.int32),
        box_offsets=offsets_of(np.zeros(0, np.int64)),
        boxes_xyxy_px=np.zeros((0, 4)),
        labels=np.zeros(0, np.int64),
        is_crowd=np.zeros(0, bool),
        areas=np.zeros(0),
        names=("cat",),
        category_ids=np.array([1], np.int64),
    )


def test_an_empty_table() -> None:
    table = _empty()
    assert len(table) == 0
    assert len(table.without_background()) == 0
    assert table.to_coco() == {"images": [], "categories": [{"id": 1, "name": "cat"}], "annotations": []}


def test_boxes_of_each_image() -> None:
    table = _table()
    boxes, labels, is_crowd = table.boxes(0)
    assert boxes.tolist() == [[1, 2, 4, 6], [0, 0, 20, 10]]
    assert labels.tolist() == [1, 0]
    assert is_crowd.tolist() == [False, False]
    boxes, labels, is_crowd = table.boxes(1)
    assert boxes.shape == (0, 4)
    assert labels.shape == is_crowd.shape == (0,)
    assert table.boxes(2)[2].tolist() == [True]


def test_paths_of_different_lengths_and_scripts_survive() -> None:
    table = _table()
    assert table.image_paths.dtype.kind == "S"
    assert [table.path(row) for row in range(3)] == [
        Path("/data/a.jpg"),
        Path("/data/longer name é.jpg"),
        Path("/data/c.jpg"),
    ]


def test_without_background_keeps_only_images_with_something_to_train_on() -> None:
    kept = _table().without_background()
    assert kept.image_ids.tolist() == [7]
    assert kept.box_offsets.tolist() == [0, 2]
    assert kept.areas.tolist() == [12.0, 99.5]
    assert kept.path(0) == Path("/data/a.jpg")


def test_to_coco() -> None:
    coco = _table().to_coco()
    assert coco["images"][0] == {"id": 7, "file_name": "/data/a.jpg", "height": 10, "width": 20}
    assert coco["categories"] == [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}]
    # The first box goes from (1, 2) to (4, 6), so it is 4 - 1 wide and 6 - 2 high.
    first = {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0, "iscrowd": 0}
    assert coco["annotations"][0] == first
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3]
    assert [a["image_id"] for a in coco["annotations"]] == [7, 7, 9]
    assert coco["annotations"][2]["iscrowd"] == 1


def test_a_table_goes_to_worker_processes() -> None:
    copied = pickle.loads(pickle.dumps(_table()))
    assert copied.path(1) == Path("/data/longer name é.jpg")


def test_problems_are_counted_with_up_to_three_examples() -> None:
    problems = Problems()
    assert not problems
    assert problems.summary() == []
    for name in "abcd":
        problems.add("bad boxes (skipped)", name)
    problems.add("odd ids", "e")
    assert problems
    assert problems.count("bad boxes (skipped)") == 4
    assert problems.count("never seen") == 0
    assert problems.summary() == ["4 bad boxes (skipped): a; b; c; ...", "1 odd ids: e"]


def test_examples_of_problems_have_a_length() -> None:
    """A file name may have a million characters, and steer a terminal."""
    problems = Problems()
    problems.add("kind", "\x1b[2J" + "a" * 10_000)
    (line,) = problems.summary()
    assert line.startswith(r"1 kind: \x1b[2Jaaa")
    assert len(line) == len("1 kind: ") + 400
