from __future__ import annotations

import cv2
import numpy as np
import pytest

from detect.data.classification.geometry import Window, area_window, cut, flip, pad_crop, resize_crop, starts, turn


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, size=(*shape, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------------------ pad


def test_pad_crop_equals_a_slow_loop() -> None:
    for side, size, padding in [(1, 1, 0), (1, 1, 2), (8, 8, 0), (8, 8, 3), (10, 7, 2)]:
        squares = noise(20, side, side)
        position_xy = np.random.default_rng(1).random((2, 20))
        found = pad_crop(squares, size, padding, position_xy)
        for image, square, x, y in zip(found, squares, *position_xy, strict=True):
            left, top = (int(v * (side + 2 * padding - size + 1)) - padding for v in (x, y))
            for row in range(size):
                for column in range(size):
                    inside = 0 <= top + row < side and 0 <= left + column < side
                    expected = square[top + row, left + column] if inside else (0, 0, 0)
                    np.testing.assert_array_equal(image[row, column], expected)


def test_pad_crop_by_hand() -> None:
    # 2 x 2 with 1 black pixel around is 4 x 4; 2 x 2 windows start at 0, 1 or 2.
    square = np.array([[1, 2], [3, 4]], dtype=np.uint8)[None, :, :, None].repeat(3, axis=3)
    for x, y, expected in [
        (0.0, 0.0, [[0, 0], [0, 1]]),  # start 0, 0
        (0.5, 0.5, [[1, 2], [3, 4]]),  # int(1.5) = 1
        (0.999, 0.0, [[0, 0], [2, 0]]),  # the right upper corner
        (0.0, 0.999, [[0, 3], [0, 0]]),
    ]:
        np.testing.assert_array_equal(pad_crop(square, 2, 1, np.array([[x], [y]]))[0, :, :, 0], expected)


def test_starts_are_equally_likely() -> None:
    # 1200 positions at the middles of as many intervals, on 4 places: 300 each.
    np.testing.assert_array_equal(np.bincount(starts((np.arange(1200) + 0.5) / 1200, 3)), [300] * 4)
    assert starts(np.array([np.nextafter(1, 0)]), 0).tolist() == [0]


# --------------------------------------------------------------------------------------------- resize


def test_resize_crop() -> None:
    image = noise(20, 30)
    resized, window = resize_crop(image, 16, 24, (0.999, 0.0))
    np.testing.assert_array_equal(resized, cv2.resize(image, (36, 24), interpolation=cv2.INTER_LINEAR))
    assert window == (20, 0, 16, 16)  # 36 - 16 is the last start
    assert resize_crop(image, 20, 20, (0.5, 0.5))[1] == (5, 0, 20, 20)  # starts 0 to 10, int(0.5 * 11) = 5


# ----------------------------------------------------------------------------------------------- area


def test_area_window_by_hand() -> None:
    for image_hw, area, ratio, position_xy, expected in [
        ((1, 1), 1.0, 1.0, (0.9, 0.9), (0, 0, 1, 1)),
        ((100, 100), 0.25, 1.0, (0.0, 0.0), (0, 0, 50, 50)),
        ((100, 100), 0.25, 1.0, (0.999, 0.5), (50, 25, 50, 50)),  # int(0.5 * 51) = 25
        ((100, 200), 0.08, 4.0, (0.0, 0.0), (0, 0, 80, 20)),  # 1600 pixels: 80 x 20
    ]:
        assert area_window(image_hw, [area], [ratio], position_xy) == expected


def test_the_first_rectangle_that_fits_is_taken() -> None:
    # 100 x 100: 90 % at ratio 4 would be 190 wide; 25 % at 4 is 100 x 25.
    assert area_window((100, 100), [0.9, 0.25, 0.04], [4, 4, 1], (0, 0)) == (0, 0, 100, 25)


@pytest.mark.parametrize(
    ("image_hw", "expected"),
    [
        ((10, 100), (43, 0, 13, 10)),  # ratio at most 4/3: round(13.3) = 13 wide, from (100 - 13) // 2
        ((100, 10), (0, 43, 10, 13)),  # at least 3/4: 10 / 0.75
        ((1, 1), (0, 0, 1, 1)),
    ],
)
def test_if_none_fits_the_middle_is_taken(image_hw, expected) -> None:
    # Of 10 x 100 at ratios about 1, a share of 1 would be 32 x 32; of a single pixel, 8 % is none.
    areas = [0.08, 0.08] if image_hw == (1, 1) else [1, 1]
    assert area_window(image_hw, areas, [3 / 4, 4 / 3], (0.3, 0.8)) == expected


def test_cut() -> None:
    image = noise(40, 50)
    np.testing.assert_array_equal(cut(image, Window(3, 5, 16, 16), 16), image[5:21, 3:19])
    smaller = cv2.resize(image[0:32, 10:42], (16, 16), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(cut(image, Window(10, 0, 32, 32), 16), smaller)
    larger = cv2.resize(image[0:4, 10:18], (16, 16), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(cut(image, Window(10, 0, 8, 4), 16), larger)


# ----------------------------------------------------------------------------------------------- turn


def test_turn_by_nothing_is_cut() -> None:
    image = noise(40, 50)
    for window in (Window(3, 5, 16, 16), Window(0, 0, 16, 16), Window(34, 24, 16, 16)):
        np.testing.assert_array_equal(turn(image, window, 16, 0), cut(image, window, 16))


def test_turn_by_quarters() -> None:
    """NumPy turns counter-clockwise too."""
    for degrees, quarters in [(90, 1), (-90, -1), (180, 2)]:
        for size in [5, 8]:
            image = noise(12, 12)
            window = Window(2, 3, size, size)
            np.testing.assert_array_equal(
                turn(image, window, size, degrees), np.rot90(cut(image, window, size), quarters)
            )


def test_what_turns_in_is_the_image_around_the_window() -> None:
    image = np.full((40, 40, 3), 200, dtype=np.uint8)
    assert (turn(image, Window(12, 12, 16, 16), 16, 45) == 200).all()
    found = turn(image, Window(0, 0, 40, 40), 40, 45)  # the corners come from outside
    assert not found[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (found[12:28, 12:28] == 200).all()


def test_turn_of_windows_over_the_edge() -> None:
    image = np.full((8, 8, 3), 200, dtype=np.uint8)
    # From x = -4 on the left half is black, turned by 180 degrees the right half.
    found = turn(image, Window(-4, 0, 8, 8), 8, 180)
    assert (found[:, :4] == 200).all()
    assert not found[:, 4:].any()
    for window in (Window(-90, 0, 8, 8), Window(90, 0, 8, 8), Window(0, -90, 8, 8), Window(0, 90, 8, 8)):
        assert not turn(image, window, 8, 30).any()


def test_turn_averages_what_gets_smaller() -> None:
    """Stripes of one pixel become grey instead of black or white."""
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    image[:, ::2] = 200
    found = turn(image, Window(100, 100, 200, 200), 20, 17)
    assert np.abs(found.astype(int) - 100).max() <= 2


def test_turn_of_images_that_are_too_long_for_a_warp() -> None:
    """OpenCV's warp takes sides below 32,768."""
    image = np.full((4, 40_000, 3), 50, dtype=np.uint8)
    found = turn(image, Window(0, 0, 40_000, 4), 16, 5)
    assert (found[8, 1:-1] == 50).all()


def test_turn_agrees_with_a_turned_whole() -> None:
    """A smooth picture: cut and turned about the window's middle is what the formula says there."""
    ys, xs = np.mgrid[0:60, 0:80] + 0.5
    image = np.repeat(np.rint(2 * xs + ys)[..., None], 3, axis=2).astype(np.uint8)
    found = turn(image, Window(30, 20, 32, 16), 16, 30)
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    v, u = np.mgrid[0:16, 0:16] - 7.5
    expected = 2 * (46 + 2 * (cos * u - sin * v)) + (28 + sin * u + cos * v)
    assert np.abs(found[..., 0] - expected).max() <= 1.5


# ----------------------------------------------------------------------------------------------- flip


def test_flip_by_hand() -> None:
    images = noise(4, 3, 3)
    before = images.copy()
    flip(images, np.array([False, True, False, True]), np.array([False, False, True, True]))
    np.testing.assert_array_equal(images[0], before[0])
    np.testing.assert_array_equal(images[1], before[1][:, ::-1])
    np.testing.assert_array_equal(images[2], before[2][::-1])
    np.testing.assert_array_equal(images[3], before[3][::-1, ::-1])


def test_flip_of_one_pixel() -> None:
    images = noise(1, 1, 1)
    before = images.copy()
    flip(images, np.array([True]), np.array([True]))
    np.testing.assert_array_equal(images, before)
