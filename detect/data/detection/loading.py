"""Loaders: annotation tables to batches, by worker processes, reproducibly.

The main process decides the images of each sample (``detect.data.detection.sampling``); a sample is then a pure
function of its request and the seed, so the number of workers changes the speed only.
Letters: B images of a batch, S side of the square network input, M targets.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from detect.config.augment import AugmentConfig
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable
from detect.data.detection.albumentations_stage import AlbumentationsStage
from detect.data.detection.augment import cutmix, mixup, mosaic4, mosaic9, random_hsv, single_scene
from detect.data.detection.copy_paste import copy_paste
from detect.data.detection.geometry import (
    Sample,
    are_trainable,
    flip_left_right,
    flip_up_down,
    moves,
    random_matrix,
    rotate90,
    warp,
)
from detect.data.detection.images import ImageFiles, ImageStore, RecentImages, build_cache, read_original
from detect.data.detection.repeats import image_repeats
from detect.data.detection.sampling import LANES, SAMPLE_STREAM, WINDOW, SampleRequest, TrainingOrder
from detect.data.images import ImageError
from detect.data.letterbox import (
    PAD_VALUE,
    STRIDE,
    letterbox_boxes,
    letterbox_placement,
    letterboxed_hw,
    pad_batch,
    padded_hw,
)
from detect.data.workers import MISSED, EvaluationBatches, Failure, Loaded, TrainingBatches, check_shares, read_each
from detect.errors import InputError
from detect.runtime.logs import LOGGER
from detect.runtime.reproducibility import generator
from detect.structures import Batch, Letterbox, Targets


class TrainingSamples(Dataset[Loaded]):
    """Augmented samples, made from requests in the workers.

    Args:
        table: the training split.
        store: its letterboxed images.
        image_size: S.
        augment: the augmentation.
        seed: of the run.
        multiple: height and width of the network input are multiples of it.
    """

    def __init__(
        self,
        table: AnnotationTable,
        store: ImageStore,
        image_size: int,
        augment: AugmentConfig,
        seed: int,
        *,
        multiple: int,
    ) -> None:
        self.table = table
        self.store = store
        self.image_size = image_size
        self.augment = augment
        self.seed = seed
        self.stage = AlbumentationsStage(augment.albumentations, image_size) if augment.albumentations else None
        # Quarter turns need the square. So may geometric transforms of the library, which are tried on squares only.
        needs_square = augment.rotate90 > 0 or (self.stage is not None and self.stage.is_geometric)
        self.plain_hw = (image_size, image_size) if needs_square else _plain_hw(table, image_size, multiple)

    def __getitem__(self, requests: Sequence[SampleRequest]) -> Loaded:
        failures: list[Failure] = []
        samples = [self.sample(request, failures) for request in requests]
        images = torch.from_numpy(np.stack([sample.image_rgb for sample in samples]))
        image_hw = (images.shape[1], images.shape[2])
        targets = flat_targets([(sample.boxes_xyxy_px, sample.labels) for sample in samples], image_hw)
        rows = torch.tensor([request.tiles[0] for request in requests])
        return Loaded(Batch(images, targets, rows), tuple(failures))

    def sample(self, request: SampleRequest, failures: list[Failure]) -> Sample:
        """Make one augmented sample with its boxes: S x S, or the smaller rectangle of an epoch without mosaics.

        Images that cannot be read are appended to ``failures``.
        """
        rng = generator(SAMPLE_STREAM, self.seed, request.epoch, request.position)
        output_hw = (self.image_size, self.image_size) if request.mosaic_epoch else self.plain_hw
        sample = self._placed(rng, request.tiles, output_hw, failures)
        if request.mix != "none":
            mix = mixup if request.mix == "mixup" else cutmix
            sample = mix(rng, sample, self._placed(rng, request.second, output_hw, failures))
        image = random_hsv(rng, self.augment, sample.image_rgb)
        sample = Sample(image, sample.boxes_xyxy_px, sample.labels)
        sample = self._turned(rng, sample)
        return self.stage(rng, sample) if self.stage else sample

    def _placed(
        self, rng: np.random.Generator, rows: Sequence[int], output_hw: tuple[int, int], failures: list[Failure]
    ) -> Sample:
        """Warp a single image or a mosaic to ``output_hw``."""
        tiles = [self._tile(rng, row, failures) for row in rows]
        if len(tiles) == 1:
            if not moves(self.augment):
                return self._unmoved(tiles[0], output_hw)
            scene = single_scene(tiles[0])
        else:
            scene = (mosaic4 if len(tiles) == 4 else mosaic9)(rng, tiles, self.image_size)
        return warp(scene, random_matrix(rng, self.augment, scene, output_hw), output_hw)

    def _unmoved(self, tile: Sample, output_hw: tuple[int, int]) -> Sample:
        """Put the image into the top left corner, exactly as in evaluation."""
        image = pad_batch([tile.image_rgb], shape_hw=output_hw)[0]
        keep = are_trainable(tile.boxes_xyxy_px, tile.boxes_xyxy_px)
        return Sample(image, tile.boxes_xyxy_px[keep], tile.labels[keep])

    def _turned(self, rng: np.random.Generator, sample: Sample) -> Sample:
        left_right, up_down, quarter = rng.random(3) < (
            self.augment.flip_left_right,
            self.augment.flip_up_down,
            self.augment.rotate90,
        )
        turns = int(rng.integers(1, 4))
        if left_right:
            sample = flip_left_right(sample)
        if up_down:
            sample = flip_up_down(sample)
        return rotate90(sample, turns) if quarter else sample

    def _tile(self, rng: np.random.Generator, row: int, failures: list[Failure]) -> Sample:
        """Letterboxed image with its boxes, without crowd regions, and copies of the small ones; a grey one without
        boxes if it cannot be read.
        """
        placement = _placement(self.table, row, self.image_size)
        try:
            image = self.store.read(row)
        except ImageError as error:
            failures.append((row, str(error)))
            grey_hw = letterboxed_hw(placement.image_hw, self.image_size)
            grey = np.full((*grey_hw, 3), PAD_VALUE, dtype=np.uint8)
            return Sample(grey, np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
        boxes, labels, is_crowd = self.table.boxes(row)
        sample = Sample(image, letterbox_boxes(boxes[~is_crowd], placement), labels[~is_crowd])
        if self.augment.copy_paste and rng.random() < self.augment.copy_paste:
            sample = copy_paste(rng, sample, letterbox_boxes(boxes[is_crowd], placement), self.augment)
        return sample


class TrainingLoader(TrainingBatches):
    """Shuffled, augmented batches: of S x S images, or of the smallest rectangle in epochs without mosaics.

    The last batch of an epoch is dropped if it is not full, unless it is the only one. Worker processes are kept
    between epochs. An image that cannot be read is grey and without objects; it is logged once, and their number at the
    end of each epoch.

    Args:
        table: the training split.
        config: the recipe; ``batch_size``, ``image_size``, ``epochs``, ``seed``, ``workers``, ``cache`` and ``augment``
            are used.
        cache_folder: folder of the file of ``cache: disk``.
        multiple: height and width of the network input are multiples of it (``max_reduction`` of the model).
        strict: refuse an image that cannot be read instead.

    Raises:
        InputError: nothing to train on, an impossible size or augmentation, or a cache that does not fit.
    """

    def __init__(
        self,
        table: AnnotationTable,
        config: DetectionRecipe,
        cache_folder: Path | None = None,
        *,
        multiple: int = STRIDE,
        strict: bool = False,
    ) -> None:
        _check(table, config, multiple)
        self.table = table
        files = ImageFiles(table, config.image_size)
        store: ImageStore
        if config.cache == "none":
            store = RecentImages(files, _num_remembered(config.workers))
        else:
            store = build_cache(files, config.cache, cache_folder)
        samples = TrainingSamples(table, store, config.image_size, config.augment, config.seed, multiple=multiple)
        order = TrainingOrder(
            *(len(table), config.batch_size, config.epochs, config.augment, config.seed), image_repeats(table, config)
        )
        super().__init__(samples, order, config.workers, num_images=len(table), strict=strict)


class EvaluationSamples(Dataset[Loaded]):
    """Rectangular batches of letterboxed images, made in the workers.

    Args:
        table: the split.
        image_size: long side, pixels.
        multiple: height and width of a batch are multiples of it.
    """

    def __init__(self, table: AnnotationTable, image_size: int, multiple: int) -> None:
        self.table = table
        self.image_size = image_size
        self.multiple = multiple
        self.files = ImageFiles(table, image_size)

    def __getitem__(self, rows: Sequence[int]) -> Loaded:
        start = time.perf_counter()
        images, failures = read_each(self.files.read, rows)
        if not images:
            return Loaded(None, tuple(failures))
        placements = [_placement(self.table, row, self.image_size) for row in images]
        targets = flat_targets([self._targets_of(row, at) for row, at in zip(images, placements, strict=True)])
        padded = torch.from_numpy(pad_batch(list(images.values()), self.multiple))
        seconds = time.perf_counter() - start
        return Loaded(Batch(padded, targets, torch.tensor(list(images)), placements, seconds), tuple(failures))

    def _targets_of(self, row: int, placement: Letterbox) -> tuple[np.ndarray, np.ndarray]:
        boxes, labels, is_crowd = self.table.boxes(row)
        return letterbox_boxes(boxes[~is_crowd], placement), labels[~is_crowd]


class EvaluationLoader(EvaluationBatches):
    """Rectangular batches of a split, each image once, images of one padded shape together.

    ``Batch.rows`` has the rows of the images, ``Batch.letterboxes`` their placement. Targets are without crowd
    regions. Images that cannot be read are in no batch, so their objects count as missed; each is logged once and
    listed in ``unreadable``, and their number comes last.

    Args:
        table: the split; it need not be labelled.
        image_size: long side, pixels.
        batch_size: images per batch, at most.
        workers: processes; 0 loads in this one.
        multiple: height and width of a batch are multiples of it (``max_reduction`` of the model).
        strict: raise ``InputError`` from the iteration for an image that cannot be read.
    """

    def __init__(
        self,
        table: AnnotationTable,
        image_size: int,
        batch_size: int,
        workers: int,
        *,
        multiple: int = STRIDE,
        strict: bool = False,
    ) -> None:
        self.table = table
        batches = _rectangular_batches(table, image_size, batch_size, multiple)
        samples = EvaluationSamples(table, image_size, multiple)
        super().__init__(samples, batches, workers, num_images=len(table), policy=MISSED, strict=strict)


class OriginalSamples(Dataset[Loaded]):
    """Images at their own size, read in the workers.

    Args:
        table: the split.
    """

    def __init__(self, table: AnnotationTable) -> None:
        self.table = table

    def __getitem__(self, row: int) -> Loaded:
        start = time.perf_counter()
        try:
            image = read_original(self.table, row)
        except ImageError as error:
            return Loaded(None, ((row, str(error)),))
        nothing = torch.zeros(0, dtype=torch.int64)
        targets = Targets(nothing, nothing, torch.zeros(0, 4))
        placement = Letterbox((1.0, 1.0), (image.shape[0], image.shape[1]))
        images = torch.from_numpy(np.require(image, requirements="W"))[None]  # some decoders give what is read-only
        seconds = time.perf_counter() - start
        return Loaded(Batch(images, targets, torch.tensor([row]), [placement], seconds), ())


class OriginalLoader(EvaluationBatches):
    """Batches of one image each, (1, H, W, 3), unscaled and without targets; otherwise as ``EvaluationLoader``.

    Args:
        table: the split; it need not be labelled.
        workers: processes; 0 loads in this one.
        strict: raise ``InputError`` from the iteration for an image that cannot be read.
    """

    def __init__(self, table: AnnotationTable, workers: int, *, strict: bool = False) -> None:
        super().__init__(
            OriginalSamples(table), range(len(table)), workers, num_images=len(table), policy=MISSED, strict=strict
        )


def _rectangular_batches(
    table: AnnotationTable, image_size: int, batch_size: int, multiple: int
) -> list[tuple[int, ...]]:
    """Rows in batches of one padded shape, wide images first.

    Predictions depend a little on the padding. If only equal shapes share a batch, every image has the padding that it
    has alone, so the batch size does not change a result.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for row, (height, width) in enumerate(table.sizes_hw.tolist()):
        groups.setdefault(padded_hw(letterboxed_hw((height, width), image_size), multiple), []).append(row)
    wide_first = sorted(groups, key=lambda shape_hw: shape_hw[0] / shape_hw[1])
    return [
        tuple(groups[shape_hw][start : start + batch_size])
        for shape_hw in wide_first
        for start in range(0, len(groups[shape_hw]), batch_size)
    ]


def _placement(table: AnnotationTable, row: int, image_size: int) -> Letterbox:
    height, width = table.sizes_hw[row].tolist()
    return letterbox_placement((height, width), image_size)


def _plain_hw(table: AnnotationTable, image_size: int, multiple: int) -> tuple[int, int]:
    """Height and width of the network input in epochs without mosaics: the smallest multiples that hold every image.

    Images of 16 : 9 need little more than half the square.
    """
    shapes = np.unique(table.sizes_hw, axis=0).tolist()
    sizes = np.array([letterboxed_hw((height, width), image_size) for height, width in shapes])
    height, width = sizes.max(axis=0).tolist()
    return padded_hw((height, width), multiple)


def flat_targets(
    per_image: Sequence[tuple[np.ndarray, np.ndarray]], image_hw: tuple[int, int] | None = None
) -> Targets:
    """Flatten (boxes, labels) of each image of a batch, of height and width ``image_hw``."""
    counts = [len(labels) for _, labels in per_image]
    return Targets(
        torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
        torch.from_numpy(np.concatenate([labels for _, labels in per_image])),
        torch.from_numpy(np.concatenate([boxes for boxes, _ in per_image]).astype(np.float32)),
        image_hw,
    )


def _num_remembered(workers: int) -> int:
    """Images that one process remembers: the windows of its lanes, and half as many again for those between."""
    return -(-LANES // max(1, workers)) * WINDOW * 3 // 2


def _check(table: AnnotationTable, config: DetectionRecipe, multiple: int) -> None:
    if not table.is_labelled:
        raise InputError("the training split has no annotations; there is nothing to learn from")
    if len(table) == 0:
        raise InputError("the training split has no images; look at the paths in the data config")
    if config.augment.mixup + config.augment.cutmix > 1:
        raise InputError(
            f"augment: mixup {config.augment.mixup:g} and cutmix {config.augment.cutmix:g} exclude each other, so "
            "together they must be at most 1"
        )
    check_shares(config.batch_size, len(table))
    if config.image_size % multiple:
        raise InputError(f"image_size: must be a multiple of {multiple} for this model, found {config.image_size}")
    mixes = config.augment.mosaic > 0 or config.augment.mixup > 0 or config.augment.cutmix > 0
    if mixes and config.augment.close_mosaic >= config.epochs:
        LOGGER.warning(
            "augment.close_mosaic %d is not less than epochs %d, so mosaic, mixup and cutmix never happen",
            config.augment.close_mosaic,
            config.epochs,
        )
