"""``tools/data.py``: converting, dividing and drawing data sets, from the command line."""

from __future__ import annotations

import json

import pytest

from tests.curation.tables import largest_difference, make_coco, read, rich_content
from tests.data.layouts import YOLO_LINE, images, write
from tests.tools.running import TRAIN, make_world, run_here


@pytest.fixture
def folder(tmp_path):
    make_coco(tmp_path / "in", rich_content())
    return tmp_path


def test_there_and_back(folder):
    for source, to in (("in", "yolo"), ("yolo", "coco")):
        ended = run_here(folder, "data.py", "convert", "--data", source, "--to", to, "--out", to)
        assert ended.code == 0, ended.error
    assert ended.output.splitlines()[0] == "in: YOLO to COCO JSON in coco"
    assert ended.output.splitlines()[-1] == "data config: coco/data.yaml"
    assert "coco/data.yaml" not in ended.error
    assert largest_difference(read(folder / "in"), read(folder / "coco"), with_crowds=False) < 1e-7


def test_divided_and_drawn(folder):
    ended = run_here(folder, "data.py", "split", "--data", "in", "--ratios", 0.6, 0.4, "--out", "parts")
    assert ended.code == 0, ended.error
    assert "in train: 3 images in 3 groups, seed 0" in ended.output
    ended = run_here(folder, "data.py", "view", "--data", "parts", "--split", "val", "--out", "drawn", "--count", 2)
    assert ended.code == 0, ended.error
    assert (folder / "drawn/sheet.jpg").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("invent",), "invalid choice: 'invent'"),
        (("convert", "--data", "in", "--to", "yolo"), "the following arguments are required: --out"),
        (("convert", "--data", "in", "--to", "tfrecord", "--out", "o"), "--to: invalid choice: 'tfrecord'"),
        (("convert", "--data", "gone", "--to", "yolo", "--out", "o"), "'gone' is neither a .yaml file nor one of"),
        (("convert", "--data", "in", "--to", "yolo", "--out", "in"), "in: exists already and is not an empty folder"),
        (("convert", "--data", "in", "--to", "yolo", "--out", "o", "--split", "val"), "in: there is no split 'val'"),
        (("convert", "--data", "cifar10", "--data-root", ".", "--to", "yolo", "--out", "o"), "is for classification"),
        (("split", "--data", "in", "--ratios", "1", "--out", "o"), "--ratios 1: must be two or three numbers"),
        (("split", "--data", "in", "--ratios", "a", "--out", "o"), "--ratios: invalid float value: 'a'"),
        (("split", "--data", "in", "--from-split", "x", "--ratios", ".5", ".5", "--out", "o"), "no split 'x'"),
        (("view", "--data", "in", "--out", "o", "--count", "0"), "must be a whole number above 0, found '0'"),
        (("view", "--data", "in", "--out", "o", "--images", "x"), "--images 'x': split 'train' has no such image"),
        (("view", "--data", "in/train", "--out", "o"), "in/train: is not recognised as a data set; looked for"),
    ],
)
def test_mistakes_are_one_line(folder, words, message):
    assert message in run_here(folder, "data.py", *words).complaint
    assert not (folder / "o").exists()


def test_escapes_in_names_do_not_reach_the_terminal(folder):
    content = rich_content()
    content["images"][0]["file_name"] = "\x1b[31m.png"
    content["categories"][0]["name"] = "\x1b]0;car\x07"
    make_coco(folder / "in", content)
    for words in (
        ("convert", "--data", "in", "--to", "yolo", "--out", "o"),
        ("split", "--data", "in", "--ratios", 0.5, 0.5, "--out", "p"),
        ("view", "--data", "in", "--out", "v"),
    ):
        ended = run_here(folder, "data.py", *words)
        assert ended.code == 0, ended.error
        assert "\x1b" not in ended.output
        assert "\x07" not in ended.output


# ------------------------------------------------------------------------------------- the other tools


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, and YOLO data that was converted from the shapes."""
    folder = make_world(tmp_path_factory.mktemp("yolo"))
    ended = run_here(folder, "data.py", "convert", "--data", "data.yaml", "--to", "yolo", "--out", "set")
    assert ended.code == 0, ended.error
    return folder


def test_a_folder_and_a_yolo_yaml(world, tmp_path):
    """Trained on the folder, after which the run is named, and measured on both."""
    ended = run_here(tmp_path, "train.py", "--model", world / "tiny.yaml", "--recipe", world / "recipe.yaml",
                     "--data", world / "set", "--epochs", 1, "--device", "cpu")  # fmt: skip
    assert ended.code == 0, ended.error
    assert "its data.yaml is read" in ended.error
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny-set"]
    run = tmp_path / "runs/tiny-set"
    assert "format: yolo" in (run / "config.yaml").read_text()  # resuming reads the same data
    found = []
    for data, line in (("set", "its data.yaml is read"), ("set/yolo.yaml", "read as YOLO data")):
        words = ("--weights", run / "best.pt", "--data", data, "--workers", 0, "--device", "cpu", "--areas", "boxes")
        ended = run_here(world, "evaluate.py", *words, "--metrics-json", tmp_path / "metrics.json")
        assert ended.code == 0, ended.error
        assert line in ended.error
        found.append(json.loads((tmp_path / "metrics.json").read_text()))
    assert found[0]["areas"] == found[1]["areas"] == "boxes"
    assert found[0]["AP"] == found[1]["AP"]


def test_a_folder_that_could_be_two_things(world, tmp_path):
    images(tmp_path / "images")
    write(tmp_path, {"labels/a.txt": YOLO_LINE, "instances_train.json": "{}"})
    ended = run_here(world, *TRAIN, "--data", tmp_path)
    assert "could be COCO JSON (train) or YOLO (train); write a data config that says which" in ended.complaint
