"""From the wishes of a user to the settings of a run."""

from __future__ import annotations

import argparse
import dataclasses
import re
from dataclasses import dataclass, field
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
from detect.runtime.distributed import broadcast_text, is_main_process, num_restarts
from detect.runtime.files import make_unique_folder
from detect.runtime.logs import LOGGER
from detect.training.checkpoints import has_checkpoint
from detect.training.loop import RunSettings

_YAML_NAME = re.compile(r"(?P<file>.+?)\.ya?ml(?::(?P<variant>[^+]+))?(?P<words>.*)")
DEFAULT_DETECTION, DEFAULT_CLASSIFICATION = "default", "classify"
"""Recipes where none is named."""
ANYWAY = "anyway"
"""Behind ``--resume``: although the data has changed."""
RECIPE_FLAGS = ("epochs", "batch_size", "image_size", "workers", "threads", "seed")


@dataclass(frozen=True)
class RunRequest:
    """A run as a user asks for it, by the names of things.

    Args:
        run: experiment's name or file; what is said beside it wins.
        model: model's name or file; None takes that of ``weights``.
        data: data set's name, YAML or folder.
        recipe: recipe's name or file.
        weights: checkpoint to start from, a file or a shipped name.
        out: folder of the run; None: a new one in ``runs/``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        data_root: the data set's folder, instead of what its YAML says.
        resume: continue the run in ``out``; ``"anyway"``: although its data has changed.
        strict: refuse damaged images and boxes.
        keys: of the recipe, those of ``RECIPE_FLAGS``.
        overrides: of the recipe, dotted; ``keys`` win.
    """

    run: str | None = None
    model: str | None = None
    data: str | None = None
    recipe: str | None = None
    weights: str | None = None
    out: str | None = None
    device: str = "auto"
    data_root: str | None = None
    resume: bool | str = False
    strict: bool = False
    keys: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)


def request_from_args(args: argparse.Namespace) -> RunRequest:
    """The request of a command line of ``detect train``."""
    names = [one.name for one in dataclasses.fields(RunRequest) if one.name not in ("keys", "overrides")]
    keys = {key: getattr(args, key) for key in RECIPE_FLAGS if getattr(args, key) is not None}
    given = {name: getattr(args, name) for name in names}
    return RunRequest(**given, keys=keys, overrides=parse_overrides(args.set))


def open_run(request: RunRequest) -> RunSettings:
    """Find everything that a run needs, and make its folder.

    Raises:
        InputError: wishes that contradict each other, or name what is not there.
    """
    if request.resume:
        if not request.out:
            raise InputError("--resume needs --out: the folder of the run to continue")
        return _resumed(request, Path(request.out))
    run = _run_config(request)
    overrides = {**run.set, **request.overrides, **request.keys}
    # A mistake in the name is told before the data is read.
    definition = (
        find_definition(run.model) if run.model else load_checkpoint(Path(request.weights or "")).model.definition
    )
    wanted = Path(request.out or Path("runs") / _run_name(request, run))
    begun = wanted if request.out else _begun_before(wanted)
    if begun is not None and has_checkpoint(begun):
        if num_restarts():
            LOGGER.info("started again by torchrun (%d): the run in %s goes on", num_restarts(), begun)
            return _resumed(request, begun)
        raise InputError(f"--out {begun}: holds a run already; --resume continues it, another --out starts anew")
    return RunSettings(
        model=run.model or None,
        data=open_data(run.data, request.data_root),
        recipe=load_recipe(definition, run.recipe, overrides),
        weights=Path(request.weights) if request.weights else None,
        device=select_device(request.device),
        strict=request.strict,
        out=begun or _new_folder(wanted),  # last: a mistake leaves no empty folder
    )


def _run_config(request: RunRequest) -> RunConfig:
    """The experiment of ``--run``, or of ``--model``, ``--data`` and ``--recipe``; the latter win."""
    if request.run:
        run = load_run_config(request.run)
        given = {key: value for key in ("model", "data", "recipe") if (value := getattr(request, key))}
        return dataclasses.replace(run, **given)
    if not request.data:
        raise InputError("--data is missing: name a data set or its YAML (or an experiment with --run)")
    if not request.model and not request.weights:
        raise InputError(
            "--model is missing: name a model or its YAML (or a checkpoint with --weights, or an experiment with --run)"
        )
    return RunConfig(model=request.model or "", data=request.data, recipe=request.recipe)


def load_recipe(
    definition: ModelDefinition, name: str | None, overrides: dict[str, Any]
) -> DetectionRecipe | ClassificationRecipe:
    """The recipe of the task that the model's head decides."""
    if definition.is_classifier:
        return load_classification_recipe(name or DEFAULT_CLASSIFICATION, overrides)
    return load_detection_recipe(name or DEFAULT_DETECTION, overrides)


def _resumed(request: RunRequest, out: Path) -> RunSettings:
    """The settings that the run in a folder was started with."""
    if not has_checkpoint(out):
        raise InputError(f"--resume: {out} holds no last.pt; without --resume the run starts from the beginning")
    path = out / "config.yaml"
    content = load_yaml(path)
    data = build(DataConfig, content.get("data", {}), f"{path}: data")
    schema: type[DetectionRecipe | ClassificationRecipe]
    schema = ClassificationRecipe if content.get("task") == "classification" else DetectionRecipe
    recipe = build(schema, content.get("recipe", {}), f"{path}: recipe")
    ignored = [f"--{key}" for key in ("run", "model", "data", "recipe", "weights", "strict") if getattr(request, key)]
    if request.resume and ignored:
        LOGGER.warning("--resume goes on with the settings in %s; ignored: %s", path, ", ".join(ignored))
    if request.data_root:
        data = dataclasses.replace(data, root=str(Path(request.data_root).resolve()))
    changed = [f"--{key.replace('_', '-')}" for key, value in request.keys.items() if value != getattr(recipe, key)]
    if request.resume and (changed or request.overrides):
        words = ", ".join([*changed, *(["--set"] if request.overrides else [])])
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
        accept_other_data=request.resume == ANYWAY,
        device=select_device(request.device),
        strict=bool(content.get("strict")),
    )


def _run_name(request: RunRequest, run: RunConfig) -> str:
    """The experiment's name, with the model's when another one was asked for; else those of model and data."""
    if request.run:
        name = find_config("runs", request.run).stem
        return f"{name}-{_stem(request.model)}" if request.model else name
    data = Path(run.data).resolve().name if Path(run.data).is_dir() else _stem(run.data)
    model = _stem(run.model) if run.model else Path(request.weights or "").stem
    return f"{model}-{data}"


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
    return Path(broadcast_text(str(folder)))


def _new_folder(wanted: Path) -> Path:
    """A folder that the first process makes, for all."""
    return Path(broadcast_text(str(make_unique_folder(wanted)) if is_main_process() else ""))
