"""Training as a function: ``train`` and ``resume``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from detect.runtime.interruption import StopRequest, stop_requests
from detect.training.loop import train as train_settings
from detect.training.settings import RECIPE_FLAGS, RunRequest, open_run

Name = str | PathLike[str]


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Args:
        out: its folder, with ``best.pt``, ``last.pt``, ``results.csv`` and pictures.
        metrics: of ``best.pt`` on the validation split.
    """

    out: Path
    metrics: dict[str, float]

    @property
    def weights(self) -> Path:
        """The best checkpoint, for ``Detector``, ``Classifier``, ``evaluate`` and ``export``."""
        return self.out / "best.pt"


def train(
    model: Name | None = None,
    data: Name | None = None,
    *,
    run: Name | None = None,
    recipe: Name | None = None,
    weights: Name | None = None,
    out: Name | None = None,
    device: str | int = "auto",
    minutes: float | None = None,
    **recipe_keys: Any,
) -> TrainResult:
    """Train a detector or a classifier: the model's head decides. As ``detect train``.

    ``train("yolov5n-spd", "my-data", epochs=50, image_size=320, optimizer={"lr": 0.01})``

    Args:
        model: a shipped model's name, a YAML, or parts (``cspdarknet53+efm+spd``); default, that of ``weights``,
            or ``detect-n``.
        data: a data config's file or name, or a data set's folder.
        run: an experiment, of which the other arguments replace parts.
        recipe: a recipe's name or file; default, ``fine-tune`` for a detector that begins from weights, ``default``
            from scratch, ``classify`` for a classifier.
        weights: a checkpoint to start from; what fits is copied, classes by name. ``none`` starts from scratch;
            default, the shipped start of the model (``start-MODEL``), if there is one.
        out: folder of the run; default, a new one in ``runs/``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, N or ``mps``.
        minutes: choose the epochs so that the training takes as long on this machine.
        recipe_keys: keys of the recipe, a section as a dict; dotted keys by ``**{"optimizer.lr": 0.01}``. ``logger`` is
            ``tensorboard``, ``mlflow``, ``wandb`` or a list of them, ``[]`` for none; default, the experiment's, or
            ``tensorboard``.

    Returns:
        The run's folder and the metrics of its best checkpoint.

    Raises:
        InputError: an argument, a file or the data is wrong; nothing is overwritten.
        KeyboardInterrupt: Ctrl-C; ``last.pt`` is written, and ``resume`` goes on from it.
    """
    logger = recipe_keys.pop("logger", None)
    keys = {key: value for key, value in recipe_keys.items() if key in RECIPE_FLAGS}
    others = _dotted({key: value for key, value in recipe_keys.items() if key not in RECIPE_FLAGS})
    names = {"run": run, "model": model, "data": data, "recipe": recipe, "weights": weights, "out": out}
    given: dict[str, Any] = {key: None if name is None else fspath(name) for key, name in names.items()}
    loggers = [logger] if isinstance(logger, str) else logger
    request = RunRequest(**given, device=str(device), minutes=minutes, logger=loggers, keys=keys, overrides=others)
    return run_training(request)


def resume(out: Name, device: str | int = "auto") -> TrainResult:
    """Go on with an interrupted training, with the settings of its start.

    Args:
        out: the run's folder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, N or ``mps``.

    Raises:
        InputError: the folder holds no run, or the data has changed since.
    """
    return run_training(RunRequest(out=fspath(out), device=str(device), resume=True))


def run_training(request: RunRequest) -> TrainResult:
    """Train; in the main thread Ctrl-C and SIGTERM stop the run between two updates."""
    settings = open_run(request)
    is_main = threading.current_thread() is threading.main_thread()
    with stop_requests() if is_main else nullcontext(StopRequest()) as stop:
        metrics = train_settings(settings, stop)
    return TrainResult(settings.out, metrics)


def _dotted(keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten sections: ``{"optimizer": {"lr": 0.1}}`` is ``{"optimizer.lr": 0.1}``."""
    found: dict[str, Any] = {}
    for key, value in keys.items():
        found |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
