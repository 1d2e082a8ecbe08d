from __future__ import annotations

import numpy as np
import pytest
import torch

from detect.config.augment import ClassAugmentConfig
from detect.data.classification.augment import (
    Augmentation,
    auto_augment,
    change_colour,
    cutout,
    draw,
    open_policy,
    turn_hue,
)
from detect.data.classification.images import ImagesInMemory
from detect.data.detection.augment import shift_hsv
from detect.data.letterbox import PAD_VALUE

STILL = ClassAugmentConfig(flip_left_right=0)
ONE = np.ones(1)


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    """Images of 2 x 2 pixels of one colour each."""
    return np.array(colours, dtype=np.uint8)[:, None, None].repeat(2, axis=1).repeat(2, axis=2)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8)


def images_of(augment: ClassAugmentConfig, pixels: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    source = ImagesInMemory(torch.from_numpy(pixels), {})
    failures: list[tuple[int, str]] = []
    rows = np.arange(len(pixels))
    images = Augmentation(source, augment, size).images(draw(np.random.default_rng(seed), len(rows)), rows, failures)
    assert (images.shape, images.dtype) == ((len(pixels), size, size, 3), np.uint8)
    assert images.flags.c_contiguous
    assert images.flags.writeable
    assert failures == []
    return images


# --------------------------------------------------------------------------------------------- colour


def test_colour_by_hand() -> None:
    for brightness, contrast, saturation, expected in [
        (1, 1, 1, (200, 100, 50)),
        (0.5, 1, 1, (100, 50, 25)),
        (2, 1, 1, (255, 200, 100)),  # 400 saturates
        # The grey is 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2.
        (1, 1, 0, (124, 124, 124)),
        (1, 1, 0.5, (162, 112, 87)),  # half way: 162.1, 112.1, 87.1
        (1, 0, 1, (124, 124, 124)),  # of one colour, the image's mean grey is the same
        (1, 1.5, 1, (238, 88, 13)),  # 124.2 + 1.5 * (75.8, -24.2, -74.2)
        (0.5, 0, 1, (62, 62, 62)),  # the mean is that of the darkened image
        # b c (s x + (1 - s) g) + (1 - c) b g = 0.4 * (0.5 * (200, 100, 50) + 62.1) + 0.4 * 124.2
        (0.8, 0.5, 0.5, (115, 95, 85)),
    ]:
        images = plain((200, 100, 50))
        change_colour(images, brightness * ONE, contrast * ONE, saturation * ONE)
        np.testing.assert_allclose(images.astype(int), plain(expected), atol=1)


def test_contrast_is_about_the_mean_of_the_image() -> None:
    images = plain((0, 0, 0))
    images[0, 0] = 100  # two of four pixels: the mean is 50
    change_colour(images, ONE, 0.5 * ONE, ONE)
    assert images[0, :, 0, 0].tolist() == [75, 25]


def test_each_image_has_its_own_factors() -> None:
    images = plain((100, 100, 100), (100, 100, 100), (100, 100, 100))
    change_colour(images, np.array([0.5, 1, 1.5]), np.ones(3), np.ones(3))
    assert images[:, 0, 0, 0].tolist() == [50, 100, 150]


def test_colour_without_change_is_exact() -> None:
    images = noise(3, 9, 9)
    change_colour(images, np.ones(3), np.ones(3), np.ones(3))
    np.testing.assert_array_equal(images, noise(3, 9, 9))


def test_hue_by_hand() -> None:
    images = plain((255, 0, 0), (255, 0, 0), (0, 0, 255), (90, 90, 90), (10, 20, 30))
    turn_hue(images, np.array([1 / 3, -1 / 3, 1 / 3, 0.4, 0]))
    expected = plain((0, 255, 0), (0, 0, 255), (255, 0, 0), (90, 90, 90), (10, 20, 30))
    np.testing.assert_allclose(images.astype(int), expected, atol=1)


def test_hue_is_that_of_detection() -> None:
    images = noise(20, 9, 9)
    turns = np.linspace(-0.5, 0.5, 20)
    expected = [shift_hsv(image, turn, 1, 1) for image, turn in zip(images.copy(), turns, strict=True)]
    turn_hue(images, turns)
    np.testing.assert_array_equal(images, expected)


# --------------------------------------------------------------------------------------------- cutout


def test_cutout_by_hand() -> None:
    for side, position_xy, rows, columns in [
        (3, (0.5, 0.5), range(3, 6), range(3, 6)),  # centre int(0.5 * 8) = 4
        (4, (0.5, 0.5), range(2, 6), range(2, 6)),
        (1, (0.999, 0.0), range(1), range(7, 8)),
        (4, (0.0, 0.999), range(5, 8), range(2)),  # centre (0, 7): from -2 and 5, clipped
        (99, (0.3, 0.8), range(8), range(8)),
    ]:
        images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
        cutout(images, side, np.array(position_xy)[:, None])
        expected = np.zeros_like(images)
        expected[0, rows.start : rows.stop, columns.start : columns.stop] = PAD_VALUE
        np.testing.assert_array_equal(images, expected)


# -------------------------------------------------------------------------------------- all together


def test_nothing_to_do_gives_the_middle() -> None:
    pixels = noise(5, 12, 12)
    images = images_of(STILL, pixels, 9)
    np.testing.assert_array_equal(images, pixels[:, 1:10, 1:10])
    assert not np.shares_memory(images, pixels)


def test_flips_are_certain_at_probability_one() -> None:
    pixels = noise(5, 8, 8)
    np.testing.assert_array_equal(images_of(ClassAugmentConfig(flip_left_right=1), pixels, 8), pixels[:, :, ::-1])
    both = ClassAugmentConfig(flip_left_right=1, flip_up_down=1)
    np.testing.assert_array_equal(images_of(both, pixels, 8), pixels[:, ::-1, ::-1])


def test_half_of_the_images_are_flipped() -> None:
    pixels = noise(400, 2, 2)
    flipped = (images_of(ClassAugmentConfig(), pixels, 2) == pixels[:, :, ::-1]).all(axis=(1, 2, 3)).sum()
    assert abs(flipped - 200) < 40  # the deviation is 10


def test_pad_has_every_position() -> None:
    """Of a single white pixel in black, S = 1 and padding 1 sees it in one place of nine."""
    pixels = np.full((900, 1, 1, 3), 255, dtype=np.uint8)
    white = (images_of(ClassAugmentConfig(crop="pad", padding=1), pixels, 1) == 255).all(axis=(1, 2, 3)).sum()
    assert abs(white - 100) < 40  # sqrt(900 / 9 * 8 / 9) = 9.4


def test_resize_sides_are_from_low_to_high() -> None:
    """A ramp of 64 columns, resized to side n: one column further is 64 / n of the ramp."""
    ramp = np.broadcast_to((np.arange(64) * 4)[:, None].astype(np.uint8), (64, 64, 3))
    images = images_of(
        ClassAugmentConfig(crop="resize", resize_px=(32, 40), flip_left_right=0), np.stack([ramp] * 200), 32
    )
    slopes = (images[:, 0, -2, 0].astype(float) - images[:, 0, 1, 0]) / 29
    sides = np.rint(256 / slopes).astype(int)
    assert set(sides.tolist()) == set(range(32, 41))


def test_area_is_within_its_limits() -> None:
    """On ramps of x (red) and y (green), the slopes say how large the rectangle was."""
    xs, ys = np.meshgrid(np.arange(200), np.arange(200))
    ramp = np.stack([xs, ys, 0 * xs], axis=2).astype(np.uint8)
    augment = ClassAugmentConfig(crop="area", area=(0.25, 0.5), aspect=2, flip_left_right=0)
    images = images_of(augment, np.stack([ramp] * 200), 50).astype(float)
    widths = (images[:, 25, 48, 0] - images[:, 25, 1, 0]) / 47 * 50
    heights = (images[:, 48, 25, 1] - images[:, 1, 25, 1]) / 47 * 50
    shares, ratios = widths * heights / 200**2, widths / heights
    assert 0.24 < shares.min() < 0.28
    assert 0.47 < shares.max() < 0.515
    assert 0.48 < ratios.min() < 0.6
    assert 1.7 < ratios.max() < 2.1


def test_turning_shows_the_black_outside() -> None:
    pixels = np.full((50, 32, 32, 3), 200, dtype=np.uint8)
    for crop in ("none", "pad"):
        images = images_of(ClassAugmentConfig(crop=crop, padding=0, degrees=45), pixels, 32)
        assert (images[:, 16, 16] == 200).all()
        assert (images[:, 0, 0] == 0).mean() > 0.9


@pytest.mark.parametrize("crop", ["none", "pad"])
def test_hardly_turned_is_not_turned(crop: str) -> None:
    """The way of one image at a time agrees with that of the whole batch."""
    pixels = noise(8, 20, 20)
    together = images_of(ClassAugmentConfig(crop=crop), pixels, 16)
    alone = images_of(ClassAugmentConfig(crop=crop, degrees=1e-6), pixels, 16)
    np.testing.assert_array_equal(together, alone)


def test_an_added_setting_leaves_the_other_draws_alone() -> None:
    pixels = noise(8, 8, 8)
    without = images_of(ClassAugmentConfig(crop="pad"), pixels, 8)
    covered = images_of(ClassAugmentConfig(crop="pad", cutout=2), pixels, 8)
    changed = (without != covered).any(axis=3)
    assert 0 < changed.sum(axis=(1, 2)).max() <= 4


def test_brightness_reaches_both_ends() -> None:
    pixels = np.full((300, 4, 4, 3), 100, dtype=np.uint8)
    found = images_of(ClassAugmentConfig(brightness=0.4), pixels, 4)[:, 0, 0, 0]
    assert 60 <= found.min() <= 62
    assert 138 <= found.max() <= 140
    assert abs(found.mean() - 100) < 6  # 0.8 * 100 / sqrt(12) / sqrt(300) = 1.3


@pytest.mark.parametrize("size", [1, 7])
def test_everything_at_once(size: int) -> None:
    for crop in ("none", "pad", "resize", "area"):
        augment = ClassAugmentConfig(
            crop=crop,
            resize_px=(size, size + 3),
            degrees=20,
            flip_up_down=0.5,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            cutout=2,
        )
        first, again = (images_of(augment, noise(6, size, size), size, seed=3) for _ in range(2))
        np.testing.assert_array_equal(first, again)


# ----------------------------------------------------------------------------------------- AutoAugment


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_auto_augment_follows_the_draws(policy: str) -> None:
    """Each image by its own number, whatever PyTorch's generator is at, which stays where it is."""
    pixels = noise(6, 16, 16)
    augment = ClassAugmentConfig(flip_left_right=0, auto_augment=policy)
    torch.manual_seed(1)
    first = images_of(augment, pixels, 16)
    assert torch.initial_seed() == 1
    after = torch.rand(1)
    torch.manual_seed(2)
    np.testing.assert_array_equal(images_of(augment, pixels, 16), first)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    changed = (first != pixels).any(axis=(1, 2, 3))
    assert changed.sum() >= 3


def test_auto_augment_is_that_of_the_library() -> None:
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    images, draws = noise(2, 8, 8), np.array([0.25, 0.75])
    expected = images.copy()
    auto_augment(images, open_policy("cifar10"), draws)
    for image, seed in zip(expected, (2**51, 3 * 2**51), strict=True):  # of 2 ** 53
        torch.manual_seed(seed)
        policy = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=[float(PAD_VALUE)] * 3)
        image[:] = policy(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(images, expected)
