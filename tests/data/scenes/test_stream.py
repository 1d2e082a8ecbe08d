from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detect.config.base import build
from detect.config.data import DataConfig
from detect.config.recipe import load_detection_recipe
from detect.data.datasets import open_split
from detect.data.scenes.boards import DEFECTS
from detect.data.scenes.loading import SceneLoader
from detect.data.scenes.table import SceneTable
from detect.errors import InputError
from detect.structures import Batch, Targets


def _config(**changes: object) -> DataConfig:
    content = {
        "name": "scenes",
        "root": "/nowhere",
        "format": "scenes",
        "scene_px": 96,
        "splits": {"train": {"images": "train", "count": 12}, "val": {"images": "val", "count": 5}},
        **changes,
    }
    return build(DataConfig, content, "scenes.yaml")


@pytest.fixture(scope="module")
def train() -> SceneTable:
    table = open_split(_config(), "train")
    assert isinstance(table, SceneTable)
    return table


def _loader(train: SceneTable, workers: int = 0, size: int = 96) -> SceneLoader:
    recipe = load_detection_recipe("default", {"batch_size": 4, "image_size": size, "workers": workers})
    return SceneLoader(train, recipe)


def _boxes(batch: Batch) -> np.ndarray:
    assert isinstance(batch.targets, Targets)
    return batch.targets.boxes_xyxy_px.numpy()


def test_pixels_and_boxes_of_a_row_belong_together(train: SceneTable) -> None:
    for row in range(len(train)):
        scene = train.draw(row)
        np.testing.assert_array_equal(train.read(row), scene.image_rgb)
        boxes, labels, _ = train.boxes(row)
        np.testing.assert_array_equal(boxes, scene.boxes_xyxy_px)
        np.testing.assert_array_equal(labels, scene.labels)


def test_a_selection_keeps_its_scenes(train: SceneTable) -> None:
    keep = np.arange(len(train)) % 3 == 1
    chosen = train.select(keep)
    np.testing.assert_array_equal(chosen.read(1), train.read(4))


def test_a_scene_is_a_file_for_other_tools(train: SceneTable) -> None:
    assert train.read_bytes(2).startswith(b"\x89PNG")


def test_splits_have_other_scenes(train: SceneTable) -> None:
    val = open_split(_config(), "val")
    assert len(val) == 5
    assert not np.array_equal(val.read(0), train.read(0))


def test_every_epoch_has_new_scenes_and_can_be_resumed(train: SceneTable) -> None:
    loader = _loader(train)
    first, second = list(loader.epoch(0)), list(loader.epoch(1))
    assert len(loader) == len(first) == 3
    np.testing.assert_array_equal(second[1].images[2].numpy(), train.draw(12 + 6).image_rgb)
    assert len({image.numpy().tobytes() for batch in first + second for image in batch.images}) == 24
    (resumed,) = loader.epoch(1, start=2)
    np.testing.assert_array_equal(resumed.images.numpy(), second[2].images.numpy())
    np.testing.assert_array_equal(_boxes(resumed), _boxes(second[2]))


def test_the_number_of_workers_changes_nothing(train: SceneTable) -> None:
    for alone, by_worker in zip(_loader(train).epoch(2), _loader(train, workers=1).epoch(2), strict=True):
        np.testing.assert_array_equal(alone.images.numpy(), by_worker.images.numpy())


def test_scenes_are_resized_to_the_training_size(train: SceneTable) -> None:
    batch = next(iter(_loader(train, size=64).epoch(0)))
    assert batch.images.shape == (4, 64, 64, 3)
    own = train.draw(0).boxes_xyxy_px * 64 / 96
    np.testing.assert_allclose(_boxes(batch)[: len(own)], own, atol=1e-4)


def test_a_missing_count_is_refused() -> None:
    config = _config(splits={"train": {"images": "train"}})
    with pytest.raises(InputError, match=r"splits\.train\.count: is missing"):
        open_split(config, "train")


def test_class_names_are_refused() -> None:
    with pytest.raises(InputError, match="names: scenes have classes of their own"):
        open_split(_config(names=["disc"]), "train")


def test_the_shipped_stream_is_read_without_a_folder(tmp_path: Path) -> None:
    from detect.data.recognition import open_data

    assert open_data("scenes", str(tmp_path / "absent")).format == "scenes"


def test_the_data_config_leaves_ingredients_out(train: SceneTable) -> None:
    table = open_split(_config(scene_without=["boards", "sensors"]), "train")
    assert not np.array_equal(table.read(0), train.read(0))
    assert not set(DEFECTS) & {table.names[label] for label in table.labels.tolist()}
