from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig
from detect.data.formats.labelled_images import ATTRIBUTE, BAD_SHAPE, NO_BOX, OUTLINE
from detect.data.formats.supervisely import BAD_FILE, read_supervisely
from detect.errors import InputError
from tests.data.formats.tool_folders import boxes_of, tables_of
from tests.data.layouts import images, write

META = {
    "classes": [
        {"title": "dog", "shape": "rectangle", "color": "#0F8A11", "geometry_config": {}, "id": 1},
        {"title": "cat", "shape": "polygon", "color": "#0F8A12"},
        {"title": "nose", "shape": "point", "color": "#0F8A13"},
    ],
    "tags": [],
    "projectType": "images",
}


def thing(kind: str | None, *points: Any, name: Any = "cat", **more: Any) -> dict[str, Any]:
    about = {"id": 5, "classId": 2, "labelerLogin": "me", "tags": [], "classTitle": name}
    return {**about, "geometryType": kind, "points": {"exterior": list(points), "interior": []}, **more}


def annotation(*objects: Any) -> str:
    size = {"height": 30, "width": 40}
    return json.dumps({"description": "", "tags": [], "size": size, "objects": list(objects)})


def project(root: Path, files: dict[str, str], *names: str) -> Path:
    """A project with annotations by ``ds/ann/...`` and images by ``ds/...``."""
    for name in names:
        images((root / name).parent / "img", Path(name).name)
    write(root, {"meta.json": json.dumps(META), **files})
    return root


RECTANGLE = thing("rectangle", [4, 6], [24, 18], name="dog")


def test_a_project(tmp_path: Path) -> None:
    files = {"ds0/ann/a.jpg.json": annotation(RECTANGLE), "ds1/ann/b.json": annotation()}  # an old file has no suffix
    config, tables = tables_of(project(tmp_path / "project", files, "ds0/a.jpg", "ds1/b.jpg"))
    assert config.format == "supervisely"
    assert tables["train"].names == ("dog", "cat")
    assert boxes_of(tables["train"]) == {"a.jpg": [("dog", [4, 6, 24, 18])], "b.jpg": []}
    assert tables_of(tmp_path)[0].splits == config.splits  # the folder that holds the unpacked one


def test_data_sets_are_splits(tmp_path: Path) -> None:
    files = {f"{name}/ann/{name}.jpg.json": annotation(RECTANGLE) for name in ("train", "validation")}
    _, tables = tables_of(project(tmp_path, files, "train/train.jpg", "validation/validation.jpg"))
    assert {split: list(boxes_of(table)) for split, table in tables.items()} == {
        "train": ["train.jpg"],
        "val": ["validation.jpg"],
    }


def test_shapes(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("1", (7, 5), 1).save(png, "PNG")
    data = base64.b64encode(zlib.compress(png.getvalue())).decode()
    objects = [
        thing("polygon", [1, 2], [9, 4], [5, 8]),
        thing("bitmap", bitmap={"data": data, "origin": [3, 4]}),
        thing(None, bitmap={"data": data, "origin": [3, 4]}),
        thing("line", [1, 2], [3, 4]),
        thing("point", [1, 2], name="nose"),
        thing("bitmap", bitmap={"data": data[5:], "origin": [3, 4]}),
        thing("bitmap", bitmap={"data": "eJw=", "origin": [3, 4]}),
        thing("rectangle", [1, 2], [3, None]),
        thing("rectangle", [1, 2], [3, 4], name=None),
        thing("rectangle", points=3),
        "nonsense",
    ]
    files = {"ds/ann/a.jpg.json": annotation(*objects)}
    table = tables_of(project(tmp_path, files, "ds/a.jpg"))[1]["train"]
    boxes = [[1, 2, 9, 8], [3, 4, 10, 9], [3, 4, 10, 9], [1, 2, 3, 4]]
    assert boxes_of(table) == {"a.jpg": [("cat", box) for box in boxes]}
    assert [table.problems.count(kind) for kind in (OUTLINE, NO_BOX, BAD_SHAPE)] == [4, 1, 6]


def test_tags(tmp_path: Path) -> None:
    tags = [{"name": "difficult", "value": None}, {"name": "colour", "value": "red"}, 3]
    files = {"ds/ann/a.jpg.json": annotation({**RECTANGLE, "tags": tags})}
    table = tables_of(project(tmp_path, files, "ds/a.jpg"))[1]["train"]
    assert table.is_crowd.tolist() == [True]
    assert table.problems.count(ATTRIBUTE) == 1


def test_damage(tmp_path: Path) -> None:
    files = {"ds/ann/a.jpg.json": annotation(RECTANGLE), "ds/ann/b.jpg.json": "{", "ds/ann/c.jpg.json": "[]"}
    folder = project(tmp_path, files, "ds/a.jpg", "ds/b.jpg", "ds/c.jpg")
    (folder / "meta.json").write_text("{")
    table = tables_of(folder)[1]["train"]
    assert table.names == ("dog",)
    assert table.problems.count(BAD_FILE) == 2
    config = DataConfig("test", str(folder / "ds" / "img"), {"train": SplitConfig(".", ".")}, format="supervisely")
    with pytest.raises(
        InputError, match=r"has no annotation file for split 'train' that can be read: there is no ann/"
    ):
        read_supervisely(config, "train")
