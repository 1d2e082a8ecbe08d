"""From command-line words to the settings of a run."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from detect.config.base import build, find_config, load_yaml, parse_overrides
from detect.config.data import DataConfig
from detect.config.recipe import (
    ClassificationRecipe,
    DetectionRecipe,
    load_classification_recipe,
    load_detection_recipe,
)
from detect.config.run import RunConfig, load_run_config
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint
from detect.models.definition import ModelDefinition
from detect.runtime.device import select_device
from detect.runtime.folders import claim_new_folder
from detect.runtime.logs import LOGGER
from detect.runtime.processes import as_first_says, is_first, num_restarts
from detect.training.checkpoints import has_checkpoint
from detect.training.loop import RunSettings

_YAML_NAME = re.compile(r"(?P<file>.+?)\.ya?ml(?::(?P<variant>[^+]+))?(?P<words>.*)")
DEFAULT_DETECTION, DEFAULT_CLASSIFICATION = "default", "classify"
"""Recipes where none is named."""
ANYWAY = "anyway"
"""Behind ``--resume``: although the data has changed."""
RECIPE_FLAGS = ("epochs", "batch_size", "image_size", "workers", "threads", "seed")


def settings_from_args(args: argparse.Namespace) -> RunSettings:
    """The run that a command line asks for.

    Args:
        args: of ``tools/train.py``.

    Raises:
        InputError: words that contradict each other, or name what is not there.
    """
    if args.resume:
        if not args.out:
            raise InputError("--resume needs --out: the folder of the run to continue")
        return _resumed(args, Path(args.out))
    run = _run_config(args)
    overrides: dict[str, Any] = {**run.set, **parse_overrides(args.set)}
    overrides |= {key: getattr(args, key) for key in RECIPE_FLAGS if getattr(args, key) is not None}
    # A mistake in the name is told before the data is read.
    definition = find_definition(run.model) if run.model else load_checkpoint(Path(args.weights)).model.definition
    wanted = Path(args.out or Path("runs") / _run_name(args, run))
    begun = wanted if args.out else _begun_before(wanted)
    if begun is not None and has_checkpoint(begun):
        if num_restarts():
            LOGGER.info("started again by torchrun (%d): the run in %s goes on", num_restarts(), begun)
            return _resumed(args, begun)
        raise InputError(f"--out {begun}: holds a run already; --resume continues it, another --out starts anew")
    return RunSettings(
        model=run.model or None,
        data=open_data(run.data, args.data_root),
        recipe=load_recipe(definition, run.recipe, overrides),
        weights=Path(args.weights) if args.weights else None,
        device=select_device(args.device),
        strict=args.strict,
        out=begun or _new_folder(wanted),  # last: a mistake leaves no empty folder
    )


def _run_config(args: argparse.Namespace) -> RunConfig:
    """The experiment of ``--run``, or of ``--model``, ``--data`` and ``--recipe``; the latter win."""
    if args.run:
        run = load_run_config(args.run)
        given = {key: value for key in ("model", "data", "recipe") if (value := getattr(args, key))}
        return dataclasses.replace(run, **given)
    if not args.data:
        raise InputError("--data is missing: name a data set or its YAML (or an experiment with --run)")
    if not args.model and not args.weights:
        raise InputError(
            "--model is missing: name a model or its YAML (or a checkpoint with --weights, or an experiment with --run)"
        )
    return RunConfig(model=args.model or "", data=args.data, recipe=args.recipe)


def load_recipe(
    definition: ModelDefinition, name: str | None, overrides: dict[str, Any]
) -> DetectionRecipe | ClassificationRecipe:
    """The recipe of the task that the model's head decides."""
    if definition.is_classifier:
        return load_classification_recipe(name or DEFAULT_CLASSIFICATION, overrides)
    return load_detection_recipe(name or DEFAULT_DETECTION, overrides)


def _resumed(args: argparse.Namespace, out: Path) -> RunSettings:
    """The settings that the run in a folder was started with."""
    if not has_checkpoint(out):
        raise InputError(f"--resume: {out} holds no last.pt; without --resume the run starts from the beginning")
    path = out / "config.yaml"
    content = load_yaml(path)
    data = build(DataConfig, content.get("data", {}), f"{path}: data")
    schema: type[DetectionRecipe | ClassificationRecipe]
    schema = ClassificationRecipe if content.get("task") == "classification" else DetectionRecipe
    recipe = build(schema, content.get("recipe", {}), f"{path}: recipe")
    ignored = [f"--{key}" for key in ("run", "model", "data", "recipe", "weights", "strict") if getattr(args, key)]
    if args.resume and ignored:
        LOGGER.warning("--resume goes on with the settings in %s; ignored: %s", path, ", ".join(ignored))
    if args.data_root:
        data = dataclasses.replace(data, root=str(Path(args.data_root).resolve()))
    changed = [
        f"--{key.replace('_', '-')}" for key in RECIPE_FLAGS if _differs(getattr(args, key), getattr(recipe, key))
    ]
    if args.resume and (changed or args.set):
        words = ", ".join([*changed, *(["--set"] if args.set else [])])
        raise InputError(
            f"--resume continues a run as it was started, so it cannot change {words}; start a new run with --weights"
        )
    return RunSettings(
        model=content.get("model"),
        data=data,
        recipe=recipe,
        out=out,
        weights=Path(content["weights"]) if content.get("weights") else None,
        resume=True,
        accept_other_data=args.resume == ANYWAY,
        device=select_device(args.device),
        strict=bool(content.get("strict")),
    )


def _differs(given: Any, stored: Any) -> bool:
    return given is not None and given != stored


def _run_name(args: argparse.Namespace, run: RunConfig) -> str:
    """The experiment's name, with the model's when another one was asked for; else those of model and data."""
    if args.run:
        name = find_config("runs", args.run).stem
        return f"{name}-{_stem(args.model)}" if args.model else name
    data = Path(run.data).resolve().name if Path(run.data).is_dir() else _stem(run.data)
    return f"{_stem(run.model) if run.model else Path(args.weights).stem}-{data}"


def _stem(name: str) -> str:
    """A name as it is, a YAML file without folder and suffix; ``FILE.yaml:VARIANT`` is the variant."""
    file = _YAML_NAME.fullmatch(name)
    return (file["variant"] or Path(file["file"]).stem) + file["words"] if file else name


def _begun_before(wanted: Path) -> Path | None:
    """The folder of the run that torchrun starts again: the last of ``wanted``, ``wanted-2``, ... that is there."""
    if not num_restarts():
        return None
    folder, number = wanted, 1
    while (following := wanted.with_name(f"{wanted.name}-{number + 1}")).exists():
        folder, number = following, number + 1
    return Path(as_first_says(str(folder)))


def _new_folder(wanted: Path) -> Path:
    """A folder that the first process makes, for all."""
    return Path(as_first_says(str(claim_new_folder(wanted)) if is_first() else ""))
