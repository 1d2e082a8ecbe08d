"""Advice from a data set's statistics: each rule with its threshold, its reason, and a command or key to use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from detect.boxes.anchors import best_possible_recall, fittable_sizes
from detect.config.recipe import AnchorsConfig, LossConfig
from detect.curation.stats.statistics import DataStatistics, percent
from detect.data.detection.box_sizes import MANY_SMALL, SMALL_PX
from detect.data.letterbox import STRIDE
from detect.drawing.text import shorten
from detect.models.catalog import find_definition

MODEL = "yolov5n-spd"
"""Model of the commands: the shipped one for small objects."""

MAX_SMALL_SHARE = 0.5
"""Share of the boxes under 16 px, two cells of the finest level, above which space-to-depth is worth its cost: at
320 px, DeepPCB has 56 % of them, and AP 0.492 with it against 0.430 without (docs/results/index.md)."""

SMALL_SHARE_GOAL = 0.25
"""Share under 16 px that a larger image size aims at: half of ``MAX_SMALL_SHARE``, so that the effect is visible."""

LEVEL_SHARE = 0.25
"""Share of the boxes under 8 px that is worth a level of 4 px cells, whose map has four times the cells of the finest:
several such boxes share a cell of 8 px, and each needs one."""

COARSE_PX = 96
"""Shorter side of boxes for which a level of 32 px cells is made, three cells; its smallest anchor has 116 x 90 px."""

COARSE_SHARE = 0.01
"""Share of such boxes below which that level has next to nothing to learn from."""

TILE_RATIO = 1.5
"""Ratio of the images' long side to the network input above which more than half of the pixels are lost. The smallest
ratio with a measured gain is 1.56: aerial images of 1,000 px at 640 px had AP 0.031 in one piece and 0.189 in tiles (a
trial on a public data set). At 12.5, boards of 4,000 px at 320 px, it is 0.000 and 0.454 (docs/results/tiles.md)."""

TILE_GAIN = 0.1
"""Share of the boxes that tiles must bring above 8 px, or above 16 px: as ``MANY_SMALL``, the recall at stake."""

ENLARGED = 1.5
"""Enlargement of the images above which the arithmetic is more than twice that of their own pixels."""

IMBALANCE = 20.0
"""Boxes of the most frequent class per box of the rarest, above which the rarest is under 5 % of the two."""

BACKGROUND_SHARE = 0.5
"""Share of images without boxes above which most of an epoch is background."""

LONG_IMAGES = 1.5
"""Aspect ratio above which a third of a square around the image is padding."""

USUAL_DETECTIONS = 300
"""Default maximum of detections per image of ``detect predict``."""


class Advice(NamedTuple):
    """One piece of advice.

    Args:
        why: the figures behind it, in a sentence.
        what: a command, or a key of a YAML.
    """

    why: str
    what: str


def advise(statistics: DataStatistics, data: str) -> list[Advice]:
    """Return the advice for the training split, the most important first; ``data`` is its part of a command line."""
    return [found for rule in _RULES if (found := rule(statistics, data)) is not None]


def _space_to_depth(statistics: DataStatistics, data: str) -> Advice | None:
    if not _is_small(statistics, statistics.image_size):
        return None
    return Advice(
        f"at {statistics.image_size} px, {_small_shares(statistics, statistics.image_size)}: strides and pools skip "
        "pixels that such boxes cannot spare, space-to-depth skips none",
        _train(statistics, data),
    )


def _larger_size(statistics: DataStatistics, data: str) -> Advice | None:
    """Advise the smallest size that leaves few boxes small; at most the images' own, beyond which there is no more
    detail.
    """
    now = statistics.image_size
    sizes = range((now // STRIDE + 1) * STRIDE, statistics.long_side_px + 1, STRIDE)
    if not sizes or not _is_small(statistics, now):
        return None
    size = next((size for size in sizes if not _is_small(statistics, size, SMALL_SHARE_GOAL)), sizes[-1])
    return Advice(
        f"at --image-size {size}, {_small_shares(statistics, size)}, for {(size / now) ** 2:.1f} times the arithmetic; "
        f"the images have {statistics.long_side_px} px",
        _train(statistics, data, size=size),
    )


def _fine_level(statistics: DataStatistics, data: str) -> Advice | None:
    small = statistics.share_under(SMALL_PX)
    if small <= LEVEL_SHARE:
        return None
    large = 1 - statistics.share_under(COARSE_PX)
    word, left_out = "p2", ""
    if large < COARSE_SHARE:
        word = "levels=p2-p4"
        left_out = f" and leaves out that of 32 px, since {percent(large)} of the boxes have {COARSE_PX} px or more"
    return Advice(
        f"{percent(small)} of the boxes are smaller than the finest cells of most models, which have {SMALL_PX} px: "
        f"+{word} adds a level of {SMALL_PX // 2} px cells{left_out}",
        _train(statistics, data, model=f"{MODEL}+{word}"),
    )


def _tiles(statistics: DataStatistics, data: str) -> Advice | None:
    size, ratio = statistics.image_size, statistics.long_side_px / statistics.image_size
    if ratio < TILE_RATIO or not _is_small(statistics, size) or _lifted(statistics) < TILE_GAIN:
        return None
    return Advice(
        f"the images are {ratio:.1f} times as long as the network input, where {_small_shares(statistics, size)}; in "
        f"tiles of {size} px, {_small_shares(statistics, statistics.long_side_px)}. Train on such tiles, then detect "
        f"with --tile {size}",
        f"{_train(statistics, data)} --set tiles.size_px={size}",
    )


def _lifted(statistics: DataStatistics) -> float:
    """Return the share of the boxes that are above 8 px, or above 16 px, only at the images' own size."""
    own = statistics.long_side_px
    limits = (SMALL_PX, 2 * SMALL_PX)
    return max(statistics.share_under(limit) - statistics.share_under(limit, own) for limit in limits)


def _smaller_size(statistics: DataStatistics, data: str) -> Advice | None:
    size = -(-statistics.long_side_px // STRIDE) * STRIDE
    if statistics.image_size < ENLARGED * size or _is_small(statistics, size):
        return None
    return Advice(
        f"the images have {statistics.long_side_px} px and are enlarged to {statistics.image_size}; at --image-size "
        f"{size}, {_small_shares(statistics, size)}, for {(size / statistics.image_size) ** 2:.2f} of the arithmetic",
        _train(statistics, data, size=size),
    )


def _anchors(statistics: DataStatistics, data: str) -> Advice | None:
    anchors = np.array(find_definition(MODEL).rows[-1].args["anchors_px"], float).reshape(-1, 2)
    recall = best_possible_recall(fittable_sizes(statistics.sizes_px), anchors, LossConfig().anchor_ratio)
    if recall >= AnchorsConfig().min_recall:
        return None
    return Advice(
        f"the anchors of {MODEL} match {percent(recall)} of the boxes at {statistics.image_size} px, fewer than "
        f"{percent(AnchorsConfig().min_recall)}: let training fit new ones, as it does by default",
        "anchors.fit: auto",
    )


def _imbalance(statistics: DataStatistics, data: str) -> Advice | None:
    counts = statistics.boxes_per_class
    present = np.flatnonzero(counts)
    common, rare = int(counts.argmax()), int(present[counts[present].argmin()])
    if counts[common] <= IMBALANCE * counts[rare]:
        return None
    common_name, rare_name = (shorten(statistics.names[label], 40) for label in (common, rare))
    return Advice(
        f"the class {common_name} has {counts[common]:,} boxes and {rare_name} {counts[rare]:,}, "
        f"{counts[common] / counts[rare]:.0f} times fewer: more images of it help most; with a focal loss the easy "
        "ones weigh less",
        f"{_train(statistics, data)} --set loss.focal_gamma=1.5",
    )


def _background(statistics: DataStatistics, data: str) -> Advice | None:
    share = float((statistics.boxes_per_image == 0).mean())
    if share <= BACKGROUND_SHARE:
        return None
    return Advice(
        f"{percent(share)} of the images have no boxes: without them an epoch has {percent(1 - share)} of the "
        "batches (a line of the data config)",
        "background: drop",
    )


def _long_images(statistics: DataStatistics, data: str) -> Advice | None:
    ratio = float(np.median(statistics.sizes_hw.max(axis=1) / statistics.sizes_hw.min(axis=1)))
    if ratio < LONG_IMAGES:
        return None
    return Advice(
        f"one side of the images is {ratio:.1f} times the other: mosaics fill a square, and without them a batch is a "
        f"rectangle of {percent(1 / ratio)} of its pixels",
        f"{_train(statistics, data)} --set augment.mosaic=0",
    )


def _beyond_limit(statistics: DataStatistics, data: str) -> Advice | None:
    crowding = statistics.crowding
    if crowding.is_within:
        return None
    return Advice(
        f"{crowding.line()}: perfect detections do not reach an AP of 1; with a higher limit, evaluation gives a "
        "second table",
        f"detect val --weights FILE {data} --max-det {crowding.sufficient_limit}",
    )


def _crowded(statistics: DataStatistics, data: str) -> Advice | None:
    most = int(statistics.boxes_per_image.max())
    if most <= USUAL_DETECTIONS:
        return None
    return Advice(
        f"an image has {most:,} boxes, and {USUAL_DETECTIONS} detections of an image are kept unless more are wanted",
        f"detect predict --weights FILE --source FOLDER --max-det {2 * most}",
    )


def _is_small(statistics: DataStatistics, image_size: int, most: float = MAX_SMALL_SHARE) -> bool:
    """Tell whether the boxes are small for the network: many under 8 px, or more than ``most`` under 16 px."""
    tiny, small = (statistics.share_under(limit, image_size) for limit in (SMALL_PX, 2 * SMALL_PX))
    return tiny > MANY_SMALL or small > most


def _small_shares(statistics: DataStatistics, image_size: int) -> str:
    tiny, small = (statistics.share_under(limit, image_size) for limit in (SMALL_PX, 2 * SMALL_PX))
    return f"{percent(tiny)} of the boxes are under {SMALL_PX} px and {percent(small)} under {2 * SMALL_PX} px"


def _train(statistics: DataStatistics, data: str, model: str = MODEL, size: int | None = None) -> str:
    return f"detect train {data} --model {model} --image-size {size or statistics.image_size}"


_RULES: tuple[Callable[[DataStatistics, str], Advice | None], ...] = (
    _space_to_depth,
    _larger_size,
    _fine_level,
    _tiles,
    _smaller_size,
    _anchors,
    _imbalance,
    _background,
    _long_images,
    _beyond_limit,
    _crowded,
)
