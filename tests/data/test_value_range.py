"""The range of values of images with more than 8 bits a channel, from the data config to the model and its files."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.config.data import DataConfig, RangeConfig, SplitConfig, load_data_config
from detect.data.classification.datasets import open_class_split
from detect.data.datasets import open_split
from detect.data.detection.images import ImageFiles, build_cache
from detect.data.formats.writing import write_data_config
from detect.data.value_range import as_trained
from detect.errors import InputError


def thermal(low: int) -> np.ndarray:
    """10 x 20 pixels: values ``low``, and in one quarter ``low`` + 200."""
    values = np.full((10, 20), low, np.uint16)
    values[:5, :10] += 200
    return values


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Two images for training, values 7400 and 7600; one for validation, values 7500 and 7700."""
    for split, lows in (("train", (7400, 7400)), ("val", (7500,))):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        for number, low in enumerate(lows):
            cv2.imwrite(str(tmp_path / "images" / split / f"{number}.png"), thermal(low))
            (tmp_path / "labels" / split / f"{number}.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    splits = {split: SplitConfig(f"images/{split}") for split in ("train", "val")}
    return DataConfig("thermal", str(tmp_path), splits, format="yolo", names=("warm",))


def levels(config: DataConfig, split: str = "train") -> list[int]:
    return np.unique(open_split(config, split).read(0)).tolist()


def test_few_levels_are_measured_on_the_training_split(config: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert levels(config) == [0, 255]
    assert caplog.text.count("values 7400 to 7600 become 0 to 255, measured on 2 images of train, because their") == 1
    assert "high bytes have 2 of 256 levels (range: [7400, 7600] in the data config states it)" in caplog.text
    # 7500 is half way: 100 * 256 / 200 = 128; 7700 is beyond.
    assert levels(config, "val") == [128, 255]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((7400.0, 7912.0), [0, 100]),  # 200 * 256 / 512 = 100
        ("measured", [0, 255]),
        # Three quarters of the values are 7400, so both ends are: the outermost values are taken.
        (RangeConfig((0.0, 50.0)), [0, 255]),
    ],
)
def test_the_data_config_states_it(config: DataConfig, wanted: Any, expected: list[int]) -> None:
    assert levels(dataclasses.replace(config, range=wanted)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[7400, 7600]", (7400.0, 7600.0)),
        ("measured", "measured"),
        ("{percentiles: [1, 99]}", RangeConfig((1.0, 99.0))),
    ],
)
def test_three_ways_to_write_it(tmp_path: Path, text: str, expected: Any) -> None:
    (tmp_path / "d.yaml").write_text(f"name: d\nroot: .\nsplits: {{train: {{images: a}}}}\nrange: {text}\n")
    config = load_data_config(str(tmp_path / "d.yaml"))
    assert config.range == expected
    write_data_config(tmp_path, config, "convert", "yolo", config.splits, None)  # what is made of it has it, too
    assert load_data_config(str(tmp_path / "data.yaml")).range == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("full", "range: 'full' is not allowed"),
        ("[a, b]", r"range\[0\]: must be a finite number"),
        ("{percentiles: [-1, 99]}", r"percentiles\[0\]: -1 is below 0"),
        ("{percentile: [1, 99]}", "range.percentile: unknown key"),
    ],
)
def test_ranges_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.yaml").write_text(f"name: d\nroot: .\nsplits: {{train: {{images: a}}}}\nrange: {text}\n")
    with pytest.raises(InputError, match=message):
        load_data_config(str(tmp_path / "d.yaml"))


@pytest.mark.parametrize("wanted", [(5.0,), (7600.0, 7400.0), RangeConfig((50.0, 50.0))])
def test_two_numbers_the_lower_one_first(config: DataConfig, wanted: Any) -> None:
    with pytest.raises(InputError, match="thermal: range: must be two numbers, the lower one first"):
        open_split(dataclasses.replace(config, range=wanted), "train")


def test_16_bits_that_are_used_keep_the_high_byte(config: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ramp = np.linspace(0, 65535, 200).astype(np.uint16).reshape(10, 20)
    cv2.imwrite(str(Path(config.root, "images/train/0.png")), ramp)
    table = open_split(config, "train")
    assert table.read_settings.value_range is None
    assert np.array_equal(table.read(0)[..., 0], ramp >> 8)
    assert "8 bits" not in caplog.text


def test_8_bits_are_as_they_are_beside_images_of_16(config: DataConfig) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)
    Image.fromarray(noise).save(Path(config.root, "images/train/0.png"))
    table = open_split(config, "train")
    assert table.read_settings.value_range == (7400.0, 7600.0)
    assert np.array_equal(table.read(0), noise)


def test_fractions_are_measured(config: DataConfig) -> None:
    for number, name in enumerate(("0", "1")):
        Path(config.root, f"images/train/{name}.png").unlink()
        kelvin = np.full((10, 20), 290.5 + number, np.float32)
        Image.fromarray(kelvin).save(Path(config.root, f"images/train/{name}.tif"))
    table = open_split(config, "train")
    assert table.read_settings.value_range == (290.5, 291.5)
    assert [np.unique(table.read(row)).tolist() for row in (0, 1)] == [[0], [255]]


def test_the_cache_of_another_range_is_another(config: DataConfig, tmp_path: Path) -> None:
    for value_range, level in (((7400.0, 7600.0), 255), ((7400.0, 7912.0), 100)):
        table = open_split(dataclasses.replace(config, range=value_range), "train")
        for kind in ("ram", "disk"):
            image = build_cache(ImageFiles(table, 20), kind, tmp_path / "cache").read(0)  # type: ignore[arg-type]
            assert image.max() == level
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_classes_of_16_bits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name, low in (("cold", 7400), ("hot", 7500)):
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / "a.tif"), thermal(low))
    splits = {split: SplitConfig(split) for split in ("train", "val")}
    table = open_class_split(DataConfig("t", str(tmp_path), splits, format="folders"), "val")
    assert table.read_settings.value_range == (7400.0, 7700.0)
    # 100 * 256 / 300 = 85.3, 200 * 256 / 300 = 170.7
    assert [np.unique(table.read(row)).tolist() for row in (0, 1)] == [[0, 170], [85, 255]]


def test_the_range_of_the_training_wins(config: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert as_trained(config, None) == config
    stated = dataclasses.replace(config, range=(0.0, 100.0))
    assert as_trained(stated, (7400.0, 7600.0)).range == (7400.0, 7600.0)
    assert "the data config's range [0.0, 100.0] gives way to the model's, [7400.0, 7600.0]" in caplog.text


def test_large_images_are_used_where_the_data_config_allows(config: DataConfig) -> None:
    with pytest.raises(InputError, match="has 20 x 10 pixels; allowed are 199"):
        open_split(dataclasses.replace(config, max_pixels=199), "train")
    assert open_split(dataclasses.replace(config, max_pixels=200), "train").read_settings.max_pixels == 200
