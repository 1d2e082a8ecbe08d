from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detect.data.formats.label_studio import (
    OTHER_ANNOTATION,
    OTHER_RESULT,
    PREDICTIONS,
    TURNED,
    UNLABELLED,
    label_studio_tasks,
)
from detect.data.formats.labelled_images import (
    BAD_ENTRY,
    BAD_SHAPE,
    NO_BOX,
    OUTLINE,
    ROTATED,
    LabelledImage,
    LabelledObject,
)
from detect.errors import InputError
from tests.data.formats.tool_folders import boxes_of, tables_of
from tests.data.layouts import images

SIZE = {"original_width": 40, "original_height": 30, "image_rotation": 0}
BOX = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0}  # of 40 x 30 px: 4, 6 to 24, 18
FOUND = [4, 6, 24, 18]


def result(kind: str, value: dict[str, Any], *names: str, **more: Any) -> dict[str, Any]:
    value = {**value, kind: list(names)} if names else value
    return {"id": "x1", "type": kind, "from_name": "label", "to_name": "image", "value": value, **SIZE, **more}


def task(image: str, *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": list(annotations), "predictions": [], "meta": {}, **more}


def annotation(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 1, "was_cancelled": False, "ground_truth": False, "result": list(results), **more}


def folder_of(root: Path, content: Any, *names: str) -> Path:
    images(root / "images", *names)
    (root / "project-1-at-2024.json").write_text(json.dumps(content), encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/1/0fa1b2c3-a.jpg", "0fa1b2c3-a.jpg"),  # as the server keeps it
        ("/data/upload/1/0fa1b2c3-a.jpg", "a.jpg"),  # as the user has it
        ("/data/upload/0fa1b2c3-a%20b.jpg", "a b.jpg"),
        ("/data/local-files/?d=photos/a.jpg", "a.jpg"),
        ("s3://bucket/deep/a.jpg", "a.jpg"),
        ("https://host/a.jpg?X-Amz-Signature=1", "a.jpg"),
        ("a.jpg", "a.jpg"),
    ],
)
def test_addresses_of_images(tmp_path: Path, address: str, name: str) -> None:
    content = [task(address, annotation(result("rectanglelabels", BOX, "cat")))]
    config, tables = tables_of(folder_of(tmp_path, content, name))
    assert config.format == "label-studio"
    assert boxes_of(tables["train"]) == {name: [("cat", FOUND)]}


def test_shapes(tmp_path: Path) -> None:
    """Turned by 90 degrees about the corner (4, 6), 20 x 12 px lie from -8, 6 to 4, 26."""
    shapes = [
        result("rectanglelabels", {**BOX, "rotation": 90}, "cat"),
        result("polygonlabels", {"points": [[10, 20], [60, 20], [30, 60]], "closed": True}, "dog"),
        result("ellipselabels", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": 0}, "dog"),
        result("rectanglelabels", BOX, "cat", "dog"),
        result("rectangle", BOX),
        result("labels", BOX, "cow"),  # Labels beside Rectangle: two results
        result("brushlabels", {"format": "rle", "rle": [0, 1]}, "cat"),
        result("keypointlabels", {"x": 1, "y": 2, "width": 1}, "cat"),
        result("choices", {"choices": ["good"]}),
        {"type": "relation", "from_id": "x1", "to_id": "x2"},
        result("rectanglelabels", {**BOX, "x": None}, "cat"),
        result("rectanglelabels", BOX),
    ]
    table = tables_of(folder_of(tmp_path, [task("a.jpg", annotation(*shapes))], "a.jpg"))[1]["train"]
    expected = [("cat", [-8, 6, 4, 26]), ("dog", FOUND), ("dog", [10, 9, 30, 21]), ("cat", FOUND), ("dog", FOUND)]
    assert boxes_of(table) == {"a.jpg": [*expected, ("cow", FOUND)]}
    counts = {kind: table.problems.count(kind) for kind in (ROTATED, OUTLINE, NO_BOX, OTHER_RESULT, BAD_SHAPE)}
    assert counts == {ROTATED: 1, OUTLINE: 2, NO_BOX: 2, OTHER_RESULT: 3, BAD_SHAPE: 1}


def test_several_annotations(tmp_path: Path) -> None:
    """The ground truth, else the newest; a task that all skipped, or nobody saw, is no background; an empty one is."""
    one, two = (
        annotation(result("rectanglelabels", BOX, name), updated_at=date)
        for name, date in (("cat", "2024"), ("dog", "2023"))
    )
    truth = {**two, "ground_truth": True}
    content = [
        task("a.jpg", one, two),
        task("b.jpg", one, truth),
        task("c.jpg", {**one, "was_cancelled": True}),
        task("d.jpg"),
        task("e.jpg", annotation()),
    ]
    table = tables_of(folder_of(tmp_path, content, *(f"{letter}.jpg" for letter in "abcde")))[1]["train"]
    assert boxes_of(table) == {"a.jpg": [("cat", FOUND)], "b.jpg": [("dog", FOUND)], "e.jpg": []}
    assert (table.problems.count(OTHER_ANNOTATION), table.problems.count(UNLABELLED)) == (2, 2)


def test_completions_of_old_versions(tmp_path: Path) -> None:
    old = {"id": 0, "data": {"image": "a.jpg"}, "completions": [annotation(result("rectanglelabels", BOX, "cat"))]}
    assert boxes_of(tables_of(folder_of(tmp_path, [old], "a.jpg"))[1]["train"]) == {"a.jpg": [("cat", FOUND)]}


def test_json_min(tmp_path: Path) -> None:
    shape = {**BOX, **SIZE, "rectanglelabels": ["cat"]}
    both = {"annotator": 1, "annotation_id": 5, "updated_at": "2024-01-02", "lead_time": 3.5}
    content = [
        {"image": "/data/upload/1/0fa1b2c3-a.jpg", "id": 1, "label": [shape], **both},
        {"image": "/data/upload/1/0fa1b2c3-a.jpg", "id": 1, "label": [], **both, "updated_at": "2023-01-02"},
        {"image": "b.jpg", "id": 2, **both},
    ]
    config, tables = tables_of(folder_of(tmp_path, content, "a.jpg", "b.jpg"))
    assert config.format == "label-studio"
    assert boxes_of(tables["train"]) == {"a.jpg": [("cat", FOUND)], "b.jpg": []}


def test_turned_images_are_reported(tmp_path: Path) -> None:
    content = [task(f"{name}.jpg", annotation(result("rectanglelabels", BOX, "cat"))) for name in "ab"]
    folder = folder_of(tmp_path, content, "a.jpg")
    Image.new("RGB", (60, 80)).save(folder / "images" / "b.jpg")
    Image.new("RGB", (80, 60)).save(folder / "images" / "a.jpg")  # a larger copy: percent hold
    table = tables_of(folder)[1]["train"]
    assert boxes_of(table)["a.jpg"] == [("cat", [8, 12, 48, 36])]
    assert table.problems.found() == [(TURNED, 1, ("b.jpg: 40 x 30, now 60 x 80",))]


def test_predictions_are_read_where_nothing_else_is(tmp_path: Path) -> None:
    items = (
        LabelledObject("cat", (4, 6, 24, 18), score=0.75),
        LabelledObject("dog", (1.23, 2.34, 3.45, 4.56), score=0.5),
    )
    written = label_studio_tasks([LabelledImage("a.jpg", items, (30, 40)), LabelledImage("b.jpg", (), (30, 40))], "m 1")
    (prediction,) = written[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("m 1", 0.625)
    assert prediction["result"][0]["value"] == {**BOX, "rectanglelabels": ["cat"]}
    assert prediction["result"][0]["score"] == 0.75
    table = tables_of(folder_of(tmp_path, written, "a.jpg", "b.jpg"))[1]["train"]
    assert boxes_of(table) == {"a.jpg": [("cat", FOUND), ("dog", [1.23, 2.34, 3.45, 4.56])], "b.jpg": []}
    assert table.problems.count(PREDICTIONS) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"data": {}, "annotations": [{"result": []}]}, 3], f"{BAD_ENTRY[:20]}|no task has an annotation"),
        ([task("a.jpg"), task("b.jpg", annotation(), was_cancelled=1, annotations=[])], "no task has an annotation"),
    ],
)
def test_refusals(tmp_path: Path, content: Any, message: str) -> None:
    text = json.dumps([*content, {"result": 1}])
    images(tmp_path / "images", "a.jpg", "b.jpg")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message):
        tables_of(tmp_path)
