"""Trainings of a comparison, and their folders."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from detect.config.ablation import PARTS, AblationConfig
from detect.config.yaml_files import dump_value
from detect.data.recognition import check_root, open_data
from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.training.settings import RunRequest, load_recipe, run_config


class Case(NamedTuple):
    """One row of the table.

    Args:
        name: of the case, or empty.
        varied: keys of ``vary`` with their values.
        keys: all keys of its trainings.
    """

    name: str
    varied: dict[str, Any]
    keys: dict[str, Any]

    @property
    def title(self) -> str:
        """Name and varied values, for people."""
        values = (f"{key.rpartition('.')[2]} {shown(value)}" for key, value in self.varied.items())
        return ", ".join([*([self.name] if self.name else []), *values])

    @property
    def parts(self) -> dict[str, Any]:
        """Keys that are flags of ``detect train``."""
        return {key: value for key, value in self.keys.items() if key in PARTS}

    @property
    def recipe_keys(self) -> dict[str, Any]:
        return {key: value for key, value in self.keys.items() if key not in PARTS}


class Training(NamedTuple):
    """One training.

    Args:
        case: its row of the table.
        seed: of everything random in it.
        folder: of the run.
    """

    case: Case
    seed: int
    folder: Path

    @property
    def weights(self) -> str:
        """Weights of the case, ``{seed}`` and ``{out}`` of their path replaced."""
        text = str(self.case.parts.get("weights", ""))
        if "{" not in text:
            return text
        path = text.replace("{seed}", str(self.seed)).replace("{out}", str(self.folder.parent))
        return os.path.normpath(path)  # {out}/.. before {out} exists

    @property
    def checkpoint(self) -> Path:
        return self.folder / "best.pt"

    def arguments(self, device: str) -> list[str]:
        """Arguments of ``detect train``."""
        parts = {**self.case.parts, **({"weights": self.weights} if "weights" in self.case.parts else {})}
        flags = [word for key, value in parts.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        overrides = [f"{key}={dump_value(value)}" for key, value in self.case.recipe_keys.items()]
        tail = ["--set", *overrides] if overrides else []
        return [*flags, "--seed", str(self.seed), "--out", str(self.folder), "--device", device, *tail]


def plan_trainings(config: AblationConfig, out: Path) -> list[Training]:
    """List the trainings of a comparison: seed by seed, so that each seed's table is complete as early as possible.

    Raises:
        InputError: a key or a value is not allowed, two cases have one folder, or weights of a seed are missing.
    """
    cases = list(_cases(config))
    for case in cases:
        _check(config, case)
    folders = [_folder_name(case.title) for case in cases]
    for name in folders:
        if folders.count(name) > 1:
            raise InputError(f"ablation {config.name}: two cases have the folder {name}; give them other names")
    trainings = [
        Training(case, seed, out / f"{folder}-seed{seed}")
        for seed in config.seeds
        for case, folder in zip(cases, folders, strict=True)
    ]
    for training in trainings:
        if "{" in str(training.case.parts.get("weights", "")) and not Path(training.weights).is_file():
            raise InputError(f"ablation {config.name}: {training.case.title}: weights {training.weights}: no such file")
    return trainings


def shown(value: object) -> str:
    """Format a value of a key for people: of a path the last part."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Path(text).name if "/" in text else text


def _cases(config: AblationConfig) -> Iterator[Case]:
    for name, keys in (config.cases or {"": {}}).items():
        for values in itertools.product(*config.vary.values()):
            varied = dict(zip(config.vary, values, strict=True))
            yield Case(name, varied, {**config.base, **keys, **varied})


def _check(config: AblationConfig, case: Case) -> None:
    """Check a case as its training will, before the first one starts.

    Raises:
        InputError: with the name of the case.
    """
    try:
        run = run_config(RunRequest(**case.parts))
        load_recipe(find_definition(run.model), run, case.recipe_keys)
        data = open_data(run.data, case.keys.get("data_root"))
    except InputError as error:
        raise InputError(f"ablation {config.name}: {case.title}: {error}") from None
    check_root(data)


def _folder_name(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+=_-]+", "-", title).strip("-.")[:150] or "case"
