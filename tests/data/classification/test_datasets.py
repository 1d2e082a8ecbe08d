from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.data.classification.datasets import open_class_split
from detect.data.classification.table import ClassTable
from detect.errors import InputError
from tests.data.cifar_files import binary10, python10, write_archive


def one_class(root: Path) -> DataConfig:
    (root / "train" / "cat").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(root / "train" / "cat" / "a.png")
    return DataConfig("mine", str(root), {"train": SplitConfig("train"), "val": SplitConfig("val")}, "folders")


@pytest.mark.parametrize("data_format", ["coco", "voc"])
def test_data_sets_for_detection_are_refused(data_format: str) -> None:
    config = DataConfig("test", "/nowhere", {"train": SplitConfig("a", "b")}, format=data_format)
    with pytest.raises(
        InputError,
        match=rf"test: format {data_format} is for detection, but the model is a classifier; formats for "
        "classification: folders, cifar, tiny-imagenet, cub, stanford-dogs",
    ):
        open_class_split(config, "train")


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine: there is no split 'trian'; did you mean 'train'\?"):
        open_class_split(one_class(tmp_path), "trian")


def test_problems_are_logged_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = one_class(tmp_path)
    with caplog.at_level(logging.WARNING, logger="detect"):
        assert len(open_class_split(config, "train", strict=True)) == 1
        assert not caplog.messages
        (tmp_path / "train" / "dog").mkdir()
        assert len(open_class_split(config, "train")) == 1
    assert caplog.messages == ["mine train: 1 classes without images that can be used (kept as classes): 'dog'"]
    with pytest.raises(InputError, match="mine train: refused, because --strict was asked for: 1 classes without"):
        open_class_split(config, "train", strict=True)


def test_the_shipped_config_reads_either_version_of_cifar_10(tmp_path: Path) -> None:
    tables = []
    for name, files in (("python", python10()), ("binary", binary10())):
        (tmp_path / name).mkdir()
        write_archive(tmp_path / name / f"cifar-10-{name}.tar.gz", files)
        config = load_data_config("cifar10", str(tmp_path / name))
        tables.append({split: open_class_split(config, split, strict=True) for split in config.splits})
    for split, count in (("train", 10), ("val", 3), ("test", 3)):
        ours, other = tables[0][split], tables[1][split]
        assert len(ours) == count
        assert ours.names == other.names
        assert (ours.labels == other.labels).all()
        assert (ours.pixels == other.pixels).all()


def test_names_choose_classes_and_their_order(tmp_path: Path) -> None:
    write_archive(tmp_path / "a", binary10())
    splits = {"train": SplitConfig("a")}
    whole = open_class_split(DataConfig("mine", str(tmp_path), splits, "cifar"), "train")
    part = open_class_split(DataConfig("mine", str(tmp_path), splits, "cifar", ("yak", "cat")), "train")
    assert whole.names == ("cat", "dog", "yak")
    rows = np.flatnonzero(whole.labels != 1)
    assert 0 < len(rows) < len(whole)
    assert part.names == ("yak", "cat")
    assert part.labels.tolist() == [{2: 0, 0: 1}[label] for label in whole.labels[rows].tolist()]
    assert (part.pixels == whole.pixels[rows]).all()
    assert (part.image_paths == whole.image_paths[rows]).all()


def test_names_that_cannot_be_chosen() -> None:
    table = ClassTable(np.array([b"a"]), np.array([0]), ("cat", "dog"))
    assert table.of_classes(("cat", "dog")) is table
    with pytest.raises(InputError, match=r"names: there is no class 'dogs'; did you mean 'dog'\?"):
        table.of_classes(("cat", "dogs"))
    with pytest.raises(InputError, match="names: duplicate class in cat, cat"):
        table.of_classes(("cat", "cat"))
    with pytest.raises(InputError, match="names: no image shows any of dog"):
        table.of_classes(("dog",))
