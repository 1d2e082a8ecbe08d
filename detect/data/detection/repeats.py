"""Frequency of each image in an epoch: once; more often if it has a rare class; in some epochs only, as an empty tile.

Letters: N images, K classes.
"""

from __future__ import annotations

import numpy as np

from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable


def image_repeats(table: AnnotationTable, recipe: DetectionRecipe) -> np.ndarray | None:
    """Mean number of times that an epoch has each image, (N,) float64; None: each once."""
    if table.windows is None and not recipe.sampling.rare_below:
        return None
    repeats = repeat_factors(table, recipe.sampling.rare_below)
    if table.windows is not None:
        is_empty = objects_per_image(table) == 0
        num_empty = int(is_empty.sum())
        kept = num_empty_kept(num_empty, repeats[~is_empty].sum(), recipe.tiles.empty)
        repeats[is_empty] = kept / max(num_empty, 1)
    return repeats


def repeat_factors(table: AnnotationTable, rare_below: float) -> np.ndarray:
    """Number of times that an image comes in an epoch for its rarest class, (N,) float64, at least 1."""
    of_class = np.sqrt(rare_below / np.maximum(image_shares(table), 1e-12)).clip(min=1)
    repeats = np.ones(len(table))
    counted = ~table.is_crowd
    np.maximum.at(repeats, table.image_of_box[counted], of_class[table.labels[counted]])
    return repeats


def image_shares(table: AnnotationTable) -> np.ndarray:
    """Share of the images that have each class, (K,) float64; crowd regions do not count."""
    counted = ~table.is_crowd
    pairs = np.unique(np.stack([table.image_of_box[counted], table.labels[counted]], axis=1), axis=0)
    shares: np.ndarray = np.bincount(pairs[:, 1], minlength=len(table.names)) / max(len(table), 1)
    return shares


def objects_per_image(table: AnnotationTable) -> np.ndarray:
    """Number of boxes of each image without crowd regions, (N,) int64."""
    return np.bincount(table.image_of_box[~table.is_crowd], minlength=len(table))


def num_empty_kept(num_empty: int, num_with_objects: float, share: float) -> int:
    """Number of empty images in an epoch, so that they are at most ``share`` of its images."""
    if share >= 1:
        return num_empty
    return min(num_empty, int(num_with_objects * share / (1 - share) + 1e-9))


def describe_repeats(table: AnnotationTable, rare_below: float) -> str:
    """Describe the rare classes and their images in a line for the log."""
    shares, repeats = image_shares(table), repeat_factors(table, rare_below)
    rare = sum(0 < share < rare_below for share in shares.tolist())
    return (
        f"sampling: {rare} of {len(shares)} classes are in less than {100 * rare_below:g} % of the images; "
        f"{int((repeats > 1).sum())} images come up to {repeats.max(initial=1):.1f} times in an epoch, "
        f"{repeats.sum() / max(len(table), 1):.2f} times as long"
    )
