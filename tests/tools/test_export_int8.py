"""What a user can get wrong about an INT8 file: one line, exit code 2, and no file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tools.running import data_yaml, run_here


@pytest.fixture
def refused(trained_world: Path, tmp_path: Path):
    """Run the command, which must fail and leave the folder of the file empty; gives its message."""
    out = tmp_path / "out"
    out.mkdir()

    def run(data: object, *options: object) -> str:
        weights = trained_world / "run/best.pt"
        command = ("--weights", weights, "--out", out / "model.onnx", "--int8", "--data", data, *options)
        complaint = run_here(trained_world, "export.py", *command).complaint
        assert [*out.iterdir()] == []
        return complaint

    return run


def other_data(trained_world: Path, folder: Path, rename=lambda name: name, pixels=None) -> Path:
    """The world's data with other class names, or with images of these pixels."""
    table = json.loads((trained_world / "shapes/annotations/train.json").read_text())
    for category in table["categories"]:
        category["name"] = rename(category["name"])
    root = trained_world / "shapes"
    if pixels is not None:
        (folder / "grey").mkdir()
        for image in table["images"]:
            image["file_name"] = str(Path(image["file_name"]).with_suffix(".png"))
            cv2.imwrite(str(folder / "grey" / image["file_name"]), pixels)
    (folder / "other.json").write_text(json.dumps(table))
    text = data_yaml(root=str(root))
    for split in ("train", "val"):
        text = text.replace(f"annotations/{split}.json", str(folder / "other.json"))
        if pixels is not None:
            text = text.replace(f"images/{split}", str(folder / "grey"))
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


def test_a_calibration_of_one_image(refused) -> None:
    assert "calibration: needs at least 2 training images, 1 was asked for" in refused("data.yaml", "--calibration", 1)


def test_the_split_of_the_calibration_as_the_one_that_measures(trained_world: Path, tmp_path: Path) -> None:
    """A warning, beside the refusal of one image, which ends the run early."""
    command = ("--weights", "run/best.pt", "--out", tmp_path / "model.onnx", "--int8", "--data", "data.yaml")
    for split, warned in (("train", True), ("val", False)):
        ended = run_here(trained_world, "export.py", *command, "--calibration", 1, "--split", split)
        assert ("the accuracy is measured on the split that gives the ranges" in ended.error) is warned
        assert ended.code == 2


def test_data_of_other_classes(refused, trained_world: Path, tmp_path: Path) -> None:
    data = other_data(trained_world, tmp_path, rename=lambda name: f"other {name}")
    assert "classes: the checkpoint and the data have none in common" in refused(data)


def test_images_that_show_nothing(refused, trained_world: Path, tmp_path: Path) -> None:
    data = other_data(trained_world, tmp_path, pixels=np.full((64, 64, 3), 128, np.uint8))
    assert "training images show nothing, each is of one colour" in refused(data)


def test_no_such_data(refused) -> None:
    assert "nowhere.yaml" in refused("nowhere.yaml")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_package_that_is_not_installed(refused, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert refused("data.yaml").endswith(f"export to ONNX needs {package}: pip install 'detect-small[export]'")
