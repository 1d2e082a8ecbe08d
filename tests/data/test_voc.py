from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from detect.config.schema import DataConfig, SplitConfig
from detect.data import voc
from detect.data.annotations import AnnotationTable
from detect.data.checks import BAD_IMAGE, NO_AREA, OUTSIDE, PARTLY_OUTSIDE, WRONG_SIZE
from detect.data.stems import REPEATED_STEM
from detect.errors import InputError


def _object(name: str, box: str, extra: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=False)
    return f"<object><name>{name}</name>{extra}<bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in sides)}</bndbox></object>"


def _write(root: Path, stem: str, objects: str, image: str | None = None, size: str = "40 30") -> None:
    """An XML file and its image of 40 x 30 px."""
    width, height = size.split()
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "JPEGImages").mkdir(exist_ok=True)
    image = image or f"{stem}.jpg"
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / image)
    text = f"<filename>{image}</filename><size><width>{width}</width><height>{height}</height></size>{objects}"
    (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{text}</annotation>")


def _config(root: Path, names: tuple[str, ...] | None = None, **lists: str | None) -> DataConfig:
    splits = {split: SplitConfig("JPEGImages", "Annotations", file) for split, file in lists.items()}
    return DataConfig("test", str(root), splits, format="voc", names=names)


def _read(root: Path, names: tuple[str, ...] | None = None) -> AnnotationTable:
    return voc.read_voc(_config(root, names, train=None), "train")


def test_boxes_are_taken_as_they_are(tmp_path: Path) -> None:
    _write(tmp_path, "b", "")
    _write(tmp_path, "a", _object("dog", "1 2 11 22") + _object("cat", "0 0 40.0 29.5", "<difficult>1</difficult>"))
    table = _read(tmp_path)
    assert table.names == ("cat", "dog")
    assert table.category_ids.tolist() == [1, 2]
    assert table.image_ids.tolist() == [1, 2]
    assert not table.has_own_ids
    assert table.is_labelled
    assert [table.path(row).name for row in range(2)] == ["a.jpg", "b.jpg"]
    boxes, labels, is_crowd = table.boxes(0)
    assert boxes.tolist() == [[1, 2, 11, 22], [0, 0, 40, 29.5]]
    assert labels.tolist() == [1, 0]
    assert is_crowd.tolist() == [False, True]  # difficult
    assert table.areas.tolist() == [10 * 20, 40 * 29.5]
    assert table.boxes(1)[0].shape == (0, 4)
    assert table.to_coco()["annotations"][0]["bbox"] == [1, 2, 10, 20]
    assert not table.problems


def test_split_lists_rule_images_and_order(tmp_path: Path) -> None:
    for stem in "abc":
        _write(tmp_path, stem, _object("dog", "1 2 11 22"))
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbfc\r\n\r\na \r\nc\r\n")  # as Windows writes it, c twice
    table = voc.read_voc(_config(tmp_path, val="val.txt"), "val")
    assert [table.path(row).name for row in range(len(table))] == ["c.jpg", "a.jpg"]
    assert table.image_ids.tolist() == [1, 2]
    assert table.problems.count(REPEATED_STEM) == 1


def test_classes_are_those_of_the_training_split(tmp_path: Path) -> None:
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    _write(tmp_path, "b", _object("dog", "1 2 11 22") + _object("yak", "1 2 11 22"))
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "val.txt").write_text("b\n")
    config = _config(tmp_path, train="train.txt", val="val.txt")
    table = voc.read_voc(config, "val")
    assert table.names == ("dog",)
    assert len(table.labels) == 1
    assert table.problems.summary() == [f"1 {voc.UNKNOWN_NAME}: 'yak' in b"]


def test_given_names_rule_the_order(tmp_path: Path) -> None:
    _write(tmp_path, "a", _object("dog", "1 2 11 22") + _object("cat", "1 2 11 22"))
    table = _read(tmp_path, names=("dog", "cat", "yak"))
    assert table.names == ("dog", "cat", "yak")
    assert table.labels.tolist() == [0, 1]
    with pytest.raises(InputError, match="names: a class stands twice in dog, dog"):
        _read(tmp_path, names=("dog", "dog"))


def test_images_are_found_by_name_or_stem(tmp_path: Path) -> None:
    _write(tmp_path, "a", "", image="other.png")
    for stem, suffix in (("b", ".png"), ("c", ".JPG")):
        _write(tmp_path, stem, _object("dog", "1 2 11 22"))
        (tmp_path / "JPEGImages" / f"{stem}.jpg").rename(tmp_path / "JPEGImages" / f"{stem}{suffix}")
    table = _read(tmp_path)
    assert [table.path(row).name for row in range(3)] == ["other.png", "b.png", "c.JPG"]


def test_names_that_are_too_long_for_a_file(tmp_path: Path) -> None:
    """Found by fuzzing: the system has an error of its own for them."""
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    _write(tmp_path, "b", _object("dog", "1 2 11 22"))
    path = tmp_path / "Annotations" / "b.xml"
    path.write_text(path.read_text().replace("b.jpg", "b" * 300 + ".jpg"))
    assert len(_read(tmp_path)) == 2  # it is found by its stem
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    table = _read(tmp_path)
    assert len(table) == 1
    assert table.problems.count(BAD_IMAGE) == 1


def test_what_is_skipped(tmp_path: Path) -> None:
    objects = [
        _object("dog", "1 2 11 22"),
        _object("dog", "5 5 5 9"),
        _object("dog", "9 9 5 12"),
        _object("dog", "50 5 60 9"),
        _object("dog", "30 5 50 9"),
        _object("dog", "1 2 11"),
        _object("dog", "1 2 11 x"),
        _object("dog", "1 2 11 nan"),
        _object("", "1 2 11 22"),
        "<object><name>dog</name></object>",
        # The box of a part is not the object's.
        f"<object><name>dog</name><part>{_object('head', '1 1 2 2')}</part></object>",
    ]
    _write(tmp_path, "a", "".join(objects))
    _write(tmp_path, "b", _object("dog", "1 2 11 22"), size="41 30")
    _write(tmp_path, "c", _object("dog", "1 2 11 22"), size="0 0")
    _write(tmp_path, "d", _object("dog", "1 2 11 22"), size="inf 1e300")
    _write(tmp_path, "e", _object("dog", "1 2 11 22"))
    (tmp_path / "JPEGImages" / "e.jpg").unlink()
    table = _read(tmp_path)
    assert table.image_ids.tolist() == [1, 2, 3]
    assert table.boxes(0)[0].tolist() == [[1, 2, 11, 22], [30, 5, 50, 9]]
    assert len(table.boxes(1)[0]) == len(table.boxes(2)[0]) == 1
    counts = {NO_AREA: 2, OUTSIDE: 1, PARTLY_OUTSIDE: 1, voc.BAD_OBJECT: 6, WRONG_SIZE: 1, BAD_IMAGE: 1}
    assert {kind: table.problems.count(kind) for kind in counts} == counts
    assert len(table.problems.summary()) == len(counts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.xml: is not XML"),
        (b"<annotation>", "bad.xml: is not XML"),
        (b"\x89PNG", "bad.xml: is not XML"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "bad.xml: is not XML"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "bad.xml: has a document type, entities"),
        (
            '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a []><annotation/>'.encode("utf-16"),
            "bad.xml: has a document",
        ),
    ],
)
def test_damaged_and_hostile_xml_is_skipped(tmp_path: Path, content: bytes, message: str) -> None:
    _write(tmp_path, "good", _object("dog", "1 2 11 22"))
    _write(tmp_path, "bad", "")
    (tmp_path / "Annotations" / "bad.xml").write_bytes(content)
    table = _read(tmp_path)
    assert len(table) == 1
    assert table.problems.count(voc.BAD_XML) == 1
    assert message in table.problems.summary()[0]


def test_deeply_nested_xml_is_survived(tmp_path: Path) -> None:
    _write(tmp_path, "a", _object("dog", "1 2 11 22") + "<a>" * 100_000 + "</a>" * 100_000)
    assert len(_read(tmp_path)) == 1


def test_names_that_lead_out_of_their_folder_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    (tmp_path / "list.txt").write_text("../secret\n")
    with pytest.raises(InputError, match=r"file name '../secret.xml' leads out"):
        voc.read_voc(_config(tmp_path, train="list.txt"), "train")
    text = (tmp_path / "Annotations" / "a.xml").read_text()
    (tmp_path / "Annotations" / "a.xml").write_text(text.replace("a.jpg", "/etc/a.jpg"))
    with pytest.raises(InputError, match=r"a.xml: file name '/etc/a.jpg' leads out"):
        _read(tmp_path)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Annotations: no such folder"):
        _read(tmp_path)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(InputError, match="Annotations: has no XML file for split 'train'"):
        _read(tmp_path)
    _write(tmp_path, "a", "")
    with pytest.raises(InputError, match="test: no object in the XML files has a name"):
        _read(tmp_path)
    with pytest.raises(InputError, match=r"list.txt: no such file"):
        voc.read_voc(_config(tmp_path, train="list.txt"), "train")
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(InputError, match=r"list.txt: lists no images"):
        voc.read_voc(_config(tmp_path, train="list.txt"), "train")
    (tmp_path / "list.txt").write_text("nowhere\n")
    with pytest.raises(
        InputError, match=r"no XML file for split 'train' that can be read: .*nowhere.xml: cannot be read"
    ):
        voc.read_voc(_config(tmp_path, train="list.txt"), "train")


# 4,888 boxes, two of them without area: 2,805 + 1,138 + 945 = 4,888.
@pytest.mark.parametrize(
    ("split", "num_images", "num_boxes", "no_area"),
    [("train", 205, 2804, "BloodImage_00343"), ("val", 87, 1137, "BloodImage_00338"), ("test", 72, 945, None)],
)
def test_bccd(real_data: Path, split: str, num_images: int, num_boxes: int, no_area: str | None) -> None:
    lists: dict[str, str | None] = {name: f"ImageSets/Main/{name}.txt" for name in ("train", "val", "test")}
    table = voc.read_voc(_config(real_data / "bccd", None, **lists), split)
    assert (len(table), len(table.labels)) == (num_images, num_boxes)
    assert table.names == ("Platelets", "RBC", "WBC")
    assert (table.sizes_hw == [480, 640]).all()
    assert table.problems.count(NO_AREA) == (no_area is not None)
    assert len(table.problems.summary()) == (no_area is not None)
    assert no_area is None or no_area in table.problems.summary()[0]
