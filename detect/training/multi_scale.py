"""Batches of random sizes."""

from __future__ import annotations

from torch import Tensor

from detect.config.recipe import Recipe
from detect.runtime.reproducibility import generator
from detect.training.strategy import AnyTargets, Part, Strategy, resized

SIZE_STREAM = 4
"""Keeps the random sizes apart from other uses of the seed."""


class MultiScale(Strategy):
    """Resizes each batch by a factor uniform in 1 +- ``multi_scale``.

    Args:
        recipe: with ``multi_scale`` above 0.
        multiple: height and width are multiples of it.
    """

    def __init__(self, recipe: Recipe, multiple: int) -> None:
        self.recipe = recipe
        self.multiple = multiple

    def split(self, images: Tensor, targets: AnyTargets, epoch: int, number: int) -> list[Part]:
        """See ``Strategy``: one part, of another size."""
        spread, multiple = self.recipe.multi_scale, self.multiple
        factor = generator(SIZE_STREAM, self.recipe.seed, epoch, number).uniform(1 - spread, 1 + spread)
        height, width = (max(round(side * factor / multiple), 1) * multiple for side in images.shape[2:])
        return [resized(images, targets, (height, width), "bilinear")]
