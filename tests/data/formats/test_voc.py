from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable
from detect.data.checks import BAD_IMAGE, NO_AREA, OTHER_SIZE, OUTSIDE, PARTLY_OUTSIDE, WRONG_SIZE
from detect.data.formats import voc
from detect.data.formats.annotation_files import EXTENDED_NAME, NOT_IN_CLASS, REPEATED_STEM, UNKNOWN_NAME
from detect.data.formats.image_names import LEADS_OUT
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
    assert table.problems.summary() == [f"1 {UNKNOWN_NAME}: 'yak' in b"]


def test_given_names_rule_the_order(tmp_path: Path) -> None:
    _write(tmp_path, "a", _object("dog", "1 2 11 22") + _object("cat", "1 2 11 22"))
    table = _read(tmp_path, names=("dog", "cat", "yak"))
    assert table.names == ("dog", "cat", "yak")
    assert table.labels.tolist() == [0, 1]
    with pytest.raises(InputError, match="names: duplicate class in dog, dog"):
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
    _write(tmp_path, "b", _object("dog", "1 2 11 22"), size="80 60")
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


def test_names_that_lead_out_of_their_folder(tmp_path: Path) -> None:
    """They cost their own image, not the split."""
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    (tmp_path / "secret.xml").write_text((tmp_path / "Annotations" / "a.xml").read_text())
    (tmp_path / "list.txt").write_text("../secret\n")
    with pytest.raises(InputError, match=r"file name '../secret.xml' leads out"):
        voc.read_voc(_config(tmp_path, train="list.txt"), "train")
    (tmp_path / "list.txt").write_text("../secret\n../gone\na\n")
    table = voc.read_voc(_config(tmp_path, train="list.txt"), "train")
    assert [table.path(row).name for row in range(len(table))] == ["a.jpg"]
    assert table.problems.count(LEADS_OUT) == 2
    text = (tmp_path / "Annotations" / "a.xml").read_text()
    (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "b.jpg")
    (tmp_path / "Annotations" / "a.xml").write_text(text.replace("a.jpg", "../b.jpg"))
    with pytest.raises(InputError, match=r"JPEGImages/a.jpg: no such file"):
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


# ------------------------------------------------------------------------------------- as other tools write it


def _images_of(table: AnnotationTable) -> list[str]:
    return [table.path(row).name for row in range(len(table))]


def test_the_image_of_the_own_name_comes_before_a_stale_filename(tmp_path: Path) -> None:
    for number in range(3):
        box = f"{number} 2 11 22"
        _write(tmp_path, f"{number}", _object("dog", box))
    for number in range(3):
        path = tmp_path / f"Annotations/{number}.xml"
        path.write_text(path.read_text().replace(f"{number}.jpg", f"{(number + 1) % 3}.jpg"))
    table = _read(tmp_path)
    assert _images_of(table) == ["0.jpg", "1.jpg", "2.jpg"]
    assert table.boxes_xyxy_px[:, 0].tolist() == [0, 1, 2]
    assert table.problems.count(voc.OTHER_NAME) == 3
    assert "0.xml says '1.jpg', 0.jpg is taken" in table.problems.summary()[0]
    # Without its own image, 0.xml does not get the one that 1.xml belongs to.
    (tmp_path / "JPEGImages/0.jpg").unlink()
    table = _read(tmp_path)
    assert _images_of(table) == ["1.jpg", "2.jpg"]
    assert table.boxes_xyxy_px[:, 0].tolist() == [1, 2]
    assert table.problems.count(voc.BORROWED) == 1


@pytest.mark.parametrize(
    "filename",
    [
        "a.b",  # without suffix, as some sets have it
        "a.b.jpeg",
        "folder/a.b.jpg",
        "C:\\Users\\me\\set\\a.b.jpg",
        "/home/somebody/set/a.b.jpg",
        "../a.b.jpg",
        "",
    ],
)
@pytest.mark.parametrize("tag", ["filename", "path"])
def test_paths_of_other_machines_agree_with_the_own_name(tmp_path: Path, filename: str, tag: str) -> None:
    _write(tmp_path, "a.b", _object("dog", "1 2 11 22"))
    path = tmp_path / "Annotations/a.b.xml"
    path.write_text(path.read_text().replace("<filename>a.b.jpg</filename>", f"<{tag}>{filename}</{tag}>"))
    table = _read(tmp_path)
    assert _images_of(table) == ["a.b.jpg"]
    assert not table.problems


@pytest.mark.parametrize("filename", ["a b.png", "a%20b.png", "x\\a b.png", "/home/me/a b.png", "D:\\a%20b.png"])
def test_paths_of_other_machines_lead_to_an_image_of_another_name(tmp_path: Path, filename: str) -> None:
    _write(tmp_path, "0001", _object("dog", "1 2 11 22"), image="a b.png")
    path = tmp_path / "Annotations/0001.xml"
    path.write_text(path.read_text().replace("a b.png", filename))
    table = _read(tmp_path)
    assert _images_of(table) == ["a b.png"]
    assert not table.problems


def test_two_images_of_a_name(tmp_path: Path) -> None:
    """Of a.jpg and a.png the named one is taken."""
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    _write(tmp_path, "a", _object("dog", "1 2 11 22"), image="a.png")
    assert _images_of(_read(tmp_path)) == ["a.png"]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("gb2312", "gbk"),  # written by tools that have more characters than they declare
        ("GBK", "gbk"),
        ("gb18030", "gb18030"),
        ("Big5", "big5"),
        ("Shift_JIS", "shift_jis"),
        ("EUC-KR", "euc_kr"),
        ("windows-1252", "cp1252"),
        ("iso-8859-1", "latin-1"),
        ("UTF-16", "utf-16"),
        ("UTF-16", "utf-16-be"),  # without a byte order mark
        ("utf-8", "utf-8-sig"),
        ("gbk", "utf-8"),  # saved anew by an editor that left the declaration
        ("us-ascii", "utf-8"),
    ],
)
def test_encodings(tmp_path: Path, declared: str, encoding: str) -> None:
    name = {"cp1252": "caf\xe9", "latin-1": "caf\xe9", "shift_jis": "\u732b", "euc_kr": "\uac1c"}.get(
        encoding, "\u8c93"
    )
    _write(tmp_path, "a", _object(name, "1 2 11 22"))
    path = tmp_path / "Annotations/a.xml"
    text = path.read_text(encoding="utf-8")
    path.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>\n{text}'.encode(encoding))
    table = _read(tmp_path)
    assert table.names == (name,)
    assert not table.problems


@pytest.mark.parametrize("encoding", ["idna", "punycode", "unicode_escape", "utf-7", "base64", "rot13", "no-such"])
def test_what_is_no_encoding_of_text(tmp_path: Path, encoding: str) -> None:
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    path = tmp_path / "Annotations/a.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{path.read_text()}')
    with pytest.raises(InputError, match=f"a.xml: is not XML: declares the unknown encoding '{encoding}'"):
        _read(tmp_path)


@pytest.mark.parametrize("encoding", ["gbk", "utf-16-le", "utf-16-be", "utf-16", "cp037"])
def test_entities_are_found_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    """Where the parser would not be the one that decodes, they could hide from the search. EBCDIC has other bytes."""
    _write(tmp_path, "good", _object("dog", "1 2 11 22"))
    _write(tmp_path, "bad", "")
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    (tmp_path / "Annotations/bad.xml").write_bytes(text.encode(encoding))
    table = _read(tmp_path)
    assert len(table) == 1
    assert table.problems.count(voc.BAD_XML) == 1


def test_bytes_of_another_encoding(tmp_path: Path) -> None:
    """In a path they do not matter, in a class name they do."""
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    path = tmp_path / "Annotations/a.xml"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"<filename>", b"<folder>\xd6\xd0</folder><filename>"))
    table = _read(tmp_path)
    assert len(table.labels) == 1
    assert table.problems.count(voc.UNREADABLE_TEXT) == 1
    path.write_bytes(content.replace(b"dog", b"\xd6\xd0"))
    with pytest.raises(InputError, match=r"a.xml: a class name is not in the encoding of the file; declare the right"):
        _read(tmp_path)


@pytest.mark.parametrize("prefix", ["", "v:"])
def test_namespaces(tmp_path: Path, prefix: str) -> None:
    _write(tmp_path, "a", _object("dog", "1 2 11 22"))
    path = tmp_path / "Annotations/a.xml"
    text = re.sub(r"<(/?)(\w)", rf"<\1{prefix}\2", path.read_text())
    name = f"xmlns:{prefix[:-1]}" if prefix else "xmlns"
    path.write_text("\n" + text.replace("annotation>", f'annotation {name}="http://example.org/voc">', 1))
    assert _read(tmp_path).boxes_xyxy_px.tolist() == [[1, 2, 11, 22]]


def test_xml_of_another_format(tmp_path: Path) -> None:
    _write(tmp_path, "a", "")
    (tmp_path / "Annotations/a.xml").write_text("<annotations><image id='0'/></annotations>")
    with pytest.raises(
        InputError, match=r"a.xml: is not Pascal VOC: its root is <annotations>, not .*; CVAT's own XML"
    ):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("size", "box", "is_kept"),
    [
        ("41 30", "1 2 11 22", True),
        ("41 30", "1 2 40 30", True),
        ("30 40", "1 2 11 22", True),  # width and height exchanged
        ("500 400", "1 2 11 22", True),  # as it was in the template
        ("500 400", "1 2 90 22", False),
        ("80 60", "1 2 11 22", False),  # reduced since then: the boxes are too large
        ("20 15", "1 2 11 12", False),  # enlarged
        ("0 0", "1 2 11 22", True),
        ("40 0", "1 2 11 22", True),
    ],
)
def test_declared_sizes(tmp_path: Path, size: str, box: str, is_kept: bool) -> None:
    _write(tmp_path, "good", _object("dog", "1 2 11 22"))
    _write(tmp_path, "other", _object("dog", box), size=size)
    table = _read(tmp_path)
    assert len(table.labels) == 1 + is_kept
    assert table.problems.count(WRONG_SIZE) == (not is_kept)
    assert table.problems.count(OTHER_SIZE) == (is_kept and "0" not in size.split() and size != "0 0")


@pytest.mark.parametrize(
    "lines",
    [
        ["a.jpg", "b.jpg"],
        ["a.xml", "b.XML"],
        ["JPEGImages/a.jpg", "JPEGImages\\b.jpg"],
        ["./JPEGImages/a.jpg ./Annotations/a.xml", "./JPEGImages/b.jpg ./Annotations/b.xml"],
        ["a  1", "b  0"],
        ["/home/somebody/a.jpg", "C:\\Users\\me\\b.jpg"],
    ],
)
def test_lists_with_more_than_names(tmp_path: Path, lines: list[str]) -> None:
    for stem in "ab":
        _write(tmp_path, stem, _object("dog", "1 2 11 22"))
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-16")
    table = voc.read_voc(_config(tmp_path, train="list.txt"), "train")
    assert _images_of(table) == ["a.jpg", "b.jpg"]
    assert table.problems.count(EXTENDED_NAME) == 2


def test_class_lists(tmp_path: Path) -> None:
    """-1 says that the class is not in the image, so the image is not of the list."""
    for stem in ("a", "b", "c", "c 1"):
        _write(tmp_path, stem, _object("dog", "1 2 11 22"))
    (tmp_path / "dog_train.txt").write_text("a  1\nb -1\nc 1\n")
    table = voc.read_voc(_config(tmp_path, train="dog_train.txt"), "train")
    assert _images_of(table) == ["a.jpg", "c 1.jpg"]  # a file of the whole line comes first
    assert table.problems.count(NOT_IN_CLASS) == 1
    (tmp_path / "dog_train.txt").write_text("a -1\n")
    with pytest.raises(InputError, match=r"dog_train.txt: names no image of this data set: 1 names with the flag -1"):
        voc.read_voc(_config(tmp_path, train="dog_train.txt"), "train")


def test_files_with_suffixes_in_capitals_and_in_folders_below(tmp_path: Path) -> None:
    for stem in "abc":
        _write(tmp_path, stem, _object("dog", "1 2 11 22"))
    (tmp_path / "Annotations/a.xml").rename(tmp_path / "Annotations/a.XML")
    (tmp_path / "Annotations/b.xml").rename(tmp_path / "Annotations/._b.xml")  # as macOS copies leave them
    (tmp_path / "Annotations/sub").mkdir()
    (tmp_path / "Annotations/c.xml").rename(tmp_path / "Annotations/sub/c.xml")
    assert _images_of(_read(tmp_path)) == ["a.jpg", "c.jpg"]


# 4,888 boxes, two of them without area: 2,805 + 1,138 + 945 = 4,888.
@pytest.mark.parametrize(
    ("split", "num_images", "num_boxes", "no_area"),
    [
        pytest.param("train", 205, 2804, "BloodImage_00343", marks=pytest.mark.slow),
        ("val", 87, 1137, "BloodImage_00338"),
        pytest.param("test", 72, 945, None, marks=pytest.mark.slow),
    ],
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


def test_images_in_the_folder_that_the_file_names(tmp_path: Path) -> None:
    _write(tmp_path, "1", _object("dog", "1 2 11 22"), image="a.jpg")
    (tmp_path / "JPEGImages/day").mkdir()
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/day/a.jpg")
    path = tmp_path / "Annotations/1.xml"
    text = path.read_text()
    for more in ("<folder>day</folder>", r"<path>C:\set\day\a.jpg</path>"):
        path.write_text(text.replace("<filename>", f"{more}<filename>"))
        assert _images_of(_read(tmp_path)) == ["a.jpg"]
