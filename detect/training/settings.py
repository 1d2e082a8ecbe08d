"""The settings of a run, from its command line or function call."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from detect.config.base import build, to_plain
from detect.config.data import DataConfig
from detect.config.recipe import (
    ClassificationRecipe,
    DetectionRecipe,
    load_classification_recipe,
    load_detection_recipe,
)
from detect.config.run import DEFAULT_LOGGERS, RunConfig, load_run_config
from detect.config.yaml_files import find_config, load_yaml
from detect.data.recognition import open_data
from detect.errors import InputError
from detect.models.catalog import find_definition, shipped_start
from detect.models.checkpoint import load_checkpoint
from detect.models.definition import ModelDefinition
from detect.runtime.device import select_device
from detect.runtime.distributed import broadcast_text, is_main_process, num_restarts
from detect.runtime.files import make_unique_folder
from detect.runtime.logs import LOGGER
from detect.training.checkpoints import has_checkpoint
from detect.training.loggers import check_loggers

CPU = torch.device("cpu")
DEFAULT_MODEL = "detect-n"
"""Model where neither a model nor weights are named."""
FROM_WEIGHTS, DEFAULT_DETECTION, DEFAULT_CLASSIFICATION = "fine-tune", "default", "classify"
"""Recipes where none is named: of a detector that begins from weights, from scratch, and of a classifier."""
NO_LOGGER = "none"
"""Value of ``--logger``."""
FROM_SCRATCH = "none"
"""Value of ``--weights``: no checkpoint, not even the shipped start of the model."""
ANYWAY = "anyway"
"""Value of ``--resume``: although the data has changed."""
RECIPE_FLAGS = ("epochs", "batch_size", "image_size", "workers", "threads", "seed")
"""Recipe keys with a flag of their own."""
_RESOURCES = ("workers", "threads")
"""Of these keys, those that a resumed run may change: they decide how fast it is and what memory it takes."""
_YAML_NAME = re.compile(r"(?P<file>.+?)\.ya?ml(?::(?P<variant>[^+]+))?(?P<options>.*)")


@dataclass(frozen=True)
class RunSettings:
    """Everything that a training is given.

    Args:
        model: model name or file; None takes the model of ``weights``.
        data: the data set.
        recipe: its kind is that of the model's head.
        out: folder of everything that the run writes.
        weights: checkpoint to start from.
        resume: go on after ``out/last.pt``.
        accept_other_data: resume although images or boxes have changed.
        device: of the training.
        strict: refuse damaged images and boxes instead of skipping them.
        loggers: names of ``detect.training.loggers``.
        minutes: time of the run, which chooses the epochs; None: those of the recipe.
    """

    model: str | None
    data: DataConfig
    recipe: DetectionRecipe | ClassificationRecipe
    out: Path
    weights: Path | None = None
    resume: bool = False
    accept_other_data: bool = False
    device: torch.device = CPU
    strict: bool = False
    loggers: tuple[str, ...] = DEFAULT_LOGGERS
    minutes: float | None = None


@dataclass(frozen=True)
class RunRequest:
    """A run by the names of its parts, as a user asks for it.

    Args:
        run: name or file of an experiment; the other arguments replace its parts.
        model: name or file; None takes the model of ``weights``, or ``DEFAULT_MODEL``.
        data: name, YAML or folder.
        recipe: name or file; None: ``fine-tune`` for a detector that begins from weights, ``default`` from scratch,
            ``classify`` for a classifier.
        weights: checkpoint to start from, a file or a shipped name; ``none`` is from scratch, None the shipped start of
            the model, if there is one.
        out: folder of the run; None for a new one in ``runs/``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        data_root: folder of the data set, instead of the one in its YAML.
        resume: continue the run in ``out``; ``"anyway"`` although its data has changed.
        strict: refuse damaged images and boxes.
        logger: names of loggers; ``none`` alone is no logger, None the experiment's.
        minutes: time of the run, which chooses the epochs.
        keys: recipe keys of ``RECIPE_FLAGS``.
        overrides: dotted recipe keys; ``keys`` take precedence.
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
    logger: Sequence[str] | None = None
    minutes: float | None = None
    keys: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)


def open_run(request: RunRequest) -> RunSettings:
    """Find everything that a run needs, and make its folder.

    Raises:
        InputError: parts of the request contradict each other or do not exist.
    """
    if request.minutes is not None and "epochs" in {**request.overrides, **request.keys}:
        raise InputError("--minutes: chooses the epochs; give one of the two")
    if request.minutes is not None and not 0 < request.minutes < math.inf:
        raise InputError(f"--minutes: must be above 0, found {request.minutes:g}")
    if request.resume:
        if not request.out:
            raise InputError("--resume needs --out: the folder of the run to continue")
        return _resumed(request, Path(request.out))
    run = run_config(request)
    if run.model and not (request.run or request.model):
        LOGGER.info("model %s, because none is named (--model, --weights)", DEFAULT_MODEL)
    overrides = {**request.overrides, **request.keys}
    check_loggers(run.logger)
    start = start_of(run)
    # A wrong model name is reported before the data is read.
    definition = find_definition(run.model) if run.model else load_checkpoint(Path(run.weights or "")).model.definition
    wanted = Path(request.out or Path("runs") / _run_name(request, run))
    existing = wanted if request.out else _restarted_folder(wanted)
    if existing is not None and has_checkpoint(existing):
        if num_restarts():
            LOGGER.info("started again by torchrun (%d): the run in %s goes on", num_restarts(), existing)
            return _resumed(request, existing)
        raise InputError(f"--out {existing}: holds a run already; --resume continues it, another --out starts anew")
    if start is not None and run.weights is None:
        LOGGER.info("starting from %s, trained on generated scenes (--weights none starts from scratch)", start)
    if run.recipe is None:
        LOGGER.info("recipe %s, because none is named (--recipe)", default_recipe(definition, run))
    return RunSettings(
        model=run.model or None,
        data=open_data(run.data, request.data_root),
        recipe=load_recipe(definition, run, overrides),
        weights=Path(start) if start else None,
        device=select_device(request.device),
        strict=request.strict,
        loggers=run.logger,
        minutes=request.minutes,
        out=existing or _new_folder(wanted),  # last: a mistake leaves no empty folder
    )


def load_recipe(
    definition: ModelDefinition, run: RunConfig, overrides: dict[str, Any]
) -> DetectionRecipe | ClassificationRecipe:
    """Load the recipe of a run for the task that the model's head decides; ``overrides`` replace keys of the run."""
    name, keys = run.recipe or default_recipe(definition, run), {**run.set, **overrides}
    return load_classification_recipe(name, keys) if definition.is_classifier else load_detection_recipe(name, keys)


def default_recipe(definition: ModelDefinition, run: RunConfig) -> str:
    """Name of the recipe of a run that names none."""
    if definition.is_classifier:
        return DEFAULT_CLASSIFICATION
    return FROM_WEIGHTS if start_of(run) else DEFAULT_DETECTION


def run_config(request: RunRequest) -> RunConfig:
    """Return the experiment of ``--run``, with the parts that other flags replace.

    Raises:
        InputError: parts are missing, or the experiment does not exist.
    """
    given: dict[str, Any]
    given = {key: value for key in ("model", "data", "recipe", "weights") if (value := getattr(request, key))}
    if request.logger is not None:
        given["logger"] = () if list(request.logger) == [NO_LOGGER] else tuple(dict.fromkeys(request.logger))
    if request.run:
        return dataclasses.replace(load_run_config(request.run), **given)
    if not request.data:
        raise InputError("--data is missing: name a data set or its YAML (or an experiment with --run)")
    has_weights = request.weights not in (None, FROM_SCRATCH)
    return RunConfig(**{"model": "" if has_weights else DEFAULT_MODEL, **given})


def start_of(run: RunConfig) -> str | None:
    """The checkpoint from which a run starts: its own, or the shipped start of its model; None is from scratch."""
    if run.weights is not None:
        return None if run.weights == FROM_SCRATCH else run.weights
    return shipped_start(run.model)


def _resumed(request: RunRequest, out: Path) -> RunSettings:
    """The settings of the run in a folder, from its ``config.yaml``."""
    if not has_checkpoint(out):
        raise InputError(f"--resume: {out} holds no last.pt; without --resume the run starts from the beginning")
    path = out / "config.yaml"
    content = load_yaml(path)
    data = build(DataConfig, content.get("data", {}), f"{path}: data")
    schema: type[DetectionRecipe | ClassificationRecipe]
    schema = ClassificationRecipe if content.get("task") == "classification" else DetectionRecipe
    recipe = build(schema, content.get("recipe", {}), f"{path}: recipe")
    ignored = [
        f"--{key}" for key in ("run", "model", "data", "recipe", "weights", "strict", "logger") if getattr(request, key)
    ]
    if request.resume and ignored:
        LOGGER.warning("--resume goes on with the settings in %s; ignored: %s", path, ", ".join(ignored))
    if request.data_root:
        data = dataclasses.replace(data, root=str(Path(request.data_root).resolve()))
    resources = {key: value for key, value in request.keys.items() if key in _RESOURCES}
    recipe = build(schema, {**to_plain(recipe), **resources}, "--resume")
    changed = [f"--{key.replace('_', '-')}" for key, value in request.keys.items() if value != getattr(recipe, key)]
    changed += ["--minutes"] if request.minutes is not None else []
    if request.resume and (changed or request.overrides):
        flags = ", ".join([*changed, *(["--set"] if request.overrides else [])])
        raise InputError(
            f"--resume continues a run as it was started, so it cannot change {flags}; start a new run with --weights"
        )
    loggers = build(
        RunConfig, {"model": "", "data": "", **{key: content[key] for key in ("logger",) if key in content}}, str(path)
    ).logger
    check_loggers(loggers)
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
        loggers=loggers,
    )


def _run_name(request: RunRequest, run: RunConfig) -> str:
    """Name of the experiment, with the model's if ``--model`` replaces it; else names of model and data."""
    if request.run:
        name = find_config("runs", request.run).stem
        return f"{name}-{_stem(request.model)}" if request.model else name
    data = Path(run.data).resolve().name if Path(run.data).is_dir() else _stem(run.data)
    model = _stem(run.model) if run.model else Path(request.weights or "").stem
    return f"{model}-{data}"


def _stem(name: str) -> str:
    """``FILE`` of ``FOLDER/FILE.yaml``, ``VARIANT`` of ``FILE.yaml:VARIANT``; another name unchanged."""
    file = _YAML_NAME.fullmatch(name)
    return (file["variant"] or Path(file["file"]).stem) + file["options"] if file else name


def _restarted_folder(wanted: Path) -> Path | None:
    """The folder of the run that torchrun starts again: the last of ``wanted``, ``wanted-2``, ... that is there."""
    if not num_restarts():
        return None
    folder, number = wanted, 1
    while (following := wanted.with_name(f"{wanted.name}-{number + 1}")).exists():
        folder, number = following, number + 1
    return Path(broadcast_text(str(folder)))


def _new_folder(wanted: Path) -> Path:
    """A new folder, which the main process makes for all."""
    return Path(broadcast_text(str(make_unique_folder(wanted)) if is_main_process() else ""))
