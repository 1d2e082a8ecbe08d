from __future__ import annotations

import numpy as np
import pytest

from detect.data.detection.augment import cutmix, mixup, paste
from detect.data.detection.geometry import Sample


def sample_of(value: int, boxes: list[list[float]], label: int) -> Sample:
    image = np.full((100, 100, 3), value, dtype=np.uint8)
    return Sample(image, np.array(boxes, dtype=float).reshape(-1, 4), np.full(len(boxes), label))


EMPTY = sample_of(10, [], 0)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_no_boxes(mix) -> None:
    mixed = mix(np.random.default_rng(0), EMPTY, EMPTY)
    assert mixed.boxes_xyxy_px.shape == (0, 4)
    assert (mixed.image_rgb == 10).all()


def test_mixup_blends_and_keeps_all_objects() -> None:
    base, second = sample_of(0, [[0, 0, 10, 10]], 1), sample_of(200, [[5, 5, 20, 20], [1, 1, 2, 9]], 2)
    mixed = mixup(np.random.default_rng(0), base, second)
    assert mixed.labels.tolist() == [1, 2, 2]
    np.testing.assert_array_equal(mixed.boxes_xyxy_px, [[0, 0, 10, 10], [5, 5, 20, 20], [1, 1, 2, 9]])
    # Beta(32, 32) is 0.5 +- 0.06: five deviations either side of 100.
    assert (mixed.image_rgb == mixed.image_rgb[0, 0, 0]).all()
    assert 40 <= mixed.image_rgb[0, 0, 0] <= 160


def test_paste_by_hand() -> None:
    base = sample_of(
        0,
        [
            [30, 30, 40, 40],  # wholly covered
            [11, 20, 21, 30],  # 9 of 10 columns covered: 90 % is not more than 90 %
            [0, 0, 15, 15],  # not covered
            [10.5, 20, 20.5, 30],  # 8.5 of 10 columns
        ],
        1,
    )
    second = sample_of(
        200,
        [
            [50, 50, 70, 70],  # inside: stays whole
            [0, 20, 16, 60],  # x from 12 on: 4 of 16 columns
            [0, 20, 13, 60],  # 1 column: too thin
            [80, 80, 90, 90],  # outside
        ],
        2,
    )
    # The rectangle is 12 <= x < 75, 20 <= y < 75.
    mixed = paste(base, second, (12, 20, 75, 75))
    assert mixed.labels.tolist() == [1, 1, 1, 2, 2]
    np.testing.assert_array_equal(
        mixed.boxes_xyxy_px,
        [[11, 20, 21, 30], [0, 0, 15, 15], [10.5, 20, 20.5, 30], [50, 50, 70, 70], [12, 20, 16, 60]],
    )
    assert (mixed.image_rgb[20:75, 12:75] == 200).all()
    assert mixed.image_rgb.sum() == 55 * 63 * 200 * 3
    assert (base.image_rgb == 0).all()


def test_paste_of_nothing_and_of_everything() -> None:
    base, second = sample_of(0, [[0, 0, 10, 10]], 1), sample_of(200, [[5, 5, 20, 20]], 2)
    nothing, everything = paste(base, second, (50, 50, 50, 50)), paste(base, second, (0, 0, 100, 100))
    assert nothing.labels.tolist() == [1]
    assert (nothing.image_rgb == 0).all()
    assert everything.labels.tolist() == [2]
    assert (everything.image_rgb == 200).all()


def test_cutmix_rectangles_stay_inside_and_vary() -> None:
    base, second = sample_of(0, [], 1), sample_of(200, [], 2)
    shares = [(cutmix(np.random.default_rng(seed), base, second).image_rgb == 200).mean() for seed in range(200)]
    # A share uniform in [0, 1], cut off where the rectangle leaves the image: on average a little under one half.
    assert 0.2 < np.mean(shares) < 0.5
    assert min(shares) < 0.05
    assert max(shares) > 0.7
