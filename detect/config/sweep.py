"""A search over settings: the schema of ``configs/sweeps``."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from detect.config.base import Listed, Named, Strict, Unit, build
from detect.config.yaml_files import YAML_FILE, find_config, load_yaml

Sampler = Literal["random", "grid"]
DEFAULT_TRIALS = 20
"""Trainings of a random search."""


@dataclass(frozen=True)
class ParameterConfig(Strict):
    """Values of one key of the recipe: a range, or a list of choices."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value. The distribution is uniform; an integer key gets integers."""
    log: bool = False
    """Log-uniform distribution: as often in [0.001, 0.01] as in [0.01, 0.1]."""
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
            yield "", "choices: one is a duplicate"


@dataclass(frozen=True)
class SweepConfig(Strict):
    """A search over keys of a recipe: one experiment, trained with other values each time."""

    name: str
    """Name in reports."""
    metric: str
    """Metric to maximise, as in ``evaluation.save_best``."""
    space: Named[ParameterConfig]
    """Dotted recipe keys (``optimizer.lr``) and their values."""
    run: str | None = None
    """Experiment name or file."""
    model: str | None = None
    """Model name or file; overrides the experiment's, as do ``data`` and ``recipe``."""
    data: str | None = None
    """Data-set name or file."""
    recipe: str | None = None
    """Recipe name or file."""
    data_root: str | None = None
    """Folder of the data set, in place of its YAML's ``root``; relative to the current folder."""
    sampler: Sampler = "random"
    """``random``: each trial draws its values. ``grid``: each combination of the choices once, the last key changing
    fastest."""
    trials: Annotated[int, Ge(1), Unit("trainings")] | None = None
    """Number of trainings; by default 20, or all of a grid."""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    """Seed of the values."""
    set: Named[Any] = field(default_factory=dict)
    """Dotted recipe keys that are the same in all trials."""

    @property
    def num_trials(self) -> int:
        """Number of trainings, no more than a grid has points."""
        points = math.prod(len(parameter.choices) for parameter in self.space.values())
        if self.sampler == "grid":
            return min(self.trials or points, points)
        return self.trials or DEFAULT_TRIALS

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if not self.space:
            yield "space", "is empty; name at least one key of the recipe"
        if not self.run and not (self.model and self.data):
            yield "run", "is missing; name an experiment, or a model and data"
        for key in self.space.keys() & self.set.keys():
            yield f"space.{key}", "is in set as well"
        for key, parameter in self.space.items():
            if self.sampler == "grid" and not parameter.choices:
                yield f"space.{key}", "has a range; a grid needs choices"


def load_sweep_config(name: str) -> SweepConfig:
    """Load a search by name or file; paths of YAML files in it are made absolute.

    Raises:
        InputError: there is no such file, or it is invalid.
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
    """Return a name unchanged, and a YAML path, in ``folder`` or else the current one, as an absolute path."""
    file = YAML_FILE.match(value)
    if file is None:
        return value
    return os.path.abspath(folder / value if (folder / file.group()).is_file() else value)
