from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.config.augment import ClassAugmentConfig
from detect.config.recipe import ClassificationRecipe
from detect.data.annotations import encode_paths
from detect.data.classification import images as class_images
from detect.data.classification import loading
from detect.data.classification.geometry import center_crop
from detect.data.classification.images import ImagesInMemory, image_source
from detect.data.classification.loading import (
    CLASS_IMAGE_STREAM,
    CLASS_MIX_STREAM,
    CLASS_ORDER_STREAM,
    ClassEvaluationLoader,
    ClassTrainingLoader,
    channel_statistics,
    one_hot,
)
from detect.data.classification.table import ClassTable
from detect.data.detection.sampling import ORDER_STREAM, REQUEST_STREAM, SAMPLE_STREAM
from detect.data.images import write_image
from detect.data.letterbox import PAD_VALUE
from detect.errors import InputError
from detect.structures import Batch, ClassTargets

S, SHARE = 16, 0.8  # R = 20
STILL = ClassAugmentConfig(flip_left_right=0)
EVERYTHING = ClassAugmentConfig(
    crop="area",
    degrees=10,
    flip_up_down=0.5,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    cutout=4,
    mixup=0.4,
    cutmix=0.4,
)
PAD = ClassAugmentConfig(crop="pad", padding=3)
RESIZE = ClassAugmentConfig(crop="resize", resize_px=(16, 24))


def table_of(folder: Path, num_images: int, seed: int = 0) -> ClassTable:
    """Images of random shapes and pixels, of three classes in turn."""
    rng = np.random.default_rng(seed)
    paths = [folder / f"{row}.png" for row in range(num_images)]
    for path in paths:
        write_image(path, rng.integers(256, size=(*rng.integers(5, 60, size=2), 3), dtype=np.uint8))
    return ClassTable(encode_paths(paths), np.arange(num_images) % 3, ("a", "b", "c"))


def table_in_memory(num_images: int, side: int) -> ClassTable:
    """Images in an array: each has its row as its red."""
    pixels = np.random.default_rng(0).integers(256, size=(num_images, side, side, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(num_images)[:, None, None]
    names = encode_paths([Path(f"/data/archive#{row}") for row in range(num_images)])
    return ClassTable(names, np.arange(num_images) % 3, ("a", "b", "c"), pixels)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClassTable:
    return table_of(tmp_path_factory.mktemp("images"), 40)


def recipe(augment: ClassAugmentConfig = EVERYTHING, **changes) -> ClassificationRecipe:
    settings = {"batch_size": 8, "image_size": S, "center_crop": SHARE, "workers": 0, "seed": 1, **changes}
    return ClassificationRecipe(augment=augment, **settings)


def content(batch: Batch) -> tuple[bytes, ...]:
    return tuple(tensor.numpy().tobytes() for tensor in (batch.images, batch.rows, batch.targets.shares))


def check_batch(batch: Batch, num_images: int) -> None:
    """What holds for every batch."""
    assert batch.images.shape == (num_images, S, S, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert (batch.rows.shape, batch.rows.dtype) == ((num_images,), torch.int64)
    assert isinstance(batch.targets, ClassTargets)
    assert (batch.targets.shares.shape, batch.targets.shares.dtype) == ((num_images, 3), torch.float32)
    torch.testing.assert_close(batch.targets.shares.sum(dim=1), torch.ones(num_images))


# ------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("augment", [STILL, PAD, RESIZE, EVERYTHING], ids=["still", "pad", "resize", "everything"])
@pytest.mark.parametrize("cache", ["none", "ram"])
def test_tiny_tables(augment: ClassAugmentConfig, cache: str, tmp_path: Path) -> None:
    for num_images in (1, 3):
        loader = ClassTrainingLoader(table_of(tmp_path, num_images), recipe(augment, cache=cache))
        batches = list(loader.epoch(0))
        assert len(batches) == len(loader) == 1
        check_batch(batches[0], num_images)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_batches(table: ClassTable, cache: str) -> None:
    loader = ClassTrainingLoader(table, recipe(cache=cache))
    for epoch in range(3):
        batches = list(loader.epoch(epoch))
        assert len(batches) == len(loader) == 5
        for batch in batches:
            check_batch(batch, 8)
        assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(40))


def test_streams_are_unrelated_to_those_of_detection() -> None:
    streams = [ORDER_STREAM, REQUEST_STREAM, SAMPLE_STREAM, CLASS_ORDER_STREAM, CLASS_IMAGE_STREAM, CLASS_MIX_STREAM]
    assert len(set(streams)) == len(streams)


@pytest.mark.parametrize("augment", [STILL, PAD, dataclasses.replace(PAD, degrees=20, hue=0.1, mixup=1)])
def test_cache_changes_nothing(table: ClassTable, augment: ClassAugmentConfig) -> None:
    without, cached = (ClassTrainingLoader(table, recipe(augment, cache=cache)) for cache in ("none", "ram"))
    assert [content(batch) for batch in cached.epoch(0)] == [content(batch) for batch in without.epoch(0)]


@pytest.mark.parametrize("augment", [PAD, RESIZE, EVERYTHING])
def test_training_leaves_the_cached_images_alone(augment: ClassAugmentConfig) -> None:
    table = table_in_memory(9, 20)
    before = table.pixels.copy()
    list(ClassTrainingLoader(table, recipe(augment)).epoch(0))
    np.testing.assert_array_equal(table.pixels, before)


@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.8])  # R = 16, 18, 20
def test_still_training_sees_what_evaluation_sees(table: ClassTable, cache: str, share: float) -> None:
    for split in (table, table_in_memory(40, 20)):
        seen = torch.cat([batch.images for batch in ClassEvaluationLoader(split, S, share, 7, workers=0)])
        for batch in ClassTrainingLoader(split, recipe(STILL, cache=cache, center_crop=share)).epoch(0):
            assert torch.equal(batch.images, seen[batch.rows])
            assert torch.equal(batch.targets.shares.argmax(dim=1), batch.rows % 3)
            assert torch.equal(batch.targets.shares.max(dim=1).values, torch.ones(8))


@pytest.mark.parametrize("crop", [PAD, RESIZE, ClassAugmentConfig(crop="area", area=(0.5, 1))])
def test_shares_go_with_the_pixels(crop: ClassAugmentConfig) -> None:
    """An image whose pixels are all its row's number has that row's class."""
    table = table_in_memory(24, 20)
    for batch in ClassTrainingLoader(table, recipe(crop)).epoch(0):
        reds = batch.images[..., 0].flatten(1).max(dim=1).values
        assert torch.equal(reds.long(), batch.rows)
        assert torch.equal(batch.targets.shares, torch.eye(3)[batch.rows % 3])


def test_without_cache_crops_come_from_the_original(tmp_path: Path) -> None:
    """The middle square of 20 x 60 has no pixel of the outer thirds."""
    image = np.full((20, 60, 3), 255, dtype=np.uint8)
    image[:, 20:40] = 0
    write_image(tmp_path / "wide.png", image)
    table = ClassTable(encode_paths([tmp_path / "wide.png"] * 20), np.zeros(20, dtype=np.int64), ("a",))
    for augment in (ClassAugmentConfig(crop="area", area=(0.1, 0.3)), dataclasses.replace(RESIZE, resize_px=(20, 24))):
        whole, square = (
            next(ClassTrainingLoader(table, recipe(augment, cache=cache)).epoch(0)).images.max()
            for cache in ("none", "ram")
        )
        assert (whole, square) == (255, 0)


def test_squares_that_are_there_are_used_without_a_copy() -> None:
    table = table_in_memory(9, 20)
    for in_memory in (True, False):
        source = image_source(table, S, SHARE, in_memory=in_memory)
        assert isinstance(source, ImagesInMemory)
        assert np.shares_memory(source.pixels.numpy(), table.pixels)
    other_size = image_source(table, S, 1.0, in_memory=True)
    assert isinstance(other_size, ImagesInMemory)
    assert other_size.pixels.shape == (9, 16, 16, 3)
    assert other_size.pixels.is_shared()


def test_pixels_that_may_not_be_written_to() -> None:
    table = table_in_memory(9, 20)
    table.pixels.flags.writeable = False
    check_batch(next(ClassTrainingLoader(table, recipe()).epoch(0)), 8)


@pytest.mark.parametrize(("cache", "workers"), [("none", 0), ("ram", 0), ("ram", 1)])
def test_damaged_image_is_grey_and_reported_once(
    cache: str, workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = table_of(tmp_path, 8)
    table.path(3).write_bytes(table.path(3).read_bytes()[:60])
    loader = ClassTrainingLoader(table, recipe(STILL, cache=cache, workers=workers))
    with caplog.at_level(logging.WARNING, "detect"):
        for epoch in range(2):
            (batch,) = loader.epoch(epoch)
            index = batch.rows.tolist().index(3)
            assert (batch.images[index] == PAD_VALUE).all()
            others = torch.arange(8) != index
            assert not (batch.images[others] == PAD_VALUE).flatten(1).all(dim=1).any()
    first, *totals = caplog.messages
    assert "3.png" in first
    assert "is replaced by grey" in first
    assert totals == ["unreadable so far: 1 of 8 images (grey in training)"] * 2
    assert list(loader.unreadable) == [3]


@pytest.mark.parametrize("augment", [RESIZE, EVERYTHING])
def test_damaged_image_of_any_augmentation(augment: ClassAugmentConfig, tmp_path: Path) -> None:
    table = table_of(tmp_path, 8)
    table.path(3).unlink()
    loader = ClassTrainingLoader(table, recipe(augment))
    for batch in loader.epoch(0):
        check_batch(batch, 8)
    assert list(loader.unreadable) == [3]


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_strict_refuses_damaged_images(cache: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = table_of(tmp_path, 8)
    assert len(list(ClassTrainingLoader(table, recipe(cache=cache), strict=True).epoch(0))) == 1
    assert len(list(ClassEvaluationLoader(table, S, SHARE, 8, workers=0, strict=True))) == 1
    table.path(3).write_bytes(table.path(3).read_bytes()[:60])
    with pytest.raises(InputError, match=r"3\.png: is truncated .*; refused, because --strict was asked for"):
        list(ClassTrainingLoader(table, recipe(cache=cache), strict=True).epoch(0))
    with pytest.raises(InputError, match=r"3\.png: is truncated .*; refused, because --strict was asked for"):
        list(ClassEvaluationLoader(table, S, SHARE, 8, workers=0, strict=True))
    assert caplog.messages == []


def test_mistakes(table: ClassTable, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = ClassTable(encode_paths([]), np.zeros(0, dtype=np.int64), ("a",))
    with pytest.raises(InputError, match="the training split has no images"):
        ClassTrainingLoader(nothing, recipe())
    with pytest.raises(InputError, match="no image of the training split can be read"):
        channel_statistics(nothing, S, SHARE)
    # 40 images of 5120 x 5120 x 3 bytes are 2.9 GiB.
    monkeypatch.setattr(class_images, "available_memory", lambda: 2**30)
    with pytest.raises(InputError, match=r"need 2\.9 GiB; of 1\.0 GiB free memory at most 80% .* use cache: none"):
        ClassTrainingLoader(table, recipe(image_size=4096, cache="ram"))


@pytest.mark.slow
def test_forkserver_workers(tmp_path: Path) -> None:
    """The default from Python 3.14 on: everything that goes to a worker is pickled."""
    script = tmp_path / "load.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_loading import ClassTrainingLoader, PAD, content, recipe, table_in_memory, table_of\n"
        "if __name__ == '__main__':\n"
        "    torch.multiprocessing.set_start_method('forkserver')\n"
        "    for table in (table_of(Path(sys.argv[1]), 20), table_in_memory(20, 20)):\n"
        "        expected = [content(batch) for batch in ClassTrainingLoader(table, recipe(PAD)).epoch(0)]\n"
        "        for cache in ('none', 'ram'):\n"
        "            loader = ClassTrainingLoader(table, recipe(PAD, workers=1, cache=cache))\n"
        "            assert [content(batch) for batch in loader.epoch(0)] == expected, cache\n"
        "    print('equal')\n"
    )
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "equal\n", done.stderr


# ----------------------------------------------------------------------------------------- evaluation


def test_evaluation_of_nothing() -> None:
    loader = ClassEvaluationLoader(ClassTable(encode_paths([]), np.zeros(0, dtype=np.int64), ("a",)), S, SHARE, 8, 0)
    assert len(loader) == 0
    assert list(loader) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_each_image_once_in_order(table: ClassTable, workers: int) -> None:
    loader = ClassEvaluationLoader(table, S, SHARE, 16, workers)
    batches = list(loader)
    assert [len(batch.rows) for batch in batches] == [16, 16, 8]
    assert len(loader) == 3
    assert torch.cat([batch.rows for batch in batches]).tolist() == list(range(40))
    for batch in batches:
        check_batch(batch, len(batch.rows))
        assert 0 < batch.preprocess_seconds < 60
        assert torch.equal(batch.targets.shares, torch.eye(3)[batch.rows % 3])
        for image, row in zip(batch.images.numpy(), batch.rows.tolist(), strict=True):
            np.testing.assert_array_equal(image, center_crop(table.read(row), S, SHARE))


def test_evaluation_leaves_out_what_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = table_of(tmp_path, 8)
    for row in (2, 6, 7):
        table.path(row).unlink()
    loader = ClassEvaluationLoader(table, S, SHARE, 2, workers=0)
    with caplog.at_level(logging.WARNING, "detect"):
        assert [batch.rows.tolist() for batch in loader] == [[0, 1], [3], [4, 5]]
    assert list(loader.unreadable) == [2, 6, 7]
    assert loader.unreadable[6].endswith("6.png: no such file")
    assert caplog.messages[0].endswith("2.png: no such file; the image has no answer, so it counts as wrong")
    assert caplog.messages[-1] == "unreadable so far: 3 of 8 images (they count as wrong)"
    assert len(caplog.messages) == 4


def test_one_hot() -> None:
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.zeros(0, dtype=np.int64), 3).shape == (0, 3)


# ----------------------------------------------------------------------------------------- statistics


def test_statistics_by_hand() -> None:
    # Two images of one pixel each: red 0 and 255, green 51 twice, blue 100 and 102.
    pixels = np.array([[0, 51, 100], [255, 51, 102]], dtype=np.uint8).reshape(2, 1, 1, 3)
    table = ClassTable(encode_paths([Path("a"), Path("b")]), np.zeros(2, dtype=np.int64), ("a",), pixels)
    mean, deviation = channel_statistics(table, 1, 1.0)
    # Blue deviates by 1 level, green by none, for which 1 level is taken.
    np.testing.assert_allclose(mean, [0.5, 0.2, 101 / 255], rtol=1e-12)
    np.testing.assert_allclose(deviation, [0.5, 1 / 255, 1 / 255], rtol=1e-12)


def test_statistics_are_those_of_the_pixels(table: ClassTable) -> None:
    seen = np.concatenate([batch.images.numpy() for batch in ClassEvaluationLoader(table, S, SHARE, 8, 0)]) / 255
    mean, deviation = channel_statistics(table, S, SHARE)
    np.testing.assert_allclose(mean, seen.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(deviation, seen.std(axis=(0, 1, 2)), rtol=1e-9)
    assert channel_statistics(table, S, SHARE) == (mean, deviation)


def test_statistics_of_many_images_are_of_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every other one of 20 images is looked at: those are black, the others white.
    monkeypatch.setattr(loading, "MAX_STATISTICS_IMAGES", 10)
    pixels = np.zeros((20, 1, 1, 3), dtype=np.uint8)
    pixels[1::2] = 255
    table = ClassTable(encode_paths([Path("a")] * 20), np.zeros(20, dtype=np.int64), ("a",), pixels)
    assert channel_statistics(table, 1, 1.0) == ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255))


def test_statistics_without_what_cannot_be_read(tmp_path: Path) -> None:
    table = table_of(tmp_path, 8)
    kept = [row for row in range(8) if row != 3]
    expected = channel_statistics(
        dataclasses.replace(table, image_paths=table.image_paths[kept], labels=table.labels[kept]), S, SHARE
    )
    table.path(3).unlink()
    assert channel_statistics(table, S, SHARE) == expected
    for row in kept:
        table.path(row).unlink()
    with pytest.raises(InputError, match="no image of the training split can be read; look at the paths"):
        channel_statistics(table, S, SHARE)
