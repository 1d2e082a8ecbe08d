"""What is done to data and model before anything is learnt, whatever the task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from detect.class_names import ClassMatch, are_numbers, match_names, some_names
from detect.config.base import to_plain
from detect.config.data import DataConfig
from detect.config.recipe import Recipe
from detect.errors import InputError, did_you_mean
from detect.models.model import Model
from detect.models.transfer import transfer_weights
from detect.runtime.logs import LOGGER
from detect.runtime.plugins import find_plugin, plugin_names


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


def check_classes(data: DataConfig, train: tuple[str, ...], val: tuple[str, ...]) -> None:
    """Compare the classes of the two splits by name, and log what one of them lacks.

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
    lines = [
        *([f"val has no {some_names(match.only_source)}: nothing measures them"] if match.only_source else []),
        *(
            [f"train has no {some_names(match.only_target)}: their objects in val count as missed"]
            * bool(match.only_target)
        ),
        *([f"the same class, spelled in two ways: {', '.join(match.respelled[:3])}"] * bool(match.respelled)),
    ]
    if lines:
        LOGGER.warning("data %s: classes are compared by name; %s", data.name, "; ".join(lines))


def copy_weights(model: Model, source: Model, classes: ClassMatch, where: str) -> None:
    """Copy the weights that fit, those of classes by name, and say how many do.

    Args:
        model: receives them.
        source: gives them.
        classes: those of ``source`` among those of ``model``.
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
    copied = transfer_weights(model, source, classes)
    level = logging.INFO if copied.whole > copied.total / 2 else logging.WARNING
    by_class = f", {copied.by_class} more class by class" if copied.by_class else ""
    head_fits = copied.by_class > 0 or (classes.is_same and _head_fits(model, source))
    carried = _carried(classes) if head_fits else "the head does not fit, all start anew"
    LOGGER.log(
        *(level, "%s: %d of %d tensors fit and were copied%s; classes: %s"),
        *(where, copied.whole, copied.total, by_class, carried),
    )


def _head_fits(model: Model, source: Model) -> bool:
    """Whether the heads have the same tensors."""
    own, given = ({name: t.shape for name, t in each.graph.last.named_parameters()} for each in (model, source))
    return own == given and model.definition.rows[-1].name == source.definition.rows[-1].name


def _carried(classes: ClassMatch) -> str:
    """The classes that were carried over, started anew and dropped."""
    if classes.is_same and not classes.respelled:
        return f"all {len(classes.target)} carried over"
    parts = [f"{len(classes.shared)} carried over by name"]
    parts[0] += f" ({some_names(classes.shared)})" if classes.shared else ""
    parts += [f"{len(classes.only_target)} start anew ({some_names(classes.only_target)})"] * bool(classes.only_target)
    parts += [f"{len(classes.only_source)} dropped ({some_names(classes.only_source)})"] * bool(classes.only_source)
    parts += [f"{', '.join(classes.respelled[:3])}, case and blanks apart"] * bool(classes.respelled)
    if not classes.shared and are_numbers(classes.source):
        parts.append("the checkpoint has numbers instead of names (tools/import_weights.py --names gives it some)")
    elif not classes.shared and are_numbers(classes.target):
        parts.append("the data has numbers instead of names (names: in its config gives it some)")
    return "; ".join(parts)


def warn_of_ignored(recipe: Recipe, needs: Sequence[Need] = ()) -> None:
    """Warn, in one line, of settings that the recipe changes and that have no effect in it.

    Args:
        recipe: the recipe.
        needs: of the task, beside those of the schedule and of the papers' sections.
    """
    asked, plain = to_plain(recipe), to_plain(type(recipe)())
    schedule = recipe.optimizer.schedule
    of_schedule = [
        Need("optimizer", "power", "schedule", schedule, "poly"),
        Need("optimizer", "milestones", "schedule", schedule, "step"),
        Need("optimizer", "step_factor", "schedule", schedule, "step"),
    ]
    of_papers = [
        need
        for name in plugin_names("option_dependencies")
        for need in find_plugin("option_dependencies", name)(recipe)
    ]
    ignored = [
        f"{need.section}.{need.key} ({need.word} is {need.found}, not {need.wanted})"
        for need in (*needs, *of_schedule, *of_papers)
        if need.found != need.wanted and asked[need.section][need.key] != plain[need.section][need.key]
    ]
    if ignored:
        LOGGER.warning("no effect: %s", ", ".join(ignored))


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
