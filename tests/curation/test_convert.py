from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig
from detect.config.yaml_files import load_yaml
from detect.curation.convert import FORMATS, Conversion, convert
from detect.data.formats.visdrone import IN_NO_CLASS
from detect.data.formats.writing import RENAMED_CLASS, RENAMED_IMAGE
from detect.data.formats.yolo_rows import OUTLINE
from detect.data.recognition import open_data
from detect.errors import InputError
from tests.curation.tables import annotation, boxes_by_image, largest_difference, make_coco, opened, read, rich_content
from tests.data.layouts import images, write
from tests.data.shard_files import document, png, write_tar


def _convert(source: str | Path | DataConfig, out: Path, to: Any, **more: Any) -> str:
    config = source if isinstance(source, DataConfig) else opened(source)
    return "\n".join(convert(config, Conversion(to, out, **more)))


# -------------------------------------------------------------------------------- kept and reported data


def test_coco_to_coco_keeps_everything_but_what_is_damaged(tmp_path: Path) -> None:
    source = make_coco(tmp_path / "in", rich_content())
    report = _convert(source, tmp_path / "out", "coco")
    written = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    expected = rich_content()
    # In the order of the images; the box without an area is left out.
    expected["annotations"] = [expected["annotations"][index] for index in (0, 1, 2)]
    assert written == expected
    assert "1 boxes of zero or negative size (skipped): annotation 13 of image 5" in report
    assert "not kept" not in report
    assert "3 images (1 without boxes), 2 boxes, 1 crowd regions" in report


def test_what_other_tools_write_is_written_as_it_was_understood(tmp_path: Path) -> None:
    content = rich_content()
    content["images"] = [{**image, "id": f"i{image['id']}"} for image in content["images"]]
    content["categories"] = [{**one, "id": str(one["id"])} for one in content["categories"]]
    boxed, outlined, ignored = content["annotations"][:3]
    boxed |= {"image_id": "i70", "category_id": 90}
    outlined |= {"image_id": "i5", "category_id": "3", "segmentation": [[1, 2, 11, 2, 11, 12, 1, 12]]}
    del outlined["bbox"]
    ignored |= {"image_id": "i5", "category_id": "3", "iscrowd": 0, "ignore": 1}
    content["annotations"] = [boxed, outlined, ignored]
    source = make_coco(tmp_path / "in", content)
    _convert(source, tmp_path / "coco", "coco")
    written = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert written["images"] == content["images"]
    assert written["categories"] == content["categories"]
    assert written["annotations"][0] == {**boxed, "category_id": "90"}  # the list has text
    assert written["annotations"][1] == {**outlined, "bbox": [1, 2, 10, 10]}
    assert written["annotations"][2] == ignored
    report = _convert(source, tmp_path / "voc", "voc")
    assert "'ignore'" not in report  # it is kept: difficult
    assert [read(tmp_path / "voc").is_crowd.sum(), read(tmp_path / "coco").is_crowd.sum()] == [1, 1]
    _convert(source, tmp_path / "yolo", "yolo")
    assert largest_difference(read(source), read(tmp_path / "yolo"), with_crowds=False) < 1e-7
    _convert(source, tmp_path / "shards", "shards")
    assert read(tmp_path / "shards").image_ids_of_file == ["i70", "i5", "i9"]
    _convert(tmp_path / "shards", tmp_path / "back", "coco")
    again = json.loads((tmp_path / "back/annotations/instances_train.json").read_text())
    assert {one["image_id"] for one in again["annotations"]} == {"i70", "i5"}
    assert [one["id"] for one in again["categories"]] == ["3", "90"]


def test_ids_that_cannot_stay_are_numbered_anew(tmp_path: Path) -> None:
    content = rich_content()
    for entry, number in zip(content["annotations"], [0, 8, 8], strict=False):
        entry["id"] = number
    content["annotations"][0]["area"] = "x"
    report = _convert(make_coco(tmp_path / "in", content), tmp_path / "out", "coco")
    written = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [entry["id"] for entry in written["annotations"]] == [9, 10, 11]
    assert written["annotations"][0]["area"] == pytest.approx(3.3 * 4.4)
    assert "3 annotation ids that are 0, no whole number or duplicates (renumbered): '0' is 9;" in report


def test_what_yolo_cannot_hold_is_counted(tmp_path: Path) -> None:
    report = _convert(make_coco(tmp_path / "in", rich_content()), tmp_path / "out", "yolo")
    # Classes 0 and 1 in the order of the ids 3 and 90. (1.1 + 3.3 / 2) / 40 = 0.06875, (2.2 + 4.4 / 2) / 30 = 4.4 / 30.
    assert (tmp_path / "out/labels/train/b.txt").read_text() == "1 0.06875 0.146666666667 0.0825 0.146666666667\n"
    assert (tmp_path / "out/labels/train/empty.txt").read_text() == ""
    assert len((tmp_path / "out/labels/train/sub/a.txt").read_text().splitlines()) == 1
    for words in (
        "1 outlines (segmentation: polygons)",
        "1 outlines (segmentation: run-length masks)",
        "1 'score' of annotations",
        "1 'license' of images",
        "1 'supercategory' of categories",
        "1 'info' of the file",
        "1 'licenses' of the file",
        "1 areas of their own",  # 7.5 of a box of 3.3 x 4.4; those of 100 and 200 px are the boxes'
        "3 image ids",
        "2 category ids",
        "3 annotation ids",
        "1 crowd regions (left out: ",
        "1 truncated or occluded boxes",
        "1 boxes of zero or negative size (skipped)",
    ):
        assert words in report
    table = read(tmp_path / "out")
    assert largest_difference(read(tmp_path / "in"), table, with_crowds=False) < 1e-7
    assert not table.is_crowd.any()
    assert not table.problems


def test_what_voc_holds_and_what_not(tmp_path: Path) -> None:
    source = make_coco(tmp_path / "in", rich_content())
    report = _convert(source, tmp_path / "voc", "voc")
    assert "1 degrees of truncation or occlusion (written as yes or no): 'sub/a.png'" in report
    assert "crowd regions (left out" not in report
    table = read(tmp_path / "voc")
    assert largest_difference(read(source), table) < 1e-9
    assert table.is_crowd.sum() == 1
    assert {mark: values.tolist() for mark, values in table.marks.items()} == {
        "truncated": [0, 1, 0],
        "occluded": [0, 1, 0],
    }
    assert "<difficult>1</difficult>" in (tmp_path / "voc/Annotations/sub/a.xml").read_text()
    # And back: crowd regions and marks come home.
    back = _convert(tmp_path / "voc", tmp_path / "back", "coco")
    written = json.loads((tmp_path / "back/annotations/instances_train.json").read_text())
    assert [entry["iscrowd"] for entry in written["annotations"]] == [0, 0, 1]
    assert [entry["truncated"] for entry in written["annotations"]] == [0, 1, 0]
    assert "not kept" not in back


def test_other_elements_of_voc_are_counted(tmp_path: Path) -> None:
    images(tmp_path / "in/JPEGImages")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    first = f"<object><name>x</name><pose>Unspecified</pose><part><name>head</name></part>{box}</object>"
    second = f"<object><name>x</name><pose>Left</pose>{box}</object>"
    head = "<filename>a.jpg</filename><segmented>0</segmented><owner>me</owner>"
    write(tmp_path / "in", {"Annotations/a.xml": f"<annotation>{head}{first}{second}</annotation>"})
    report = _convert(tmp_path / "in", tmp_path / "out", "coco")
    assert "  not kept: 1 <part> of objects, 1 <pose> of objects, 1 <owner> of images" in report


def test_visdrone_to_coco_and_back(tmp_path: Path) -> None:
    images(tmp_path / "in/train/images")
    lines = "0,0,40,10,0,0,0,0\n1,2,10,20,1,4,1,2\n3,4,5.5,6,0,1,0,0\n1,1,5,5,1,11,0,0\n"
    write(tmp_path / "in", {"train/annotations/a.txt": lines})
    report = _convert(tmp_path / "in", tmp_path / "coco", "coco")
    assert f"1 {IN_NO_CLASS}" in report
    # The ignored region is one of each of the ten classes.
    assert "1 images (0 without boxes), 1 boxes, 11 crowd regions" in report
    _convert(tmp_path / "coco", tmp_path / "back", "visdrone")
    assert (tmp_path / "back/train/annotations/a.txt").read_text() == "".join(lines.splitlines(keepends=True)[:3])
    assert largest_difference(read(tmp_path / "in"), read(tmp_path / "back")) == 0
    # Also through VOC, which knows neither degrees nor numbers of categories.
    _convert(tmp_path / "in", tmp_path / "voc", "voc")
    _convert(tmp_path / "voc", tmp_path / "again", "visdrone")
    assert (tmp_path / "again/train/annotations/a.txt").read_text().splitlines()[1] == "1,2,10,20,1,4,1,1"


def test_classes_that_visdrone_does_not_have(tmp_path: Path) -> None:
    content = rich_content()
    content["categories"][1]["name"] = "tram"
    report = _convert(make_coco(tmp_path / "in", content), tmp_path / "out", "visdrone")
    assert (
        "1 boxes of classes that VisDrone does not have (written as category 11, others): 'tram' in 'b.png'" in report
    )
    assert (tmp_path / "out/train/annotations/b.txt").read_text() == "1.1,2.2,3.3,4.4,1,11,0,0\n"
    table = read(tmp_path / "out")
    assert table.names == ("car", "others")
    assert not table.problems
    content["categories"][0]["name"] = "cart"
    source = make_coco(tmp_path / "none", content)
    with pytest.raises(InputError, match=r"--to visdrone: its classes are pedestrian, .* of them, but 'cart', 'tram'"):
        _convert(source, tmp_path / "no", "visdrone")
    assert not (tmp_path / "no").exists()


def test_outlines_of_yolo_become_boxes_and_are_told(tmp_path: Path) -> None:
    images(tmp_path / "in/images/train")
    write(tmp_path / "in", {"labels/train/a.txt": "0 0.1 0.2 0.5 0.4 0.3 0.6\n"})
    assert f"1 {OUTLINE}: a.txt:1" in _convert(tmp_path / "in", tmp_path / "out", "coco")


def test_categories_that_were_not_wanted_are_counted(tmp_path: Path) -> None:
    make_coco(tmp_path / "in", rich_content())
    splits = {"train": SplitConfig("train", "annotations/instances_train.json")}
    config = DataConfig("d", str(tmp_path / "in"), splits, format="coco", names=("bus",), background="drop")
    report = _convert(config, tmp_path / "out", "coco")
    assert "not kept: 3 annotations of categories that the data config does not list in names (left out)" in report
    written = load_yaml(tmp_path / "out/data.yaml")
    assert (written["names"], written["background"]) == (["bus"], "drop")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [entry["name"] for entry in content["categories"]] == ["bus"]


def test_a_split_without_annotations_is_left_out_aloud(tmp_path: Path) -> None:
    content = rich_content()
    source = make_coco(tmp_path / "in", content)
    del content["annotations"]
    make_coco(tmp_path / "in", content, split="test")
    assert "test: left out: its 3 images have no annotations, which YOLO cannot say" in _convert(
        source, tmp_path / "out", "yolo"
    )
    assert [*opened(tmp_path / "out").splits] == ["train"]
    _convert(source, tmp_path / "coco", "coco")
    assert not read(tmp_path / "coco", "test").is_labelled
    with pytest.raises(InputError, match="no split has annotations, so there is nothing to convert"):
        _convert(source, tmp_path / "no", "yolo", splits=("test",))


# -------------------------------------------------------------------------------------------- published data


@pytest.mark.slow
@pytest.mark.parametrize("to", ["yolo", "voc"])
@pytest.mark.parametrize("name", ["tiny_coco", pytest.param("bccd", marks=pytest.mark.slow)])
def test_round_trip_of_published_data(real_data: Path, tmp_path: Path, name: str, to: Any) -> None:
    """COCO, the other format, COCO: the same boxes, and losses are reported."""
    config = open_data("bccd", str(real_data / "bccd")) if name == "bccd" else opened(real_data / name)
    _convert(config, tmp_path / "coco", "coco", images="none")
    report = _convert(tmp_path / "coco", tmp_path / to, to, images="link")
    _convert(tmp_path / to, tmp_path / "back", "coco", images="link")
    crowds = background = 0
    for split in config.splits:
        first, last = read(tmp_path / "coco", split), read(tmp_path / "back", split)
        assert len(first) == len(last)
        assert first.names == last.names
        # YOLO: 12 digits of a share, 640 px; VOC: right = left + width, and width = right - left.
        assert largest_difference(first, last, with_crowds=to == "voc") < (1e-8 if to == "yolo" else 1e-12)
        assert last.is_crowd.sum() == (first.is_crowd.sum() if to == "voc" else 0)
        crowds += int(first.is_crowd.sum())
        background += int((first.box_offsets[1:] == first.box_offsets[:-1]).sum())
    expected = {"tiny_coco": (10, 3), "bccd": (0, 0)}[name]
    assert (crowds, background) == expected
    assert report.count(" crowd regions (left out") == (2 if to == "yolo" and crowds else 0)
    if name == "tiny_coco":
        assert "train: 50 images (1 without boxes), 465 boxes, 5 crowd regions" in report
        assert "val: 50 images (2 without boxes), 377 boxes, 5 crowd regions" in report


# -------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("to", "how"), [(to, how) for to in FORMATS for how in ("copy", "link", "none") if to != "shards" or how == "copy"]
)
def test_images_go_or_stay(tmp_path: Path, to: Any, how: Any) -> None:
    source = make_coco(tmp_path / "in", rich_content())
    make_coco(tmp_path / "in", rich_content(), split="val")  # the same names in another split
    _convert(source, tmp_path / "out", to, images=how)
    for split in ("train", "val"):
        table = read(tmp_path / "out", split)
        before = read(source, split)
        assert largest_difference(before, table, with_crowds=to != "yolo") < 1e-7 if to != "visdrone" else True
        assert len(table) == 3
        stays = {table.path(row).is_relative_to(tmp_path / "in") for row in range(3)}
        assert stays == {how == "none"}
        number_of_links = os.stat(table.stored_in(0)).st_nlink  # noqa: PTH116
        assert number_of_links == (2 if how == "link" else 1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_data_set_may_be_moved_when_its_images_are_in_it(tmp_path: Path) -> None:
    _convert(make_coco(tmp_path / "in", rich_content()), tmp_path / "out", "yolo")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert len(read(tmp_path / "moved")) == len(read(tmp_path / "moved/data.yaml")) == 3
    assert opened(tmp_path / "moved/yolo.yaml").names == ("car", "bus")
    assert boxes_by_image(read(tmp_path / "moved/yolo.yaml")) == boxes_by_image(read(tmp_path / "moved"))


def test_images_with_odd_names(tmp_path: Path) -> None:
    names = ["a.png", "a.PNG.png", "A.jpg", ".hidden.png", "new\nline.png", " blank .png", "images/x.png", "no-suffix"]
    names += ["a.png", "..\\up.png", "\x1b[31mred.png"]
    entries = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [annotation(number + 1, number, 1, [1 + number, 2, 3, 4]) for number in range(len(names))]
    source = make_coco(
        tmp_path / "in", {"images": entries, "categories": [{"id": 1, "name": "car"}], "annotations": boxes}
    )
    for to in ("yolo", "voc", "visdrone"):
        report = _convert(source, tmp_path / to, to)
        assert RENAMED_IMAGE in report
        assert "\x1b" not in report
        table = read(tmp_path / to)
        assert sorted(table.boxes_xyxy_px[:, 0].round(6).tolist()) == [*range(1, len(names) + 1)]
        assert all(table.path(row).is_relative_to(tmp_path / to) for row in range(len(table)))
        assert len({str(table.path(row).with_suffix("")).casefold() for row in range(len(table))}) == len(names)
        with pytest.raises(InputError, match=r"image names that the format cannot hold, .*; use --images copy"):
            _convert(source, tmp_path / "none", to, images="none")
    _convert(source, tmp_path / "coco", "coco")  # which holds any name
    assert [
        entry["file_name"]
        for entry in json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["images"]
    ] == names


def test_classes_with_odd_names(tmp_path: Path) -> None:
    names = ["1e-3", "car", "car", " bus ", "t\0am", "\x01", "", "true", "<b>&", "人"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    boxes = [annotation(number + 1, 1, number, [number, 2, 3, 4]) for number in range(len(names))]
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": categories, "annotations": boxes}
    source = make_coco(tmp_path / "in", content)
    expected = ("1e-3", "car", "car-2", "bus", "t_am", "_", "_-2", "true", "<b>&", "人")
    for to in ("yolo", "voc"):
        report = _convert(source, tmp_path / to, to)
        assert f"5 {RENAMED_CLASS}: 'car' is 'car-2'; ' bus ' is 'bus'; 't\\x00am' is 't_am'; ..." in report
        table = read(tmp_path / to)
        assert table.names == expected
        assert table.labels.tolist() == [*range(len(names))]
    _convert(source, tmp_path / "coco", "coco")
    assert read(tmp_path / "coco").names == tuple(names)


# ------------------------------------------------------------------------------------------------- refusals


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    source = make_coco(tmp_path / "in", rich_content())
    with pytest.raises(InputError, match="there is no split 'vla'"):
        _convert(source, tmp_path / "out", "yolo", splits=("vla",))
    with pytest.raises(InputError, match="refused, because --strict was asked for: 1 boxes of zero"):
        _convert(source, tmp_path / "out", "yolo", strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    (tmp_path / "full").mkdir()
    write(tmp_path / "full", {"a": "mine"})
    with pytest.raises(InputError, match="full: exists already and is not an empty folder; name a new one"):
        _convert(source, tmp_path / "full", "yolo")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a"]
    (tmp_path / "void").mkdir()
    _convert(source, tmp_path / "void", "yolo")
    assert (tmp_path / "void/data.yaml").is_file()


def test_splits_with_other_classes(tmp_path: Path) -> None:
    source = make_coco(tmp_path / "in", rich_content())
    content = rich_content()
    content["categories"].append({"id": 91, "name": "tram"})
    make_coco(tmp_path / "in", content, split="val")
    with pytest.raises(InputError, match=r"splits train and val have different classes \('tram'\); list the same"):
        _convert(source, tmp_path / "out", "yolo")


@pytest.mark.parametrize("split", ["../up", "a/b", ".hid", "", "a b", "x" * 200])
def test_split_names_that_are_no_folder(tmp_path: Path, split: str) -> None:
    make_coco(tmp_path / "in", rich_content())
    splits = {split: SplitConfig("train", "annotations/instances_train.json")}
    with pytest.raises(InputError, match=r"split '.*': cannot be a folder's name"):
        _convert(DataConfig("d", str(tmp_path / "in"), splits, format="coco"), tmp_path / "out", "yolo")


def test_numbers_that_json_cannot_hold(tmp_path: Path) -> None:
    content = rich_content()
    content["annotations"][0]["score"] = float("nan")
    with pytest.raises(InputError, match=r"instances_train.json: the source holds NaN or Infinity"):
        _convert(make_coco(tmp_path / "in", content), tmp_path / "out", "coco")


def test_an_image_that_is_rotated(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "in/images/train").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "in/images/train/a.jpg", exif=exif)
    write(tmp_path / "in", {"labels/train/a.txt": "0 0.5 0.5 0.5 0.5"})
    _convert(tmp_path / "in", tmp_path / "out", "coco")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (30, 40)
    assert content["annotations"][0]["bbox"] == [7.5, 10, 15, 20]


# -------------------------------------------------------------------------------------------------- shards


def test_to_shards_and_back(tmp_path: Path) -> None:
    """Ids, areas and crowd regions stay; annotation ids and outlines are lost, and reported."""
    source = make_coco(tmp_path / "in", rich_content())
    make_coco(tmp_path / "in", rich_content(), split="val")
    report = _convert(source, tmp_path / "shards", "shards")
    assert "-> train-[0-9]*.tar" in report
    assert "annotation ids" in report
    for place in (tmp_path / "shards", tmp_path / "shards/data.yaml"):  # recognised by its files, or by its config
        table, before = read(place), read(source)
        assert largest_difference(before, table) == 0
        assert table.image_ids.tolist() == before.image_ids.tolist()
        assert table.category_ids.tolist() == before.category_ids.tolist()
        np.testing.assert_array_equal(table.areas, before.areas)
    (tmp_path / "shards/data.yaml").unlink()
    assert opened(tmp_path / "shards").format == "shards"
    _convert(tmp_path / "shards", tmp_path / "back", "coco")
    assert largest_difference(read(source), read(tmp_path / "back")) == 0


@pytest.mark.parametrize("how", ["link", "none"])
def test_images_of_shards_are_copies(tmp_path: Path, how: Any) -> None:
    source = make_coco(tmp_path / "in", rich_content())
    with pytest.raises(InputError, match=f"--images {how}: shards hold copies of the images; use --images copy"):
        _convert(source, tmp_path / "shards", "shards", images=how)
    _convert(source, tmp_path / "shards", "shards")
    with pytest.raises(InputError, match="use --images copy"):
        _convert(tmp_path / "shards", tmp_path / "coco", "coco", images=how)
    assert not (tmp_path / "coco").exists()


def test_images_of_one_name_in_several_shards_stay_apart(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"train-{number}.tar", [("a.png", png(value=number)), ("a.json", document([1, 1, 5, 5]))])
    (tmp_path / "data.yaml").write_text("{name: mine, root: ., names: [dog], splits: {train: {images: train-*.tar}}}")
    _convert(tmp_path / "data.yaml", tmp_path / "coco", "coco")
    table = read(tmp_path / "coco")
    assert [table.path(row).parent.name for row in range(2)] == ["train-0", "train-1"]
    assert [int(table.read(row)[0, 0, 0]) for row in range(2)] == [0, 1]
