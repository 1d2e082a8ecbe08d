from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.data.checks import BAD_IMAGE
from detect.data.classification import image_folders
from detect.data.classification.image_folders import (
    BAD_NAME,
    BESIDE,
    NO_IMAGES,
    OTHER_FILE,
    UNKNOWN_FOLDER,
    UNREADABLE_FOLDER,
    read_image_folders,
)
from detect.data.classification.table import ClassTable
from detect.data.images import ImageError
from detect.data.recognition import open_data
from detect.errors import InputError


def add(root: Path, *names: str) -> None:
    """Images of 3 x 2 px."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(path)


def config(root: Path, names: tuple[str, ...] | None = None, splits: str = "train val") -> DataConfig:
    return DataConfig("mine", str(root), {s: SplitConfig(s) for s in splits.split()}, "folders", names)


def read(root: Path, split: str = "train", names: tuple[str, ...] | None = None) -> ClassTable:
    return read_image_folders(config(root, names), split)


def listed(table: ClassTable, root: Path) -> list[tuple[str, str]]:
    """(path in the root, class name) of each row."""
    rows = range(len(table))
    return [(str(table.path(row).relative_to(root)), table.names[table.labels[row]]) for row in rows]


def test_a_folder_is_recognised_by_its_classes(tmp_path: Path) -> None:
    add(tmp_path, "train/cat/a.png", "train/dog/b.png", "valid/cat/c.png", "valid/dog/d.png", "more/cat/e.png")
    found = open_data(str(tmp_path))
    assert (found.format, found.splits) == ("folders", {"train": SplitConfig("train"), "val": SplitConfig("valid")})
    assert read_image_folders(found, "val").names == ("cat", "dog")


def test_one_folder_of_images_is_no_class(tmp_path: Path) -> None:
    add(tmp_path, "train/images/a.png", "val/images/b.png")
    with pytest.raises(InputError, match="is not recognised as a data set"):
        open_data(str(tmp_path))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train: no such folder; the data set's root .* has nothing"):
        read(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=r"train: has no class folders; images must lie in one folder for each class"):
        read(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(InputError, match=r"mine train: has no images; its folders are empty"):
        read(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"mine train: has no images; 1 files in class folders that are no .*1 .txt"):
        read(tmp_path)


def test_images_without_class_folders(tmp_path: Path) -> None:
    add(tmp_path, "train/a.png", "train/b.png")
    with pytest.raises(InputError, match=r"train: has no class folders \(it has 2 images itself\)"):
        read(tmp_path)


def test_classes_and_images_are_sorted(tmp_path: Path) -> None:
    add(tmp_path, "train/dog/b.png", "train/dog/a.JPG", "train/cat/old/2020/z.jpeg", "train/cat/c.bmp")
    table = read(tmp_path)
    assert table.names == ("cat", "dog")
    assert listed(table, tmp_path) == [
        ("train/cat/c.bmp", "cat"),
        ("train/cat/old/2020/z.jpeg", "cat"),
        ("train/dog/a.JPG", "dog"),
        ("train/dog/b.png", "dog"),
    ]
    assert table.labels.dtype == np.int64
    assert table.pixels is None
    assert table.read(0).shape == (2, 3, 3)
    assert not table.problems


def test_indices_are_those_of_the_training_split(tmp_path: Path) -> None:
    """Alone, val would have cat 0, yak 1, zebu 2."""
    add(tmp_path, "train/ant/a.png", "train/cat/a.png", "train/yak/a.png")
    add(tmp_path, "val/zebu/a.png", "val/yak/a.png", "val/cat/a.png")
    table = read(tmp_path, "val")
    assert table.names == ("ant", "cat", "yak")
    assert listed(table, tmp_path) == [("val/cat/a.png", "cat"), ("val/yak/a.png", "yak")]
    assert table.labels.tolist() == [1, 2]
    assert table.problems.summary() == [f"1 {UNKNOWN_FOLDER}: 'zebu'", f"1 {NO_IMAGES}: 'ant'"]


def test_without_a_training_split_those_of_the_split_itself(tmp_path: Path) -> None:
    add(tmp_path, "val/yak/a.png", "val/cat/a.png")
    assert read_image_folders(config(tmp_path, splits="val"), "val").names == ("cat", "yak")
    with pytest.raises(InputError, match=r"train: no such folder"):
        read(tmp_path, "val")


def test_given_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "train/ant/a.png", "train/cat/a.png", "train/yak/a.png", "val/yak/b.png", "val/ant/b.png")
    with caplog.at_level(logging.INFO, logger="detect"):
        table = read(tmp_path, names=("yak", "ant"))
    assert listed(table, tmp_path) == [("train/yak/a.png", "yak"), ("train/ant/a.png", "ant")]
    assert not table.problems  # it was asked for
    assert caplog.messages == ["mine train: 1 class folders are not among the names: not used"]
    assert read(tmp_path, "val", names=("yak", "ant")).labels.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"names: .*train has no folder 'yack'; did you mean 'yak'\?"):
        read(tmp_path, names=("ant", "yack"))
    with pytest.raises(InputError, match="names: duplicate class in ant, ant"):
        read(tmp_path, names=("ant", "ant"))
    with pytest.raises(InputError, match=r"has no folder '\.\./train/ant'"):
        read(tmp_path, names=("../train/ant",))


def test_a_given_name_without_a_folder_has_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, "train/ant/a.png", "train/cat/a.png", "val/cat/b.png")
    with caplog.at_level(logging.INFO, logger="detect"):
        table = read(tmp_path, "val", names=("ant", "cat"))
    assert (table.names, table.labels.tolist()) == (("ant", "cat"), [1])
    assert "has no folder 'ant', nor any object of it (classes without: 1 of 2)" in caplog.text
    with pytest.raises(InputError, match="has no folder 'ant'"):
        read(tmp_path, "val", names=("ant", "bee"))
    with pytest.raises(InputError, match=r"has no folder '\.\./train/ant'; a class's name is its folder's"):
        read(tmp_path, "val", names=("../train/ant", "cat"))


def test_what_is_left_out_and_what_is_reported(tmp_path: Path) -> None:
    add(tmp_path, "train/cat/a.png", "train/cat/.hidden.png", "train/cat/.trash/b.png", "train/.git/c.png")
    add(tmp_path, "train/beside.png")
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "train" / "README").write_text("")
    (tmp_path / "train" / "cat" / "a.heic").write_text("")
    table = read(tmp_path)
    assert listed(table, tmp_path) == [("train/cat/a.png", "cat")]
    assert table.names == ("cat", "empty")
    assert table.problems.summary() == [
        f"1 {BESIDE}: beside.png",
        f"1 {OTHER_FILE}: 1 .heic",
        f"1 {NO_IMAGES}: 'empty'",
    ]


def test_odd_names(tmp_path: Path) -> None:
    names = ["ein Hund", "ねこ", "é", "a'b\"c", "#1; rm", "%s {}", "CON", "new\nline", " blank "]
    for name in names:
        add(tmp_path, f"train/{name}/ä {name}#3.png")
    table = read(tmp_path)
    assert table.names == tuple(sorted(names))
    assert all(table.read(row).shape == (2, 3, 3) for row in range(len(names)))
    assert not table.problems


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """An image may have such a name; a class may not, because its name goes into reports and checkpoints."""
    add(tmp_path, "train/cat/a.png")
    root = os.fsencode(tmp_path / "train")
    (tmp_path / "train/cat/a.png").rename(os.fsdecode(root + b"/cat/\xff.png"))
    shutil.copytree(tmp_path / "train" / "cat", os.fsdecode(root + b"/\xfe"))
    table = read(tmp_path)
    assert table.names == ("cat",)
    assert table.read(0).shape == (2, 3, 3)
    assert table.problems.summary() == [rf"1 {BAD_NAME}: '\udcfe'"]


def test_small_images(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    for suffix in ("png", "jpg", "gif", "bmp"):
        Image.new("RGB", (1, 1), (255, 255, 255)).save(tmp_path / "train" / "cat" / f"a.{suffix}")
    table = read(tmp_path)
    assert [table.read(row).tolist() for row in range(4)] == [[[[255, 255, 255]]]] * 4


# --------------------------------------------------------------------------------------------------------- links


def test_links_are_followed(tmp_path: Path) -> None:
    """A class folder, a folder in it, and an image may each be a link."""
    add(tmp_path, "elsewhere/cats/a.png", "elsewhere/more/b.png", "elsewhere/c.png")
    (tmp_path / "train" / "dog").mkdir(parents=True)
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "train" / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "train" / "dog" / "c.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    table = read(tmp_path)
    assert listed(table, tmp_path) == [
        ("train/cat/a.png", "cat"),
        ("train/dog/c.png", "dog"),
        ("train/dog/more/b.png", "dog"),
    ]
    assert not table.problems


def test_circles_end_and_links_upward_are_not_followed(tmp_path: Path) -> None:
    """Going up, the images of all classes would be those of one."""
    add(tmp_path, "train/cat/a.png", "train/dog/b.png")
    cat = tmp_path / "train" / "cat"
    (cat / "self").symlink_to(cat)
    (cat / "up").symlink_to(tmp_path / "train")
    (cat / "root").symlink_to("/")
    (cat / "loop.png").symlink_to(cat / "loop.png")
    (cat / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "train")
    table = read(tmp_path)
    assert listed(table, tmp_path) == [("train/cat/a.png", "cat"), ("train/dog/b.png", "dog")]
    assert table.problems.count(BAD_IMAGE) == 1
    assert table.problems.count(OTHER_FILE) == 1  # the link to nowhere
    assert table.problems.summary()[-1] == f"1 {NO_IMAGES}: 'loop'"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    add(tmp_path, "train/cat/a.png", "train/cat/locked/b.png")
    (tmp_path / "train" / "cat" / "locked").chmod(0)
    try:
        table = read(tmp_path)
    finally:
        (tmp_path / "train" / "cat" / "locked").chmod(0o700)
    assert len(table) == 1
    assert table.problems.count(UNREADABLE_FOLDER) == 1


# -------------------------------------------------------------------------------------------------- damaged images


def test_damaged_images_are_skipped(tmp_path: Path) -> None:
    add(tmp_path, "train/cat/a.png", "train/cat/b.png", "train/dog/c.png")
    data = (tmp_path / "train/cat/b.png").read_bytes()
    (tmp_path / "train/cat/b.png").write_bytes(data[:-12])
    (tmp_path / "train/dog/c.png").write_bytes(b"")
    table = read(tmp_path)
    assert listed(table, tmp_path) == [("train/cat/a.png", "cat")]
    assert table.problems.count(BAD_IMAGE) == 2
    assert table.problems.summary()[1] == f"1 {NO_IMAGES}: 'dog'"
    (tmp_path / "train/cat/a.png").unlink()
    with pytest.raises(
        InputError, match=r"mine train: none of the 2 images can be used; the first: .*b\.png: is trunc"
    ):
        read(tmp_path)


def test_many_images_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "train/cat/a.png", "train/cat/b.png")
    (tmp_path / "train/cat/b.png").write_bytes(b"")
    monkeypatch.setattr(image_folders, "MAX_INSPECTED", 1)
    with caplog.at_level(logging.INFO, logger="detect"):
        table = read(tmp_path)
    assert caplog.messages == ["mine train: 2 images are too many to look at; damaged ones are reported when loaded"]
    assert len(table) == 2
    with pytest.raises(ImageError, match="is empty"):
        table.read(1)


def test_hostile_images(tmp_path: Path, real_data: Path) -> None:
    """Of the 25 images six are damaged or bombs, which their headers show; all others can be read."""
    shutil.copytree(real_data / "hostile", tmp_path / "train" / "hostile")
    add(tmp_path, "train/good/a.png")
    table = read(tmp_path)
    assert table.problems.count(OTHER_FILE) == 1  # LICENSE
    assert table.problems.count(BAD_IMAGE) == 6
    assert np.bincount(table.labels).tolist() == [1, 19]
    found = {path.name for path in (real_data / "hostile").iterdir()} - {"LICENSE"}
    assert found - {table.path(row).name for row in range(len(table))} == {
        *("broken.png", "l2rgb_read.bmp", "reallybig.bmp", "truncated_image.png", "ultrahdr.jpg", "zero_width.gif")
    }
    assert all(table.read(row).shape[2] == 3 for row in range(len(table)))


def test_cifar10_subset(real_data: Path) -> None:
    data = load_data_config("cifar10-folders", str(real_data / "cifar10_subset"))
    tables = {split: read_image_folders(data, split) for split in ("val", "test")}
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert all(table.names == names and not table.problems for table in tables.values())
    assert np.bincount(tables["test"].labels).tolist() == [200] * 10
    assert (tables["val"].image_paths == tables["test"].image_paths).all()
    assert tables["test"].read(0).shape == (32, 32, 3)
