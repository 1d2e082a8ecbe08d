"""A search: its parameters, checked against the recipe that they change, and its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from detect.config.base import to_plain
from detect.config.data import DataConfig
from detect.config.recipe import Recipe
from detect.config.run import RunConfig, load_run_config
from detect.config.sweep import ParameterConfig, SweepConfig, load_sweep_config
from detect.config.yaml_files import dump_value, dump_yaml
from detect.data.datasets import open_split
from detect.data.recognition import check_root, open_data
from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.runtime.files import write_new_text, write_text
from detect.training.settings import load_recipe

SETTINGS = "sweep.yaml"
"""Configuration of a search, in its folder."""
Values = dict[str, Any]
"""Dotted recipe keys and what a trial sets them to."""


@dataclass(frozen=True)
class Parameter:
    """A key of the recipe and its values: ``choices``, or the range from ``low`` to ``high``.

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
    """Check the parameters of a search against its recipe: each end of a range and each choice is tried alone.
    A combination that is not allowed fails its trial.

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
    """The experiment of each trial, with the parts that the search replaces and with its ``set``."""
    named = {key: value for key in ("model", "data", "recipe") if (value := getattr(config, key)) is not None}
    run = replace(load_run_config(config.run), **named) if config.run else RunConfig(**named)
    return replace(run, set={**run.set, **config.set})


def find_data(config: SweepConfig) -> DataConfig:
    """Open the data set of a search; ``InputError`` if it is unknown, or its folder does not exist."""
    data = open_data(experiment(config).data, config.data_root)
    check_root(data)
    return data


def training_arguments(config: SweepConfig, values: Values) -> list[str]:
    """Arguments of ``detect train`` for the values of a trial."""
    arguments = []
    for key in ("run", "model", "data", "recipe", "data_root"):
        if (value := getattr(config, key)) is not None:
            arguments += [f"--{key.replace('_', '-')}", value]
    overrides = (f"{key}={dump_value(value)}" for key, value in {**config.set, **values}.items())
    return [*arguments, "--set", *overrides]


def shown(value: object) -> str:
    """Format a value for people, numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parameter(key: str, parameter: ParameterConfig, load: Callable[[Values], Recipe]) -> Parameter:
    """Check a parameter; its ends become whole numbers where the recipe's key is one."""
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
    """Undo the loader's conversion of whole numbers to ``float``."""
    assert end is not None, "the loader has refused a range with an open end"
    return int(end) if end.is_integer() else end


def _recipe_loader(run: RunConfig) -> Callable[[Values], Recipe]:
    definition = find_definition(run.model)
    return lambda values: load_recipe(definition, run, values)


@dataclass(frozen=True)
class Plan:
    """A checked search.

    Args:
        config: its configuration.
        space: its parameters.
        folder: of everything that it writes.
    """

    config: SweepConfig
    space: tuple[Parameter, ...]
    folder: Path


def make_plan(
    space: str | None, out: str | None, trials: int | None, data_root: str | None, resume: bool = False
) -> Plan:
    """Check a search and prepare its folder.

    Args:
        space: a shipped sweep's name or a file; a continued search needs none.
        out: the folder; by default ``runs/NAME`` with the name in the YAML.
        trials: number of trainings, instead of the YAML's.
        data_root: folder of the data set, instead of the YAML's.
        resume: continue the search in the folder.

    Raises:
        InputError: the search is not possible, or not in this folder.
    """
    import_optuna()
    given = load_sweep_config(space) if space else None
    if given is None and (out is None or not resume):
        raise InputError("--space is missing: name a sweep or its YAML (or, with --resume, its folder with --out)")
    folder = Path(out or f"runs/{given.name if given else ''}")
    stored = folder / SETTINGS
    if resume:
        config = _continued(stored, given, space)
    elif given is not None and not stored.exists():
        config = given
    else:
        raise _holds_a_sweep(folder)
    root = data_root or config.data_root
    config = replace(config, trials=trials or config.trials, data_root=os.path.abspath(root) if root else None)
    plan = Plan(config, open_space(config), folder)
    data = find_data(config)
    if data.generate:
        open_split(data, "train")  # two trials must not generate it at once
    text = dump_yaml(to_plain(config))
    try:
        (write_text if resume else write_new_text)(stored, text)
    except FileExistsError:  # another sweep began at the same time
        raise _holds_a_sweep(folder) from None
    return plan


def _holds_a_sweep(folder: Path) -> InputError:
    return InputError(f"--out {folder}: holds a sweep already; --resume continues it, another --out starts anew")


def _continued(stored: Path, given: SweepConfig | None, space: str | None) -> SweepConfig:
    """The search in a folder, which must be the given one."""
    if not stored.is_file():
        raise InputError(f"--resume: {stored.parent} holds no sweep; without --resume one starts there")
    config = load_sweep_config(str(stored))
    if given is not None and replace(given, trials=config.trials, data_root=config.data_root) != config:
        raise InputError(
            f"--resume continues a sweep as it was started, but {space} says something else than {stored}; "
            "another --out starts anew"
        )
    return config


def import_optuna() -> ModuleType:
    """Import the optional library, without its log of studies.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        hint = "pip install 'detect-small[sweep]'"
        raise InputError(f"Optuna is not installed, which draws and records trials: {hint}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
