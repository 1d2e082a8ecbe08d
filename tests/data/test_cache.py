from __future__ import annotations

import os
from collections import namedtuple
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from detect.data import cache as cache_module
from detect.data.annotations import AnnotationTable, encode_paths
from detect.data.cache import CachedImages, ImageFiles, MappedFile, RecentImages, build_cache
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

    def read(self, row: int) -> np.ndarray:
        self.decoded.append(row)
        return super().read(row)


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
    def interrupt(_: CachedImages, __: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CachedImages, "_fill_one", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_cache(ImageFiles(table_of(tmp_path), 32), "disk", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_disk_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cache: disk needs an output folder"):
        build_cache(ImageFiles(table_of(tmp_path), 32), "disk")


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 5 images at 8192 px need about 8192 * 8192 * 3 * (40/64 + 40/64 + 1 + 1 + 1/200) = 655 MB = 0.6 GiB.
    monkeypatch.setattr(cache_module, "available_memory", lambda: 700 * 2**20)
    with pytest.raises(InputError, match=r"need 0\.6 GiB; of 0\.7 GiB free memory at most 80% .* use cache: disk"):
        build_cache(ImageFiles(table_of(tmp_path), 8192), "ram")


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: usage(2**30, 2**30, 1000))
    with pytest.raises(InputError, match=r"0\.0 GiB free disk space in .*cache .* use cache: none"):
        build_cache(ImageFiles(table_of(tmp_path), 32), "disk", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def machine_of(root: Path, memberships: str, groups: dict[str, tuple[object, int, int]]) -> Path:
    """A root folder with 1,000,000 KiB available, and control groups: folder to (limit, usage, reclaimable)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n")
    (root / "proc/self/cgroup").write_text(memberships)
    for folder, (limit, usage, reclaimable) in groups.items():
        group = root / "sys/fs/cgroup" / folder
        group.mkdir(parents=True, exist_ok=True)
        is_first = folder.startswith("memory")
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(f"{limit}\n")
        (group / ("memory.usage_in_bytes" if is_first else "memory.current")).write_text(f"{usage}\n")
        key = "total_inactive_file" if is_first else "inactive_file"
        (group / "memory.stat").write_text(f"anon 7\n{key} {reclaimable}\n")
    return root


FREE = 1_000_000 * 1024


@pytest.mark.parametrize(
    ("memberships", "groups", "expected"),
    [
        ("", {}, FREE),
        ("0::/\n", {}, FREE),  # the uppermost group of a machine has no files
        # version 2: limit - usage + reclaimable
        ("0::/\n", {"": (5000, 3000, 0)}, 2000),
        ("0::/\n", {"": (5000, 4900, 700)}, 800),
        ("0::/\n", {"": (5000, 6000, 0)}, 0),
        ("0::/\n", {"": ("max", 3000, 0)}, FREE),
        # a group and those above it: the tightest counts
        ("0::/job/task\n", {"job": (5000, 4000, 0), "job/task": (9000, 500, 0)}, 1000),
        ("0::/job/task\n", {"job": ("max", 4000, 0), "job/task": (9000, 500, 0)}, 8500),
        ("0::/job/task\n", {"other": (10, 5, 0)}, FREE),
        # in a container: the host's path is not there, or climbs
        ("0::/host/docker-1\n", {"": (5000, 3000, 0)}, 2000),
        ("0::/../host\n", {"": (5000, 3000, 0)}, 2000),
        # version 1, where "no limit" is a large number
        ("4:cpu,memory:/a:b\n1:cpu:/\n0::/\n", {"memory/a:b": (5000, 3000, 500), "memory": (2**63 - 4096, 9, 0)}, 2500),
        ("4:memory:/host/docker-1\n", {"memory": (5000, 3000, 500)}, 2500),
        ("4:memory:/\n", {"memory": (2**63 - 4096, 3000, 500)}, FREE),
    ],
)
def test_control_groups_limit_memory(
    memberships: str, groups: dict[str, tuple[object, int, int]], expected: int, tmp_path: Path
) -> None:
    assert cache_module.available_memory(machine_of(tmp_path, memberships, groups)) == expected


def test_available_memory_is_plausible() -> None:
    assert 2**20 < cache_module.available_memory() < 2**50
