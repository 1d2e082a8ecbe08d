"""Advice from a data set's statistics: each rule with its threshold, its reason, and a command or key to use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from detect.curation.stats.statistics import DataStatistics, percent
from detect.data.detection.box_sizes import MANY_SMALL, SMALL_PX
from detect.data.letterbox import STRIDE
from detect.drawing.text import shorten

MODEL = "detect-n"
"""Model of the commands. Its finest cells have 4 px; on small objects its AP is 0.08 above that of the SPD-Conv paper's
model of the same size, at fewer multiply-adds (docs/results/recipes.md)."""

MAX_SMALL_SHARE = 0.5
"""Share of the boxes under 16 px, two cells of 8 px, above which a level of finer cells is worth its cost: at 320 px,
DeepPCB has 56 % of them, and AP 0.491 with it against 0.411 without (docs/results/recipes.md)."""

SMALL_SHARE_GOAL = 0.25
"""Share under 16 px that a larger image size aims at: half of ``MAX_SMALL_SHARE``, so that the effect is visible."""

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


def _fine_level(statistics: DataStatistics, data: str) -> Advice | None:
    if not _is_small(statistics, statistics.image_size):
        return None
    return Advice(
        f"at {statistics.image_size} px, {_small_shares(statistics, statistics.image_size)}: several such boxes share "
        f"a cell of {SMALL_PX} px, the finest of most models; {MODEL} has cells of {SMALL_PX // 2} px",
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


def _train(statistics: DataStatistics, data: str, size: int | None = None) -> str:
    size = size or statistics.image_size
    return f"detect train {data} --image-size {size}"


_RULES: tuple[Callable[[DataStatistics, str], Advice | None], ...] = (
    _fine_level,
    _larger_size,
    _tiles,
    _smaller_size,
    _imbalance,
    _background,
    _beyond_limit,
    _crowded,
)
