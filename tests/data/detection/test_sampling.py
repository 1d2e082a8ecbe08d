from __future__ import annotations

from collections import Counter, OrderedDict

import numpy as np
import pytest

from detect.config.augment import AugmentConfig
from detect.data.detection.sampling import LANES, WINDOW, SampleRequest, TrainingOrder, partner_positions

PLAIN = AugmentConfig(mosaic=0, mixup=0, cutmix=0, close_mosaic=0)


def order_of(num_images: int, batch_size: int = 8, augment: AugmentConfig = PLAIN, epochs: int = 10, seed: int = 0):
    return TrainingOrder(num_images, batch_size, epochs, augment, seed)


def requests_of(order: TrainingOrder, epoch: int = 0) -> list[SampleRequest]:
    order.epoch = epoch
    return [request for batch in order for request in batch]


def test_batches() -> None:
    for num_images, batch_size, sizes in [
        (1, 8, [1]),  # fewer than a batch: they are the batch
        (7, 8, [7]),
        (8, 8, [8]),
        (9, 8, [8]),  # the last one would be a batch of its own
        (24, 8, [8, 8, 8]),
        (31, 8, [8, 8, 8]),
    ]:
        order = order_of(num_images, batch_size)
        assert [len(batch) for batch in order] == sizes
        assert len(order) == len(sizes)


def test_every_image_once() -> None:
    rows = [request.tiles[0] for request in requests_of(order_of(64))]
    assert sorted(rows) == list(range(64))
    assert rows != list(range(64))


def test_pure_function_of_seed_and_epoch() -> None:
    augment = AugmentConfig(mosaic=0.5, mosaic9=0.3, mixup=0.3, cutmix=0.3, close_mosaic=0)
    first, again = order_of(100, augment=augment), order_of(100, augment=augment)
    epoch3 = requests_of(first, 3)
    assert requests_of(first, 4) != epoch3
    assert requests_of(first, 3) == epoch3
    assert requests_of(again, 3) == epoch3
    assert requests_of(order_of(100, augment=augment, seed=1), 3) != epoch3


def test_positions_count_through_the_epoch() -> None:
    assert [request.position for request in requests_of(order_of(30), epoch=2)] == list(range(24))
    assert {request.epoch for request in requests_of(order_of(30), epoch=2)} == {2}


def test_probabilities() -> None:
    augment = AugmentConfig(mosaic=0.8, mosaic9=0.25, mixup=0.1, cutmix=0.2, close_mosaic=0)
    requests = requests_of(order_of(4000, 16, augment))
    tiles = Counter(len(request.tiles) for request in requests)
    mixes = Counter(request.mix for request in requests)
    # Standard deviations are at most sqrt(0.25 / 4000) = 0.008; five of them are allowed.
    for found, share in [(tiles[1], 0.2), (tiles[4], 0.6), (tiles[9], 0.2)]:
        assert abs(found / 4000 - share) < 0.04
    for found, share in [(mixes["none"], 0.7), (mixes["mixup"], 0.1), (mixes["cutmix"], 0.2)]:
        assert abs(found / 4000 - share) < 0.04
    assert {len(request.second) for request in requests if request.mix == "none"} == {0}
    assert {len(request.second) for request in requests if request.mix != "none"} == {1, 4, 9}


def test_last_epochs_are_plain() -> None:
    order = order_of(16, augment=AugmentConfig(mosaic=1, mixup=1, close_mosaic=3), epochs=10)
    assert {len(request.tiles) for request in requests_of(order, 6)} == {4}
    for epoch in (7, 8, 9):
        assert all(len(request.tiles) == 1 and request.mix == "none" for request in requests_of(order, epoch))


def test_partners_of_a_mosaic_are_distinct() -> None:
    augment = AugmentConfig(mosaic=1, mosaic9=1, mixup=1, close_mosaic=0)
    for request in requests_of(order_of(200, augment=augment)):
        assert len({*request.tiles, *request.second}) == 18


def test_tiny_sets_have_partners_too() -> None:
    for num_images in [1, 2, 3, 17, 18]:
        augment = AugmentConfig(mosaic=1, mosaic9=1, mixup=1, close_mosaic=0)
        for request in requests_of(order_of(num_images, augment=augment)):
            assert len(request.tiles) == len(request.second) == 9
            assert {*request.tiles, *request.second} <= set(range(num_images))
            if num_images > 1:
                assert request.tiles[0] not in request.tiles[1:]


def test_partners_are_recent_in_their_lane() -> None:
    """A slow reference: write down each lane's positions, and look at most a window back."""
    for num_batches, batch_size in [(64, 16), (100, 8), (20, 16), (7, 16), (3, 64), (40, 1)]:
        total = num_batches * batch_size
        num_lanes = max(n for n in (1, 2, 4) if n == 1 or total >= n * WINDOW)
        assert num_lanes <= LANES
        lanes: dict[int, list[int]] = {}
        for position in range(total):
            lanes.setdefault(position // batch_size % num_lanes, []).append(position)
        for batch in range(num_batches):
            found = partner_positions(np.random.default_rng(batch), batch, num_batches, batch_size, 17)
            lane = lanes[batch % num_lanes]
            for i, partners in enumerate(found.tolist()):
                own = lane.index(batch * batch_size + i)
                allowed = {lane[(own - step) % len(lane)] for step in range(1, min(WINDOW, len(lane) - 1) + 1)}
                assert set(partners) <= allowed


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_mosaic_costs_one_decoded_image(workers: int) -> None:
    """Batches dealt in turn to workers that each remember one and a half windows for each of their lanes."""
    order = order_of(2000, 16, AugmentConfig(mosaic=1))
    capacity = LANES // workers * WINDOW * 3 // 2
    remembered: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(workers)]
    num_decoded = 0
    for number, batch in enumerate(order):
        images = remembered[number % workers]
        for row in [row for request in batch for row in request.tiles]:
            num_decoded += row not in images
            images[row] = None
            images.move_to_end(row)
            if len(images) > capacity:
                images.popitem(last=False)
    # Each image once, and again at most one window in each lane, whose partners are from the end of the epoch.
    assert num_decoded <= 2000 + LANES * WINDOW
