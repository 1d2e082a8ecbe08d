"""A comparison of trainings: the schema of ``configs/ablations``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from detect.config.base import Listed, Named, Strict, build
from detect.config.yaml_files import YAML_FILE, find_config, load_yaml

PARTS = ("run", "model", "data", "recipe", "weights", "data_root")
"""Keys of a training that are no recipe keys; each is a flag of ``detect train``."""
COSTS = ("gmacs", "ms", "seconds")
"""Costs that can be the horizontal axis of the picture."""


@dataclass(frozen=True)
class AblationConfig(Strict):
    """Trainings that differ in what ``cases`` and ``vary`` name, each with several seeds.

    A key is a part of the training (``model``, ``data``, ``weights``, ...) or a dotted recipe key.
    """

    name: str
    """Name in reports."""
    base: Named[Any] = field(default_factory=dict)
    """Keys that all trainings share."""
    cases: Named[Named[Any]] = field(default_factory=dict)
    """Name of a case to its keys."""
    vary: Named[Listed[Any]] = field(default_factory=dict)
    """A key to its values; every combination is trained, of each case."""
    seeds: Listed[Annotated[int, Ge(0)]] = (0, 1, 2)
    """Seeds of every training. One seed shows no difference: runs differ by a point or two."""
    metrics: Listed[str] = ("AP", "AP50", "AP_S", "AP_M", "AP_L")
    """Columns of the table, as in ``results.csv``; the first one is drawn."""
    x: str = "gmacs"
    """Horizontal axis of the picture: ``gmacs`` of an image, ``ms`` of a forward pass, ``seconds`` of the processor, or
    a key of ``vary``."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if not self.cases and not self.vary:
            yield "vary", "is missing; name a key and its values, or cases"
        for key, values in self.vary.items():
            if not values:
                yield f"vary.{key}", "is empty"
        for key in ("seeds", "metrics"):
            if not getattr(self, key):
                yield key, "is empty"
        if len(set(self.seeds)) < len(self.seeds):
            yield "seeds", "one is a duplicate"
        if self.x not in (*COSTS, *self.vary):
            yield "x", f"{self.x!r} is not allowed; allowed: {', '.join((*COSTS, *self.vary))}"
        for name, keys in self.cases.items():
            for key in keys.keys() & self.vary.keys():
                yield f"cases.{name}.{key}", "is in vary as well"


def load_ablation_config(name: str) -> AblationConfig:
    """Load a comparison by name or file; paths of files beside it are made absolute.

    Raises:
        InputError: there is no such file, or it is invalid.
    """
    path = find_config("ablations", name)
    config = build(AblationConfig, load_yaml(path), str(path))
    beside = {key: [_absolute(key, value, path.parent) for value in values] for key, values in config.vary.items()}
    return dataclasses.replace(
        config,
        base=_absolute_parts(config.base, path.parent),
        cases={case: _absolute_parts(keys, path.parent) for case, keys in config.cases.items()},
        vary={key: tuple(values) for key, values in beside.items()},
    )


def _absolute_parts(keys: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {key: _absolute(key, value, folder) for key, value in keys.items()}


def _absolute(key: str, value: Any, folder: Path) -> Any:
    """Return a part's path as an absolute one, if its file lies in ``folder``; other values unchanged."""
    if key not in PARTS or not isinstance(value, str):
        return value
    file = YAML_FILE.match(value)
    return os.path.abspath(folder / value) if (folder / (file.group() if file else value)).exists() else value
