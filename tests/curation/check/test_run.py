from __future__ import annotations

import dataclasses
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.curation.check import kinds
from detect.curation.check.run import CheckReport, check_data
from detect.data import checks
from detect.data.annotations import Understood
from detect.data.folders import NOT_READ
from detect.data.formats import annotation_files, coco, coco_annotations, image_names, voc
from detect.errors import InputError
from tests.curation.worlds import BOXES, Coco, Voc, noise

Found = tuple[str, str, str, int]
"""Split, severity, kind and count of a finding."""

EXIT_CODES = {"error": 2, "warning": 1, "note": 0}


def check(config: DataConfig, **changes: Any) -> CheckReport:
    return check_data(config, **({"splits": list(config.splits), "decode": True, "workers": 0} | changes))


def found(report: CheckReport) -> list[Found]:
    """Findings sorted by split and severity, else in the order of the report."""
    return sorted(((f.split, f.severity, f.kind, f.count) for f in report.findings), key=lambda found: found[:2])


# ------------------------------------------------------------------------------------------- image files


def _bomb() -> bytes:
    """A PNG whose header says 100,000 x 100,000 px."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _lose_a_third(path: Path) -> None:
    """A third of the compressed data is lost; the first and the last bytes stay."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3] + content[-2:])


def _add_surplus(path: Path) -> None:
    """Seven bytes between the last pixel and the end marker."""
    path.write_bytes(path.read_bytes()[:-2] + b"surplus" + b"\xff\xd9")


def _damaged_png(path: Path) -> None:
    """A PNG under the name of the JPEG; its header and its end are sound, the checksum of its pixels is not."""
    noise(1).save(path, format="png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _turned(path: Path, size_wh: tuple[int, int]) -> None:
    """An image that a camera stored lying: 40 x 30 px in the file, 30 x 40 px as shown."""
    exif = Image.Exif()
    exif[274] = 6
    noise(1, size_wh).save(path, exif=exif)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


# Done to train/a.jpg, which has two boxes: without it both classes still have one in train.
IMAGE_DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (Path.unlink, "error", checks.BAD_IMAGE),
    "zero bytes": (lambda path: path.write_bytes(b""), "error", checks.BAD_IMAGE),
    "not an image": (lambda path: path.write_text("<html>not found</html>"), "error", checks.BAD_IMAGE),
    "truncated": (_cut, "error", checks.BAD_IMAGE),
    "a folder": (_replace_by_folder, "error", checks.BAD_IMAGE),
    "pixel bomb": (lambda path: path.write_bytes(_bomb()), "error", checks.BAD_IMAGE),
    "link in a circle": (lambda path: (path.unlink(), path.symlink_to(path.name)), "error", checks.BAD_IMAGE),
    "another size": (lambda path: noise(1, (80, 60)).save(path), "error", checks.WRONG_SIZE),
    "size before the EXIF rotation": (lambda path: _turned(path, (40, 30)), "warning", checks.UNROTATED_SIZE),
    "damaged inside, JPEG": (_lose_a_third, "error", kinds.DAMAGED_PIXELS),
    "surplus behind the pixels": (_add_surplus, "warning", kinds.SURPLUS),
    "damaged inside, PNG": (_damaged_png, "error", kinds.UNDECODABLE),
}


@pytest.mark.parametrize("world", [Coco, Voc])
@pytest.mark.parametrize("name", IMAGE_DAMAGES)
def test_damaged_images(world: type[Coco | Voc], name: str, tmp_path: Path) -> None:
    made = world(tmp_path)
    damage, severity, kind = IMAGE_DAMAGES[name]
    damage(made.image("train", "a") if isinstance(made, Coco) else made.image("a"))
    report = check(made.write())
    assert found(report) == [("train", severity, kind, 1)]
    assert report.exit_code == EXIT_CODES[severity]
    assert "a" in report.findings[0].examples[0].split(".jpg")[0]


# ---------------------------------------------------------------------------------- COCO annotation files


def _box(world: Coco, **changes: Any) -> None:
    """Change the first of the four annotations of train: a cat of [2, 3, 10, 12] in a.jpg, which has a dog, too."""
    world.files["train"]["annotations"][0].update(changes)


def _extra_box(world: Coco, **changes: Any) -> None:
    annotations = world.files["train"]["annotations"]
    annotations.append({**annotations[2], "id": 99, "bbox": [2, 2, 5, 5], "area": 25, **changes})


def _image(world: Coco, **changes: Any) -> None:
    """Change the entry of train/b.jpg."""
    world.files["train"]["images"][1].update(changes)


def _rename(world: Coco, *names: str) -> None:
    """Call the first classes otherwise, in both splits."""
    for content in world.files.values():
        for category, name in zip(content["categories"], names, strict=False):
            category["name"] = name


def _corners(world: Coco) -> None:
    """Write all boxes of train as corners: [2, 3, 12, 15], [20, 5, 28, 14], [5, 5, 25, 25], [1, 1, 10, 10]."""
    for annotation in world.files["train"]["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [left, top, left + width, top + height]


def _shares(world: Coco) -> None:
    for annotation in world.files["train"]["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["bbox"] = [left / 40, top / 30, width / 40, height / 30]


def _category_everywhere(world: Coco, *entries: dict[str, Any]) -> None:
    for content in world.files.values():
        content["categories"].extend(entries)


def _drop_class_from_train(world: Coco) -> None:
    """No cat in train; its images keep a dog each."""
    for annotation in world.files["train"]["annotations"]:
        annotation["category_id"] = 2


def _second_set_of_images(world: Coco) -> None:
    _category_everywhere(world, {"id": 3, "name": "cat"})
    _extra_box(world, category_id=3)


def _raw(text: bytes) -> Callable[[Coco], None]:
    return lambda world: world.raw.update(train=text)


HUGE = int("9" * 400)

ONE_ERROR, ONE_WARNING = ("train", "error"), ("train", "warning")

# What is done to the data set, and what is found: with the split and severity, unless it is one error in train.
COCO_DAMAGES: dict[str, tuple[Callable[[Coco], object], list[Found]]] = {
    # boxes
    "box NaN": (lambda w: _box(w, bbox=[5, float("nan"), 20, 20]), [(*ONE_ERROR, checks.NOT_FINITE, 1)]),
    "box infinite": (lambda w: _box(w, bbox=[5, 5, float("inf"), 20]), [(*ONE_ERROR, checks.NOT_FINITE, 1)]),
    "box beyond the floats": (lambda w: _box(w, bbox=[5, 5, HUGE, 20]), [(*ONE_ERROR, checks.NOT_FINITE, 1)]),
    "box of negative size": (lambda w: _box(w, bbox=[25, 5, -20, 20]), [(*ONE_ERROR, checks.NO_AREA, 1)]),
    "box of no width": (lambda w: _box(w, bbox=[5, 5, 0, 20]), [(*ONE_ERROR, checks.NO_AREA, 1)]),
    "box outside": (lambda w: _box(w, bbox=[41, 5, 20, 20]), [(*ONE_ERROR, checks.OUTSIDE, 1)]),
    "box partly outside": (lambda w: _box(w, bbox=[30, 5, 20, 20]), [(*ONE_WARNING, checks.PARTLY_OUTSIDE, 1)]),
    "box of half a pixel": (lambda w: _box(w, bbox=[5, 5, 0.5, 20], area=10), [(*ONE_WARNING, kinds.UNDER_A_PIXEL, 1)]),
    "box twice": (lambda w: _extra_box(w, bbox=[5, 5, 20, 20]), [(*ONE_WARNING, checks.REPEATED, 1)]),
    "box of three numbers": (
        lambda w: _extra_box(w, bbox=[2, 2, 5]),
        [(*ONE_ERROR, coco_annotations.BAD_ANNOTATION, 1)],
    ),
    "box of strings": (
        lambda w: _extra_box(w, bbox=["2", "2", "5", "5"]),
        [(*ONE_ERROR, coco_annotations.BAD_ANNOTATION, 1)],
    ),
    "box null": (lambda w: _extra_box(w, bbox=None), [(*ONE_ERROR, coco_annotations.BAD_ANNOTATION, 1)]),
    # With corners read as sizes, [20, 5, 28, 14] and the added [30, 20, 38, 28] reach out of 40 x 30 px by more than a
    # pixel, the other three do not: two of five are over a fifth.
    "boxes as corners": (
        lambda w: (_extra_box(w, bbox=[30, 20, 8, 8]), _corners(w)),
        [(*ONE_ERROR, kinds.CORNERS, 5), (*ONE_WARNING, checks.PARTLY_OUTSIDE, 2)],
    ),
    "boxes in shares of the image": (
        _shares,
        [(*ONE_ERROR, kinds.NORMALISED, 4), (*ONE_WARNING, coco_annotations.IMPOSSIBLE_AREA, 4)],
    ),
    # ids
    "unknown category": (lambda w: _extra_box(w, category_id=7), [(*ONE_ERROR, coco_annotations.UNKNOWN_CATEGORY, 1)]),
    "category a word": (
        lambda w: _extra_box(w, category_id="cat"),
        [(*ONE_ERROR, coco_annotations.UNKNOWN_CATEGORY, 1)],
    ),
    "unknown image": (lambda w: _extra_box(w, image_id=77), [(*ONE_ERROR, coco_annotations.UNKNOWN_IMAGE, 1)]),
    "annotation id 0": (lambda w: _extra_box(w, id=0), [(*ONE_WARNING, coco_annotations.ZERO_ID, 1)]),
    "annotation id twice": (lambda w: _extra_box(w, id=1), [(*ONE_WARNING, coco_annotations.REPEATED_ID, 1)]),
    "image id twice": (lambda w: _image(w, id=1), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "category id twice": (
        lambda w: w.files["train"]["categories"].append({"id": 2, "name": "fox"}),
        [(*ONE_ERROR, kinds.REFUSED, 1)],
    ),
    # other fields
    "iscrowd a word": (lambda w: _extra_box(w, iscrowd="no"), [(*ONE_WARNING, coco_annotations.BAD_CROWD, 1)]),
    "iscrowd 2": (lambda w: _extra_box(w, iscrowd=2), [(*ONE_WARNING, coco_annotations.BAD_CROWD, 1)]),
    "area negative": (lambda w: _box(w, area=-4), [(*ONE_WARNING, coco_annotations.BAD_AREA, 1)]),
    "area a word": (lambda w: _box(w, area="large"), [(*ONE_WARNING, coco_annotations.BAD_AREA, 1)]),
    "crowd region": (lambda w: _extra_box(w, iscrowd=1), [("train", "note", kinds.CROWD, 1)]),
    "ignored region": (lambda w: _extra_box(w, ignore=1), [("train", "note", coco_annotations.IGNORED, 1)]),
    # images
    "entry without file_name": (
        lambda w: w.files["train"]["images"].append({"id": 9, "width": 40, "height": 30}),
        [(*ONE_ERROR, coco.BAD_IMAGE_ENTRY, 1)],
    ),
    "two entries of one file": (
        lambda w: w.files["train"]["images"].append({"id": 9, "file_name": "a.jpg", "width": 40, "height": 30}),
        [("train", "note", kinds.BACKGROUND, 1), (*ONE_WARNING, checks.SHARED_FILE, 1)],
    ),
    "image without boxes": (
        lambda w: w.files["train"]["annotations"].pop(2),
        [("train", "note", kinds.BACKGROUND, 1)],
    ),
    "file_name climbs": (
        lambda w: _image(w, file_name="../val/d.jpg"),
        [(*ONE_ERROR, image_names.OUTSIDE_NAME, 1), (*ONE_WARNING, kinds.UNLISTED, 1)],
    ),
    "file_name absolute": (
        lambda w: _image(w, file_name="/etc/passwd"),
        [(*ONE_ERROR, checks.BAD_IMAGE, 1), (*ONE_WARNING, kinds.UNLISTED, 1)],
    ),
    "unlisted image": (lambda w: noise(9).save(w.root / "train" / "x.png"), [(*ONE_WARNING, kinds.UNLISTED, 1)]),
    "copy within the split": (
        lambda w: shutil.copy(w.image("train", "b"), w.image("train", "c")),
        [(*ONE_WARNING, kinds.DUPLICATE, 1)],
    ),
    "copy of a training image in val": (
        lambda w: shutil.copy(w.image("train", "b"), w.image("val", "d")),
        [("val", "warning", kinds.LEAK, 1)],
    ),
    # classes
    "two categories of one name": (
        _second_set_of_images,
        [("train", "warning", coco.SHARED_NAME, 1), ("val", "warning", coco.SHARED_NAME, 1)],
    ),
    "categories empty": (lambda w: w.files["train"]["categories"].clear(), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "class never annotated": (
        lambda w: _category_everywhere(w, {"id": 3, "name": "fox"}),
        [(*ONE_WARNING, kinds.NEVER_TRAINED, 1)],
    ),
    "class of val never trained": (_drop_class_from_train, [(*ONE_WARNING, kinds.NEVER_TRAINED, 1)]),
    "splits name other classes": (
        lambda w: w.files["val"]["categories"].append({"id": 3, "name": "fox"}),
        [("val", "error", kinds.OTHER_NAMES, 1)],
    ),
    "class name with an escape": (
        lambda w: _rename(w, "cat\x1b[2J\x1b]0;owned\x07"),
        [(*ONE_WARNING, kinds.UNPRINTABLE_NAME, 1), ("val", "warning", kinds.UNPRINTABLE_NAME, 1)],
    ),
    "class name with an emoji of several": (lambda w: _rename(w, "\U0001f469\u200d\U0001f467"), []),
    "class name with a space behind": (
        lambda w: _rename(w, "cat "),
        [(*ONE_WARNING, kinds.PADDED_NAME, 1), ("val", "warning", kinds.PADDED_NAME, 1)],
    ),
    "class names that differ in case": (
        lambda w: _rename(w, "cat", "Cat"),
        [(*ONE_WARNING, kinds.SIMILAR_NAME, 1), ("val", "warning", kinds.SIMILAR_NAME, 1)],
    ),
    "names lack a class": (
        lambda w: w.extra.update(names=("cat", "fox")),  # a class without objects; what shows the other one is not used
        [
            ("train", "warning", kinds.NEVER_TRAINED, 1),
            ("train", "note", kinds.BACKGROUND, 1),
            ("val", "note", kinds.BACKGROUND, 1),
        ],
    ),
    # the whole file
    "no annotations": (lambda w: w.files["train"].update(annotations=[]), [(*ONE_ERROR, kinds.NOTHING_TO_TRAIN, 1)]),
    "no annotations in val": (
        lambda w: w.files["val"].update(annotations=[]),
        [("val", "warning", kinds.NOTHING_TO_MEASURE, 1)],
    ),
    "no list of annotations": (lambda w: w.files["val"].pop("annotations"), [("val", "error", kinds.UNLABELLED, 1)]),
    "no images": (lambda w: w.files["train"].update(images=[]), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "cut off": (_raw(b'{"images": [{"id": 1, "file_na'), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "not text": (_raw(b"\xff\xfe\x00\x81" * 9), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "detection results": (_raw(b'[{"image_id": 1, "score": 0.5}]'), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "nested to death": (_raw(b"[" * 100_000), [(*ONE_ERROR, kinds.REFUSED, 1)]),
}


def _exit_code(expected: list[Found]) -> int:
    return max((EXIT_CODES[severity] for _, severity, _, _ in expected), default=0)


@pytest.mark.parametrize("name", COCO_DAMAGES)
def test_damaged_coco_files(name: str, tmp_path: Path) -> None:
    world = Coco(tmp_path)
    damage, expected = COCO_DAMAGES[name]
    damage(world)
    report = check(world.write())
    assert sorted(found(report)) == sorted(expected)
    assert report.exit_code == _exit_code(expected)
    assert all(example.isprintable() and example for finding in report.findings for example in finding.examples)


# ----------------------------------------------------------------------------------- VOC annotation files

ENTITIES = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'

VOC_DAMAGES: dict[str, tuple[Callable[[Voc], object], list[Found]]] = {
    "XML cut off": (lambda w: _cut(w.xml("a")), [(*ONE_ERROR, voc.BAD_XML, 1)]),
    "XML missing": (lambda w: w.xml("a").unlink(), [(*ONE_ERROR, voc.BAD_XML, 1)]),
    "XML with entities": (lambda w: w.xml("a").write_text(ENTITIES), [(*ONE_ERROR, voc.BAD_XML, 1)]),
    "XML of more than 16 MiB": (
        lambda w: w.xml("a").write_bytes(w.xml("a").read_bytes() + b" " * voc.MAX_XML_BYTES),
        [(*ONE_ERROR, voc.BAD_XML, 1)],
    ),
    "class not among the names": (
        lambda w: w.replace("b", "cat", "fox"),
        [(*ONE_ERROR, annotation_files.UNKNOWN_NAME, 1), ("train", "note", kinds.BACKGROUND, 1)],
    ),
    "object without a name": (
        lambda w: w.replace("b", "cat", ""),
        [(*ONE_ERROR, voc.BAD_OBJECT, 1), ("train", "note", kinds.BACKGROUND, 1)],
    ),
    "object with a word as xmin": (
        lambda w: w.replace("b", "<xmin>5<", "<xmin>left<"),
        [(*ONE_ERROR, voc.BAD_OBJECT, 1), ("train", "note", kinds.BACKGROUND, 1)],
    ),
    "corners the wrong way round": (
        lambda w: w.replace("b", "<xmax>25<", "<xmax>4<"),
        [(*ONE_ERROR, checks.NO_AREA, 1), ("train", "note", kinds.BACKGROUND, 1)],
    ),
    "box outside": (
        lambda w: (w.replace("b", "<xmin>5<", "<xmin>45<"), w.replace("b", "<xmax>25<", "<xmax>55<")),
        [(*ONE_ERROR, checks.OUTSIDE, 1), ("train", "note", kinds.BACKGROUND, 1)],
    ),
    "file name of another image": (
        lambda w: w.replace("b", "b.jpg", "a.jpg"),
        [(*ONE_WARNING, voc.OTHER_NAME, 1)],
    ),
    "file name climbs": (lambda w: w.replace("b", "b.jpg", "../../b.jpg"), []),
    "size one pixel off": (lambda w: w.replace("b", "<width>40", "<width>41"), [(*ONE_WARNING, checks.OTHER_SIZE, 1)]),
    "name climbs in the list": (
        lambda w: w.list("train").write_text("a\nb\nc\n../secret\n"),
        [(*ONE_ERROR, image_names.LEADS_OUT, 1)],
    ),
    "listed with suffixes": (
        lambda w: w.list("train").write_text("a.jpg\nb.xml\nc  1\n"),
        [("train", "note", annotation_files.EXTENDED_NAME, 3)],
    ),
    "listed twice": (
        lambda w: w.list("train").write_text("a\nb\nc\na\n"),
        [(*ONE_WARNING, annotation_files.REPEATED_STEM, 1)],
    ),
    "listed without XML": (
        lambda w: w.list("train").write_text("a\nb\nc\nnothing\n"),
        [(*ONE_ERROR, voc.BAD_XML, 1)],
    ),
    "list empty": (lambda w: w.list("train").write_text("\n"), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "list missing": (lambda w: w.list("train").unlink(), [(*ONE_ERROR, kinds.REFUSED, 1)]),
    "image in both lists": (
        lambda w: w.list("val").write_text("d\ne\na\n"),
        [("val", "warning", kinds.LEAK, 1)],
    ),
    "image in no list": (lambda w: w.list("train").write_text("a\nb\n"), [(*ONE_WARNING, kinds.UNLISTED, 1)]),
    "difficult object": (
        lambda w: w.replace("b", "<bndbox>", "<difficult>1</difficult><bndbox>"),
        [("train", "note", kinds.CROWD, 1)],
    ),
}


@pytest.mark.parametrize("name", VOC_DAMAGES)
def test_damaged_voc_files(name: str, tmp_path: Path) -> None:
    world = Voc(tmp_path)
    damage, expected = VOC_DAMAGES[name]
    damage(world)
    report = check(world.write())
    assert sorted(found(report)) == sorted(expected)
    assert report.exit_code == _exit_code(expected)


# ------------------------------------------------------------------------------------------ the check itself


@pytest.mark.parametrize("world", [Coco, Voc])
def test_sound_data_is_clean(world: type[Coco | Voc], tmp_path: Path) -> None:
    report = check(world(tmp_path).write())
    assert (report.findings, report.exit_code, report.unchecked) == ((), 0, ())
    sizes = {split: (size.images, size.boxes, size.classes) for split, size in report.sizes.items() if size}
    assert sizes == {"train": (3, 4, 2), "val": (2, 2, 2)}


def test_no_iscrowd_and_no_area_is_clean(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    for annotation in world.files["train"]["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    assert check(world.write()).findings == ()


def test_what_a_class_has_elsewhere_is_said(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    _drop_class_from_train(world)
    assert check(world.write()).findings[0].examples == ("cat (1 boxes in val)",)


def test_a_refused_split_hides_neither_the_others_nor_its_images(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    world.raw["train"] = b"{"
    _lose_a_third(world.image("train", "b"))
    world.image("val", "e").unlink()
    report = check(world.write())
    assert found(report) == [
        ("train", "error", kinds.REFUSED, 1),
        ("train", "error", kinds.DAMAGED_PIXELS, 1),
        ("val", "error", checks.BAD_IMAGE, 1),
    ]
    assert report.sizes["train"] is None
    assert len(report.unchecked) == 1  # unlisted images: what train names is not known


def test_a_missing_root_is_told_for_each_split(tmp_path: Path) -> None:
    config = DataConfig("gone", str(tmp_path / "gone"), {"train": SplitConfig("a", "b"), "val": SplitConfig("a", "c")})
    report = check(config)
    assert [(f.split, f.kind) for f in report.findings] == [("train", kinds.REFUSED), ("val", kinds.REFUSED)]
    assert "name it with --data-root" in report.findings[0].examples[0]


def test_quick_does_not_decode_and_says_so(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    _lose_a_third(world.image("train", "a"))
    shutil.copy(world.image("train", "b"), world.image("val", "d"))
    report = check(world.write(), decode=False)
    assert (report.findings, len(report.unchecked)) == ((), 1)


def test_one_split_alone(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    noise(9).save(tmp_path / "val" / "x.png")
    world.image("train", "a").unlink()
    report = check(world.write(), splits=["val"])
    assert (report.findings, len(report.unchecked)) == ((), 1)
    with pytest.raises(InputError, match="there is no split 'tset'"):
        check(world.write(), splits=["tset"])


def test_dropped_background_is_called_so(tmp_path: Path) -> None:
    world = Coco(tmp_path, extra={"background": "drop"})
    del world.files["train"]["annotations"][2], world.files["val"]["annotations"][1]
    assert found(check(world.write())) == [
        ("train", "note", kinds.BACKGROUND_DROPPED, 1),
        ("val", "note", kinds.BACKGROUND, 1),
    ]


def test_processes_find_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detect.curation.check.pixels._FEW_IMAGES", 1)
    world = Coco(tmp_path)
    _lose_a_third(world.image("train", "b"))
    _damaged_png(world.image("val", "e"))
    config = world.write()
    alone, many = check(config), check(config, workers=2)
    assert alone == many
    assert {finding.kind for finding in many.findings} == {kinds.DAMAGED_PIXELS, kinds.UNDECODABLE}


def test_decoders_stay_off_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    world = Coco(tmp_path)
    _lose_a_third(world.image("train", "b"))
    report = check(world.write())
    assert "Corrupt JPEG data" in report.findings[0].examples[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_images_behind_a_link_are_used(tmp_path: Path, kind: str) -> None:
    """The folder of the images is a link, and so is the data set's: the same files on both sides."""
    world = Coco(tmp_path / "world")
    config = world.write()
    (world.root / "train").rename(tmp_path / "elsewhere")
    (world.root / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "alias").symlink_to(world.root)
    if kind == "yolo":
        (tmp_path / "labels").mkdir()
        for stem in "abc":
            (tmp_path / "labels" / f"{stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        (world.root / "labels").symlink_to(tmp_path / "labels")
        config = DataConfig("pets", "", {"train": SplitConfig("train", "labels")}, format="yolo", names=("cat",))
    report = check(dataclasses.replace(config, root=str(tmp_path / "alias")))
    assert found(report) == []


def _thermal(world: Coco, low: int = 7400, step: int = 1) -> None:
    """Images of 16 bits, whose 1200 values are ``low``, ``low`` + ``step``, ..., in another order in each."""
    for number, (split, stem) in enumerate((split, stem) for split, images in BOXES.items() for stem in images):
        values = np.roll(np.arange(1200) * step + low, number).astype(np.uint16).reshape(30, 40)
        world.image(split, stem).write_bytes(cv2.imencode(".png", values)[1].tobytes())


def test_the_range_of_images_of_16_bits_is_said(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    _thermal(world)
    report = check(world.write())
    assert found(report) == [
        ("train", "warning", kinds.DEEP_MEASURED, 3),
        ("val", "warning", kinds.DEEP_MEASURED, 2),
    ]
    assert report.exit_code == 1
    # All but the outermost of 3,600 values, which are each there three times: 7400 to 8599.
    for finding in report.findings:
        assert "values 7400 to 8599 become 0 to 255, measured on 3 images of train, because" in finding.examples[0]
    world.extra["range"] = (7400.0, 8600.0)
    stated = check(world.write())
    assert found(stated) == [("train", "note", kinds.DEEP, 3), ("val", "note", kinds.DEEP, 2)]
    assert stated.exit_code == 0
    world.extra["range"] = (0.0, 65536.0)  # 28 to 33 of 256 levels: next to nothing is left to see
    assert ("train", "warning", kinds.FEW_GREYS, 3) in found(check(world.write()))


def test_16_bits_that_are_used_are_a_note(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    _thermal(world, low=0, step=54)  # up to 64,746
    assert found(check(world.write())) == [
        ("train", "note", kinds.DEEP_AS_IT_IS, 3),
        ("val", "note", kinds.DEEP_AS_IT_IS, 2),
    ]


def test_frames_and_formats_that_are_left_out_are_said(tmp_path: Path) -> None:
    world = Coco(tmp_path)
    noise(1).save(world.image("val", "d"), "GIF", save_all=True, append_images=[noise(2), noise(3)])
    for name in ("x.heic", "y.heic", "z.txt", ".hidden"):
        (tmp_path / "val" / name).write_bytes(b"x")
    report = check(world.write())
    assert found(report) == [("val", "warning", kinds.SEVERAL_FRAMES, 1), ("val", "warning", NOT_READ, 2)]
    assert [finding.examples for finding in report.findings] == [("d.jpg: 3 frames or pages",), ("2 .heic",)]


def test_data_for_classification_is_refused(tmp_path: Path) -> None:
    config = DataConfig("digits", str(tmp_path), {"train": SplitConfig("train")}, format="folders")
    with pytest.raises(InputError, match="digits: format folders is for classification, and has no boxes"):
        check(config)


def test_every_kind_of_the_readers_that_skips_is_an_error() -> None:
    for module in (checks, coco, coco_annotations, image_names, voc):
        for name, kind in vars(module).items():
            if name.isupper() and isinstance(kind, str) and "(" in kind and name != "NOT_AS_WRITTEN":
                expected = "error" if "skipped" in kind else "note" if isinstance(kind, Understood) else "warning"
                assert kinds.severity_of(kind) == expected, kind
    assert isinstance(coco_annotations.FROM_OUTLINE, Understood)


# ----------------------------------------------------------------------------------------------- real data


@pytest.mark.slow
def test_bccd(real_data: Path) -> None:
    """Two cells without area are what its data card says of it, and all there is."""
    report = check(load_data_config("bccd", str(real_data / "bccd")))
    assert found(report) == [("train", "error", checks.NO_AREA, 1), ("val", "error", checks.NO_AREA, 1)]
    examples = [finding.examples[0] for finding in report.findings]
    assert ["BloodImage_00343" in examples[0], "BloodImage_00338" in examples[1]] == [True, True]


@pytest.mark.slow
def test_deeppcb_is_clean(real_data: Path) -> None:
    assert check(load_data_config("deeppcb", str(real_data / "deeppcb")), splits=["val"]).findings == ()


def test_tiny_coco(real_data: Path) -> None:
    """Counted in its files with jq: 5 + 5 annotations with iscrowd 1; 1 + 2 images that no annotation names."""
    splits = {name: SplitConfig(f"{name}2017", f"instances_{name}2017.json") for name in ("train", "val")}
    report = check(DataConfig("tiny", str(real_data / "tiny_coco"), splits))
    assert found(report) == [
        ("train", "note", kinds.BACKGROUND, 1),
        ("train", "note", kinds.CROWD, 5),
        ("train", "warning", kinds.NEVER_TRAINED, 31),
        ("val", "note", kinds.BACKGROUND, 2),
        ("val", "note", kinds.CROWD, 5),
    ]
    assert report.exit_code == 1
