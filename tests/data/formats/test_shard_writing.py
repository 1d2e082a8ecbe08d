"""What is written as shards, and that a writing that did not end is seen."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from detect.config.data import DataConfig, SplitConfig
from detect.data.datasets import open_split
from detect.data.formats.shards import write_shards
from detect.data.images import ImageError
from detect.errors import InputError
from tests.data.shard_files import CATEGORIES, read, read_folder, shards_config


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_a_shard(tmp_path: Path) -> None:
    table = read_folder(tmp_path, 3)
    assert write_shards({"train": table}, tmp_path / "tar") == {"train": "train-[0-9]*.tar"}
    assert {path.name for path in (tmp_path / "tar").iterdir()} == {"train-000000.tar", "dataset.json"}
    found = members(tmp_path / "tar/train-000000.tar")
    assert list(found) == [f"im-00{row}.{end}" for row in range(3) for end in ("png" if row else "jpg", "json")]
    assert found["im-001.png"] == (tmp_path / "images/im-001.png").read_bytes()
    source = json.loads((tmp_path / "coco.json").read_text())
    assert json.loads(found["im-001.json"]) == {
        "file_name": "im-001.png",
        "width": source["images"][1]["width"],
        "height": source["images"][1]["height"],
        "id": 999,
        "annotations": [{key: source["annotations"][0][key] for key in ("bbox", "category_id", "area", "iscrowd")}],
    }
    assert json.loads((tmp_path / "tar/dataset.json").read_text()) == {
        "categories": sorted(CATEGORIES, key=lambda entry: entry["id"]),
        "shards": ["train-000000.tar"],
    }


def test_the_same_data_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shards({"train": read_folder(tmp_path, 5)}, tmp_path / name)
    assert (tmp_path / "a/train-000000.tar").read_bytes() == (tmp_path / "b/train-000000.tar").read_bytes()


def test_shards_are_bounded(tmp_path: Path) -> None:
    table = read_folder(tmp_path, 7)
    sizes = [len(table.read_bytes(row)) for row in range(7)]
    write_shards({"train": table}, tmp_path / "number", images_per_shard=3)
    counts = [len(members(path)) // 2 for path in sorted((tmp_path / "number").glob("*.tar"))]
    assert counts == [3, 3, 1]
    write_shards({"train": table}, tmp_path / "bytes", max_bytes=sizes[0] + sizes[1])
    first = sorted((tmp_path / "bytes").glob("*.tar"))[0]
    assert list(members(first)) == ["im-000.jpg", "im-000.json", "im-001.png", "im-001.json"]
    write_shards({"train": table}, tmp_path / "one", max_bytes=1)  # each image is larger
    assert len(list((tmp_path / "one").glob("*.tar"))) == 7


def test_several_splits_and_back_from_shards(tmp_path: Path) -> None:
    """What was read from shards is written again byte for byte."""
    table = read_folder(tmp_path)
    halves = {"train": table, "train-dev": table.without_background()}
    patterns = write_shards(halves, tmp_path / "a", images_per_shard=5)
    config = DataConfig(
        "mine", str(tmp_path / "a"), {name: SplitConfig(images) for name, images in patterns.items()}, format="shards"
    )
    again = {name: open_split(config, name, strict=True) for name in halves}
    assert [len(table) for table in again.values()] == [len(table) for table in halves.values()]
    write_shards(again, tmp_path / "b", images_per_shard=5)
    for path in (tmp_path / "b").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


@pytest.mark.parametrize(
    "names", [("a.b.png", "c.png"), ("x/a.png", "y/a.png"), ("A.png", "a.png"), ("ä.png", "b.png")]
)
def test_names_that_are_no_keys_become_numbers(tmp_path: Path, names: tuple[str, ...]) -> None:
    table = read_folder(tmp_path, 2)
    for row, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(table.read_bytes(row))
    paths = np.array([str(tmp_path / name).encode() for name in names])
    write_shards({"train": dataclasses.replace(table, image_paths=paths)}, tmp_path / "tar")
    found = members(tmp_path / "tar/train-000000.tar")
    assert list(found)[::2] == ["000000000.png", "000000001.png"]
    assert json.loads(found["000000000.json"])["file_name"] == Path(names[0]).name
    assert len(read(tmp_path / "tar")) == 2


def test_without_annotations_and_ids(tmp_path: Path) -> None:
    table = dataclasses.replace(read_folder(tmp_path, 3), is_labelled=False, has_own_ids=False)
    write_shards({"train": table}, tmp_path / "tar")
    found = read(tmp_path / "tar")
    assert (found.is_labelled, found.has_own_ids, len(found)) == (False, False, 3)


def test_an_interrupted_writing_is_seen(tmp_path: Path) -> None:
    """An image vanishes: whole shards are there, half ones and dataset.json are not."""
    table = read_folder(tmp_path, 6)
    table.path(4).unlink()
    with pytest.raises((ImageError, OSError), match="im-004"):
        write_shards({"train": table}, tmp_path / "tar", images_per_shard=2)
    assert {path.name for path in (tmp_path / "tar").iterdir()} == {"train-000000.tar"}
    with pytest.raises(InputError, match=r"dataset.json: no such file"):
        read(tmp_path / "tar")


@pytest.mark.parametrize(
    ("splits", "words", "message"),
    [
        (("train",), {"images_per_shard": 0}, "must hold at least 1 image and 1 byte, found 0"),
        (("train",), {"max_bytes": 0}, "found 10000 and 0"),
        ((), {}, "there are no images to write"),
        (("../train",), {}, r"split '../train': must have 1 to 40 letters"),
        (("train", "train-1"), {}, "split 'train-1': would be taken for shards of 'train'"),
    ],
)
def test_refused(tmp_path: Path, splits: tuple[str, ...], words: dict, message: str) -> None:
    table = read_folder(tmp_path, 2)
    with pytest.raises(InputError, match=message):
        write_shards(dict.fromkeys(splits, table), tmp_path / "tar", **words)
    assert not (tmp_path / "tar").exists()


def test_other_classes_are_refused(tmp_path: Path) -> None:
    table = read_folder(tmp_path, 2)
    other = dataclasses.replace(table, names=("a", "b", "c"))
    with pytest.raises(InputError, match="train, val have different classes"):
        write_shards({"train": table, "val": other}, tmp_path / "tar")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    table = read_folder(tmp_path, 2)
    write_shards({"train": table}, tmp_path / "tar")
    with pytest.raises(InputError, match=r"has train-000000\.tar already; name a folder without shards"):
        write_shards({"train": table}, tmp_path / "tar")
    assert len(open_split(shards_config(tmp_path / "tar"), "train")) == 2
