from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detect.data import shapes
from detect.data.shapes import MIN_SIZE_PX, OUTLINES, draw_scene, generate_shapes
from detect.errors import InputError
from detect.runtime.reproducibility import generator

_SIZE = 128


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    return [draw_scene(_SIZE, generator(0, number)) for number in range(160)]


def _generate(root: Path, seed: int) -> dict[str, str]:
    generate_shapes(root, num_train=6, num_val=3, num_test=2, image_size=64, seed=seed)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    first = _generate(tmp_path / "a", 0)
    assert first == _generate(tmp_path / "b", 0)
    other = _generate(tmp_path / "c", 1)
    assert other.keys() == first.keys()
    assert not set(other.values()) & set(first.values())
    assert len(set(first.values())) == len(first) == 6 + 3 + 2 + 3  # no image stands in two splits
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}  # nothing temporary is left


def test_annotations_belong_to_the_images(tmp_path: Path) -> None:
    _generate(tmp_path / "a", 0)
    content = json.loads((tmp_path / "a" / "annotations" / "train.json").read_text())
    assert [category["name"] for category in content["categories"]] == sorted(OUTLINES)
    assert [annotation["id"] for annotation in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )
    assert len(content["images"]) == 6
    for image in content["images"]:
        found = cv2.imread(str(tmp_path / "a" / "images" / "train" / image["file_name"]))
        assert found.shape == (image["height"], image["width"], 3) == (64, 64, 3)


def test_boxes_are_the_extent_of_visible_objects(
    scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    for image, boxes, labels, areas in scenes:
        assert (image.shape, image.dtype) == ((_SIZE, _SIZE, 3), np.uint8)
        assert len(boxes) == len(labels) == len(areas)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= _SIZE).all()
        assert (areas > 0).all()
        assert (areas <= boxes[:, 2] * boxes[:, 3]).all()


def test_a_lone_object_stands_out_exactly_in_its_box(
    scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    # Around the box nothing but background: its inside differs from a rim of 2 px, mean against mean, by a good part of
    # the 60 grey levels that the object has at least (a third of a star's box is star).
    checked = 0
    for image, boxes, _, areas in scenes:
        if len(boxes) != 1 or areas[0] < 100:
            continue
        left, top, width, height = boxes[0]
        grey = cv2.blur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3)).astype(float)
        inside = grey[top : top + height, left : left + width]
        rim = np.pad(np.zeros((max(height, 1), max(width, 1)), bool), 2, constant_values=True)
        window = grey[max(0, top - 2) : top + height + 2, max(0, left - 2) : left + width + 2]
        if window.shape == rim.shape:
            strongest = np.abs(inside - window[rim].mean()).max()
            assert strongest > 35
            checked += 1
    assert checked >= 5


def test_sizes_classes_occlusion_and_empty_images(
    scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    longest = np.concatenate([boxes[:, 2:].max(axis=1) for _, boxes, _, _ in scenes if len(boxes)])
    # Occlusion hides a part of some; antialiasing rounds up by at most a pixel on each side.
    assert longest.max() <= _SIZE / 2 + 2
    assert MIN_SIZE_PX - 2 <= np.percentile(longest, 1) < MIN_SIZE_PX + 2
    # Log-uniform from 6 to 64: half of them are below sqrt(6 * 64) = 19.6.
    assert 15 < np.median(longest) < 25
    counts = np.bincount(np.concatenate([labels for _, _, labels, _ in scenes]), minlength=len(OUTLINES))
    assert counts.min() > 0.7 * counts.mean()
    num_objects = np.array([len(boxes) for _, boxes, _, _ in scenes])
    assert 0.03 < (num_objects == 0).mean() < 0.15
    assert num_objects.max() == 10


def test_colour_says_nothing_about_the_class(
    scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    colours: dict[int, list[np.ndarray]] = {label: [] for label in range(len(OUTLINES))}
    for image, boxes, labels, _ in scenes:
        for (left, top, width, height), label in zip(boxes, labels, strict=True):
            colours[int(label)].append(image[top : top + height, left : left + width].reshape(-1, 3).mean(axis=0))
    means = np.array([np.mean(found, axis=0) for found in colours.values()])
    # About 200 colours a class with a standard deviation of about 60: their means are within some 4 of each other's.
    assert np.ptp(means, axis=0).max() < 25


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already; remove it to generate"):
        generate_shapes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_first_uses_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes the folder while this one works on it: theirs stays, and both can go on."""
    draw_here = shapes.draw_scene

    def another_is_faster(image_size: int, rng: np.random.Generator) -> Any:
        monkeypatch.undo()
        _generate(tmp_path / "shapes", 0)
        (tmp_path / "shapes" / "theirs").touch()
        return draw_here(image_size, rng)

    monkeypatch.setattr(shapes, "draw_scene", another_is_faster)
    _generate_again(tmp_path / "shapes")
    assert (tmp_path / "shapes" / "theirs").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_a_folder_that_cannot_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_here = shapes.draw_scene

    def in_the_way(image_size: int, rng: np.random.Generator) -> Any:
        (tmp_path / "shapes").touch()
        return draw_here(image_size, rng)

    monkeypatch.setattr(shapes, "draw_scene", in_the_way)
    with pytest.raises(NotADirectoryError):
        _generate_again(tmp_path / "shapes")
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("detect.data.embedded.write_json", full_disk)
    with pytest.raises(OSError, match="No space left"):
        _generate_again(tmp_path / "shapes")
    assert not list(tmp_path.iterdir())


def _generate_again(root: Path) -> None:
    generate_shapes(root, num_train=1, num_val=1, num_test=1, image_size=32)
