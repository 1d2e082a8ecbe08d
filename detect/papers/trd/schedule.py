"""Which epochs of a training have a reduced resolution (TRD), and which resolutions those are.

Everything is a pure function of the recipe, so resuming changes nothing.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from detect.config.recipe import DetectionRecipe, Recipe
from detect.errors import InputError
from detect.runtime.reproducibility import generator
from detect.training.preparation import Need

TRD_STREAM = 5
"""Keeps the draws apart from other uses of the seed."""


def reduced_epochs(recipe: Recipe) -> tuple[bool, ...]:
    """Whether each epoch is reduced.

    An epoch is drawn by a number of its own, so that a larger P adds epochs and leaves those of a smaller one.

    Source: Temporally Resolution Decrement, Algorithm 1.
    """
    trd, epochs = recipe.trd, recipe.epochs
    if trd.variant == "batch":
        return (True,) * epochs
    guarded = guarded_epochs(change_points(recipe), trd.guard, epochs)
    if trd.variant == "regular":
        return tuple(epoch % 2 == 1 and epoch not in guarded for epoch in range(epochs))
    draws = generator(TRD_STREAM, recipe.seed).random(epochs)
    if not trd.exact:
        return tuple(bool(draws[epoch] < trd.probability) and epoch not in guarded for epoch in range(epochs))
    free = [epoch for epoch in np.argsort(draws).tolist() if epoch not in guarded]
    chosen = set(free[: round(trd.probability * epochs)])
    return tuple(epoch in chosen for epoch in range(epochs))


def change_points(recipe: Recipe) -> list[float]:
    """When the training changes at one stroke, in epochs from its start: steps of the rate, the end of the mosaics."""
    points = []
    if recipe.optimizer.schedule == "step":
        # Rounded: 0.55 * 100 is 55.00000000000001.
        points += [round(share * recipe.epochs, 6) for share in recipe.optimizer.milestones]
    if isinstance(recipe, DetectionRecipe):
        augment = recipe.augment
        if augment.mosaic > 0 or augment.mixup > 0 or augment.cutmix > 0:
            points.append(float(recipe.epochs - augment.close_mosaic))
    return sorted(point for point in points if 0 < point < recipe.epochs)


def guarded_epochs(points: list[float], guard: int, epochs: int) -> set[int]:
    """The epochs, counted from 0, that lie wholly or in part within ``guard`` epochs of a point.

    Around the start m of an epoch these are m - 2, m - 1, m and m + 1 for a guard of 2.

    Source: Temporally Resolution Decrement, appendix A ("the two epochs before and after").
    """
    if guard == 0:
        return set()
    return {epoch for epoch in range(epochs) for point in points if point - guard - 1 < epoch < point + guard}


def reduced_sizes(recipe: Recipe, multiple: int) -> tuple[int, ...]:
    """The sizes that a reduced batch may have, long side in pixels.

    Args:
        recipe: with ``trd.resolution``.
        multiple: what the model can take; 1 for classifiers.

    Raises:
        InputError: the resolution is not one of a smaller image, or none that the model takes.
    """
    full, variant = recipe.image_size, recipe.trd.variant
    least = _resolution(recipe, multiple)
    if variant == "mixed":
        return tuple(range(least, full + 1, multiple))
    if variant != "three" or least == full:
        return (least,)
    middle = least + round((full - least) / 2 / multiple) * multiple
    if middle in (least, full):
        raise InputError(
            f"trd.variant: three needs a size between trd.resolution {least} and image_size {full} that is a multiple "
            f"of {multiple}; choose a smaller resolution"
        )
    return least, middle


def _resolution(recipe: Recipe, multiple: int) -> int:
    """``trd.resolution`` in pixels; a share comes to the nearest size that the model takes."""
    wanted, full = recipe.trd.resolution, recipe.image_size
    if wanted <= 1:
        return max(round(wanted * full / multiple), 1) * multiple
    if wanted > full:
        raise InputError(f"trd.resolution: {wanted:g} is above image_size {full}; it makes images smaller")
    if wanted % multiple:
        below = int(wanted // multiple) * multiple
        nearest = f"the nearest are {below} and {below + multiple}" if below else f"the least is {multiple}"
        raise InputError(f"trd.resolution: {wanted:g} is not a multiple of {multiple}; {nearest}")
    return int(wanted)


def option_dependencies(recipe: Recipe) -> list[Need]:
    """The keys of ``trd`` that mean nothing while it is off, or to the variant, or without anything to guard."""
    variant = recipe.trd.variant
    if recipe.trd.resolution == 0:
        keys = [field.name for field in fields(recipe.trd) if field.name != "resolution"]
        return [Need("trd", key, "trd.resolution", "0", "a size") for key in keys]
    needs = []
    if variant == "regular":
        needs += [Need("trd", key, "trd.variant", variant, "random") for key in ("probability", "exact")]
    if variant == "batch":
        needs += [Need("trd", key, "trd.variant", variant, "random") for key in ("exact", "guard")]
    elif not change_points(recipe):
        needs.append(Need("trd", "guard", "schedule", recipe.optimizer.schedule, "step"))
    return needs
