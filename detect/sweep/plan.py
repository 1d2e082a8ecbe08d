"""A search in its folder: started anew, or continued."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from detect.config.base import to_plain
from detect.config.sweep import SweepConfig, load_sweep_config
from detect.data.datasets import open_split
from detect.errors import InputError
from detect.runtime.files import write_new_text, write_text
from detect.sweep.ledger import import_optuna
from detect.sweep.space import Parameter, find_data, open_space

SETTINGS = "sweep.yaml"
"""The search as it was started, in its folder."""


@dataclass(frozen=True)
class Plan:
    """A search that can begin.

    Args:
        config: what is searched.
        space: its parameters, checked.
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
        trials: how many trainings, if not as the YAML says.
        data_root: where the data set is, if not as the YAML says.
        resume: continue the search in the folder.

    Raises:
        InputError: the search cannot be done, or not in this folder.
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
        open_split(data, "train")  # two trials that make the data set at once would be in each other's way
    text = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=120)
    try:
        (write_text if resume else write_new_text)(stored, text)
    except FileExistsError:  # of two sweeps that began at the same time the other was first
        raise _holds_a_sweep(folder) from None
    return plan


def _holds_a_sweep(folder: Path) -> InputError:
    return InputError(f"--out {folder}: holds a sweep already; --resume continues it, another --out starts anew")


def _continued(stored: Path, given: SweepConfig | None, space: str | None) -> SweepConfig:
    """The search that a folder holds, which must not be another one than the one that is given."""
    if not stored.is_file():
        raise InputError(f"--resume: {stored.parent} holds no sweep; without --resume one starts there")
    config = load_sweep_config(str(stored))
    if given is not None and replace(given, trials=config.trials, data_root=config.data_root) != config:
        raise InputError(
            f"--resume continues a sweep as it was started, but {space} says something else than {stored}; "
            "another --out starts anew"
        )
    return config
