from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from detect.data.formats.labelled_images import ATTRIBUTE, BAD_ENTRY, BAD_SHAPE, NO_BOX, OUTLINE, ROTATED
from detect.data.formats.via import NO_CLASS
from detect.errors import InputError
from tests.data.formats.tool_folders import boxes_of, tables_of
from tests.data.layouts import images, write

RECT = {"name": "rect", "x": 4, "y": 6, "width": 20, "height": 12}
FOUND = [4, 6, 24, 18]
CAT = {"class": "cat"}


def region(shape: Any, attributes: Any = CAT) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def via(*regions: Any, name: str = "a.jpg") -> dict[str, Any]:
    """An export of VIA 2: images by name and size of their files."""
    return {f"{name}12345": {"filename": name, "size": 12345, "regions": list(regions), "file_attributes": {}}}


def table_of(root: Path, content: Any, *names: str) -> Any:
    images(root, *names)
    (root / "via_export_json.json").write_text(json.dumps(content), encoding="utf-8")
    config, tables = tables_of(root)
    assert config.format == "via"
    return tables["train"]


def test_versions(tmp_path: Path) -> None:
    """VIA 1 numbers the regions in a mapping; a project of VIA 2 has the same entries in a part of it."""
    old = {
        "a.jpg1": {
            "fileref": "",
            "size": 1,
            "filename": "a.jpg",
            "base64_img_data": "",
            "file_attributes": {},
            "regions": {"0": region(RECT)},
        }
    }
    new = {**via(region(RECT)), **via(name="b.jpg")}
    project = {"_via_settings": {"ui": {}}, "_via_img_metadata": new, "_via_attributes": {"region": {}, "file": {}}}
    assert boxes_of(table_of(tmp_path / "1", old)) == {"a.jpg": [("cat", FOUND)]}
    for number, content in enumerate((new, project)):
        found = boxes_of(table_of(tmp_path / f"2{number}", content, "a.jpg", "b.jpg"))
        assert found == {"a.jpg": [("cat", FOUND)], "b.jpg": []}


def test_csv(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(
        (
            "filename",
            "file_size",
            "file_attributes",
            "region_count",
            "region_id",
            "region_shape_attributes",
            "region_attributes",
        )
    )
    rows.writerow(("a.jpg", 1, "{}", 2, 0, json.dumps(RECT), json.dumps(CAT)))
    rows.writerow(("a.jpg", 1, "{}", 2, 1, "{", json.dumps(CAT)))
    rows.writerow(("b.jpg", 1, "{}", 0, 0, "{}", "{}"))
    rows.writerow(("", 1, "{}", 0, 0, "{}", "{}"))
    write(tmp_path, {"via.csv": file.getvalue().replace("filename", "#filename")})  # VIA 1 has the mark
    table = tables_of(tmp_path)[1]["train"]
    assert boxes_of(table) == {"a.jpg": [("cat", FOUND)], "b.jpg": []}
    assert [table.problems.count(kind) for kind in (BAD_SHAPE, BAD_ENTRY)] == [1, 1]


def test_shapes(tmp_path: Path) -> None:
    """Turned by pi / 2, 20 x 12 about (14, 12) are 12 x 20, and radii of 6 and 3 about (20, 15) 3 and 6."""
    half = 3.141592653589793 / 2
    shapes = [
        {"name": "circle", "cx": 20, "cy": 15, "r": 5},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 6, "ry": 3, "theta": half},
        {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [2, 4, 8]},
        {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [2, 4]},
        {**RECT, "theta": half},
        {"name": "point", "cx": 1, "cy": 2},
        {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [2, 4]},
        {"name": "rect", "x": 1},
        {"name": "unheard of"},
        None,
    ]
    table = table_of(tmp_path, via(*map(region, shapes), "nonsense", region(RECT, {})))
    boxes = [[15, 10, 25, 20], [17, 9, 23, 21], [1, 2, 9, 8], [1, 2, 9, 4], [8, 2, 20, 22]]
    assert boxes_of(table) == {"a.jpg": [("cat", box) for box in boxes]}
    assert [table.problems.count(kind) for kind in (OUTLINE, ROTATED, NO_BOX, BAD_SHAPE)] == [4, 1, 1, 6]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"Label": "cat", "note": "wet"}, "cat"),
        ({"thing": "cat"}, "cat"),
        ({"type": {"cat": True, "dog": False}}, "cat"),  # a check box
        ({}, NO_CLASS),
    ],
)
def test_the_attribute_with_the_class(tmp_path: Path, attributes: dict[str, Any], name: str) -> None:
    table = table_of(tmp_path, via(region(RECT, attributes)))
    assert boxes_of(table) == {"a.jpg": [(name, FOUND)]}
    assert table.problems.count(ATTRIBUTE) == int("note" in attributes)


def test_a_split_for_each_folder(tmp_path: Path) -> None:
    for split, name in (("train", "cat"), ("val", "dog")):
        table_of(tmp_path / split, via(region(RECT, {"class": name})))
    config, tables = tables_of(tmp_path)
    assert list(config.splits) == ["train", "val"]
    assert tables["val"].names == ("cat",)  # those of train


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (via(region(RECT, {"colour": "red", "shade": "dark"})), r"have the attributes 'colour', 'shade'; call the one"),
        ({"a": {"filename": 3, "regions": []}}, r"no entry has a filename and regions: 1 entries without the name"),
        ({"_via_img_metadata": []}, r"must be a project or a mapping of images"),
    ],
)
def test_refusals(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        table_of(tmp_path, content)


def test_a_csv_without_the_columns(tmp_path: Path) -> None:
    images(tmp_path)
    write(
        tmp_path,
        {
            "a.csv": "filename,region_shape_attributes\n",
            "data.yaml": "name: x\nroot: .\nformat: via\nsplits: {train: {images: ., annotations: a.csv}}\n",
        },
    )
    with pytest.raises(
        InputError, match="its first line must name filename, region_shape_attributes, region_attributes"
    ):
        tables_of(tmp_path)
