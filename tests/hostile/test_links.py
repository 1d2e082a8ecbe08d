"""Links, special files and paths in data sets from strangers.

Symbolic links are followed: people build data sets of them. An image behind a link is only ever read, as an image.
"""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest

from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.data.checks import BAD_IMAGE
from detect.data.classification.image_folders import read_image_folders
from detect.data.formats.coco import read_coco
from detect.data.formats.image_names import OUTSIDE_NAME
from detect.data.formats.voc import read_voc
from detect.errors import InputError
from detect.inference.sources import expand_sources
from tests.hostile.fuzzed import message_of


@pytest.fixture
def images(tmp_path):
    """A folder with an image, and one outside of it with a secret one."""
    for name in ("images", "outside"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "good.png"), np.zeros((8, 12, 3), np.uint8))
    return tmp_path / "images"


def coco(images, *names):
    """A COCO split of files of these names."""
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    (images.parent / "a.json").write_text(json.dumps(content))
    return DataConfig("x", str(images.parent), {"train": SplitConfig("images", "a.json")})


@pytest.mark.parametrize(
    "name",
    [
        "../outside/good.png",
        "a/../../outside/good.png",
        "..\\outside\\good.png",
        "..%2foutside%2fgood.png",
        "..",
        ".",
        "",
        "good.png\0.jpg",
        "\ud800.png",
    ],
)
def test_names_that_lead_out_cost_that_image(images, name):
    table = read_coco(coco(images, "good.png", name), "train")
    assert [table.path(0).name, len(table)] == ["good.png", 1]
    assert table.problems.count(OUTSIDE_NAME) == 1
    with pytest.raises(InputError, match=r"none of the 1 images can be used: 1 image names that lead out"):
        read_coco(coco(images, name), "train")


def test_absolute_names_open_nothing_outside(images):
    """An image outside the data set is a missing one, by the name that it would have in the folder."""
    table = read_coco(coco(images, "good.png", str(images.parents[1] / "other" / "secret.png")), "train")
    assert len(table) == 1
    assert table.problems.found() == [(BAD_IMAGE, 1, (f"{images / 'secret.png'}: no such file",))]


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "/".join("x" * 3000) + ".png", "/etc/hostname", "C:none.png"])
def test_names_of_no_file(images, name):
    table = read_coco(coco(images, "good.png", name), "train")
    assert len(table) == 1
    assert table.problems.count("images that are missing or damaged (skipped)") == 1


def test_special_files_are_not_opened(images):
    """Reading a pipe or a device would never end."""
    os.mkfifo(images / "pipe.png")
    (images / "zero.png").symlink_to("/dev/zero")
    (images / "loop.png").symlink_to("loop.png")
    (images / "folder.png").mkdir()
    table = read_coco(coco(images, "good.png", "pipe.png", "zero.png", "loop.png", "folder.png"), "train")
    assert len(table) == 1
    assert table.problems.count("images that are missing or damaged (skipped)") == 4
    sources = expand_sources(str(images))
    assert [source.path.name for source in sources] == ["good.png", "loop.png", "pipe.png", "zero.png"]


def test_links_are_followed(images):
    (images / "linked.png").symlink_to(images.parent / "outside" / "good.png")
    assert len(read_coco(coco(images, "linked.png"), "train")) == 1


def test_what_is_behind_a_link_is_never_shown(images):
    """A link to a private file tells that it is no image, and nothing of what is in it."""
    (images.parent / "secret").write_text("hunter2")
    (images / "linked.png").symlink_to(images.parent / "secret")
    message = message_of(read_coco, coco(images, "linked.png"), "train")
    assert "linked.png: is not an image, or damaged" in message
    assert "hunter2" not in message


def test_special_files_as_annotations(images):
    """They are no files, so there is nothing to wait for."""
    os.mkfifo(images.parent / "pipe.json")
    config = DataConfig("x", str(images.parent), {"train": SplitConfig("images", "pipe.json")})
    with pytest.raises(InputError, match=r"pipe\.json: no such file"):
        read_coco(config, "train")
    (images.parent / "xml").mkdir()
    os.mkfifo(images.parent / "xml" / "0.xml")
    config = DataConfig("x", str(images.parent), {"train": SplitConfig("images", "xml")}, format="voc")
    with pytest.raises(InputError, match=r"0\.xml: is not a file"):
        read_voc(config, "train")


def circles(folder):
    """Two links back up in each of two folders: 2 ** 40 paths before the system refuses one for its length."""
    (folder / "class").mkdir()
    for name in ("up", "up again"):
        (folder / "class" / name).symlink_to(folder)
    cv2.imwrite(str(folder / "class" / "in.png"), np.zeros((8, 12, 3), np.uint8))


def test_folders_that_hold_one_another(images):
    circles(images)
    sources = expand_sources(str(images))
    assert [source.path.name for source in sources] == ["in.png", "good.png"]
    config = DataConfig("x", str(images.parent), {"train": SplitConfig("images")}, format="folders")
    assert len(read_image_folders(config, "train")) == 1


def test_patterns_over_folders_that_hold_one_another(images):
    circles(images)
    found = expand_sources(str(images / "**" / "*.png"))
    assert [source.path.relative_to(images).as_posix() for source in found] == ["class/in.png", "good.png"]


@pytest.mark.parametrize("root", ["loop", "~nobody-of-this-name/data", "a\0b", "x" * 5000])
def test_roots_that_cannot_be(tmp_path, root):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "data.yaml").write_text(
        json.dumps({"name": "x", "root": root, "splits": {"train": {"images": "images", "annotations": "a.json"}}})
    )

    def read():
        return read_coco(load_data_config(str(tmp_path / "data.yaml")), "train")

    assert message_of(read)
