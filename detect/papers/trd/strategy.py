"""Training with reduced resolution in some epochs (TRD)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from detect.boxes.convert import box_areas
from detect.config.recipe import DetectionTrd, Recipe
from detect.models.model import Model
from detect.models.registry import pooled_hw
from detect.papers.trd.schedule import (
    TRD_STREAM,
    area_rule,
    change_points,
    guarded_epochs,
    mean_flops,
    reduced_epochs,
    reduced_sizes,
)
from detect.runtime.device import Precision
from detect.runtime.distributed import all_reduce_sum, num_processes
from detect.runtime.logs import LOGGER
from detect.runtime.reproducibility import generator
from detect.structures import Targets
from detect.training.norm_statistics import NormEstimator, learning_norms
from detect.training.strategy import AnyTargets, Part, Strategy, resized, size_of, size_px
from detect.training.task import Loader

NORM_BATCHES = 50
"""Full-size batches on which the norm statistics are measured before a validation."""


def open_trd(recipe: Recipe, model: Model, loader: Loader, device: torch.device, precision: Precision) -> Trd | None:
    """Build the strategy, if the recipe has a resolution."""
    norms = NormEstimator(loader, learning_norms(model), NORM_BATCHES, device, precision)
    return Trd(recipe, model, norms) if recipe.trd.resolution > 0 else None


class Trd(Strategy):
    """Resizes the batches of reduced epochs after all augmentation.

    The model that is evaluated gets norm statistics of batches at the full size.

    Detectors get multiples of their largest reduction, classifiers any size. Anchors and objectness gain stay those of
    the full size.

    Args:
        recipe: with ``trd.resolution``.
        model: to train.
        norms: measures norm statistics.

    Raises:
        InputError: the resolution is above the image size, or no multiple.

    Source: Temporally Resolution Decrement, section 3 and Algorithm 1; the measured statistics are ours.
    """

    def __init__(self, recipe: Recipe, model: Model, norms: NormEstimator) -> None:
        self.recipe, self.norms = recipe, norms
        self.max_reduction = model.max_reduction
        self.multiple = 1 if model.definition.is_classifier else model.max_reduction
        self.sizes = reduced_sizes(recipe, self.multiple)
        self.reduced = reduced_epochs(recipe)
        self.min_object_px = recipe.trd.min_object_px if isinstance(recipe.trd, DetectionTrd) else 0.0
        # SDPoint makes the maps behind a point, or the images, smaller still.
        self.least_ratio = min(recipe.sdpoint.ratios, default=1.0)
        full = recipe.image_size
        sizes = (size_px("sdpoint.sizes", wanted, full, self.max_reduction) for wanted in recipe.sdpoint.sizes)
        self.least_ratio *= min(sizes, default=full) / full
        self.on_epoch_start()
        LOGGER.info("%s", _plan(recipe, self.sizes, self.reduced))

    def on_epoch_start(self) -> None:
        self._epoch, self._images, self._left_alone, self._area = 0, 0, 0, 0.0

    def on_batch(self, images: Tensor, targets: AnyTargets, epoch: int, number: int) -> list[Part]:
        """Return the reduced images and, if any are left, the others."""
        self._epoch = epoch
        whole_hw, new_hw = size_of(images), self._new_hw(images, epoch, number)
        wanted = self._wanted(len(images), epoch, number) if new_hw != whole_hw else []
        reduced = self._large_enough(wanted, targets, whole_hw, new_hw)
        # All processes make the same parts of their shares of the batch, because they wait for one another in each.
        num_images, num_wanted, num_reduced, with_reduced, with_others = (
            int(total)
            for total in all_reduce_sum(
                [len(images), len(wanted), len(reduced), bool(reduced), len(reduced) < len(images)]
            )
        )
        # Otherwise, or if a part were too small for the norms, the whole batch stays at the full size.
        parts = ((num_reduced, new_hw), (num_images - num_reduced, whole_hw))
        if not (
            {with_reduced, with_others} <= {0, num_processes()} and all(self._can_normalise(*part) for part in parts)
        ):
            reduced, num_reduced = [], 0
        self._images += num_images
        self._area += num_images - num_reduced * (1 - _pixels(new_hw) / _pixels(whole_hw))
        self._left_alone += num_wanted - num_reduced
        mode = self.recipe.trd.interpolation
        if len(reduced) in (0, len(images)):
            return [resized(images, targets, new_hw, mode) if reduced else (images, targets)]
        chosen = torch.zeros(len(images), dtype=torch.bool)
        chosen[reduced] = True
        small, others = (
            (images[index], targets.of(index))
            for index in (mask.nonzero()[:, 0].to(images.device) for mask in (chosen, ~chosen))
        )
        return [resized(*small, new_hw, mode), others]

    def eval_model(self, model: Model, epoch: int) -> Model:
        """Return a copy with norm statistics of the full size, if any batch was reduced so far and SDPoint has none."""
        is_plain = min(self.sizes) == self.recipe.image_size or not any(self.reduced[: epoch + 1])
        return model if is_plain or self.recipe.sdpoint.is_on else self.norms.refreshed(model, epoch)

    def state_dict(self) -> dict[str, float]:
        return {"epoch": self._epoch, "images": self._images, "left_alone": self._left_alone, "area": self._area}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._epoch, self._images = int(state["epoch"]), int(state["images"])
        self._left_alone, self._area = int(state["left_alone"]), state["area"]

    def on_epoch_end(self) -> dict[str, float]:
        images = max(self._images, 1)
        values = {"trd/reduced": float(self.reduced[self._epoch]), "trd/area": self._area / images}
        if self.min_object_px > 0:
            values["trd/left_alone"] = self._left_alone / images
        return values

    def report(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        if not rows:
            return []
        tags = ("trd/reduced", "trd/area", "compute/gmacs", "compute/full_gmacs")
        reduced, area, counted, full = (sum(float(row[tag]) for row in rows) / len(rows) for tag in tags)
        trd, image_size = self.recipe.trd, self.recipe.image_size
        probability = 0.5 if trd.variant == "regular" else trd.probability
        at_sizes = [area_rule(full, size, image_size) for size in self.sizes]
        nominal = mean_flops(full, sum(at_sizes) / len(at_sizes), probability)
        return [
            "trd: mFLOPs in G multiply-adds an image: "
            f"nominal {_beside(nominal, full)} (area rule, P {probability:g}); "
            f"realised {_beside(area * full, full)} (area rule, {reduced * len(rows):.0f} of {len(rows)} epochs); "
            f"as counted {_beside(counted, full)}; full size {full:.4g}",
            *_best_and_last(rows, self.recipe.evaluation.save_best[0]),
        ]

    def _new_hw(self, images: Tensor, epoch: int, number: int) -> tuple[int, int]:
        """Size of a reduced batch; rectangles keep their shape."""
        if not self.reduced[epoch]:
            return size_of(images)
        key = (epoch, number) if self.recipe.trd.variant == "mixed" else (epoch,)
        rng = generator(TRD_STREAM, self.recipe.seed, *key)
        is_progressive = self.recipe.trd.variant == "progressive"
        size = self.sizes[epoch if is_progressive else rng.integers(len(self.sizes))]
        height, width = (
            max(round(side * size / self.recipe.image_size / self.multiple), 1) * self.multiple
            for side in size_of(images)
        )
        return height, width

    def _wanted(self, count: int, epoch: int, number: int) -> list[int]:
        if self.recipe.trd.variant != "batch":
            return list(range(count))
        order = generator(TRD_STREAM, self.recipe.seed, epoch, number).permutation(count)
        return order[: round(self.recipe.trd.probability * count)].tolist()

    def _large_enough(
        self, wanted: list[int], targets: AnyTargets, whole_hw: tuple[int, int], new_hw: tuple[int, int]
    ) -> list[int]:
        """The images whose median object has at least ``min_object_px`` after the reduction."""
        if self.min_object_px > 0 and isinstance(targets, Targets):
            factor = (_pixels(new_hw) / _pixels(whole_hw)) ** 0.5
            sides, index = (factor * box_areas(targets.boxes_xyxy_px).sqrt()).cpu(), targets.image_index.cpu()
            medians = {i: sides[index == i].quantile(0.5).item() for i in set(index.tolist())}
            wanted = [i for i in wanted if medians.get(i, self.min_object_px) >= self.min_object_px]
        return wanted

    def _can_normalise(self, count: int, size_hw: tuple[int, int]) -> bool:
        """Return whether norms see two values per channel, even if the deepest map has one cell."""
        height, width = (-(-side // self.max_reduction) for side in size_hw)
        return count == 0 or count * _pixels(pooled_hw((height, width), self.least_ratio)) > 1


def _plan(recipe: Recipe, sizes: tuple[int, ...], reduced: tuple[bool, ...]) -> str:
    trd = recipe.trd
    shown = (
        f"{sizes[0]} to {sizes[-1]}"
        if trd.variant in ("mixed", "progressive")
        else " or ".join(str(size) for size in sizes)
    )
    to = f"at {shown} px for {recipe.image_size} px"
    if trd.variant == "batch":
        return f"trd: {trd.probability:.0%} of the images of every batch {to}"
    how = trd.variant if trd.variant == "regular" else f"{trd.variant}, P {trd.probability:g}"
    guarded = guarded_epochs(change_points(recipe), trd.guard, recipe.epochs)
    never = f"; guarded: {_ranges(guarded)}" if guarded else ""
    epochs = {epoch for epoch, is_reduced in enumerate(reduced) if is_reduced}
    return f"trd: {len(epochs)} of {recipe.epochs} epochs {to} ({how}): {_ranges(epochs) or 'none'}{never}"


def _ranges(epochs: set[int]) -> str:
    """Epochs counted from 0 as ``1-3, 7``, counted from 1."""
    runs = [
        [epoch for _, epoch in run] for _, run in groupby(enumerate(sorted(epochs)), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(f"{run[0] + 1}" if len(run) == 1 else f"{run[0] + 1}-{run[-1] + 1}" for run in runs)


def _best_and_last(rows: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """A line with the metric of the best and the last validation, as the paper reports the best epoch."""
    found = [(float(row[f"val/{metric}"]), int(row["epoch"])) for row in rows if row.get(f"val/{metric}")]
    if not found:
        return []
    (last, _), (best, epoch) = found[-1], max(found, key=lambda pair: pair[0])
    return [f"trd: {metric} {best:.3f} at best, after epoch {epoch}; {last:.3f} at last"]


def _beside(cost: float, full: float) -> str:
    return f"{cost:.4g}, {cost / full:.1%}"


def _pixels(size_hw: tuple[int, int]) -> int:
    return size_hw[0] * size_hw[1]
