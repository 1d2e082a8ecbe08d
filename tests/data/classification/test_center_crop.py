from __future__ import annotations

import cv2
import numpy as np
import pytest

from detect.data.classification.geometry import (
    MAX_ASPECT,
    center_crop,
    center_square,
    middle_of_square,
    resize_short_side,
    resized_side,
    ten_crops,
)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)


def test_any_image_becomes_a_square() -> None:
    for share in [1.0, 0.875]:
        for shape_hw in [(1, 1), (1, 2), (3, 1), (1, 5000), (5000, 1), (1, 200_000), (7, 7), (400, 3)]:
            image = np.full((*shape_hw, 3), (10, 20, 30), dtype=np.uint8)
            np.testing.assert_array_equal(center_crop(image, 7, share), np.full((7, 7, 3), (10, 20, 30)))


def test_by_hand() -> None:
    # 4 x 9: the short side has 4 = round(2 / 0.5) pixels already. The middle 2 x 2 starts at row 1, column 7 // 2 = 3.
    image = noise(4, 9)
    found = center_crop(image, 2, 0.5)
    np.testing.assert_array_equal(found, image[1:3, 3:5])
    assert np.shares_memory(found, image)


def test_a_square_of_the_right_size_is_left_alone() -> None:
    image = noise(32, 32)
    found = center_crop(image, 32, 1.0)
    assert found.shape == (32, 32, 3)
    assert np.shares_memory(found, image)


def test_shrinking_averages_areas() -> None:
    # 2 x 4 to 1 x 2: each pixel is the mean of four; the middle 1 x 1 of width 2 starts at 1 // 2 = 0.
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    image[:, :2] = [[[0], [40]], [[80], [120]]]
    np.testing.assert_array_equal(center_crop(image, 1, 1.0), [[[60, 60, 60]]])


@pytest.mark.parametrize(
    ("shape_hw", "side", "expected_hw", "interpolation"),
    [
        ((100, 150), 50, (50, 75), cv2.INTER_AREA),
        ((150, 101), 50, (74, 50), cv2.INTER_AREA),  # 150 * 50 / 101 = 74.26
        ((20, 30), 33, (33, 50), cv2.INTER_LINEAR),  # 30 * 33 / 20 = 49.5: to the even one
    ],
)
def test_short_side(shape_hw, side, expected_hw, interpolation) -> None:
    image = noise(*shape_hw)
    expected = cv2.resize(image, expected_hw[::-1], interpolation=interpolation)
    np.testing.assert_array_equal(resize_short_side(image, side), expected)


def test_of_long_images_the_middle_is_resized() -> None:
    image = noise(2, 1001)
    # 8 * 2 = 16 columns, from (1001 - 16) // 2 = 492.
    assert MAX_ASPECT == 8
    np.testing.assert_array_equal(resize_short_side(image, 2), image[:, 492:508])


def test_resized_side() -> None:
    for image_size, share, expected in [(224, 0.875, 256), (32, 1.0, 32), (32, 0.9, 36), (1, 0.1, 10)]:
        assert resized_side(image_size, share) == expected  # 32 / 0.9 = 35.6


def test_the_middle_of_the_square_is_the_center_crop() -> None:
    for image_size in [15, 16, 17, 18]:
        for shape_hw in [(20, 20), (20, 31), (20, 32), (33, 20), (34, 20), (50, 77), (1, 1)]:
            share = image_size / 20
            square = center_square(noise(*shape_hw), image_size, share)
            assert square.shape == (20, 20, 3)
            np.testing.assert_array_equal(
                middle_of_square(square[None], image_size)[0], center_crop(noise(*shape_hw), image_size, share)
            )


def test_ten_crops_by_hand() -> None:
    """3 x 5 pixels have the short side 3 = round(2 / 0.7) already: corners, the middle from (0, 1), and mirrored."""
    image = np.repeat(np.arange(15, dtype=np.uint8).reshape(3, 5, 1), 3, axis=2)
    crops = ten_crops(image, 2, 0.7)[..., 0]
    assert crops[:, 0, 0].tolist() == [0, 3, 5, 8, 1, 1, 4, 6, 9, 2]
    assert crops[0].tolist() == [[0, 1], [5, 6]]
    assert crops[5].tolist() == [[1, 0], [6, 5]]
