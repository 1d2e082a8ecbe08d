"""How often an epoch has each image: once, or, of tiles without objects, in some epochs only.

Letters: N images.
"""

from __future__ import annotations

import numpy as np

from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable


def image_repeats(table: AnnotationTable, recipe: DetectionRecipe) -> np.ndarray | None:
    """Mean number of times that an epoch has each image, (N,) float64; None: each once."""
    if table.windows is None:
        return None
    is_empty = objects_per_image(table) == 0
    num_empty = int(is_empty.sum())
    kept = num_empty_kept(num_empty, len(table) - num_empty, recipe.tiles.empty)
    return np.where(is_empty, kept / max(num_empty, 1), 1.0)


def objects_per_image(table: AnnotationTable) -> np.ndarray:
    """Number of boxes of each image without crowd regions, (N,) int64."""
    return np.bincount(table.image_of_box[~table.is_crowd], minlength=len(table))


def num_empty_kept(num_empty: int, num_with_objects: int, share: float) -> int:
    """Number of the empty images that an epoch has, so that they are at most ``share`` of all that it has."""
    if share >= 1:
        return num_empty
    return min(num_empty, int(num_with_objects * share / (1 - share) + 1e-9))
