from __future__ import annotations

import numpy as np
import pytest

from detect.config.augment import AugmentConfig
from detect.data.detection.geometry import (
    MIN_DEPTH,
    Sample,
    Scene,
    are_trainable,
    flip_left_right,
    flip_up_down,
    moves,
    random_matrix,
    rotate90,
    warp,
    warp_boxes,
    warp_image,
)

STILL = AugmentConfig(degrees=0, translate=0, scale=0, shear=0, perspective=0)
FLIPS = [flip_left_right, flip_up_down, *(lambda s, turns=turns: rotate90(s, turns) for turns in (1, 2, 3))]


def scene_of(image: np.ndarray, boxes: np.ndarray) -> Scene:
    height, width = image.shape[:2]
    return Scene(image, boxes, boxes, np.arange(len(boxes)), (width / 2, height / 2))


def painted(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Black with one white rectangle."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def box_of_paint(image: np.ndarray) -> np.ndarray:
    """The box around the white pixels, to about half a pixel."""
    rows, columns = np.nonzero(image[:, :, 0] > 127)  # the padding is darker
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


# -------------------------------------------------------------------------------------- without boxes


def test_no_boxes_turned() -> None:
    for flip in FLIPS:
        sample = flip(Sample(np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((0, 4)), np.zeros(0, dtype=np.int64)))
        assert sample.boxes_xyxy_px.shape == (0, 4)


def test_no_boxes_warped() -> None:
    scene = scene_of(np.zeros((40, 60, 3), dtype=np.uint8), np.zeros((0, 4)))
    for augment in (AugmentConfig(), AugmentConfig(degrees=20, shear=5), AugmentConfig(perspective=0.001)):
        sample = warp(scene, random_matrix(np.random.default_rng(0), augment, scene, (64, 64)), (64, 64))
        assert sample.image_rgb.shape == (64, 64, 3)
        assert sample.boxes_xyxy_px.shape == (0, 4)
        assert sample.labels.dtype == np.int64


# ---------------------------------------------------------------------------------------------- boxes


def test_boxes_by_hand() -> None:
    boxes = np.array([[1, 2, 3, 4.0]])
    # Zoom by 2, then shift by (10, 20): (1, 2) -> (12, 24), (3, 4) -> (16, 28).
    np.testing.assert_allclose(warp_boxes(boxes, np.array([[2, 0, 10], [0, 2, 20], [0, 0, 1.0]])), [[12, 24, 16, 28]])
    # A quarter turn, (x, y) -> (-y, x): x in [-4, -2], y in [1, 3].
    np.testing.assert_allclose(warp_boxes(boxes, np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])), [[-4, 1, -2, 3]])
    # Shear x by y: x + y in [1 + 2, 3 + 4].
    np.testing.assert_allclose(warp_boxes(boxes, np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1.0]])), [[3, 2, 7, 4]])
    # Depth 1 + x: x / (1 + x) in [1/2, 3/4], y / (1 + x) in [2 / 4, 4 / 2].
    np.testing.assert_allclose(warp_boxes(boxes, np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1.0]])), [[0.5, 0.5, 0.75, 2]])


def test_turned_boxes_by_hand() -> None:
    # In an image of height 10 and width 20. Clockwise, (x, y) -> (10 - y, x).
    sample = Sample(painted(10, 20, (1, 2, 5, 9)), np.array([[1, 2, 5, 9.0]]), np.zeros(1, dtype=np.int64))
    np.testing.assert_array_equal(flip_left_right(sample).boxes_xyxy_px, [[15, 2, 19, 9]])
    np.testing.assert_array_equal(flip_up_down(sample).boxes_xyxy_px, [[1, 1, 5, 8]])
    np.testing.assert_array_equal(rotate90(sample, 1).boxes_xyxy_px, [[1, 1, 8, 5]])
    np.testing.assert_array_equal(rotate90(sample, 2).boxes_xyxy_px, [[15, 1, 19, 8]])
    np.testing.assert_array_equal(rotate90(sample, 3).boxes_xyxy_px, [[2, 15, 9, 19]])


def test_turned_boxes_are_where_the_paint_is() -> None:
    for flip in FLIPS:
        box = (3, 5, 9, 7)
        sample = flip(Sample(painted(12, 30, box), np.array([box], dtype=float), np.zeros(1, dtype=np.int64)))
        np.testing.assert_array_equal(sample.boxes_xyxy_px[0], box_of_paint(sample.image_rgb))


def test_are_trainable_by_hand() -> None:
    full = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 300, 2], [0, 0, 199, 2.0]])
    visible = np.array(
        [
            [0, 0, 2, 5.0],  # 10 % in view: just enough
            [0, 0, 2, 4.9],  # 9.8 %
            [0, 0, 1.5, 1.5],  # the smallest
            [0, 0, 1.4, 2],  # too thin
            [0, 0, 300, 2],  # 150 times as long as wide
            [0, 0, 199, 2],  # 99.5 times
        ]
    )
    assert are_trainable(full, visible).tolist() == [True, False, True, False, False, True]


def test_are_trainable_of_empty_boxes() -> None:
    assert are_trainable(np.zeros((0, 4)), np.zeros((0, 4))).tolist() == []
    assert are_trainable(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [False]


# --------------------------------------------------------------------------------------------- warping


def test_boxes_are_where_the_paint_is() -> None:
    for augment in [
        AugmentConfig(translate=0.1, scale=0.5),
        AugmentConfig(translate=0.1, scale=0.9),
        AugmentConfig(translate=0.05, scale=0.2, shear=3),
        AugmentConfig(translate=0.1, scale=0.3, perspective=0.0005),
    ]:
        for seed in range(8):
            for output_hw in [(200, 200), (160, 224)]:
                box = (70, 60, 130, 105)
                scene = scene_of(painted(150, 200, box), np.array([box], dtype=float))
                sample = warp(scene, random_matrix(np.random.default_rng(seed), augment, scene, output_hw), output_hw)
                assert sample.image_rgb.shape == (*output_hw, 3)
                np.testing.assert_allclose(sample.boxes_xyxy_px[0], box_of_paint(sample.image_rgb), atol=1)


def test_rotated_boxes_contain_the_paint() -> None:
    for seed in range(8):
        # The corners of a rotated rectangle are single pixels that interpolation fades: 2 px may be lost.
        box = (70, 60, 130, 105)
        augment = AugmentConfig(degrees=40, translate=0.05, scale=0.1)
        scene = scene_of(painted(150, 200, box), np.array([box], dtype=float))
        sample = warp(scene, random_matrix(np.random.default_rng(seed), augment, scene, (200, 200)), (200, 200))
        np.testing.assert_allclose(sample.boxes_xyxy_px[0], box_of_paint(sample.image_rgb), atol=2)


def test_zoom_equals_the_general_warp() -> None:
    """The fast path for a mere zoom gives the pixels of the general one, for the matrix that it returns."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(256, size=(8, 10, 3), dtype=np.uint8)
    image = coarse.repeat(12, axis=0).repeat(12, axis=1)
    scene = scene_of(image, np.zeros((0, 4)))
    for _ in range(10):
        drawn = random_matrix(rng, AugmentConfig(translate=0.3, scale=0.4), scene, (128, 128))
        fast, exact = warp_image(image, drawn, (128, 128))
        nearly = exact.copy()
        nearly[0, 1] = 1e-9  # no longer a mere zoom
        general, _ = warp_image(image, nearly, (128, 128))
        # The outermost pixels blend with the border in one and not in the other.
        differences = np.abs(fast.astype(int) - general).max(axis=2)
        assert np.percentile(differences, 90) <= 3
        np.testing.assert_allclose(warp_boxes(np.array([[0, 0, 120, 96.0]]), exact),
                                   warp_boxes(np.array([[0, 0, 120, 96.0]]), drawn), atol=2)  # fmt: skip


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_out_of_view(shift: float) -> None:
    scene = scene_of(painted(64, 64, (0, 0, 64, 64)), np.array([[0, 0, 64, 64.0], [60, 60, 64, 64], [0, 0, 3, 3]]))
    matrix = np.array([[1, 0, 64 * shift], [0, 1, 0], [0, 0, 1]])
    assert len(warp(scene, matrix, (64, 64)).labels) == 0


def test_centre_goes_to_the_middle() -> None:
    scene = Scene(np.zeros((50, 70, 3), dtype=np.uint8), *[np.zeros((0, 4))] * 2, np.zeros(0, dtype=np.int64), (10, 40))
    matrix = random_matrix(np.random.default_rng(0), STILL, scene, (64, 64))
    np.testing.assert_allclose(matrix, [[1, 0, 22], [0, 1, -8], [0, 0, 1]])  # 32 - 10, 32 - 40


def test_perspective_never_turns_inside_out() -> None:
    augment = AugmentConfig(translate=0, scale=0, perspective=0.001)
    scene = scene_of(np.zeros((2000, 2000, 3), dtype=np.uint8), np.zeros((0, 4)))
    corners = np.array([[0, 0, 1], [2000, 0, 1], [0, 2000, 1], [2000, 2000, 1]])
    depths = [corners @ random_matrix(np.random.default_rng(s), augment, scene, (640, 640))[2] for s in range(50)]
    assert np.min(depths) >= MIN_DEPTH - 1e-9
    assert np.min(depths) < 0.5  # the limit was needed


def test_moves() -> None:
    for name in ["degrees", "translate", "scale", "shear", "perspective"]:
        assert not moves(STILL)
        settings = {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0, "perspective": 0.0, name: 0.001}
        assert moves(AugmentConfig(**settings))


def test_ranges_are_kept() -> None:
    """Zooms fill [1 - scale, 1 + scale], shifts +-translate."""
    augment = AugmentConfig(translate=0.1, scale=0.5)
    scene = scene_of(np.zeros((100, 100, 3), dtype=np.uint8), np.zeros((0, 4)))
    matrices = np.array([random_matrix(np.random.default_rng(s), augment, scene, (100, 100)) for s in range(300)])
    zooms = matrices[:, 0, 0]
    shifts = (matrices @ (50, 50, 1))[:, :2] - 50
    assert 0.5 <= zooms.min() < 0.53
    assert 1.47 < zooms.max() <= 1.5
    assert -10 <= shifts.min() < -9
    assert 9 < shifts.max() <= 10
