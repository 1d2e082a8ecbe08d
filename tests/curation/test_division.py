from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from detect.curation.split import divide, group_images
from detect.runtime.reproducibility import generator

RATIOS = (0.8, 0.1, 0.1)


def _alone(counts: np.ndarray) -> np.ndarray:
    return np.arange(len(counts))


def test_one_class_is_dealt_out_in_the_ratios() -> None:
    counts = np.ones((100, 1), np.int64)
    parts = divide(counts, _alone(counts), RATIOS, generator(0))
    assert np.bincount(parts).tolist() == [80, 10, 10]


def test_boxes_not_images_are_shared_out() -> None:
    # One image has 80 of 100 boxes: it is all that the first part gets, and the other 20 images are ten for each.
    counts = np.array([[80], *[[1]] * 20])
    parts = divide(counts, _alone(counts), RATIOS, generator(0))
    assert parts[0] == 0
    assert np.bincount(parts).tolist() == [1, 10, 10]


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_come_into_every_part(seed: int) -> None:
    """Of a class with three images each part gets one, of one with two the larger parts, of one with one the first."""
    counts = np.zeros((60, 4), np.int64)
    counts[:, 0] = generator(seed).integers(1, 9, 60)
    counts[[3, 20, 41], 1] = 1
    counts[[5, 50], 2] = 1
    counts[[7], 3] = 1
    parts = divide(counts, _alone(counts), (0.7, 0.2, 0.1), generator(seed, 1))
    assert sorted(parts[[3, 20, 41]].tolist()) == [0, 1, 2]
    assert sorted(parts[[5, 50]].tolist()) == [0, 1]
    assert parts[7] == 0


def test_images_without_boxes_are_dealt_out_too() -> None:
    counts = np.zeros((50, 2), np.int64)
    counts[:20] = 1
    parts = divide(counts, _alone(counts), (0.5, 0.5), generator(0))
    assert np.bincount(parts[:20]).tolist() == [10, 10]
    assert np.bincount(parts[20:]).tolist() == [15, 15]


def test_groups_stay_together() -> None:
    counts = np.ones((40, 1), np.int64)
    groups = np.repeat(np.arange(10), 4)
    parts = divide(counts, groups, (0.6, 0.2, 0.2), generator(3))
    assert all(len(set(parts[groups == group])) == 1 for group in range(10))
    assert np.bincount(parts).tolist() == [24, 8, 8]


def test_the_seed_decides_among_equals() -> None:
    counts = np.ones((100, 1), np.int64)
    first, again, other = (divide(counts, _alone(counts), RATIOS, generator(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_no_part_is_empty_where_there_are_enough_groups() -> None:
    counts = np.array([[1, 0], [0, 1], [0, 0]])  # each alone would go to the largest part
    assert sorted(divide(counts, _alone(counts), (0.98, 0.01, 0.01), generator(0)).tolist()) == [0, 1, 2]


def test_no_images() -> None:
    assert divide(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), RATIOS, generator(0)).shape == (0,)


def test_images_of_one_content_are_a_group(tmp_path: Path) -> None:
    contents = {"a": b"12", "b": b"34", "c": b"12", "d": b"123", "e": b"34"}
    paths = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    groups = group_images(paths, [*contents], None)
    assert groups[0] == groups[2]
    assert groups[1] == groups[4]
    assert sorted(set(groups.tolist())) == [0, 1, 2]
    assert len({groups[0], groups[1], groups[3]}) == 3


def test_names_can_say_what_belongs_together(tmp_path: Path) -> None:
    names = ["v1_0.jpg", "v1_1.jpg", "v2_0.jpg", "other.jpg", "another.jpg"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([min(number, 3)]))  # the last two are equal
    paths = [tmp_path / name for name in names]
    for pattern in (r"^v\d+", r"^(v\d+)_\d"):
        groups = group_images(paths, names, re.compile(pattern))
        assert groups[0] == groups[1]
        assert groups[3] == groups[4]
        assert len(set(groups.tolist())) == 3
    # Through the name of the one and the content of the other, all three are one group.
    (tmp_path / "v2_0.jpg").write_bytes(bytes([1]))
    assert len(set(group_images(paths, names, re.compile(r"^v\d+"))[:3].tolist())) == 1
