from __future__ import annotations

import numpy as np

from detect.config.augment import AugmentConfig
from detect.data.detection.augment import random_hsv, shift_hsv

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((2, 3, 3), colour, dtype=np.uint8)


def test_by_hand() -> None:
    for colour, hue, saturation, value, expected in [
        (RED, 0, 1, 1, RED),
        (RED, 1 / 3, 1, 1, GREEN),  # a third of the circle
        (RED, -1 / 3, 1, 1, BLUE),  # below zero, around the circle
        (BLUE, 1 / 3, 1, 1, RED),
        (RED, 0, 0, 1, (255, 255, 255)),  # no saturation: grey of the same value
        (RED, 0, 1, 0.4, (102, 0, 0)),  # 255 * 0.4
        ((100, 100, 100), 0.3, 1.7, 1.5, (150, 150, 150)),  # grey has neither hue nor saturation
        ((200, 200, 200), 0, 1, 1.4, (255, 255, 255)),  # 280 saturates
    ]:
        found = shift_hsv(plain(colour), hue, saturation, value)
        np.testing.assert_allclose(found.astype(int), plain(expected), atol=1)


def test_identity_nearly() -> None:
    image = np.random.default_rng(0).integers(256, size=(50, 50, 3), dtype=np.uint8)
    # Hue in 180 steps, 30 to a sixth of the circle: half a step is 255 / 30 / 2 = 4.25 levels; the rest is rounding.
    change = shift_hsv(image, 0, 1, 1).astype(int) - image
    assert np.abs(change).max() <= 6
    assert np.abs(change.mean(axis=(0, 1))).max() < 0.5


def test_nothing_to_do() -> None:
    image = plain(RED)
    still = AugmentConfig(hsv_hue=0, hsv_saturation=0, hsv_value=0)
    assert random_hsv(np.random.default_rng(0), still, image) is image


def test_input_is_not_written_to() -> None:
    image = plain(RED)
    image.flags.writeable = False
    random_hsv(np.random.default_rng(0), AugmentConfig(), image)


def test_same_number_of_draws_whatever_the_ranges() -> None:
    rngs = [np.random.default_rng(0), np.random.default_rng(0)]
    random_hsv(rngs[0], AugmentConfig(), plain(RED))
    random_hsv(rngs[1], AugmentConfig(hsv_hue=0, hsv_saturation=0, hsv_value=0), plain(RED))
    assert rngs[0].random() == rngs[1].random()
