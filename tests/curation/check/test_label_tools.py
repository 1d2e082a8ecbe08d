"""The known faults of each labelling tool's exports: a check finds them, and says what mends them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detect.curation.check.kinds import FIX, NAMED_ALIKE, REFUSED, UNLISTED, mend_of
from detect.curation.check.run import CheckReport, check_data
from detect.data.formats.coco import GROUPING
from detect.data.formats.label_studio import OTHER_ANNOTATION, PREDICTIONS, TURNED, UNLABELLED
from detect.data.formats.labelled_images import NO_BOX, ROTATED
from detect.data.formats.supervisely import BAD_FILE
from detect.data.recognition import open_data
from detect.errors import InputError
from tests.data.formats.tool_exports import EXPORTS, make_export
from tests.data.layouts import images


def check(folder: Path) -> CheckReport:
    config = open_data(str(folder))
    return check_data(config, list(config.splits), decode=True, workers=0)


def finding(folder: Path, kind: str) -> tuple[str, str]:
    """Severity of a kind that a check finds, and its first example."""
    found = {one.kind: one for one in check(folder).findings}
    assert kind in found, list(found)
    return found[kind].severity, found[kind].examples[0]


BY_FOLDERS = ("CVAT, YOLO 1.1", "CVAT, Ultralytics YOLO", "Roboflow, YOLOv5", "Roboflow, YOLOv8", "Roboflow, COCO")
"""Exports whose files say where the images are."""


@pytest.mark.parametrize("export", [name for name in EXPORTS if name not in BY_FOLDERS])
def test_an_export_without_images(export: str, tmp_path: Path) -> None:
    make_export(tmp_path, export, with_images=False)
    with pytest.raises(InputError, match="there is no image in it; if the labels were exported without images, put"):
        check(tmp_path)


@pytest.mark.parametrize("export", BY_FOLDERS)
def test_images_that_are_not_where_they_should_be(export: str, tmp_path: Path) -> None:
    make_export(tmp_path, export, with_images=False)
    severity, example = finding(tmp_path, REFUSED)
    assert severity == "error"
    assert re.search("no such (file|folder)", example)


def test_cvat_rotated_boxes_and_points(tmp_path: Path) -> None:
    """A rotated box is read as the one around it; points have no box, and what to do is said."""
    make_export(tmp_path, "CVAT for images 1.1")
    path = tmp_path / "annotations.xml"
    text = path.read_text().replace('occluded="0"', 'occluded="0" rotation="90.00"', 1)
    path.write_text(text.replace("</image>", '<points label="cat" points="1,2"></points></image>', 1))
    assert finding(tmp_path, ROTATED) == ("note", "cat in a.jpg")
    assert finding(tmp_path, NO_BOX)[0] == "warning"
    assert mend_of(NO_BOX) == "draw a box or an outline around these objects"


def labelled_twice(tasks: list[Any]) -> None:
    tasks[0]["annotations"].append({**tasks[0]["annotations"][0], "id": 9})


def never_labelled(tasks: list[Any]) -> None:
    tasks[1]["annotations"] = []


def turned(tasks: list[Any]) -> None:
    for result in tasks[0]["annotations"][0]["result"]:
        result.update(original_width=30, original_height=40)


def predicted(tasks: list[Any]) -> None:
    for task in tasks:
        task["predictions"] = task.pop("annotations")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (labelled_twice, OTHER_ANNOTATION),
        (never_labelled, UNLABELLED),
        (turned, TURNED),
        (predicted, PREDICTIONS),
    ],
)
def test_label_studio(tmp_path: Path, change: Callable[[list[Any]], None], kind: str) -> None:
    make_export(tmp_path, "Label Studio, JSON")
    (path,) = tmp_path.glob("*.json")
    tasks = json.loads(path.read_text())
    change(tasks)
    path.write_text(json.dumps(tasks))
    assert finding(tmp_path, kind)[0] == "warning"
    assert mend_of(kind)


def test_roboflow_grouping_category(tmp_path: Path) -> None:
    make_export(tmp_path, "Roboflow, COCO")
    assert finding(tmp_path, GROUPING) == ("note", "'pets' (id 0)")


def test_roboflow_copies_of_a_photograph_in_two_splits(tmp_path: Path) -> None:
    """Augmented copies differ in their pixels, so that only their names tell."""
    make_export(tmp_path, "Roboflow, Pascal VOC")
    shutil.copytree(tmp_path / "train", tmp_path / "valid")
    for split, shade in (("train", 0), ("valid", 50)):
        stem = f"photo_jpg.rf.{shade:032x}"
        (tmp_path / split / "a.xml").rename(tmp_path / split / f"{stem}.xml")
        Image.new("RGB", (40, 30), (shade, 0, 0)).save(tmp_path / split / f"{stem}.jpg")
    severity, example = finding(tmp_path, NAMED_ALIKE)
    assert severity == "warning"
    assert example == f"photo_jpg.rf.{50:032x}.jpg and photo_jpg.rf.{0:032x}.jpg of train"
    (option,) = re.findall("--group '(.+)' keeps", mend_of(NAMED_ALIKE))
    assert re.findall(option, example.split()[0]) == ["photo_jpg"]


def test_labelme_image_that_was_never_saved(tmp_path: Path) -> None:
    make_export(tmp_path, "labelme 5")
    images(tmp_path, "new.jpg")
    assert finding(tmp_path, UNLISTED) == ("warning", "new.jpg")
    assert mend_of(UNLISTED).startswith("label them")


def test_via_attributes_of_which_none_is_the_class(tmp_path: Path) -> None:
    make_export(tmp_path, "VIA 2, JSON")
    path = tmp_path / "via.json"
    path.write_text(path.read_text().replace('"class":', '"shade": "dark", "colour":'))
    severity, example = finding(tmp_path, REFUSED)
    assert severity == "error"
    assert "have the attributes" in example


def test_supervisely_file_that_is_damaged(tmp_path: Path) -> None:
    make_export(tmp_path, "Supervisely")
    (tmp_path / "ds0/ann/b.jpg.json").write_text("{")
    assert finding(tmp_path, BAD_FILE)[0] == "error"
    assert mend_of(BAD_FILE) == FIX
