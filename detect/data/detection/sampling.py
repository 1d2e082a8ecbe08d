"""Images of each training sample, decided in the main process, so that workers only compute.

Everything is a pure function of (seed, epoch). Letters: N images, B images per batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from detect.config.augment import AugmentConfig
from detect.data.mixing import Mix, choose_mix
from detect.data.workers import Order
from detect.runtime.distributed import rank_slice
from detect.runtime.reproducibility import generator

WINDOW = 64
"""Images before a sample from which its partners are drawn: enough variety, and few enough to stay in memory, so that a
mosaic costs one decoded image instead of four."""
LANES = 4
"""Batch b belongs to lane b % LANES, and partners come from the same lane. PyTorch gives batch b to worker b % workers:
with 1, 2 or 4 workers, each has decoded all partners of its samples itself."""

ORDER_STREAM, REQUEST_STREAM, SAMPLE_STREAM = 1, 2, 3
"""Stream numbers of the random generators of the order, the requests and the samples, which are unrelated."""


@dataclass(frozen=True)
class SampleRequest:
    """Request of one training sample. With the seed, it determines every pixel.

    Args:
        epoch: from 0.
        position: of the sample in the epoch, from 0.
        tiles: rows of the annotation table: 1 (a single image), 4 or 9 (a mosaic); the first is the sample's own.
        mix: combination with the second sample.
        second: rows of the second sample, as ``tiles``; empty without one.
        mosaic_epoch: mosaics are possible in the epoch. They fill a square; single images need only the rectangle that
            holds them.
    """

    epoch: int
    position: int
    tiles: tuple[int, ...]
    mix: Mix = "none"
    second: tuple[int, ...] = ()
    mosaic_epoch: bool = True


class TrainingOrder(Order):
    """Sample requests of the batches of an epoch. Several processes share out each batch, in its order.

    Args:
        num_images: N, at least 1.
        batch_size: B.
        epochs: length of the training, for ``augment.close_mosaic``.
        augment: probabilities of mosaic, mixup and cutmix.
        seed: of the run.
        repeats: (N,) float64, mean number of times that an epoch has each image; None: once each.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        epochs: int,
        augment: AugmentConfig,
        seed: int,
        repeats: np.ndarray | None = None,
    ) -> None:
        super().__init__(num_images if repeats is None else epoch_length(repeats), batch_size, seed)
        self.augment = augment
        self.first_plain_epoch = epochs - augment.close_mosaic
        self.repeats = repeats

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        rng = generator(ORDER_STREAM, self.seed, self.epoch)
        order = rng.permutation(self.num_images) if self.repeats is None else draw_rows(rng, self.repeats)
        for batch in range(self.start, len(self)):
            requests = self._batch(order, batch)
            yield requests[rank_slice(len(requests))]

    def _batch(self, order: np.ndarray, batch: int) -> list[SampleRequest]:
        rng = generator(REQUEST_STREAM, self.seed, self.epoch, batch)
        num_partners = 17  # a mosaic of nine needs 8, its second sample 9
        partners = order[partner_positions(rng, batch, len(self), self.batch_size, num_partners)]
        own = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        draws = rng.random((self.batch_size, 5))
        return [
            self._request(batch * self.batch_size + i, [int(own[i]), *partners[i].tolist()], draws[i])
            for i in range(self.batch_size)
        ]

    def _request(self, position: int, rows: list[int], draw: np.ndarray) -> SampleRequest:
        if self.epoch >= self.first_plain_epoch:
            return SampleRequest(self.epoch, position, (rows[0],), mosaic_epoch=False)
        size = self._num_tiles(draw[0], draw[1])
        mix = choose_mix(draw[2], self.augment.mixup, self.augment.cutmix)
        second_size = 0 if mix == "none" else self._num_tiles(draw[3], draw[4])
        second = tuple(rows[size : size + second_size])
        return SampleRequest(self.epoch, position, tuple(rows[:size]), mix, second, self.augment.mosaic > 0)

    def _num_tiles(self, draw: float, draw9: float) -> int:
        if draw >= self.augment.mosaic:
            return 1
        return 9 if draw9 < self.augment.mosaic9 else 4


def epoch_length(repeats: np.ndarray) -> int:
    """Number of samples of an epoch with ``repeats`` (N,) of the images: their sum, rounded up."""
    return math.ceil(repeats.sum() - 1e-6)  # a sum of shares may be a little above the whole number that it means


def draw_rows(rng: np.random.Generator, repeats: np.ndarray) -> np.ndarray:
    """Draw the images of an epoch, in a random order: (``epoch_length``,) int64 rows.

    A systematic sample: points at equal distances along intervals whose lengths are the repeats, one after another in a
    random order. The distance is at most 1, so that image i comes at least floor(repeats[i]) times.
    """
    shuffled = rng.permutation(len(repeats))
    ends = np.cumsum(repeats[shuffled])
    length = epoch_length(repeats)
    points = (np.arange(length) + rng.random()) * (ends[-1] / length)
    rows = shuffled[np.searchsorted(ends, points, side="right").clip(max=len(repeats) - 1)]
    return rng.permutation(rows)


def partner_positions(
    rng: np.random.Generator, batch: int, num_batches: int, batch_size: int, num_partners: int
) -> np.ndarray:
    """Draw partners for each sample of a batch among the images before it in its lane, cyclically.

    Args:
        rng: drawn from.
        batch: number of the batch in the epoch.
        num_batches: of the epoch.
        batch_size: B.
        num_partners: per sample; distinct if there are enough others.

    Returns:
        (B, num_partners) int64, positions in the epoch's order; the sample itself only if it is alone in its lane.
    """
    # Small sets have fewer lanes, so that each still holds a whole window.
    num_lanes = LANES
    while num_lanes > 1 and num_batches * batch_size < num_lanes * WINDOW:
        num_lanes //= 2
    lane = batch % num_lanes
    length = batch_size * len(range(lane, num_batches, num_lanes))
    reach = min(WINDOW, length - 1)
    if reach >= num_partners:
        steps = 1 + rng.random((batch_size, reach)).argsort(axis=1)[:, :num_partners]
    else:
        steps = rng.integers(min(1, reach), reach, size=(batch_size, num_partners), endpoint=True)
    own = (batch // num_lanes) * batch_size + np.arange(batch_size)
    in_lane = (own[:, None] - steps) % length
    return (in_lane // batch_size * num_lanes + lane) * batch_size + in_lane % batch_size
