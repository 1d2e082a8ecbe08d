"""Reduced epochs of a training (TRD), their resolutions, and the mean operations that follow.

All are pure functions of the recipe, so resuming changes nothing. A network does more operations than ``area_rule``
says, because maps are whole cells and layers after the global pool have a fixed cost: ResNet-50 at 112 px for 224 px
by 5 %, at 84 px by 19 %.

Source: Temporally Resolution Decrement (TRD); mFLOPs are its "weighted average value of training FLOPs in time domain".
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from detect.config.recipe import DetectionRecipe, Recipe
from detect.errors import InputError
from detect.runtime.reproducibility import generator
from detect.training.checks import OptionDependency
from detect.training.strategy import size_px

TRD_STREAM = 5
"""Key of the generators of epochs and sizes."""


def reduced_epochs(recipe: Recipe) -> tuple[bool, ...]:
    """Return a flag for each epoch.

    Each epoch is drawn by a number of its own, so that a larger P adds epochs to those of a smaller one.

    Source: Temporally Resolution Decrement, Algorithm 1.
    """
    trd, epochs = recipe.trd, recipe.epochs
    if trd.variant == "batch":
        return (True,) * epochs
    guarded = guarded_epochs(change_points(recipe), trd.guard, epochs)
    if trd.variant == "progressive":
        return tuple(epoch < round(trd.probability * epochs) and epoch not in guarded for epoch in range(epochs))
    if trd.variant == "regular":
        return tuple(epoch % 2 == 1 and epoch not in guarded for epoch in range(epochs))
    draws = generator(TRD_STREAM, recipe.seed).random(epochs)
    if not trd.exact:
        return tuple(bool(draws[epoch] < trd.probability) and epoch not in guarded for epoch in range(epochs))
    free = [epoch for epoch in np.argsort(draws).tolist() if epoch not in guarded]
    chosen = set(free[: round(trd.probability * epochs)])
    return tuple(epoch in chosen for epoch in range(epochs))


def change_points(recipe: Recipe) -> list[float]:
    """Changes of the training, in epochs from its start: steps of the rate, the end of the mosaics, the end of all.

    The weights of the last epochs are the ones that stay, whatever the rate's schedule; the paper guards steps only.
    """
    points = [] if recipe.trd.variant == "paper" else [float(recipe.epochs)]
    if recipe.optimizer.schedule == "step":
        # Rounded: 0.55 * 100 is 55.00000000000001.
        steps = (round(share * recipe.epochs, 6) for share in recipe.optimizer.milestones)
        points += [step for step in steps if step < recipe.epochs]
    if isinstance(recipe, DetectionRecipe):
        augment = recipe.augment
        if augment.mosaic > 0 or augment.mixup > 0 or augment.cutmix > 0:
            points += [float(recipe.epochs - augment.close_mosaic)] if augment.close_mosaic > 0 else []
    return sorted(point for point in points if 0 < point <= recipe.epochs)


def guarded_epochs(points: list[float], guard: int, epochs: int) -> set[int]:
    """Epochs, from 0, that overlap the ``guard`` epochs before or after a point: m - 2 to m + 1 for m and a guard of 2.
    Source: Temporally Resolution Decrement, appendix A ("the two epochs before and after").
    """
    if guard == 0:
        return set()
    return {epoch for epoch in range(epochs) for point in points if point - guard - 1 < epoch < point + guard}


def reduced_sizes(recipe: Recipe, multiple: int) -> tuple[int, ...]:
    """Sizes of reduced batches, long side in pixels; of ``progressive`` one for each of the first epochs.

    Args:
        recipe: with ``trd.resolution``.
        multiple: of image sizes of the model; 1 for classifiers.

    Raises:
        InputError: the resolution is above the image size, or no multiple.
    """
    full, variant = recipe.image_size, recipe.trd.variant
    least = size_px("trd.resolution", recipe.trd.resolution, full, multiple)
    if variant == "mixed":
        return tuple(range(least, full + 1, multiple))
    if variant == "progressive":
        count = max(round(recipe.trd.probability * recipe.epochs), 1)
        # Evenly from the smallest towards the full size, which the epoch behind them has.
        steps = ((full - least) * epoch / count / multiple for epoch in range(count))
        return tuple(least + round(step) * multiple for step in steps)
    if variant != "three" or least == full:
        return (least,)
    middle = least + round((full - least) / 2 / multiple) * multiple
    if middle in (least, full):
        raise InputError(
            f"trd.variant: three needs a size between trd.resolution {least} and image_size {full} that is a multiple "
            f"of {multiple}; choose a smaller resolution"
        )
    return least, middle


def option_dependencies(recipe: Recipe) -> list[OptionDependency]:
    """List the keys of ``trd`` without effect while it is off, in its variant, or without a change point."""
    variant = recipe.trd.variant
    if recipe.trd.resolution == 0:
        keys = [field.name for field in fields(recipe.trd) if field.name != "resolution"]
        return [OptionDependency("trd", key, "trd.resolution", "0", "a size") for key in keys]
    needs = []
    if variant == "progressive":
        needs.append(OptionDependency("trd", "exact", "trd.variant", variant, "random"))
    if variant == "regular":
        needs += [OptionDependency("trd", key, "trd.variant", variant, "random") for key in ("probability", "exact")]
    if variant == "batch":
        needs += [OptionDependency("trd", key, "trd.variant", variant, "random") for key in ("exact", "guard")]
    elif not change_points(recipe):
        needs.append(OptionDependency("trd", "guard", "trd.variant", variant, "random"))
    return needs


def area_rule(full: float, resolution: int, full_resolution: int) -> float:
    """Operations at resolution lambda instead of R, in proportion to the pixels. Source: TRD, Table 1."""
    return full * (resolution / full_resolution) ** 2


def mean_flops(full: float, reduced: float, probability: float) -> float:
    """mFLOPs: mean operations for an image over epochs of which a share P is reduced. Source: TRD, section 4.1."""
    return (1 - probability) * full + probability * reduced
