from __future__ import annotations

import numpy as np
import pytest

from detect.config.augment import AugmentConfig
from detect.data.detection.augment import mosaic4, mosaic9, single_scene
from detect.data.detection.geometry import Sample, random_matrix, warp
from detect.data.letterbox import PAD_VALUE

S = 64
MOSAICS = pytest.mark.parametrize(("mosaic", "count"), [(mosaic4, 4), (mosaic9, 9)], ids=["four", "nine"])


def tile_of(value: int, image_hw: tuple[int, int], num_boxes: int = 1) -> Sample:
    """A plain tile whose boxes are the whole image."""
    height, width = image_hw
    image = np.full((height, width, 3), value, dtype=np.uint8)
    image.flags.writeable = False
    return Sample(
        image, np.array([[0, 0, width, height]] * num_boxes, dtype=float).reshape(-1, 4), np.full(num_boxes, value)
    )


def random_tiles(rng: np.random.Generator, count: int) -> list[Sample]:
    """Tiles with a long side of S, their values 1, 2, ..."""
    shapes = [(S, int(rng.integers(1, S + 1))) for _ in range(count)]
    return [tile_of(i + 1, shape if rng.random() < 0.5 else shape[::-1]) for i, shape in enumerate(shapes)]


def test_single_without_boxes() -> None:
    scene = single_scene(tile_of(1, (40, 64), num_boxes=0))
    assert scene.full_xyxy_px.shape == (0, 4)
    assert scene.centre_xy_px == (32, 20)


@MOSAICS
def test_without_boxes(mosaic, count: int) -> None:
    scene = mosaic(np.random.default_rng(0), [tile_of(1, (S, S), num_boxes=0)] * count, S)
    assert scene.full_xyxy_px.shape == scene.visible_xyxy_px.shape == (0, 4)
    assert scene.labels.dtype == np.int64


@MOSAICS
def test_every_box_is_where_its_tile_is(mosaic, count: int) -> None:
    """Each tile has its own value, so its pixels are known; none hides another's."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scene = mosaic(rng, random_tiles(rng, count), S)
        assert sorted(scene.labels.tolist()) == list(range(1, count + 1))
        num_painted = 0
        for full, visible, label in zip(scene.full_xyxy_px, scene.visible_xyxy_px, scene.labels, strict=True):
            rows, columns = np.nonzero(scene.image_rgb[:, :, 0] == label)
            area = np.prod(visible[2:] - visible[:2])
            assert len(rows) == area
            num_painted += len(rows)
            if area:
                np.testing.assert_array_equal(visible, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert (full[:2] <= visible[:2]).all()
                assert (full[2:] >= visible[2:]).all()
        assert (scene.image_rgb[:, :, 0] == PAD_VALUE).sum() == scene.image_rgb[:, :, 0].size - num_painted


def test_four_meet_at_a_point_in_the_middle_half() -> None:
    points = []
    for seed in range(100):
        scene = mosaic4(np.random.default_rng(seed), [tile_of(i + 1, (S, S)) for i in range(4)], S)
        boxes = scene.full_xyxy_px
        point = boxes[0, 2:]  # the bottom right corner of the top left tile
        np.testing.assert_array_equal(boxes[1, [0, 3]], point)
        np.testing.assert_array_equal(boxes[2, [2, 1]], point)
        np.testing.assert_array_equal(boxes[3, :2], point)
        points.append(point)
    assert S / 2 <= np.min(points) < 0.6 * S
    assert 1.4 * S < np.max(points) <= 1.5 * S


def test_tiles_take_all_places() -> None:
    firsts = {
        int(mosaic4(np.random.default_rng(s), random_tiles(np.random.default_rng(0), 4), S).labels[0])
        for s in range(40)
    }
    assert firsts == {1, 2, 3, 4}


def test_nine_of_full_size_fill_the_canvas() -> None:
    # Nine squares of S on 3S x 3S leave nothing grey, and the middle one is in the middle.
    scene = mosaic9(np.random.default_rng(0), [tile_of(i + 1, (S, S)) for i in range(9)], S)
    assert not (scene.image_rgb == PAD_VALUE).any()
    np.testing.assert_array_equal(scene.full_xyxy_px[0], [S, S, 2 * S, 2 * S])


@MOSAICS
def test_visible_objects_survive_the_warp(mosaic, count: int) -> None:
    """After the warp, every tile of which enough is in view still has its box, and it is where its pixels are."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        tiles = [tile_of(20 * (i + 1) + (i > 4) * 5, (S, S)) for i in range(count)]
        scene = mosaic(rng, tiles, S)
        sample = warp(scene, random_matrix(rng, AugmentConfig(scale=0.4), scene, (S, S)), (S, S))
        found = dict(zip(sample.labels.tolist(), sample.boxes_xyxy_px, strict=True))
        for tile in tiles:
            value = int(tile.labels[0])
            rows, columns = np.nonzero(sample.image_rgb[:, :, 0] == value)
            if len(rows) > 0.25 * S * S:
                assert value in found
            if value in found and len(rows) > 9:
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(found[value], box, atol=1.5)
