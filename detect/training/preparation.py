"""What is done to data and model before anything is learnt, whatever the task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from torch import nn

from detect.config.loader import to_plain
from detect.config.schema import ClassificationRecipe, DataConfig, Recipe
from detect.errors import InputError, did_you_mean
from detect.models.checkpoint import transfer_weights
from detect.models.model import Model
from detect.runtime.logs import LOGGER
from detect.training.trd_schedule import change_points


class Need(NamedTuple):
    """A key of a recipe that has an effect only where another word has a certain value.

    Args:
        section: of the recipe.
        key: of the section.
        word: what it depends on.
        found: the word's value.
        wanted: the value with which the key has an effect.
    """

    section: str
    key: str
    word: str
    found: str
    wanted: str


def check_splits(data: DataConfig) -> None:
    """Refuse a data set without the splits that training needs.

    Raises:
        InputError: there is no split ``train`` or ``val``.
    """
    for split in ("train", "val"):
        if split not in data.splits:
            raise InputError(f"data {data.name}: has no split {split!r}; training needs train and val")


def check_same_classes(data: DataConfig, train: tuple[str, ...], val: tuple[str, ...]) -> None:
    """Refuse splits with other classes.

    Args:
        data: the data set, for the message.
        train: class names of the training split.
        val: class names of the validation split.

    Raises:
        InputError: they differ.
    """
    if train != val:
        only = sorted(set(train) ^ set(val))
        which = f"{', '.join(only[:5])} in one of them only" if only else "the same in another order; give names"
        raise InputError(f"data {data.name}: train and val have different classes: {which}")


def copy_weights(model: Model, source: Model, where: str) -> None:
    """Copy the weights that fit, and say how many do.

    Args:
        model: receives them.
        source: gives them.
        where: the checkpoint, for messages.

    Raises:
        InputError: no convolution fits. (Counters of norms fit every model, the head's biases every one of as many
            classes.)
    """
    given = dict(source.named_parameters())
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim > 1}
    if not any(name in given and given[name].shape == parameter.shape for name, parameter in own.items()):
        raise InputError(
            f"{where}: no convolution of {source.definition.name} fits {model.definition.name}; leave out --model to "
            "train the checkpoint's own model"
        )
    copied, total = transfer_weights(model, source)
    level = logging.INFO if copied > total / 2 else logging.WARNING
    LOGGER.log(level, "%s: %d of %d tensors fit and were copied", where, copied, total)


def warn_of_ignored(recipe: Recipe, needs: Sequence[Need] = ()) -> None:
    """Warn, in one line, of settings that the recipe changes and that have no effect in it.

    Args:
        recipe: the recipe.
        needs: of the task, beside those of the schedule, of ``trd`` and of ``sdpoint``.
    """
    asked, plain = to_plain(recipe), to_plain(type(recipe)())
    schedule = recipe.optimizer.schedule
    of_schedule = [
        Need("optimizer", "power", "schedule", schedule, "poly"),
        Need("optimizer", "milestones", "schedule", schedule, "step"),
        Need("optimizer", "step_factor", "schedule", schedule, "step"),
    ]
    ignored = [
        f"{need.section}.{need.key} ({need.word} is {need.found}, not {need.wanted})"
        for need in (*needs, *of_schedule, *_trd_needs(recipe), *_sdpoint_needs(recipe))
        if need.found != need.wanted and asked[need.section][need.key] != plain[need.section][need.key]
    ]
    if ignored:
        LOGGER.warning("no effect: %s", ", ".join(ignored))


def _sdpoint_needs(recipe: Recipe) -> list[Need]:
    """The keys of ``sdpoint`` that mean nothing while it is off, or to a classifier."""
    if not recipe.sdpoint.ratios:
        keys = [field.name for field in fields(recipe.sdpoint) if field.name != "ratios"]
        return [Need("sdpoint", key, "sdpoint.ratios", "empty", "a list") for key in keys]
    is_classifier = isinstance(recipe, ClassificationRecipe)
    return [Need("sdpoint", "way", "the model", "a classifier" if is_classifier else "a detector", "a detector")]


def _trd_needs(recipe: Recipe) -> list[Need]:
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


def freeze(model: Model, names: tuple[str, ...]) -> None:
    """Stop sections or rows from learning; ``set_training_mode`` keeps their norms still.

    Args:
        model: is changed.
        names: sections (``backbone``) or rows (``stem``).

    Raises:
        InputError: a name is neither a section nor a row, or nothing is left to learn.
    """
    rows = {row.name: row.section for row in model.definition.rows}
    allowed = {*rows, *rows.values()}
    for name in names:
        if name not in allowed:
            raise InputError(f"freeze: unknown section or row {name!r}{did_you_mean(name, allowed)}")
    for row, section in rows.items():
        if row in names or section in names:
            model.graph.layers[row].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"freeze: {', '.join(names)} is the whole model; nothing would learn")


def set_training_mode(model: Model) -> None:
    """Training mode, except for frozen norms, whose statistics must not drift."""
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and not layer.weight.requires_grad:
            layer.eval()
