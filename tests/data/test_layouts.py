from __future__ import annotations

from pathlib import Path

import pytest

from detect.config.data import SplitConfig
from detect.data.recognition import recognise_layout
from detect.errors import InputError
from tests.data.layouts import YOLO_LINE, images, write


@pytest.mark.parametrize(
    ("folders", "files", "expected"),
    [
        (
            ["train2017", "val2017"],
            ["annotations/instances_train2017.json", "annotations/instances_val2017.json", "annotations/captions.json"],
            {
                "train": SplitConfig("train2017", "annotations/instances_train2017.json"),
                "val": SplitConfig("val2017", "annotations/instances_val2017.json"),
            },
        ),
        (
            ["images"],
            ["instances_val.json", "instances_train.json"],
            {
                "train": SplitConfig("images", "instances_train.json"),
                "val": SplitConfig("images", "instances_val.json"),
            },
        ),
        (
            ["images/train"],
            ["annotations/train.json"],
            {"train": SplitConfig("images/train", "annotations/train.json")},
        ),
    ],
)
def test_coco(tmp_path: Path, folders: list[str], files: list[str], expected: dict[str, SplitConfig]) -> None:
    for folder in folders:
        images(tmp_path / folder)
    write(tmp_path, dict.fromkeys(files, "{}"))
    config = recognise_layout(tmp_path)
    assert (config.format, config.name, config.root) == ("coco", tmp_path.name, str(tmp_path))
    assert list(config.splits.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("folders", "labels", "expected"),
    [
        (
            ["images/val", "images/train"],
            ["labels/train/a.txt", "labels/val/a.txt"],
            {"train": SplitConfig("images/train", "labels/train"), "val": SplitConfig("images/val", "labels/val")},
        ),
        (
            ["train/images", "valid/images"],
            ["train/labels/a.txt", "valid/labels/a.txt"],
            {"train": SplitConfig("train/images", "train/labels"), "val": SplitConfig("valid/images", "valid/labels")},
        ),
        (
            ["images"],
            ["labels/a.txt", "train.txt", "val.txt", "notes.txt"],
            {
                "train": SplitConfig("images", "labels", "train.txt"),
                "val": SplitConfig("images", "labels", "val.txt"),
            },
        ),
        (["images"], ["labels/a.txt"], {"train": SplitConfig("images", "labels")}),
        (["."], ["a.txt"], {"train": SplitConfig(".")}),
        (
            ["train", "valid"],
            ["train/a.txt", "valid/a.txt"],
            {"train": SplitConfig("train"), "val": SplitConfig("valid")},
        ),
        (["obj_Train_data"], ["obj_Train_data/a.txt"], {"train": SplitConfig("obj_Train_data")}),
    ],
)
def test_yolo(tmp_path: Path, folders: list[str], labels: list[str], expected: dict[str, SplitConfig]) -> None:
    for folder in folders:
        images(tmp_path / folder)
    write(tmp_path, dict.fromkeys(labels, YOLO_LINE))
    config = recognise_layout(tmp_path)
    assert config.format == "yolo"
    assert list(config.splits.items()) == list(expected.items())


def test_voc(tmp_path: Path) -> None:
    images(tmp_path / "JPEGImages")
    write(tmp_path, {"Annotations/a.xml": "<annotation/>"})
    assert recognise_layout(tmp_path).splits == {"train": SplitConfig("JPEGImages", "Annotations")}
    lists = ("train", "val", "trainval", "aeroplane_train")
    write(tmp_path, {f"ImageSets/Main/{name}.txt": "a" for name in lists})
    config = recognise_layout(tmp_path)
    assert config.format == "voc"
    assert config.splits == {
        name: SplitConfig("JPEGImages", "Annotations", f"ImageSets/Main/{name}.txt") for name in lists[:3]
    }


@pytest.mark.parametrize(
    ("folders", "files", "expected"),
    [
        (["."], ["a.xml", "README.roboflow.txt"], {"train": SplitConfig(".", ".")}),
        (
            ["train", "valid"],  # Roboflow
            ["train/a.xml", "valid/a.xml"],
            {"train": SplitConfig("train", "train"), "val": SplitConfig("valid", "valid")},
        ),
        (["images"], ["annotations/a.xml"], {"train": SplitConfig("images", "annotations")}),
        (
            ["train/images", "test/images"],
            ["train/annotations/a.xml", "test/annotations/a.XML"],
            {
                "train": SplitConfig("train/images", "train/annotations"),
                "test": SplitConfig("test/images", "test/annotations"),
            },
        ),
        (
            ["JPEGImages"],  # CVAT
            ["Annotations/a.xml", "ImageSets/Main/Train.txt", "ImageSets/Main/Validation.txt"],
            {
                "train": SplitConfig("JPEGImages", "Annotations", "ImageSets/Main/Train.txt"),
                "val": SplitConfig("JPEGImages", "Annotations", "ImageSets/Main/Validation.txt"),
            },
        ),
        (
            ["JPEGImages"],
            ["Annotations/a.xml", "ImageSets/Main/default.txt"],
            {"train": SplitConfig("JPEGImages", "Annotations", "ImageSets/Main/default.txt")},
        ),
    ],
)
def test_voc_of_other_tools(
    tmp_path: Path, folders: list[str], files: list[str], expected: dict[str, SplitConfig]
) -> None:
    for folder in folders:
        images(tmp_path / folder)
    write(tmp_path, dict.fromkeys(files, "<annotation/>"))
    config = recognise_layout(tmp_path)
    assert config.format == "voc"
    assert list(config.splits.items()) == list(expected.items())


def test_visdrone(tmp_path: Path) -> None:
    for name in ("VisDrone2019-DET-train", "VisDrone2019-DET-test-dev", "val"):
        images(tmp_path / name / "images")
        write(tmp_path, {f"{name}/annotations/a.txt": "1,2,3,4,1,4,0,0"})
    config = recognise_layout(tmp_path)
    assert config.format == "visdrone"
    assert {split: section.images for split, section in config.splits.items()} == {
        "train": "VisDrone2019-DET-train/images",
        "val": "val/images",
        "test-dev": "VisDrone2019-DET-test-dev/images",
    }
    one = recognise_layout(tmp_path / "VisDrone2019-DET-train")
    assert one.splits == {"train": SplitConfig("images", "annotations")}


def test_two_layouts_at_once_are_refused(tmp_path: Path) -> None:
    images(tmp_path / "images")
    write(tmp_path, {"labels/a.txt": YOLO_LINE, "instances_val.json": "{}"})
    with pytest.raises(InputError, match=r"could be COCO JSON \(val\) or YOLO \(train\); write a data config"):
        recognise_layout(tmp_path)


def test_published_sets_without_a_config(real_data: Path) -> None:
    assert recognise_layout(real_data / "bccd").format == "voc"
    assert [*recognise_layout(real_data / "bccd").splits] == ["train", "val", "trainval", "test"]
    for name in ("tiny_coco", "deeppcb"):
        config = recognise_layout(real_data / name)
        assert (config.format, [*config.splits]) == ("coco", ["train", "val"])
