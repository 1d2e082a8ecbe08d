from __future__ import annotations

import numpy as np
import pytest

from detect.config.augment import ClassAugmentConfig
from detect.data.classification.augment import cutmix, mix, mixup
from detect.data.mixing import cutmix_rectangle

SHARES = np.eye(2, dtype=np.float32)


def black_and_white(size: int = 8) -> np.ndarray:
    images = np.zeros((2, size, size, 3), dtype=np.uint8)
    images[1] = 200
    return images


def test_mixup_by_hand() -> None:
    # 0.3 * 0 + 0.7 * 200 = 140, 0.3 * 200 = 60
    images, shares = mixup(black_and_white(), SHARES, 0.3)
    assert (images[0] == 140).all()
    assert (images[1] == 60).all()
    np.testing.assert_allclose(shares, [[0.3, 0.7], [0.7, 0.3]], rtol=1e-6)


def test_mixup_rounds() -> None:
    images = np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    # 0.25 * 255 = 63.75 and 0.75 * 255 = 191.25
    assert mixup(images, SHARES, 0.75)[0][:, 0, 0, 0].tolist() == [64, 191]


def test_cutmix_by_hand() -> None:
    # 3 x 4 of 64 pixels are the other image's: a share of 12 / 64.
    images, shares = cutmix(black_and_white(), SHARES, (1, 2, 4, 6))
    assert (images[0, 2:6, 1:4] == 200).all()
    assert (images[1, 2:6, 1:4] == 0).all()
    assert images[0].sum() == 12 * 3 * 200
    np.testing.assert_allclose(shares, [[52 / 64, 12 / 64], [12 / 64, 52 / 64]])


def test_cutmix_rectangle() -> None:
    for weight, centre_xy, expected in [
        (1.0, (4, 4), (4, 4, 4, 4)),  # nothing
        (0.0, (4, 4), (0, 0, 8, 8)),  # all
        (0.75, (4, 4), (2, 2, 6, 6)),  # a quarter of the area: half the sides
        (0.75, (0, 8), (0, 6, 2, 8)),  # clipped at the left and at the bottom
    ]:
        assert cutmix_rectangle((8, 8), 1 - weight, centre_xy) == expected


def test_cutmix_rectangle_has_the_shape_of_the_image() -> None:
    # A quarter of 4 x 12: half of each side, 2 high and 6 wide, about (6, 2).
    assert cutmix_rectangle((4, 12), 0.25, (6, 2)) == (3, 1, 9, 3)


@pytest.mark.parametrize("augment", [ClassAugmentConfig(mixup=1), ClassAugmentConfig(cutmix=1)])
def test_shares_are_what_the_pixels_say(augment: ClassAugmentConfig) -> None:
    """Of a black and a white image, the mean grey is the white one's share."""
    seen = set()
    for seed in range(50):
        images, shares = mix(np.random.default_rng(seed), augment, black_and_white(32), SHARES)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
        # Mixup rounds to half a level of 200.
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)) / 200, shares[:, 1], atol=0.5 / 200 + 1e-6)
        assert shares.dtype == np.float32
        seen.add(float(shares[0, 0]))
    assert len(seen) > 25
    assert min(seen) < 0.3
    assert max(seen) > 0.7


def test_an_image_alone_is_mixed_with_itself() -> None:
    for augment in (ClassAugmentConfig(mixup=1), ClassAugmentConfig(cutmix=1)):
        images, shares = mix(np.random.default_rng(0), augment, black_and_white()[1:], SHARES[1:])
        assert (images == 200).all()
        np.testing.assert_allclose(shares, [[0, 1]])


def test_probabilities() -> None:
    """Of 400 batches about 100 are blended and 200 cut; with sqrt(400 p (1 - p)) <= 10, 40 is four deviations."""
    augment = ClassAugmentConfig(mixup=0.25, cutmix=0.5)
    blended = cut = 0
    for seed in range(400):
        images, shares = mix(np.random.default_rng(seed), augment, black_and_white(64), SHARES)
        values = set(images[0].ravel().tolist())
        cut += values == {0, 200} or (values == {200} and shares[0, 0] == 0)
        blended += not values <= {0, 200}
    assert abs(blended - 100) < 40
    assert abs(cut - 200) < 40


def test_small_alpha_mixes_little() -> None:
    """Beta(0.1, 0.1) is near 0 or 1 most of the time, Beta(100, 100) always near a half."""

    def weights(alpha: float) -> np.ndarray:
        augment = ClassAugmentConfig(mixup=1, mixup_alpha=alpha)
        rngs = (np.random.default_rng(seed) for seed in range(100))
        return np.array([mix(rng, augment, black_and_white(), SHARES)[1][0, 0] for rng in rngs])

    assert np.mean(np.abs(weights(0.1) - 0.5) > 0.4) > 0.6
    assert np.abs(weights(100) - 0.5).max() < 0.15


def test_small_alpha_often_cuts_nothing() -> None:
    """Half the draws of Beta(0.1, 0.1) are near 1, which cuts nothing; Beta(100, 100) always cuts much."""

    def own_shares(alpha: float) -> np.ndarray:
        augment = ClassAugmentConfig(cutmix=1, cutmix_alpha=alpha)
        rngs = (np.random.default_rng(seed) for seed in range(100))
        return np.array([mix(rng, augment, black_and_white(32), SHARES)[1][0, 0] for rng in rngs])

    assert 0.2 < np.mean(own_shares(0.1) == 1) < 0.8
    assert own_shares(100).max() < 1
