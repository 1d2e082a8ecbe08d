"""Loaders of classification images: tables to batches, by worker processes, reproducibly.

The main process decides the images of a batch; a batch is then a pure function of the table, the recipe, the seed, the
epoch and its number, so the number of workers changes the speed only.
Letters: N images, B images of a batch, S side of the network input, R = round(S / center_crop), K classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from detect.config.augment import ClassAugmentConfig
from detect.config.recipe import ClassificationRecipe
from detect.data.classification.augment import Augmentation, draw, mix
from detect.data.classification.geometry import center_crop, ten_crops
from detect.data.classification.images import ImageSource, image_source, in_threads
from detect.data.classification.table import ClassTable
from detect.data.images import ImageError
from detect.data.workers import (
    EvaluationBatches,
    Failure,
    Loaded,
    Order,
    TrainingBatches,
    UnreadablePolicy,
    check_shares,
    read_each,
)
from detect.errors import InputError
from detect.runtime.distributed import rank_slice
from detect.runtime.reproducibility import generator
from detect.structures import Batch, ClassTargets

CLASS_ORDER_STREAM, CLASS_IMAGE_STREAM, CLASS_MIX_STREAM = 8, 9, 10
"""Stream numbers of the random generators; 1 to 7 are taken by detection, training and sweeps."""

WRONG = UnreadablePolicy("has no answer, so it counts as wrong", "they count as wrong")

MAX_STATISTICS_IMAGES = 5000
"""Images for the mean and deviation of colours; more change little."""
MIN_DEVIATION = 1 / 255
"""One grey level, the divisor for images of one colour, which have no deviation."""


class ClassRequest(NamedTuple):
    """Request of one training batch, or a share of it. With the seed, it determines every pixel.

    Args:
        epoch: from 0.
        number: of the batch in the epoch, from 0.
        rows: (B,) int64, of the whole batch.
        own: positions in it that are to be made.
    """

    epoch: int
    number: int
    rows: np.ndarray
    own: slice


class ClassOrder(Order):
    """Requests of the batches of an epoch. Several processes share out each batch, in its order."""

    def __iter__(self) -> Iterator[ClassRequest]:
        order = generator(CLASS_ORDER_STREAM, self.seed, self.epoch).permutation(self.num_images)
        own = rank_slice(self.batch_size)
        for number in range(self.start, len(self)):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield ClassRequest(self.epoch, number, rows, own)


class ClassTrainingSamples(Dataset[Loaded]):
    """Augmented batches, made from requests in the workers.

    Args:
        source: the images.
        labels: (N,) int64 class index, in [0, K).
        num_classes: K.
        augment: the augmentation.
        image_size: S.
        seed: of the run.
    """

    def __init__(
        self,
        source: ImageSource,
        labels: np.ndarray,
        num_classes: int,
        augment: ClassAugmentConfig,
        image_size: int,
        *,
        seed: int,
    ) -> None:
        self.labels = labels
        self.num_classes = num_classes
        self.augment = augment
        self.seed = seed
        self.augmentation = Augmentation(source, augment, image_size)

    def __getitem__(self, request: ClassRequest) -> Loaded:
        epoch, number, batch_rows, own = request
        mixes = self.augment.mixup > 0 or self.augment.cutmix > 0
        # Images are mixed with the one before them, so a share of a batch needs that of its first image, too.
        extra = int(mixes and own.stop - own.start < len(batch_rows))
        places = np.arange(own.start - extra, own.stop) % len(batch_rows)
        rows = batch_rows[places]
        failures: list[Failure] = []
        draws = draw(generator(CLASS_IMAGE_STREAM, self.seed, epoch, number), len(batch_rows))
        images = self.augmentation.images(draws.of(places), rows, failures)
        shares = one_hot(self.labels[rows], self.num_classes)
        if mixes:
            images, shares = mix(generator(CLASS_MIX_STREAM, self.seed, epoch, number), self.augment, images, shares)
        batch = Batch(
            torch.from_numpy(images[extra:]),
            ClassTargets(torch.from_numpy(shares[extra:])),
            torch.from_numpy(rows[extra:]),
        )
        return Loaded(batch, tuple(failures))


class ClassTrainingLoader(TrainingBatches):
    """Shuffled, augmented batches of S x S images.

    The last batch of an epoch is dropped if it is not full, unless it is the only one. Worker processes are kept
    between epochs. An image that cannot be read is grey; it is logged once, and their number at the end of each epoch.

    With ``cache: ram`` all images are decoded once, the short side resized to R, and the middle R x R kept: ``resize``
    and ``area`` then cut from these squares instead of the original images, while ``none`` and ``pad`` do so anyway and
    give the same pixels. Squares that the table has already are used without a copy, whatever ``cache`` is.

    Args:
        table: the training split.
        recipe: ``batch_size``, ``image_size``, ``center_crop``, ``seed``, ``workers``, ``cache`` and ``augment`` are
            used.
        strict: refuse an image that cannot be read instead.

    Raises:
        InputError: nothing to train on, or a cache that does not fit.
    """

    def __init__(self, table: ClassTable, recipe: ClassificationRecipe, *, strict: bool = False) -> None:
        if len(table) == 0:
            raise InputError("the training split has no images; look at the paths in the data config")
        check_shares(recipe.batch_size, len(table))
        self.table = table
        source = image_source(table, recipe.image_size, recipe.center_crop, in_memory=recipe.cache == "ram")
        samples = ClassTrainingSamples(
            source, table.labels, len(table.names), recipe.augment, recipe.image_size, seed=recipe.seed
        )
        order = ClassOrder(len(table), recipe.batch_size, recipe.seed)
        super().__init__(samples, order, recipe.workers, num_images=len(table), strict=strict)


class ClassEvaluationSamples(Dataset[Loaded]):
    """Batches of crops, made in the workers.

    Args:
        table: the split.
        image_size: S.
        center_crop: visible share of the short side, in (0, 1].
        crops: of an image: 1, or 10 (``ten_crops``), which lie one behind the other in a batch.
    """

    def __init__(self, table: ClassTable, image_size: int, center_crop: float, crops: int) -> None:
        self.table = table
        self.image_size = image_size
        self.center_crop = center_crop
        self.crops = crops

    def __getitem__(self, rows: Sequence[int]) -> Loaded:
        start = time.perf_counter()
        crop = center_crop if self.crops == 1 else ten_crops
        images, failures = read_each(lambda row: crop(self.table.read(row), self.image_size, self.center_crop), rows)
        if not images:
            return Loaded(None, tuple(failures))
        shares = one_hot(self.table.labels[list(images)], len(self.table.names))
        stacked = torch.from_numpy(np.stack(list(images.values()))).reshape(-1, self.image_size, self.image_size, 3)
        seconds = time.perf_counter() - start
        batch = Batch(stacked, ClassTargets(torch.from_numpy(shares)), torch.tensor(list(images)), (), seconds)
        return Loaded(batch, tuple(failures))


class ClassEvaluationLoader(EvaluationBatches):
    """Batches of a split in the table's order, each image once.

    Images that cannot be read are in no batch; each is logged once and listed in ``unreadable``, and their number comes
    last.

    Args:
        table: the split.
        image_size: S.
        center_crop: visible share of the short side, in (0, 1].
        batch_size: images per batch, at most.
        workers: processes; 0 loads in this one.
        crops: of an image, as of ``ClassEvaluationSamples``.
        strict: raise ``InputError`` from the iteration for an image that cannot be read.
    """

    def __init__(
        self,
        table: ClassTable,
        image_size: int,
        center_crop: float,
        batch_size: int,
        workers: int,
        *,
        crops: int = 1,
        strict: bool = False,
    ) -> None:
        self.table = table
        batches = [range(len(table))[start : start + batch_size] for start in range(0, len(table), batch_size)]
        samples = ClassEvaluationSamples(table, image_size, center_crop, crops)
        super().__init__(samples, batches, workers, num_images=len(table), policy=WRONG, strict=strict)


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Convert class indices (B,) in [0, K) to (B, K) float32 shares."""
    shares = np.zeros((len(labels), num_classes), dtype=np.float32)
    shares[np.arange(len(labels)), labels] = 1
    return shares


Colour = tuple[float, float, float]
"""Red, green and blue, in units of the full range."""


def channel_statistics(table: ClassTable, image_size: int, crop_share: float) -> tuple[Colour, Colour]:
    """Compute mean and deviation of the pixels of training images, as evaluation sees them.

    Args:
        table: the training split; at most ``MAX_STATISTICS_IMAGES`` of it, evenly spaced, are used, without
            unreadable ones.
        image_size: S.
        crop_share: as ``center_crop`` of the recipe, in (0, 1].

    Returns:
        Mean and standard deviation, in [0, 1]; the deviation is at least ``MIN_DEVIATION``.

    Raises:
        InputError: no image can be read.
    """

    def of_image(row: int) -> np.ndarray | None:
        """(2, 3): means, and means of squares."""
        try:
            image = center_crop(table.read(row), image_size, crop_share)
        except ImageError:
            return None
        mean, deviation = cv2.meanStdDev(image)
        return np.stack([mean[:, 0], mean[:, 0] ** 2 + deviation[:, 0] ** 2])

    count = min(len(table), MAX_STATISTICS_IMAGES)
    rows = (np.arange(count) * len(table) // max(1, count)).tolist()
    found = [moments for moments in in_threads(of_image, rows, "mean colour") if moments is not None]
    if not found:
        raise InputError("no image of the training split can be read; look at the paths in the data config")
    mean, mean_of_squares = np.mean(found, axis=0)
    deviation = np.sqrt(np.maximum(mean_of_squares - mean**2, 0)) / 255
    red, green, blue = (mean / 255).tolist()
    red_deviation, green_deviation, blue_deviation = np.maximum(deviation, MIN_DEVIATION).tolist()
    return (red, green, blue), (red_deviation, green_deviation, blue_deviation)
