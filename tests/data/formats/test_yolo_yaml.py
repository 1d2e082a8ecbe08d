from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from detect.config.data import SplitConfig
from detect.data.recognition import open_data
from detect.errors import InputError
from tests.data.layouts import images, write


def _open(folder: Path, text: str, data_root: str | None = None):
    write(folder, {"data.yaml": text})
    return open_data(str(folder / "data.yaml"), data_root)


def test_names_by_number_and_what_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "path: set\ntrain: images/train\nvalid: images/val\ntest:\nnames: {1: bee, 0: ant}\nnc: 2\n"
    with caplog.at_level(logging.INFO, logger="detect"):
        config = _open(tmp_path, text + "download: |\n  import os\n  os.mkdir('ran')\nroboflow: {x: 1}\n")
    assert config.root == str(tmp_path / "set")
    assert config.names == ("ant", "bee")
    assert config.splits == {"train": SplitConfig("images/train"), "val": SplitConfig("images/val")}
    assert (config.format, config.name) == ("yolo", "set")
    (message,) = caplog.messages
    assert message.endswith("ignored, not used: 'download', 'roboflow'")


def test_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "train: a\nval: a\nnames: [x]\n"
    monkeypatch.chdir("/")
    assert _open(tmp_path, text).root == str(tmp_path)
    assert _open(tmp_path, text, "elsewhere").root == "/elsewhere"
    assert _open(tmp_path, f"path: {tmp_path}/deep\n{text}").root == str(tmp_path / "deep")


def test_lists_and_paths_that_go_one_up(tmp_path: Path) -> None:
    images(tmp_path / "train/images")
    config = _open(tmp_path, "train: ../train/images\nval: lists/val.txt\ntest: [t]\nnames: [x]\n")
    assert config.splits == {
        "train": SplitConfig("train/images"),
        "val": SplitConfig(".", list="lists/val.txt"),
        "test": SplitConfig("t"),
    }


def test_classes_without_names(tmp_path: Path) -> None:
    assert _open(tmp_path, "train: a\nval: a\nnc: 3\n").names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": {1: "a"}}, r"names: must have the numbers 0 to 0, found \[1\]"),
        ({"names": {"a": "b"}}, "names: must have the numbers 0 to 0"),
        ({"names": []}, "names: must be a list of names, or names by number"),
        ({"names": "ant"}, "names: must be a list of names, or names by number, found 'ant'"),
        ({"names": [["a"]]}, "names: must be words"),
        ({"nc": 3}, "nc: is 3, but there are 1 names"),
        ({"nc": "3"}, "nc: must be a whole number above 0, found '3'"),
        ({"path": 5}, "path: must be text, found 5"),
        ({"train": 5}, "train: must be a folder of images, a txt file that lists them, or a list of such, found '5'"),
        ({"train": ["a", 5]}, "train: must be a folder of images"),
        ({"train": []}, "train: must be a folder of images"),
        ({"valid": "b"}, "has both val and valid; leave one out"),
        ({"train": None, "val": None}, "train, val: names no images"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    content = {"train": "a", "val": "a", "names": ["ant"], **change}
    with pytest.raises(InputError, match=message) as caught:
        _open(tmp_path, yaml.safe_dump(content))
    assert str(caught.value).startswith(f"{tmp_path}/data.yaml: ")


@pytest.mark.parametrize("form", ["names: [{}]", "names:\n- {}", "names: {{0: {}}}", "names:\n  0: {}"])
@pytest.mark.parametrize(
    "name", ["yes", "no", "on", "True", "1.10", "010", "~", "null", "1e3", "0x1F", "2024-01-31", "1_000", "12:30"]
)
def test_names_stay_as_they_are_written(tmp_path: Path, form: str, name: str) -> None:
    text = form.format(f"'{name}'" if ":" in name else name)
    assert _open(tmp_path, f"train: a\nval: a\nnc: 1\n{text}\n").names == (name,)


def test_several_folders_of_a_split(tmp_path: Path) -> None:
    config = _open(tmp_path, "train: [images/a, images/b]\nval: [images/c, lists/val.txt]\nnames: [x]\n")
    assert config.splits == {
        "train": SplitConfig("images", parts=("images/a", "images/b")),
        "val": SplitConfig(".", parts=("images/c", "lists/val.txt")),
    }


@pytest.mark.parametrize(
    "prefix", ["PROJECT/", "../", "../../x/", "C:\\\\data\\\\", "/home/somebody/PROJECT/", "./", ""]
)
def test_folders_with_more_in_front(tmp_path: Path, prefix: str) -> None:
    images(tmp_path / "train/images")
    images(tmp_path / "valid/images")
    config = _open(tmp_path, f'train: "{prefix}train/images"\nval: "{prefix}valid/images"\nnames: [x]\n')
    folders = [(tmp_path / section.images).resolve() for section in config.splits.values()]
    assert folders == [tmp_path / "train/images", tmp_path / "valid/images"]


def test_a_root_above_the_project(tmp_path: Path) -> None:
    images(tmp_path / "PROJECT/train/images")
    config = _open(tmp_path, "path: .\ntrain: PROJECT/train/images\nnames: [x]\n")
    assert config.splits == {"train": SplitConfig("PROJECT/train/images")}


@pytest.mark.parametrize("path", ["../datasets/mine", "/content/mine", "D:/sets/mine"])
def test_a_root_of_another_machine(tmp_path: Path, path: str) -> None:
    images(tmp_path / "images/train")
    assert _open(tmp_path, f"path: {path}\ntrain: images/train\nnames: [x]\n").root == str(tmp_path)


def test_two_splits_that_lead_to_one_folder(tmp_path: Path) -> None:
    images(tmp_path / "images")
    with pytest.raises(InputError, match="train and val both lead to images; write paths that are there"):
        _open(tmp_path, "train: ../train/images\nval: ../valid/images\nnames: [x]\n")
    same = "PROJECT/images"
    assert len(_open(tmp_path, f"train: {same}\nval: {same}\nnames: [x]\n").splits) == 2


def test_key_points_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="detect"):
        _open(tmp_path, "train: a\nval: a\nnames: [x]\nkpt_shape: [17, 3]\n")
    assert caplog.messages[-1].endswith("kpt_shape: of rows with key points the boxes are used, the points are not")


def test_a_config_of_the_toolkit_stays_one(tmp_path: Path) -> None:
    text = "name: n\nroot: .\nnames: [a]\nsplits: {train: {images: i, annotations: a.json}}\n"
    assert _open(tmp_path, text).format == "coco"
