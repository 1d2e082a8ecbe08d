from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from detect.config.data import SplitConfig
from detect.data.datasets import open_split
from detect.data.formats.coco import find_coco, find_unnamed_coco
from detect.data.recognition import open_data, recognise_layout
from detect.errors import InputError
from tests.data.layouts import YOLO_LINE, images, write


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, as a list of messages."""
    caplog.set_level(logging.INFO, logger="detect")
    return caplog


def _coco(*names: str, **changes: Any) -> str:
    """A COCO file of images of these names, each with a box of 10 x 10 px."""
    boxes = {"category_id": 1, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0}
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names or ("a.jpg",), start=1)],
        "categories": [{"id": 1, "name": "red", "supercategory": "blobs"}],
        "annotations": [{"id": n, "image_id": n, **boxes} for n in range(1, 1 + len(names or "a"))],
    }
    return json.dumps(content | changes)


@pytest.mark.parametrize(
    ("folders", "files", "expected"),
    [
        (  # Roboflow
            ["train", "valid", "test"],
            ["train/_annotations.coco.json", "valid/_annotations.coco.json", "test/_annotations.coco.json"],
            {
                "train": SplitConfig("train", "train/_annotations.coco.json"),
                "val": SplitConfig("valid", "valid/_annotations.coco.json"),
                "test": SplitConfig("test", "test/_annotations.coco.json"),
            },
        ),
        (["."], ["_annotations.coco.json"], {"train": SplitConfig(".", "_annotations.coco.json")}),
        (  # CVAT: upper case, images in a folder of the subset, or in one for all
            ["images/Train/Data", "images/Validation"],
            ["annotations/instances_Train.json", "annotations/instances_Validation.json"],
            {
                "train": SplitConfig("images/Train", "annotations/instances_Train.json"),
                "val": SplitConfig("images/Validation", "annotations/instances_Validation.json"),
            },
        ),
        (
            ["images"],
            ["annotations/instances_default.json"],
            {"train": SplitConfig("images", "annotations/instances_default.json")},
        ),
        (
            ["images/default"],
            ["annotations/INSTANCES_Default.JSON"],
            {"train": SplitConfig("images/default", "annotations/INSTANCES_Default.JSON")},
        ),
        (
            ["."],
            ["annotations/instances_Night shift.json"],
            {"Night shift": SplitConfig(".", "annotations/instances_Night shift.json")},
        ),
        (["images"], ["result.json"], {"train": SplitConfig("images", "result.json")}),  # Label Studio
        (["data"], ["labels.json"], {"train": SplitConfig("data", "labels.json")}),  # FiftyOne
        (
            ["JPEGImages"],
            ["annotations.json"],
            {"train": SplitConfig("JPEGImages", "annotations.json")},
        ),  # labelme2coco
        (
            ["train/data", "val"],
            ["train/labels.json", "val/annotations.json"],
            {
                "train": SplitConfig("train/data", "train/labels.json"),
                "val": SplitConfig("val", "val/annotations.json"),
            },
        ),
        (
            ["images/train2017"],
            ["annotations/instances_train.json"],
            {"train": SplitConfig("images/train2017", "annotations/instances_train.json")},
        ),
    ],
)
def test_layouts(tmp_path: Path, folders: list[str], files: list[str], expected: dict[str, SplitConfig]) -> None:
    for folder in folders:
        images(tmp_path / folder)
    write(tmp_path, dict.fromkeys(files, _coco()))
    config = recognise_layout(tmp_path)
    assert (config.format, list(config.splits.items())) == ("coco", list(expected.items()))


def test_a_project_folder_around_the_data_set(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    images(tmp_path / "project/train")
    write(tmp_path, {"project/train/_annotations.coco.json": _coco(), "README.roboflow.txt": "", "__MACOSX/a.txt": ""})
    config = open_data(str(tmp_path))
    assert (config.root, [*config.splits]) == (str(tmp_path / "project"), ["train"])
    assert f"{tmp_path}: the data set in its folder project is taken" in said.messages
    images(tmp_path / "second/train")
    write(tmp_path, {"second/train/_annotations.coco.json": _coco()})
    with pytest.raises(InputError, match="is not recognised as a data set"):
        open_data(str(tmp_path))


def test_roboflow_without_its_grouping_category(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    group = {"id": 0, "name": "blobs", "supercategory": "none"}
    red = {"id": 1, "name": "red", "supercategory": "blobs"}
    images(tmp_path / "train")
    write(tmp_path, {"train/_annotations.coco.json": _coco(categories=[group, red])})
    table = open_split(open_data(str(tmp_path)), "train", strict=True)  # what is understood is no damage
    assert table.names == ("red",)
    assert "1 categories that only group others and have no annotation, as Roboflow writes them" in said.messages[-1]


def test_label_studio_on_windows(tmp_path: Path) -> None:
    images(tmp_path / "images", "a-b.jpg", "c d.jpg")
    write(tmp_path, {"result.json": _coco("images\\a-b.jpg", "/data/local-files/?d=images/c%20d.jpg")})
    table = open_split(open_data(str(tmp_path)), "train", strict=True)
    assert [table.path(row).name for row in range(2)] == ["a-b.jpg", "c d.jpg"]
    assert len(table.labels) == 2


def test_an_images_folder_that_is_missing_is_named(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    images(tmp_path / "val2017")
    write(tmp_path, {"annotations/instances_train2017.json": _coco(), "annotations/instances_val2017.json": _coco()})
    line = (
        f"{tmp_path}/annotations/instances_train2017.json: left out: there is no folder of its images "
        "(instances_train2017, train, images/train or images)"
    )
    assert [*recognise_layout(tmp_path).splits] == ["val"]
    assert line in said.messages
    (tmp_path / "annotations/instances_val2017.json").unlink()
    with pytest.raises(InputError) as caught:
        recognise_layout(tmp_path)
    assert line in str(caught.value)


def test_two_files_of_one_split_and_two_files_for_all(tmp_path: Path) -> None:
    images(tmp_path / "images")
    write(tmp_path, {"annotations/instances_train.json": _coco(), "train.json": _coco()})
    found = find_coco(tmp_path)
    assert found.splits == {"train": SplitConfig("images", "annotations/instances_train.json")}
    assert found.left_out == [
        f"{tmp_path}/train.json: left out: the split train has annotations/instances_train.json already"
    ]
    write(tmp_path, {"other/a.json": _coco(), "other/b.json": _coco(), "other/list.json": '[{"image_id": 1}]'})
    assert find_unnamed_coco(tmp_path / "other").left_out == [
        f"{tmp_path}/other: has 2 COCO files (a.json, b.json); name the split of each in a data config"
    ]


def test_a_coco_file_without_a_split_does_not_disturb_another_layout(tmp_path: Path) -> None:
    images(tmp_path / "images/train")
    write(tmp_path, {"labels/train/a.txt": YOLO_LINE, "result.json": _coco(), "report.json": '{"images": 1}'})
    assert recognise_layout(tmp_path).format == "yolo"
