"""Checks before a training: its splits, classes, given weights, options without effect, and data that has changed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from detect.class_names import ClassMatch, are_numbers, match_names, some_names
from detect.config.base import to_plain
from detect.config.data import DataConfig
from detect.config.recipe import Recipe
from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.errors import InputError
from detect.models.checkpoint import Checkpoint
from detect.models.definition import ModelDefinition
from detect.models.levels import rename_weights
from detect.models.model import ClassificationModel, DetectionModel, Model
from detect.models.surgery import becomes_spd, spd_model, with_downsample
from detect.models.transfer import transfer_weights
from detect.runtime.logs import LOGGER
from detect.runtime.plugins import find_plugin, plugin_names
from detect.runtime.reproducibility import generator

Fingerprint = dict[str, dict[str, Any]]
"""Of each split: numbers of ``images`` and, for detection, ``boxes``; names of ``classes`` in order; ``sha256`` of the
images' names, sizes, boxes and labels. File times, folders and pixels are no part of it: a data set may be moved or
copied, and reading all pixels would take as long as an epoch."""


Split = TypeVar("Split", AnnotationTable, ClassTable)
SUBSET_STREAM = 11
"""First word of the random key of ``train_images``."""


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
    """Draw ``train_images`` of the training split with the run's seed; those of a smaller number are among them."""
    count = recipe.train_images
    if not count or count >= len(train):
        return train
    keep = np.zeros(len(train), bool)
    keep[generator(SUBSET_STREAM, recipe.seed).permutation(len(train))[:count]] = True
    LOGGER.info("training on %d of %d images (train_images)", count, len(train))
    return train.select(keep)


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


def copy_weights(model: Model, checkpoint: Checkpoint, names: tuple[str, ...], where: str) -> None:
    """Copy the weights that fit, rows of the head by class name, and log their number.

    Args:
        model: receives them.
        checkpoint: gives them.
        names: classes of ``model``.
        where: the checkpoint's file, for messages.

    Raises:
        InputError: the checkpoint is of another task, or no convolution fits. (Counters of norms fit every model,
            biases of the head every one with as many classes.)
    """
    source = checkpoint.classifier if isinstance(model, ClassificationModel) else checkpoint.detector
    classes = match_names(checkpoint.names, names)
    given = _given_weights(source, model, where)
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim > 1}
    if not any(name in given and given[name].shape == parameter.shape for name, parameter in own.items()):
        raise InputError(
            f"{where}: no convolution of {source.definition.name} fits {model.definition.name}; leave out --model to "
            "train the checkpoint's own model"
        )
    copied = transfer_weights(model, given, classes)
    level = logging.INFO if copied.whole > copied.total / 2 else logging.WARNING
    by_class = f", {copied.by_class} more class by class" if copied.by_class else ""
    if not (copied.by_class > 0 or (classes.is_same and _head_fits(model, given))):
        carried = "the head does not fit, all start anew"
    else:
        carried = _carried_from_scenes(classes) if checkpoint.is_of_scenes else _carried(classes)
        carried += "".join(f"; level {name} starts anew" for name in _new_levels(model.definition, source.definition))
    LOGGER.log(
        *(level, "%s: %d of %d tensors fit and were copied%s; classes: %s"),
        *(where, copied.whole, copied.total, by_class, carried),
    )


def _given_weights(source: Model, model: Model, where: str) -> dict[str, Tensor]:
    """Return the weights by name, rearranged where a strided source starts a space-to-depth model, or other levels."""
    given, before, after = source.state_dict(), source.definition, model.definition
    has_other_levels = isinstance(model, DetectionModel) and before.rows[-1].inputs != after.rows[-1].inputs
    if becomes_spd(before, after):
        _, rearranged = spd_model(source, with_downsample(before, after) if has_other_levels else after)
        if rearranged.rows:
            LOGGER.log(logging.WARNING if rearranged.differing else logging.INFO, "%s: %s", where, rearranged.line)
        given |= rearranged.state
    return rename_weights(given, before, after, model.state_dict()) if has_other_levels else given


def _new_levels(definition: ModelDefinition, source: ModelDefinition) -> tuple[str, ...]:
    """Return the levels that the source's head has not, if it has others of the model's."""
    own, given = definition.rows[-1].inputs, source.rows[-1].inputs
    return tuple(name for name in own if name not in given) if set(own) & set(given) else ()


def _head_fits(model: Model, given: Mapping[str, Tensor]) -> bool:
    row = f"graph.layers.{model.definition.rows[-1].name}."
    own = {row + name: tensor for name, tensor in model.graph.last.named_parameters()}
    fits = [given[name].shape == tensor.shape for name, tensor in own.items() if name in given]
    return bool(fits) and all(fits)


def _carried_from_scenes(classes: ClassMatch) -> str:
    """Describe the classes of a start, whose own were of use to its training only."""
    if not classes.shared:
        return "their outputs start anew"
    return (
        f"{len(classes.shared)} carried over by name ({some_names(classes.shared)}), the outputs of others start anew"
    )


def _carried(classes: ClassMatch) -> str:
    """List the classes that keep their weights, start anew and are dropped."""
    if classes.is_same and not classes.respelled:
        return f"all {len(classes.target)} carried over"
    parts = [f"{len(classes.shared)} carried over by name"]
    if classes.shared:
        parts[0] += f" ({some_names(classes.shared)})"
    if classes.only_target:
        parts.append(f"{len(classes.only_target)} start anew ({some_names(classes.only_target)})")
    if classes.only_source:
        parts.append(f"{len(classes.only_source)} dropped ({some_names(classes.only_source)})")
    if classes.respelled:
        parts.append(f"{', '.join(classes.respelled[:3])}, case and blanks apart")
    if not classes.shared and are_numbers(classes.source):
        parts.append("the checkpoint has numbers instead of names (detect import --names gives it some)")
    elif not classes.shared and are_numbers(classes.target):
        parts.append("the data has numbers instead of names (names: in its config gives it some)")
    return "; ".join(parts)
