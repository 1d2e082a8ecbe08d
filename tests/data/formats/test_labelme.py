from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detect.data.checks import UNROTATED_SIZE
from detect.data.formats.labelled_images import ATTRIBUTE, BAD_SHAPE, NO_BOX, OUTLINE, ROTATED
from detect.data.formats.labelme import BAD_FILE
from detect.errors import InputError
from tests.data.formats.tool_folders import boxes_of, tables_of
from tests.data.layouts import images, write


def shape(kind: str, label: Any, *points: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": list(points), "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme(*shapes: Any, name: str = "a.jpg", **more: Any) -> str:
    """A file as version 5 writes it; the image inside is 100 kB of text."""
    about = {"imagePath": name, "imageData": "A" * 100_000, "imageHeight": 30, "imageWidth": 40}
    return json.dumps({"version": "5.4.1", "flags": {}, "shapes": list(shapes), **about, **more}, indent=2)


RECTANGLE = shape("rectangle", "cat", [20.5, 18], [4, 6])  # drawn from the lower right
CAT = ("cat", [4, 6, 20.5, 18])


@pytest.mark.parametrize("files", ["{}", "images/{} annotations/{}", "images/{} labels/{}", "train/{}"])
def test_layouts(tmp_path: Path, files: str) -> None:
    jpg, json_file = (files.split()[at].format("{}") for at in (0, -1))
    images((tmp_path / jpg.format("x")).parent, "a.jpg", "test_1.jpg")
    write(
        tmp_path,
        {
            json_file.format(f"{stem}.json"): labelme(RECTANGLE, name=f"..\\images\\{stem}.jpg")
            for stem in ("a", "test_1")
        },
    )
    config, tables = tables_of(tmp_path)
    assert config.format == "labelme"
    assert boxes_of(tables["train"]) == {"a.jpg": [CAT], "test_1.jpg": [CAT]}


def test_shapes(tmp_path: Path) -> None:
    images(tmp_path)
    shapes = [
        RECTANGLE,
        shape("polygon", "dog", [1, 2], [9, 4], [5, 8]),
        shape("circle", "dog", [20, 15], [23, 19]),  # of radius 5
        shape("linestrip", "dog", [1, 2], [3, 4]),
        shape("mask", "dog", [1, 2], [3, 4], mask="iVBOR"),
        shape("oriented_rectangle", "dog", [10, 5], [15, 10], [10, 15], [5, 10]),
        shape("point", "dog", [1, 2]),
        shape("points", "dog", [1, 2]),
        shape("rectangle", None, [1, 2], [3, 4]),
        shape("rectangle", "cat", [1, "x"], [3, 4]),
        shape("circle", "cat", [1, 2]),
        shape("rectangle", "cat"),
        "nonsense",
    ]
    write(tmp_path, {"a.json": labelme(*shapes)})
    table = tables_of(tmp_path)[1]["train"]
    expected = [[1, 2, 9, 8], [15, 10, 25, 20], [1, 2, 3, 4], [1, 2, 3, 4], [5, 5, 15, 15]]
    assert boxes_of(table) == {"a.jpg": [CAT, *(("dog", box) for box in expected)]}
    assert [table.problems.count(kind) for kind in (OUTLINE, ROTATED, NO_BOX, BAD_SHAPE)] == [4, 1, 2, 5]


def test_flags_and_ignored_regions(tmp_path: Path) -> None:
    images(tmp_path)
    flagged = shape(
        "rectangle", "cat", [4, 6], [20, 18], flags={"occluded": True, "difficult": True, "wet": True, "dry": False}
    )
    grouped = shape("rectangle", "dog", [5, 6], [20, 18], group_id=3)
    write(tmp_path, {"a.json": labelme(flagged, grouped, shape("rectangle", "__ignore__", [1, 2], [3, 4]))})
    table = tables_of(tmp_path)[1]["train"]
    assert table.names == ("cat", "dog")
    assert table.is_crowd.tolist() == [True, False, True, True]  # the ignored region is one of each class
    assert table.labels.tolist() == [0, 1, 0, 1]
    assert table.marks["occluded"].tolist() == [1, 0, 0, 0]
    assert table.problems.count(ATTRIBUTE) == 2


def test_an_image_of_another_name(tmp_path: Path) -> None:
    images(tmp_path, "b.jpg", "c.jpg")
    write(tmp_path, {"a.json": labelme(RECTANGLE, name="b.jpg"), "c.json": labelme(RECTANGLE, name="../../etc/passwd")})
    assert boxes_of(tables_of(tmp_path)[1]["train"]) == {"b.jpg": [CAT], "c.jpg": [CAT]}


def test_old_files_have_no_type_of_shape(tmp_path: Path) -> None:
    images(tmp_path)
    old = {"label": "dog", "points": [[1, 2], [9, 4], [5, 8]], "line_color": None, "fill_color": None}
    write(tmp_path, {"a.json": labelme(old, lineColor=[0, 255, 0, 128])})
    assert boxes_of(tables_of(tmp_path)[1]["train"]) == {"a.jpg": [("dog", [1, 2, 9, 8])]}


def test_damage(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    write(tmp_path, {"a.json": labelme(RECTANGLE), "b.json": "{", "c.json": "[]"})
    table = tables_of(tmp_path)[1]["train"]
    assert boxes_of(table) == {"a.jpg": [CAT]}
    assert table.problems.count(BAD_FILE) == 2
    assert table.problems.count(UNROTATED_SIZE) == 0


def test_nothing_to_read(tmp_path: Path) -> None:
    images(tmp_path)
    write(tmp_path, {"a.json": labelme()})
    with pytest.raises(InputError, match="no shape has a class"):
        tables_of(tmp_path)
