from __future__ import annotations

import os
from collections import namedtuple
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from detect.data.annotations import AnnotationTable, encode_paths
from detect.data.detection import images
from detect.data.detection.images import CachedImages, ImageFiles, MappedFile, RecentImages, build_cache
from detect.data.images import ImageError, write_image
from detect.errors import InputError

SIZES = [(40, 64), (64, 40), (30, 30), (64, 64), (1, 200)]
KINDS = pytest.mark.parametrize("kind", ["ram", "disk"])


def table_of(folder: Path, sizes: list[tuple[int, int]] = SIZES) -> AnnotationTable:
    """Images of random pixels, without boxes."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{row}.png" for row in range(len(sizes))]
    for path, (height, width) in zip(paths, sizes, strict=True):
        write_image(path, rng.integers(256, size=(height, width, 3), dtype=np.uint8))
    return AnnotationTable(
        image_paths=encode_paths(paths),
        image_ids=np.arange(1, len(sizes) + 1),
        has_own_ids=False,
        sizes_hw=np.array(sizes, dtype=np.int32),
        box_offsets=np.zeros(len(sizes) + 1, dtype=np.int64),
        boxes_xyxy_px=np.zeros((0, 4)),
        labels=np.zeros(0, dtype=np.int64),
        is_crowd=np.zeros(0, dtype=bool),
        areas=np.zeros(0),
        names=("thing",),
        category_ids=np.array([1]),
    )


class CountingFiles(ImageFiles):
    """Counts what is really decoded."""

    def __init__(self, table: AnnotationTable, image_size: int) -> None:
        super().__init__(table, image_size)
        self.decoded: list[int] = []

    def decode(self, row: int) -> np.ndarray:
        self.decoded.append(row)
        return super().decode(row)


def test_files_are_letterboxed_and_read_only(tmp_path: Path) -> None:
    files = ImageFiles(table_of(tmp_path), 32)
    assert [files.read(row).shape for row in range(5)] == [
        (20, 32, 3),
        (32, 20, 3),
        (32, 32, 3),
        (32, 32, 3),
        (1, 32, 3),
    ]
    with pytest.raises(ValueError, match="read-only"):
        files.read(0)[0, 0] = 0


def test_another_size_than_annotated(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    write_image(table.path(0), np.zeros((10, 20, 3), dtype=np.uint8))
    with pytest.raises(ImageError, match=r"0\.png: has \(10, 20\) pixels .* annotation says \(40, 64\)"):
        ImageFiles(table, 32).read(0)


def test_recent_images_are_remembered(tmp_path: Path) -> None:
    files = CountingFiles(table_of(tmp_path), 32)
    recent = RecentImages(files, capacity=2)
    for row in (0, 1, 0, 2, 0, 1):  # 2 displaces 1, because 0 was used since; then 1 displaces 2
        np.testing.assert_array_equal(recent.read(row), ImageFiles(files.table, 32).read(row))
    assert files.decoded == [0, 1, 2, 1]


@KINDS
def test_cache_gives_what_the_files_give(kind, tmp_path: Path) -> None:
    files = CountingFiles(table_of(tmp_path), 32)
    cache = build_cache(files, kind, tmp_path / "cache")
    assert sorted(files.decoded) == [0, 1, 2, 3, 4]
    for row in range(5):
        np.testing.assert_array_equal(cache.read(row), ImageFiles(files.table, 32).read(row))
        assert not cache.read(row).flags.writeable
    assert len(files.decoded) == 5


@KINDS
def test_cache_leaves_damaged_images_to_the_files(kind, tmp_path: Path) -> None:
    table = table_of(tmp_path)
    table.path(1).write_bytes(table.path(1).read_bytes()[:-40])
    cache = build_cache(ImageFiles(table, 32), kind, tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(ImageError, match=r"1\.png"):
            cache.read(1)
    assert cache.read(2).shape == (32, 32, 3)


def test_disk_cache_is_found_again(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    build_cache(ImageFiles(table, 32), "disk", tmp_path / "cache")
    files = CountingFiles(table, 32)
    again = build_cache(files, "disk", tmp_path / "cache")
    assert files.decoded == []
    np.testing.assert_array_equal(again.read(3), files.read(3))


def test_disk_cache_is_made_anew_when_something_changed(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    build_cache(ImageFiles(table, 32), "disk", tmp_path / "cache")
    other_size = CountingFiles(table, 48)
    build_cache(other_size, "disk", tmp_path / "cache")
    assert len(other_size.decoded) == 5
    os.utime(table.path(0), ns=(1, 1))
    touched = CountingFiles(table, 32)
    build_cache(touched, "disk", tmp_path / "cache")
    assert len(touched.decoded) == 5


def test_disk_cache_travels_as_a_path(tmp_path: Path) -> None:
    """With spawned workers, what the dataset holds is pickled: it must not be the pixels."""
    cache = build_cache(ImageFiles(table_of(tmp_path, [(64, 64)] * 20), 64), "disk", tmp_path / "cache")
    cache.read(0)  # the file is mapped now
    travelling = bytes(ForkingPickler.dumps(cache))
    assert len(travelling) < 20 * 64 * 64 * 3 / 10
    arrived = ForkingPickler.loads(travelling)
    assert isinstance(arrived, CachedImages)
    assert isinstance(arrived.buffer, MappedFile)
    np.testing.assert_array_equal(arrived.read(7), cache.read(7))


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: CachedImages, __: range) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CachedImages, "_fill_rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_cache(ImageFiles(table_of(tmp_path), 32), "disk", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_disk_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cache: disk needs an output folder"):
        build_cache(ImageFiles(table_of(tmp_path), 32), "disk")


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 5 images at 8192 px need about 8192 * 8192 * 3 * (40/64 + 40/64 + 1 + 1 + 1/200) = 655 MB = 0.6 GiB.
    monkeypatch.setattr(images, "available_memory", lambda: 700 * 2**20)
    with pytest.raises(InputError, match=r"need 0\.6 GiB; of 0\.7 GiB free memory at most 80% .* use cache: disk"):
        build_cache(ImageFiles(table_of(tmp_path), 8192), "ram")


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(images.shutil, "disk_usage", lambda _: usage(2**30, 2**30, 1000))
    with pytest.raises(InputError, match=r"0\.0 GiB free disk space in .*cache .* use cache: none"):
        build_cache(ImageFiles(table_of(tmp_path), 32), "disk", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
