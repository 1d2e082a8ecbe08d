from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from detect.config.data import DataConfig, SplitConfig
from detect.curation.convert import Conversion, convert
from detect.data.checks import BAD_IMAGE
from detect.data.formats.cvat import cvat_xml, read_cvat
from detect.data.formats.labelled_images import (
    ATTRIBUTE,
    BAD_ENTRY,
    BAD_SHAPE,
    NO_BOX,
    OUTLINE,
    ROTATED,
    LabelledImage,
    LabelledObject,
)
from detect.data.recognition import open_data
from detect.errors import InputError
from tests.data.formats.tool_folders import boxes_of, tables_of
from tests.data.layouts import images, write

META = """<version>1.1</version><meta><task><id>4</id><name>t</name><size>3</size><mode>annotation</mode>
<labels><label><name>dog</name><color>#2080c0</color><type>any</type><attributes></attributes></label>
<label><name>cat</name><type>any</type></label>
<label><name>nose</name><type>points</type><parent>cat</parent></label></labels></task></meta>"""


def cvat(*parts: str) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{META}{"".join(parts)}</annotations>'


def image(name: str, *shapes: str, more: str = "") -> str:
    return f'<image id="0" name="{name}" {more} width="40" height="30">{"".join(shapes)}</image>'


BOX = '<box label="cat" source="manual" occluded="1" xtl="1.50" ytl="2" xbr="11" ybr="22.25" z_order="0"/>'


def test_images(tmp_path: Path) -> None:
    images(tmp_path / "images" / "deep", "b.jpg")
    images(tmp_path / "images", "a.jpg", "c.jpg")
    polygon = '<polygon label="dog" occluded="0" points="5.0,6.0;9.5,4.0;7.0,12.0" z_order="0"></polygon>'
    write(tmp_path, {"annotations.xml": cvat(image("a.jpg", BOX, polygon), image("deep/b.jpg"), image("c.jpg"))})
    config, tables = tables_of(tmp_path)
    table = tables["train"]
    assert config.format == "cvat"
    assert table.names == ("dog", "cat")  # as the task lists its labels, without parts of skeletons
    expected = {"a.jpg": [("cat", [1.5, 2, 11, 22.25]), ("dog", [5, 4, 9.5, 12])], "b.jpg": [], "c.jpg": []}
    assert boxes_of(table) == expected
    assert table.marks["occluded"].tolist() == [1, 0]
    assert table.problems.found() == [(OUTLINE, 1, ("<polygon> dog in a.jpg",))]


def test_other_shapes(tmp_path: Path) -> None:
    """A box of 8 x 4 about (14, 10) turned by 90 degrees is 4 x 8; an ellipse of radii 5 and 3 turned by 30 degrees has
    half a width of hypot(5 cos 30, 3 sin 30) and half a height of hypot(5 sin 30, 3 cos 30)."""
    images(tmp_path)
    corners = "".join(f' x{c}{n}="{8 + n}" y{c}{n}="{9 + n}"' for c in ("tl", "tr", "bl", "br") for n in (1, 2))
    shapes = [
        '<box label="cat" xtl="10" ytl="8" xbr="18" ybr="12" rotation="90.00"/>',
        '<ellipse label="cat" cx="20" cy="15" rx="5" ry="3" rotation="30"/>',
        '<polyline label="cat" points="1,2;3,4"/>',
        '<mask label="cat" rle="3, 1" left="3" top="4" width="5" height="6"/>',
        f'<cuboid label="cat"{corners}/>',
        '<points label="cat" points="1,2"/><tag label="cat"/><skeleton label="cat"><points label="nose"/></skeleton>',
    ]
    write(tmp_path, {"cvat.xml": cvat(image("a.jpg", *shapes))})
    table = tables_of(tmp_path)[1]["train"]
    width, height = (math.hypot(5 * a, 3 * b) for a, b in ((math.sqrt(3) / 2, 0.5), (0.5, math.sqrt(3) / 2)))
    ellipse = [round(v, 6) for v in (20 - width, 15 - height, 20 + width, 15 + height)]
    found = [box for _, box in boxes_of(table)["a.jpg"]]
    assert found == [[12, 6, 16, 14], ellipse, [1, 2, 3, 4], [3, 4, 8, 10], [9, 10, 10, 11]]
    assert [table.problems.count(kind) for kind in (ROTATED, OUTLINE, NO_BOX)] == [1, 4, 3]


def test_attributes(tmp_path: Path) -> None:
    images(tmp_path)
    inner = "".join(
        f'<attribute name="{name}">{value}</attribute>'
        for name, value in (("truncated", "true"), ("Difficult", "true"), ("colour", "red"), ("parked", "false"))
    )
    write(tmp_path, {"cvat.xml": cvat(image("a.jpg", BOX.replace("/>", f">{inner}</box>")))})
    table = tables_of(tmp_path)[1]["train"]
    assert (table.is_crowd.tolist(), table.marks["truncated"].tolist()) == ([True], [1])
    assert table.problems.found() == [(ATTRIBUTE, 1, ("'colour' of cat in a.jpg",))]


def test_attributes_are_kept_in_coco(tmp_path: Path) -> None:
    images(tmp_path / "in", "a.jpg")
    coloured = BOX.replace("/>", '><attribute name="colour">dark red</attribute></box>')
    write(tmp_path / "in", {"cvat.xml": cvat(image("a.jpg", BOX, coloured.replace('xtl="1.50"', 'xtl="3"')))})
    for to in ("coco", "yolo"):
        lines = convert(open_data(str(tmp_path / "in")), Conversion(to, tmp_path / to))
        assert any("not kept: 1 attributes of boxes" in line for line in lines) == (to == "yolo")
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert [one["attributes"] for one in content["annotations"]] == [{}, {"colour": "dark red"}]


def test_frames_of_a_video(tmp_path: Path) -> None:
    """Frame 1 has the box as well, frame 2 is outside, frame 3 has nothing and is background, frame 9 is not there."""
    images(tmp_path / "images", *(f"frame_{number:06d}.PNG" for number in range(4)))
    box = '<box frame="{}" outside="{}" occluded="0" keyframe="1" xtl="{}" ytl="2" xbr="20" ybr="9" z_order="0"/>'
    shapes = "".join(box.format(*values) for values in ((0, 0, 1), (1, 0, 2), (2, 1, 3), (9, 0, 4)))
    write(tmp_path, {"annotations.xml": cvat(f'<track id="0" label="dog" source="manual">{shapes}</track>')})
    table = tables_of(tmp_path)[1]["train"]
    assert boxes_of(table) == {
        "frame_000000.PNG": [("dog", [1, 2, 20, 9])],
        "frame_000001.PNG": [("dog", [2, 2, 20, 9])],
        "frame_000002.PNG": [],
        "frame_000003.PNG": [],
    }
    assert table.problems.count(BAD_IMAGE) == 1


def test_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    images(tmp_path / "images" / "Train", "a.jpg")
    images(tmp_path / "images" / "Validation", "a.jpg")
    both = [image("a.jpg", BOX, more=f'subset="{name}"') for name in ("Train", "Validation")]
    write(tmp_path, {"annotations.xml": cvat(*both)})
    config, tables = tables_of(tmp_path)
    assert list(config.splits) == ["train", "val"]
    assert [tables[split].path(0).parent.name for split in tables] == ["Train", "Validation"]
    assert [len(table.labels) for table in tables.values()] == [1, 1]


def test_damage(tmp_path: Path) -> None:
    images(tmp_path)
    bad = ['<box label="cat" xtl="1" ytl="x" xbr="3" ybr="4"/>', '<box xtl="1" ytl="2" xbr="3" ybr="4"/>']
    bad += ['<polygon label="cat" points="1;2"/>', '<polygon label="cat"/>']
    outside = image("../../etc/passwd.jpg", BOX)
    write(tmp_path, {"cvat.xml": cvat(image("a.jpg", BOX, *bad), image(""), outside)})
    table = tables_of(tmp_path)[1]["train"]
    assert len(table.labels) == len(table) == 1
    assert [table.problems.count(kind) for kind in (BAD_SHAPE, BAD_ENTRY)] == [4, 1]
    assert any("lead out of the images' folder" in line for line in table.problems.summary())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation/>", r"a.xml: is not CVAT's XML: its root is <annotation>, not <annotations>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "has a document type, entities or zero bytes"),
        ("<annotations/>", "none of the 0 images can be used: the file lists none"),
        (f"<annotations>{image('a.jpg')}</annotations>", "no shape has a class, so there are no classes; give names"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    images(tmp_path)
    write(tmp_path, {"a.xml": text})
    config = DataConfig("test", str(tmp_path), {"train": SplitConfig(".", "a.xml")}, format="cvat")
    with pytest.raises(InputError, match=message):
        read_cvat(config, "train")


def test_written_and_read(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    item = LabelledObject('a <b> & "c"', (1.25, 2, 11.5, 22), score=0.75)
    content = cvat_xml(
        [LabelledImage("a.jpg", (item,), (30, 40)), LabelledImage("b.jpg", (), (30, 40))], ("x", item.name)
    )
    (tmp_path / "labels.xml").write_bytes(content)
    table = tables_of(tmp_path)[1]["train"]
    assert table.names == ("x", item.name)
    assert boxes_of(table) == {"a.jpg": [(item.name, [1.25, 2, 11.5, 22])], "b.jpg": []}
    assert b'source="auto"' in content
    assert b'<attribute name="score">0.75</attribute>' in content
