from __future__ import annotations

import numpy as np

from detect.training.pictures import TILE_PX, tile_images


def flat(height, width, value):
    return np.full((height, width, 3), value, np.uint8)


def test_one_image_fills_its_tile():
    np.testing.assert_array_equal(tile_images([flat(10, 10, 7)]), flat(TILE_PX, TILE_PX, 7))


def test_places_and_sizes():
    """Five images: a grid of 3 columns and 2 rows. Each is scaled to 320 px, in the top left corner of its tile."""
    shapes = [(640, 320), (320, 640), (3, 1), (1, 1000), (320, 320)]
    sheet = tile_images([flat(height, width, 10 * i) for i, (height, width) in enumerate(shapes)])
    assert sheet.shape == (640, 960, 3)
    expected = flat(640, 960, 255)
    expected[:320, :160] = 0  # halved
    expected[:160, 320:640] = 10  # halved
    expected[:320, 640:747] = 20  # enlarged: 320 high, 320 / 3 = 106.7 wide
    expected[320:321, :320] = 30  # 0.32 px high: at least one
    expected[320:, 320:640] = 40
    np.testing.assert_array_equal(sheet, expected)
