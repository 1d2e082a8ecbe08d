"""A search: what a YAML of ``configs/sweeps`` may hold."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Interval

from detect.config.base import YAML_FILE, Listed, Named, Strict, Unit, build, find_config, load_yaml


@dataclass(frozen=True)
class ParameterConfig(Strict):
    """What a search may give one key of the recipe: a range, or a list of choices."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value. What is between is equally likely; a key that is a whole number gets whole numbers."""
    log: bool = False
    """Equally likely on a logarithmic scale: as often in [0.001, 0.01] as in [0.01, 0.1]."""
    choices: Listed[Any] = ()
    """Words, numbers, true or false, each equally likely."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.choices:
            yield from self._contradictions_of_choices()
        elif self.low is None or self.high is None:
            yield "", "must have low and high, or choices"
        elif self.low > self.high:
            yield "", f"low {self.low:g} is above high {self.high:g}"
        elif self.log and self.low <= 0:
            yield "", f"low {self.low:g} has no logarithm; with log: true it must be above 0"

    def _contradictions_of_choices(self) -> Iterator[tuple[str, str]]:
        if self.low is not None or self.high is not None or self.log:
            yield "", "has choices and a range; only one of them can be"
        elif not all(isinstance(choice, (str, int, float)) for choice in self.choices):
            yield "", "choices: must be words, numbers, true or false"
        elif len(set(self.choices)) < len(self.choices):
            yield "", "choices: one stands twice"


@dataclass(frozen=True)
class SweepConfig(Strict):
    """A random search over keys of a recipe: an experiment that is trained many times, each time with other values."""

    name: str
    """How reports call it."""
    metric: str
    """What is to be as large as possible, as in ``evaluation.save_best``."""
    space: Named[ParameterConfig]
    """Dotted recipe keys (``optimizer.lr``) and what they may be."""
    run: str | None = None
    """Experiment name or file."""
    model: str | None = None
    """Model name or file; with ``run``, instead of the experiment's. So are ``data`` and ``recipe``."""
    data: str | None = None
    """Data-set name or file."""
    recipe: str | None = None
    """Recipe name or file."""
    data_root: str | None = None
    """Where the data set is, instead of what its YAML says; relative to the current folder."""
    trials: Annotated[int, Ge(1), Unit("trainings")] = 20
    """How many trainings."""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    """Of the values that are drawn."""
    set: Named[Any] = field(default_factory=dict)
    """Recipe keys that are the same in all trials, dotted."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if not self.space:
            yield "space", "is empty; name at least one key of the recipe"
        if not self.run and not (self.model and self.data):
            yield "run", "is missing; name an experiment, or a model and data"
        for key in self.space.keys() & self.set.keys():
            yield f"space.{key}", "stands in set too"


def load_sweep_config(name: str) -> SweepConfig:
    """A random search; paths to YAML files in it, beside the file or from the current folder, are made absolute.

    Args:
        name: a shipped sweep's name or a file.

    Raises:
        InputError: there is no such file, or it cannot be a search: nothing to train, nothing or nonsense to draw.
    """
    path = find_config("sweeps", name)
    sweep = build(SweepConfig, load_yaml(path), str(path))
    files: dict[str, Any] = {
        key: _absolute(value, path.parent)
        for key in ("run", "model", "data", "recipe")
        if (value := getattr(sweep, key)) is not None
    }
    return dataclasses.replace(sweep, **files)


def _absolute(value: str, folder: Path) -> str:
    """A name as it is; the path of a YAML file, in ``folder`` or else from the current one, as an absolute path."""
    file = YAML_FILE.match(value)
    if file is None:
        return value
    return os.path.abspath(folder / value if (folder / file.group()).is_file() else value)
