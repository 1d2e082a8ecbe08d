from __future__ import annotations

import numpy as np
import pytest

from detect.data.letterbox import PAD_VALUE, letterbox, letterbox_boxes, letterboxed_hw, pad_batch, unletterbox
from detect.structures import Letterbox


def painted(height: int, width: int, value: int = 200) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_no_boxes() -> None:
    placement = Letterbox((0.5, 0.5), (100, 200))
    assert letterbox_boxes(np.zeros((0, 4)), placement).shape == (0, 4)
    assert unletterbox(np.zeros((0, 4), dtype=np.float32), placement).shape == (0, 4)


def test_long_side() -> None:
    for image_hw, expected in [
        ((480, 640), (240, 320)),  # 320 / 640 = 1/2
        ((640, 480), (320, 240)),
        ((100, 50), (320, 160)),  # enlarged by 3.2
        ((3, 1000), (1, 320)),  # 3 * 0.32 = 0.96
        ((1, 4000), (1, 320)),  # 0.08 would round to nothing
        ((333, 500), (213, 320)),  # 333 * 0.64 = 213.12
    ]:
        resized, placement = letterbox(painted(*image_hw), 320)
        assert resized.shape == (*expected, 3)
        assert letterboxed_hw(image_hw, 320) == expected
        assert placement.image_hw == image_hw
        assert placement.scale_xy == (expected[1] / image_hw[1], expected[0] / image_hw[0])


def test_right_size_is_left_alone() -> None:
    image = painted(320, 200)
    assert letterbox(image, 320)[0] is image


def test_shrinking_averages() -> None:
    # One white pixel in a block of 4 x 4: the average is 255 / 16 = 15.9; taking single pixels would give 255 or 0.
    image = np.zeros((128, 128, 3), dtype=np.uint8)
    image[::4, ::4] = 255
    assert (letterbox(image, 32)[0] == 16).all()


def test_boxes_follow_the_pixels() -> None:
    # x: 320 / 500 = 0.64; y: 333 * 0.64 = 213.12 becomes 213 rows, so 213 / 333 = 0.63964
    placement = letterbox(painted(333, 500), 320)[1]
    boxes = letterbox_boxes(np.array([[0, 0, 500, 333], [100, 0, 200, 111.0]]), placement)
    np.testing.assert_allclose(boxes, [[0, 0, 320, 213], [64, 0, 128, 71]])


def test_boxes_are_clipped_both_ways() -> None:
    placement = Letterbox((0.5, 0.5), (100, 200))
    np.testing.assert_allclose(letterbox_boxes(np.array([[-8, 10, 300, 120.0]]), placement), [[0, 5, 100, 50]])
    np.testing.assert_allclose(unletterbox(np.array([[-1, 5, 120, 60.0]]), placement), [[0, 10, 200, 100]])


def test_round_trip_keeps_the_type() -> None:
    boxes = np.array([[3, 4, 150, 90.5]], dtype=np.float32)
    placement = letterbox(painted(100, 200), 640)[1]
    back = unletterbox(letterbox_boxes(boxes, placement).astype(np.float32), placement)
    np.testing.assert_allclose(back, boxes, rtol=1e-5)
    assert back.dtype == np.float32


def test_pad_batch_top_left() -> None:
    batch = pad_batch([painted(40, 64, 1), painted(64, 30, 2)])
    assert batch.shape == (2, 64, 64, 3)  # the largest height and width, both multiples of 32 already
    assert (batch[0, :40, :64] == 1).all()
    assert (batch[0, 40:] == PAD_VALUE).all()
    assert (batch[1, :, :30] == 2).all()
    assert (batch[1, :, 30:] == PAD_VALUE).all()


@pytest.mark.parametrize(("size", "padded"), [(1, 32), (32, 32), (33, 64)])
def test_pad_batch_rounds_up(size: int, padded: int) -> None:
    assert pad_batch([painted(size, 32)]).shape == (1, padded, 32, 3)


def test_pad_batch_to_a_given_shape() -> None:
    assert pad_batch([painted(10, 20)], shape_hw=(50, 60)).shape == (1, 50, 60, 3)
