"""Strategies: methods that change a training at fixed places of the loop, which does not know them.

Letters: B images, H W network input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detect.config.recipe import Recipe
from detect.errors import InputError
from detect.models.model import Model
from detect.runtime.device import Precision
from detect.runtime.plugins import require_plugin
from detect.runtime.reproducibility import generator
from detect.structures import ClassTargets, Targets
from detect.training.task import BatchLoss, Loader

AnyTargets = Targets | ClassTargets
Part = tuple[Tensor, AnyTargets]
"""Images (B, 3, H, W) float in [0, 1] of one size, and their targets, boxes in their pixels."""
PAPER_SECTIONS = ("trd", "sdpoint")
"""Recipe sections whose strategy is a paper's (``detect.papers``), in the order in which they change a batch."""
SIZE_STREAM = 4
"""Key of the generators of random sizes."""


class Strategy:
    """Callbacks of the training loop; each does nothing unless it is overridden.

    Whatever is random is a function of (seed, epoch, batch), so that a resumed run goes on as if it had not stopped
    and all processes draw the same. Each process has its share of a batch and must make the same parts of it.
    Several strategies change a batch one after the other; its parts go through the network one by one. Epochs are
    counted from 0, the batches of an epoch from 1. ``eval_model``, after the batches of its epoch, gets the averaged
    weights, or the trained model itself without EMA.
    """

    own_gradients: tuple[str, ...] = ()
    """Names of parameters that not every batch gives a gradient; of several processes ``on_batch_end`` takes the mean
    of these gradients."""

    def on_epoch_start(self) -> None:
        """Prepare an epoch; a resumed epoch calls ``load_state_dict`` instead."""

    def on_batch(self, images: Tensor, targets: AnyTargets, epoch: int, number: int) -> list[Part]:
        """Change a batch before the forward pass, or split it into parts, whose gradients are added up."""
        return [(images, targets)]

    def on_part(self, number: int) -> None:
        """Prepare the model for a part of the batch, counted from 0 over the parts of all strategies."""

    def on_loss(self, terms: BatchLoss, loss: Tensor, raw: Any) -> Tensor:
        """Change the loss of a part before its backward pass; ``loss`` is as the strategies before have left it."""
        return loss

    def on_batch_end(self, ends_update: bool) -> None:
        """Leave the model as the update and checkpoints expect it, after the backward pass of the last part."""

    def on_epoch_end(self) -> dict[str, float]:
        """Return values of the epoch for the run's records, by TensorBoard tag."""
        return {}

    def eval_model(self, model: Model, epoch: int) -> Model:
        """Return the model to validate and keep as the best; must not change ``model``."""
        return model

    def on_train_end(self, best: Path) -> None:
        """Complete a best checkpoint after the last epoch."""

    def report(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Return lines that sum up the run from the rows of ``results.csv``, those before a resumption too."""
        return []

    @property
    def checkpoint_extras(self) -> dict[str, Any]:
        """Fields for checkpoints, as keywords of ``save_checkpoint``."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the counters of the current epoch, and what of the trained model its own state lacks."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, in a resumed epoch."""


class MultiScale(Strategy):
    """Resizes each batch by a factor uniform in 1 +- ``multi_scale``, or to a long side drawn from ``multi_scale_px``.

    Args:
        recipe: with one of the two.
        multiple: height and width are multiples of it.
    """

    def __init__(self, recipe: Recipe, multiple: int) -> None:
        self.recipe = recipe
        self.multiple = multiple

    def on_batch(self, images: Tensor, targets: AnyTargets, epoch: int, number: int) -> list[Part]:
        multiple, random = self.multiple, generator(SIZE_STREAM, self.recipe.seed, epoch, number)
        if self.recipe.multi_scale_px:
            low, high = (-(-end // multiple) for end in self.recipe.multi_scale_px)  # in steps, rounded up
            factor = multiple * random.integers(low, high, endpoint=True) / max(images.shape[2:])
        else:
            factor = random.uniform(1 - self.recipe.multi_scale, 1 + self.recipe.multi_scale)
        height, width = (max(round(side * factor / multiple), 1) * multiple for side in images.shape[2:])
        return [resized(images, targets, (height, width), "bilinear")]


def open_strategies(
    recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision
) -> tuple[Strategy, ...]:
    """Build the strategies of a recipe, in the order in which they change a batch."""
    strategies: list[Strategy] = []
    if recipe.multi_scale > 0 or recipe.multi_scale_px:
        strategies.append(MultiScale(recipe, model.max_reduction))
    for name in PAPER_SECTIONS:
        section = getattr(recipe, name)
        if section != type(section)():
            strategy = require_plugin("strategies", name, where=name)(recipe, model, loader, device, precision)
            strategies += [strategy] if strategy else []
    return tuple(strategies)


def split_batch(strategies: Sequence[Strategy], part: Part, epoch: int, number: int) -> list[Part]:
    """Apply the strategies to a batch, one after the other; arguments as of ``Strategy.on_batch``."""
    parts = [part]
    for strategy in strategies:
        parts = [new for images, targets in parts for new in strategy.on_batch(images, targets, epoch, number)]
    return parts


def size_of(images: Tensor) -> tuple[int, int]:
    """Height and width of images (B, 3, H, W)."""
    return images.shape[2], images.shape[3]


def size_px(key: str, wanted: float, image_size: int, multiple: int) -> int:
    """Resolve a recipe's smaller image size: pixels, or up to 1 a share of ``image_size``, rounded to a multiple.

    Args:
        key: of the recipe, for messages.
        wanted: its value.
        image_size: of the recipe in pixels.
        multiple: of image sizes of the model.

    Raises:
        InputError: above the image size, or no multiple.
    """
    if wanted <= 1:
        return max(round(wanted * image_size / multiple), 1) * multiple
    if wanted > image_size:
        raise InputError(f"{key}: {wanted:g} is above image_size {image_size}; it makes images smaller")
    if wanted % multiple:
        below = int(wanted // multiple) * multiple
        nearest = f"the nearest are {below} and {below + multiple}" if below else f"the least is {multiple}"
        raise InputError(f"{key}: {wanted:g} is not a multiple of {multiple}; {nearest}")
    return int(wanted)


def resized(images: Tensor, targets: AnyTargets, new_hw: tuple[int, int], mode: str) -> Part:
    """Resize a batch (B, 3, H, W) and its targets; ``mode`` as of ``torch.nn.functional.interpolate``."""
    height, width = size_of(images)
    if new_hw == (height, width):
        return images, targets
    corners = False if mode == "bilinear" else None
    new = F.interpolate(images, new_hw, mode=mode, align_corners=corners)
    return new, targets.scaled((new_hw[1] / width, new_hw[0] / height))
