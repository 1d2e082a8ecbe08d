from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig
from detect.data.formats.image_names import NOT_AS_WRITTEN
from detect.data.formats.yolo import read_yolo
from detect.data.recognition import open_data, with_format
from detect.errors import InputError
from tests.data.layouts import YOLO_LINE, images, write


def _config(root: Path, annotations: str | None, **more: SplitConfig) -> DataConfig:
    return DataConfig("test", str(root), {"train": SplitConfig("images", annotations), **more})


@pytest.mark.parametrize(
    ("annotations", "files", "expected"),
    [
        ("a.json", {}, "coco"),  # by its name: that it is missing is the reader's word
        ("a", {"a": ' \n{"images": []}'}, "coco"),
        ("notes", {"notes/a.xml": "<annotation/>"}, "voc"),
        ("notes", {"notes/a.txt": "", "notes/b.txt": YOLO_LINE}, "yolo"),
        ("notes", {"notes/deep/a.txt": "0 0.1 0.1 0.2 0.2 0.3 0.1", "notes/classes.txt": "ant"}, "yolo"),
        ("notes", {"notes/a.txt": "1,2,3,4,1,4,0,0"}, "visdrone"),
        ("notes", {"notes/a.txt": "\n1,2,3,4,1,4,0,0,\n"}, "visdrone"),
        (None, {"labels/a.txt": YOLO_LINE}, "yolo"),
    ],
)
def test_formats(
    tmp_path: Path, annotations: str | None, files: dict[str, str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path / "images")
    section = "{images: images}" if annotations is None else f"{{images: images, annotations: {annotations}}}"
    write(tmp_path, {**files, "test.yaml": f"name: test\nroot: .\nsplits: {{train: {section}}}\n"})
    with caplog.at_level(logging.INFO, logger="detect"):
        assert with_format(_config(tmp_path, annotations)).format == expected
        assert not caplog.messages
        assert open_data(str(tmp_path / "test.yaml")).format == expected
    (message,) = caplog.messages
    assert message.startswith("test: read as ")
    assert message.endswith(f"(format: {expected})")


def test_a_format_that_is_given_is_not_questioned(caplog: pytest.LogCaptureFixture) -> None:
    config = DataConfig("test", "/nowhere", {"train": SplitConfig("images", "a.json")}, format="voc")
    assert with_format(config) is config
    assert not caplog.messages


@pytest.mark.parametrize(
    ("annotations", "files", "message"),
    [
        ("a.csv", {"a.csv": "x,y"}, r"a.csv: is neither a JSON file \(COCO\) nor a folder"),
        ("gone", {}, "gone: no such folder; the data set's root .* has images/"),
        ("notes", {"notes/x": ""}, r"notes: has neither XML \(VOC\) nor txt files \(YOLO, VisDrone\)$"),
        ("notes", {"notes/x.json": "{}"}, "notes: has neither .*; for COCO name the JSON file itself"),
        (
            "notes",
            {"notes/a.xml": "<a/>", "notes/a.txt": YOLO_LINE},
            "has 1 XML and 1 txt files, so it could be Pascal VOC or YOLO; say which with format: voc or format: yolo",
        ),
        (
            "notes",
            {"notes/a.txt": YOLO_LINE, "notes/b.txt": "1,2,3,4,1,4,0,0"},
            "has lines of both YOLO and VisDrone; say which",
        ),
        ("notes", {"notes/a.txt": "", "notes/b.txt": "hello"}, "its txt files have no line of YOLO"),
        (None, {}, r"splits.train.annotations: is missing, and no image has a YOLO label file such as .*labels/a.txt"),
        (None, {"labels/a.txt": "1,2,3,4,1,4,0,0"}, "annotations: is missing, which format visdrone needs"),
    ],
)
def test_what_is_not_recognised(tmp_path: Path, annotations: str | None, files: dict[str, str], message: str) -> None:
    images(tmp_path / "images")
    write(tmp_path, files)
    with pytest.raises(InputError, match=message):
        with_format(_config(tmp_path, annotations))


def test_splits_of_different_formats_are_refused(tmp_path: Path) -> None:
    images(tmp_path / "images")
    write(tmp_path, {"notes/a.xml": "<annotation/>"})
    config = _config(tmp_path, "notes", val=SplitConfig("images", "val.json"))
    with pytest.raises(
        InputError, match=r"its splits are of different formats: Pascal VOC \(notes has XML files\) and COCO JSON \(val"
    ):
        with_format(config)


def test_a_split_without_annotations_takes_the_format_of_the_others(tmp_path: Path) -> None:
    images(tmp_path / "images")
    images(tmp_path / "more")
    write(tmp_path, {"labels/a.txt": YOLO_LINE})
    assert with_format(_config(tmp_path, None, test=SplitConfig("more"))).format == "yolo"


# --------------------------------------------------------------------------------------------- open_data


def test_a_config_whose_data_is_not_there_is_opened_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, {"d.yaml": "name: d\nroot: gone\nsplits: {train: {images: a, annotations: b}}\n"})
    config = open_data(str(tmp_path / "d.yaml"))
    assert (config.format, config.root) == (None, str(tmp_path / "gone"))


def test_a_folder_of_a_shipped_name_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path / "bccd/images")
    write(tmp_path, {"bccd/labels/a.txt": YOLO_LINE})
    monkeypatch.chdir(tmp_path)
    assert open_data("bccd").format == "voc"
    assert caplog.messages == ["bccd: the shipped data set of that name is taken; the folder here is ./bccd"]
    caplog.clear()
    assert open_data("./bccd").format == "yolo"
    assert caplog.messages == []


def test_a_name_that_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^'photos' is neither a .yaml file nor one of configs/data/, nor a folder"):
        open_data("photos")


def test_a_folder_that_says_itself_what_it_is(tmp_path: Path) -> None:
    images(tmp_path / "images")
    write(tmp_path, {"labels/a.txt": YOLO_LINE, "data.yaml": "train: images\nval: images\nnames: [ant]\n"})
    config = open_data(str(tmp_path))
    assert (config.format, config.names, [*config.splits]) == ("yolo", ("ant",), ["train", "val"])
    write(tmp_path, {"data.yaml": "name: own\nroot: .\nsplits: {all: {images: images}}\n"})
    config = open_data(str(tmp_path))
    assert (config.format, config.name, [*config.splits]) == ("yolo", "own", ["all"])
    with pytest.raises(InputError, match=r"--data-root /x: --data .* is the data set's folder already; leave one out"):
        open_data(str(tmp_path), "/x")


def test_nothing_that_is_known(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(
        InputError, match=r"is not recognised as a data set; looked for data.yaml; obj.data; COCO's annotations"
    ):
        open_data(str(tmp_path))


# ------------------------------------------------------------------------------------- as other tools write it


@pytest.mark.parametrize("names", ["obj.names", "data/obj.names"])
def test_the_data_file_of_darknet(tmp_path: Path, names: str, caplog: pytest.LogCaptureFixture) -> None:
    """As CVAT packs it: all paths have a folder data/ in front that is not there."""
    for split in ("train", "valid"):
        images(tmp_path / f"obj_{split}_data", f"{split}.jpg")
        lines = f"data/obj_{split}_data/{split}.jpg\n"
        write(tmp_path, {f"obj_{split}_data/{split}.txt": "1 0.5 0.5 0.25 0.2\n", f"{split}.txt": lines})
    text = f"classes = 2\ntrain = data/train.txt\nvalid=data/valid.txt\nnames = {names}\nbackup = backup/\n"
    write(tmp_path, {"obj.data": text, "obj.names": "1.10\nyes\n"})
    with caplog.at_level(logging.INFO, logger="detect"):
        config = open_data(str(tmp_path))
    assert "train: data/train.txt is not there, train.txt is taken" in caplog.text
    assert (config.format, config.names, [*config.splits]) == ("yolo", ("1.10", "yes"), ["train", "val"])
    assert open_data(str(tmp_path / "obj.data")) == config
    table = read_yolo(config, "val")
    assert (table.path(0).name, table.labels.tolist()) == ("valid.jpg", [1])
    assert table.problems.count(NOT_AS_WRITTEN) == 1


def test_a_data_file_without_images(tmp_path: Path) -> None:
    write(tmp_path, {"obj.data": "classes = 2\n"})
    with pytest.raises(InputError, match=r"obj.data: names no images; it must have a line such as train = data/"):
        open_data(str(tmp_path))


def test_text_files_beside_annotations_that_are_none(tmp_path: Path) -> None:
    images(tmp_path / "images")
    write(tmp_path, {"images/a.xml": "<annotation/>", "images/README.roboflow.txt": "Exported."})
    assert with_format(_config(tmp_path, "images")).format == "voc"


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.2 0.2 0.9", "0 .5 .5 .2 .2 .4 .4 2 .6 .6 2", "0,0.5,0.5,0.2,0.2"])
def test_rows_of_yolo_with_more_or_other_separators(tmp_path: Path, line: str) -> None:
    images(tmp_path / "images")
    write(tmp_path, {"labels/a.txt": line})
    assert with_format(_config(tmp_path, None)).format == "yolo"
