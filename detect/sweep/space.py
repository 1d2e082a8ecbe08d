"""What a search draws, checked against the recipe that it changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from detect.config.base import to_plain
from detect.config.data import DataConfig
from detect.config.recipe import Recipe
from detect.config.run import RunConfig, load_run_config
from detect.config.sweep import ParameterConfig, SweepConfig
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.training.run import load_recipe

Values = dict[str, Any]
"""Dotted recipe keys and what a trial sets them to."""


@dataclass(frozen=True)
class Parameter:
    """A key of the recipe with what it may be: ``choices``, or everything from ``low`` to ``high``.

    Args:
        key: dotted.
        low: smallest value; a whole number if the key is one.
        high: largest value.
        log: uniform in the logarithm.
        choices: instead of a range.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()


def open_space(config: SweepConfig) -> tuple[Parameter, ...]:
    """The parameters of a search, after checking that its recipe takes them.

    Each end of a range and each choice is tried on the recipe, the others being as the recipe has them. What only some
    combinations make wrong ends the trials that draw them.

    Args:
        config: the search.

    Raises:
        InputError: the experiment, the metric or a key is unknown, or a value is not allowed.
    """
    try:
        load = _recipe_loader(experiment(config))
        load({"evaluation.save_best": [config.metric]})
        return tuple(_parameter(key, parameter, load) for key, parameter in config.space.items())
    except InputError as error:
        raise InputError(f"sweep {config.name}: {error}") from None


def experiment(config: SweepConfig) -> RunConfig:
    """What each trial trains: the experiment with what the search names instead, and with its ``set`` on top."""
    named = {key: value for key in ("model", "data", "recipe") if (value := getattr(config, key)) is not None}
    run = replace(load_run_config(config.run), **named) if config.run else RunConfig(**named)
    return replace(run, set={**run.set, **config.set})


def find_data(config: SweepConfig) -> DataConfig:
    """The data set of a search.

    Raises:
        InputError: it is unknown, or its folder is not there.
    """
    data = open_data(experiment(config).data, config.data_root)
    if data.generate is None and not Path(data.root).is_dir():
        raise InputError(f"{data.name}: there is no folder {data.root}; say with --data-root where the data set is")
    return data


def training_words(config: SweepConfig, values: Values) -> list[str]:
    """The words after ``tools/train.py`` that train with some values.

    Args:
        config: the search.
        values: of one trial.
    """
    words = []
    for key in ("run", "model", "data", "recipe", "data_root"):
        if (value := getattr(config, key)) is not None:
            words += [f"--{key.replace('_', '-')}", value]
    return [*words, "--set", *(f"{key}={_yaml_word(value)}" for key, value in {**config.set, **values}.items())]


def shown(value: object) -> str:
    """A value as people read it: numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parameter(key: str, parameter: ParameterConfig, load: Callable[[Values], Recipe]) -> Parameter:
    """A checked parameter, whose ends are whole numbers where the recipe's key is one."""
    ends: Sequence[Any] = parameter.choices or [_tidy(end) for end in (parameter.low, parameter.high)]
    for end in ends:
        content = to_plain(load({key: end}))
        for word in key.split("."):
            content = content[word]
    if parameter.choices:
        return Parameter(key, choices=parameter.choices)
    kind = type(content)
    return Parameter(key, kind(ends[0]), kind(ends[1]), parameter.log)


def _tidy(end: float | None) -> float:
    """A number of the YAML as it was written there: the loader has made whole numbers ``float``."""
    assert end is not None, "the loader has refused a range with an open end"
    return int(end) if end.is_integer() else end


def _recipe_loader(run: RunConfig) -> Callable[[Values], Recipe]:
    """Gives an experiment's recipe with values on top; the model's head decides of which task it is."""
    definition = find_definition(run.model)
    return lambda values: load_recipe(definition, run.recipe, {**run.set, **values})


def _yaml_word(value: Any) -> str:
    """A value as ``--set`` reads it."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")
