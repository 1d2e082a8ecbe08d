from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from PIL import Image

from detect.config.data import DataConfig, SplitConfig, load_data_config
from detect.config.yaml_files import CONFIGS
from detect.data import datasets
from detect.data.classification.datasets import CLASS_READERS
from detect.data.datasets import GENERATORS, READERS, open_split
from detect.data.shapes import generate_shapes
from detect.errors import InputError
from detect.runtime.files import write_json


def _small_shapes(root: Path) -> None:
    generate_shapes(root, num_train=3, num_val=2, num_test=1, image_size=64)


def _one_image(root: Path, box: list[float]) -> DataConfig:
    (root / "images").mkdir()
    Image.new("RGB", (40, 30)).save(root / "images" / "a.jpg")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box}
    images = [{"id": 1, "file_name": "a.jpg"}]
    write_json(
        root / "a.json", {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": [annotation]}
    )
    return DataConfig("one", str(root), {"val": SplitConfig("images", "a.json")})


def test_every_format_and_generator_of_the_schema_is_there() -> None:
    hints = get_type_hints(DataConfig)
    formats = {name for option in get_args(hints["format"]) for name in get_args(option)}
    assert {*READERS, *CLASS_READERS} == formats
    generators = {name for option in get_args(hints["generate"]) for name in get_args(option)}
    assert set(GENERATORS) == generators


def test_unknown_split() -> None:
    config = DataConfig("test", "/nowhere", {"train": SplitConfig("a", "b"), "val": SplitConfig("a", "b")})
    with pytest.raises(InputError, match=r"test: there is no split 'test'; allowed: train, val"):
        open_split(config, "test")
    with pytest.raises(InputError, match=r"there is no split 'trian'; did you mean 'train'\?"):
        open_split(config, "trian")


@pytest.mark.parametrize("data_format", sorted(CLASS_READERS))
def test_data_sets_for_classification_are_refused(data_format: str) -> None:
    config = DataConfig("test", "/nowhere", {"train": SplitConfig("a")}, format=data_format)
    with pytest.raises(
        InputError,
        match=rf"test: format {data_format} is for classification, but the model is a detector; take a classifier, "
        "such as resnet18, or data for detection: coco, voc, yolo, visdrone",
    ):
        open_split(config, "train")


def test_problems_are_logged_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = _one_image(tmp_path, [1, 2, 0, 4])
    with caplog.at_level(logging.WARNING, logger="detect"):
        assert len(open_split(config, "val")) == 1
    assert caplog.messages == [
        "one val: 1 boxes of zero or negative size (skipped): annotation 1 of image 1: [1, 2, 0, 4]"
    ]
    with pytest.raises(InputError, match="one val: refused, because --strict was asked for: 1 boxes of zero"):
        open_split(config, "val", strict=True)


def test_strict_takes_a_clean_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(open_split(_one_image(tmp_path, [1, 2, 3, 4]), "val", strict=True)) == 1
    assert not caplog.messages


def test_the_embedded_data_set_is_generated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(datasets.GENERATORS, "shapes", _small_shapes)
    config = load_data_config("shapes", str(tmp_path / "shapes"))
    with caplog.at_level(logging.INFO, logger="detect"):
        tables = {split: open_split(config, split) for split in config.splits}
    assert {split: len(table) for split, table in tables.items()} == {"train": 3, "val": 2, "test": 1}
    assert caplog.messages == [f"shapes: generating the data set in {tmp_path / 'shapes'}"]


def test_a_data_set_that_is_not_embedded_is_not_generated(tmp_path: Path) -> None:
    config = dataclasses.replace(load_data_config("shapes", str(tmp_path / "shapes")), generate=None)
    with pytest.raises(InputError, match=r"no such file; the data set's root .* does not exist either"):
        open_split(config, "train")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_data_configs(path: Path) -> None:
    config = load_data_config(path.stem)
    assert config.name == path.stem
    assert {"train", "val"} <= set(config.splits)
    assert Path(config.root) == CONFIGS.parent / "data" / path.stem
    header = path.read_text().split("name:", 1)[0]
    assert all(word in header for word in ("# Licence:", "# Obtain:"))


@pytest.mark.parametrize("name", ["bccd", pytest.param("deeppcb", marks=pytest.mark.slow)])
def test_shipped_configs_read_the_published_data(real_data: Path, name: str) -> None:
    config = load_data_config(name, str(real_data / name))
    tables = [open_split(config, split) for split in config.splits]
    assert len({table.names for table in tables}) == 1
    assert all(len(table) and len(table.labels) for table in tables)
