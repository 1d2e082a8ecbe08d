"""Checks before a training: its splits, classes, options without effect, and data that has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from detect.class_names import match_names, some_names
from detect.config.base import to_plain
from detect.config.data import DataConfig
from detect.config.recipe import AnyRecipe, Recipe
from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.errors import InputError
from detect.runtime.logs import LOGGER
from detect.runtime.plugins import find_plugin, plugin_names
from detect.runtime.reproducibility import generator
from detect.training.optimizer import batches_per_update

Fingerprint = dict[str, dict[str, Any]]
"""Of each split: numbers of ``images`` and, for detection, ``boxes``; names of ``classes`` in order; ``sha256`` of the
images' names, sizes, boxes and labels. File times, folders and pixels are no part of it: a data set may be moved or
copied, and reading all pixels would take as long as an epoch."""


Split = TypeVar("Split", AnnotationTable, ClassTable)
SUBSET_STREAM = 11
"""Stream number of the generator that draws ``train_images``."""


class OptionDependency(NamedTuple):
    """A recipe key that has an effect only where another option has a certain value.

    Args:
        section: of the recipe.
        key: of the section.
        option: name of the other option.
        found: its value.
        wanted: its value with which the key has an effect.
    """

    section: str
    key: str
    option: str
    found: str
    wanted: str


def check_splits(data: DataConfig) -> None:
    """Raise an ``InputError`` for a data set without the splits ``train`` and ``val``."""
    for split in ("train", "val"):
        if split not in data.splits:
            raise InputError(f"data {data.name}: has no split {split!r}; training needs train and val")


def draw_images(train: Split, recipe: Recipe) -> Split:
    """Draw ``train_images`` of the training split with the run's seed; fewer are a subset of more."""
    count = recipe.train_images
    if not count or count >= len(train):
        return train
    keep = np.zeros(len(train), bool)
    keep[generator(SUBSET_STREAM, recipe.seed).permutation(len(train))[:count]] = True
    LOGGER.info("training on %d of %d images (train_images)", count, len(train))
    return train.select(keep)


def with_enough_epochs(recipe: AnyRecipe, num_images: int) -> AnyRecipe:
    """Raise the epochs of a recipe to ``min_updates`` updates, with as many validations, and log it."""
    batches = max(num_images // recipe.batch_size, 1)  # a last one that is not full is left out
    updates = -(-batches // batches_per_update(recipe, batches))
    if updates * recipe.epochs >= recipe.min_updates:
        return recipe
    epochs = -(-recipe.min_updates // updates)
    every = max(round(recipe.evaluation.every * epochs / recipe.epochs), 1)
    LOGGER.info(
        "%d epochs instead of %d, because %d images are %d updates an epoch (min_updates: %d)",
        *(epochs, recipe.epochs, num_images, updates, recipe.min_updates),
    )
    return replace(recipe, epochs=epochs, evaluation=replace(recipe.evaluation, every=every))


def check_classes(data: DataConfig, train: tuple[str, ...], val: tuple[str, ...]) -> None:
    """Compare the class names of the two splits, and warn of those that only one of them has.

    Args:
        data: the data set, for the message.
        train: class names of the training split.
        val: class names of the validation split.

    Raises:
        InputError: they have no class in common.
    """
    match = match_names(train, val)
    if not match.shared:
        found = f"train has {some_names(train)}, val {some_names(val)}"
        raise InputError(f"data {data.name}: train and val have no class in common: {found}")
    differences = match.differences(
        "val has no {}: nothing measures them",
        "train has no {}: their objects in val count as missed",
        "the same class, spelled in two ways: {}",
    )
    if differences:
        LOGGER.warning("data %s: classes are compared by name; %s", data.name, differences)


def fingerprint_of(table: AnnotationTable | ClassTable) -> dict[str, Any]:
    """Compute the fingerprint of a split, as plain values."""
    counts = {"images": len(table)}
    columns = [table.labels]
    if isinstance(table, AnnotationTable):
        counts["boxes"] = len(table.labels)
        columns += [table.sizes_hw, table.box_offsets, table.boxes_xyxy_px, table.is_crowd]
    digest = hashlib.sha256("\0".join(table.path(row).name for row in range(len(table))).encode(errors="replace"))
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return {**counts, "classes": list(table.names), "sha256": digest.hexdigest()}


def differences(before: dict[str, Any], now: Fingerprint) -> str:
    """Describe changes of the data; empty without any. ``before`` comes from a checkpoint and is not trusted."""
    pairs = [(split, before.get(split), now[split]) for split in now]
    return "; ".join(f"{split} has {_difference(old, new)}" for split, old, new in pairs if old not in (None, new))


def _difference(before: Any, now: dict[str, Any]) -> str:
    before = before if isinstance(before, dict) else {}
    counts = [key for key in ("images", "boxes") if key in now and before.get(key) != now[key]]
    changes = [f"{before.get(key)} -> {now[key]} {key}" for key in counts]
    classes = before.get("classes")
    if isinstance(classes, list) and classes != now["classes"]:
        match = match_names(tuple(map(str, classes)), tuple(now["classes"]))
        lists = (("without", match.only_source), ("with", match.only_target))
        found = ", ".join(f"{word} {some_names(names)}" for word, names in lists if names)
        changes.append(f"other classes ({found or 'in another order'})")
    return ", ".join(changes) or "as many images and boxes, but other names, sizes, boxes or labels"


def warn_of_ignored(recipe: Recipe, dependencies: Sequence[OptionDependency] = ()) -> None:
    """Warn, in one line, of changed settings that have no effect in this recipe.

    Args:
        recipe: of the run.
        dependencies: of the task, beside those of the schedule and of the papers' sections.
    """
    asked, plain = to_plain(recipe), to_plain(type(recipe)())
    schedule = recipe.optimizer.schedule
    kinds = {"power": "poly", "milestones": "step", "step_factor": "step"}
    every = [
        *dependencies,
        *(OptionDependency("optimizer", key, "schedule", schedule, kind) for key, kind in kinds.items()),
        OptionDependency("optimizer", "nesterov", "name", recipe.optimizer.name, "sgd"),
    ]
    for name in plugin_names("option_dependencies"):
        every += find_plugin("option_dependencies", name)(recipe)
    ignored = [
        f"{each.section}.{each.key} ({each.option} is {each.found}, not {each.wanted})"
        for each in every
        if each.found != each.wanted and asked[each.section][each.key] != plain[each.section][each.key]
    ]
    if ignored:
        LOGGER.warning("no effect: %s", ", ".join(ignored))
