"""Normalisation of the images by a mean and a deviation of each channel.

Letters: B batch, C channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detect.errors import InputError
from detect.models.registry import Block, register
from detect.structures import FeatureShape


@register
class Normalise(Block):
    """The map minus ``mean``, divided by ``std``: what a classifier does to its images, as a row of a detector.

    It is a row because the stem cannot take it over: the zeros around the stem's input are the mean in a normalised
    image, and black in the image itself.

    Args:
        in_channels: C.
        mean: (C,) of the images in [0, 1]: red, green, blue.
        std: (C,) above 0.
    """

    def __init__(self, in_channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            if not _are_numbers(values, in_channels) or (name == "std" and min(values) <= 0):
                above = " above 0" if name == "std" else ""
                raise InputError(f"{name}: must be {in_channels} numbers{above}, found {values!r}")
            # (C, 1, 1); the definition holds them, so they are no part of the state
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return (x - self.mean) / self.std

    def out_shape(self, *inputs: FeatureShape) -> FeatureShape:
        return inputs[0]


def _are_numbers(values: object, count: int) -> bool:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return False
    return all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
