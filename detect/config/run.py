"""An experiment: the schema of ``configs/runs``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from detect.config.base import Listed, Named, Strict, build
from detect.config.yaml_files import YAML_FILE, find_config, load_yaml

DEFAULT_LOGGERS: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)


def _listed(value: Any) -> Any:
    """A word as a list of one."""
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class RunConfig(Strict):
    """One experiment: a model, a data set and a recipe."""

    model: str
    """Model name or file."""
    data: str
    """Data-set name or file."""
    recipe: str | None = None
    """Recipe name or file; by default ``fine-tune`` for a detector that begins from weights, ``default`` from
    scratch, and ``classify`` for a classifier."""
    weights: str | None = None
    """Checkpoint to start from, a file or a shipped name; ``none`` is from scratch. By default the shipped start of the
    model (``start-MODEL``), if there is one."""
    logger: Annotated[Listed[Literal["tensorboard", "mlflow", "wandb"]], BeforeValidator(_listed)] = DEFAULT_LOGGERS
    """Loggers of the run, a word or a list; each is imported, and writes or sends, only where it is named."""
    set: Named[Any] = field(default_factory=dict)
    """Dotted recipe keys that differ (``optimizer.lr: 0.02``)."""


def load_run_config(name: str) -> RunConfig:
    """Load an experiment by name or file; a relative YAML path in it is looked up beside the file first."""
    path = find_config("runs", name)
    run = build(RunConfig, load_yaml(path), str(path))
    beside: dict[str, Any] = {
        key: str(path.parent / value)
        for key, value in (("model", run.model), ("data", run.data), ("recipe", run.recipe or ""))
        if (file := YAML_FILE.match(value)) and (path.parent / file.group()).is_file()
    }
    if run.weights and (path.parent / run.weights).is_file():
        beside["weights"] = str(path.parent / run.weights)
    return dataclasses.replace(run, **beside)
