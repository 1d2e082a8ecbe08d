"""Loggers of a training: TensorBoard, MLflow, Weights & Biases. A library is imported only for a run that names it.

MLflow writes to ``mlflow/`` beside the run's folder unless ``MLFLOW_TRACKING_URI`` names a server, Weights & Biases
offline to the run's folder unless ``WANDB_MODE`` says ``online``: those two variables alone send anything.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from detect.errors import InputError, did_you_mean
from detect.runtime.distributed import is_main_process
from detect.runtime.files import write_json
from detect.runtime.logs import LOGGER

PROJECT = "detect"
"""Experiment of MLflow, project of Weights & Biases."""
IDS = "loggers.json"
"""File of a run's folder: the ids under which MLflow and Weights & Biases know the run."""
_MAX_PARAMETER = 500
"""Characters of a setting's value; older servers of MLflow take no more."""


@dataclass(frozen=True)
class LoggedRun:
    """A training, as loggers see it.

    Args:
        folder: of the run.
        settings: content of its ``config.yaml``.
        resumed_after: last epoch before the resumption; None for a new run.
    """

    folder: Path
    settings: dict[str, Any]
    resumed_after: int | None = None


class Logger(Protocol):
    """Receives the records of a training. Epochs are counted from 1."""

    def __init__(self, run: LoggedRun) -> None: ...

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        """Exceptions of the library where it cannot write or send."""
        ...

    def log_values(self, values: dict[str, float], epoch: int) -> None:
        """Record the values of an epoch, by tag (``val/AP_S``)."""
        ...

    def log_picture(self, tag: str, path: Path, image_hw: tuple[int, int], epoch: int) -> None:
        """Record a JPEG file of ``image_hw`` pixels."""
        ...

    def close(self, is_finished: bool) -> None:
        """End the record; ``is_finished`` is False for a run that was interrupted or failed."""
        ...


class TensorBoardLogger:
    """Writes event files to the run's folder (``tensorboard --logdir FOLDER``)."""

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if run.resumed_after is None else run.resumed_after + 1
        self._writer = SummaryWriter(str(run.folder), purge_step=purge)

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        return (OSError,)

    def log_values(self, values: dict[str, float], epoch: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, epoch)
        self._writer.flush()

    def log_picture(self, tag: str, path: Path, image_hw: tuple[int, int], epoch: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # The JPEG itself: a PNG, TensorBoard's default, takes longer than an epoch of a few images.
        height, width = image_hw
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        writer: Any = self._writer.file_writer
        writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), epoch)

    def close(self, is_finished: bool) -> None:
        self._writer.close()


class MLflowLogger:
    """Writes a run of the experiment ``detect``: settings as parameters, values as metrics, pictures as artifacts."""

    def __init__(self, run: LoggedRun) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)  # it tells each table that it makes, and each new try
        logging.getLogger("alembic").setLevel(logging.ERROR)
        place = run.folder.resolve().parent / "mlflow"
        server = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(server or _local_store(place))
        self._id = _known_ids(run).get("mlflow", "")
        if self._id:
            self._client.set_terminated(self._id, "RUNNING")
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        artifacts = None if server else (place / "artifacts").as_uri()
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT, artifacts)
        self._id = self._client.create_run(number, run_name=run.folder.name).info.run_id
        _keep_id(run, "mlflow", self._id)
        for key, value in _flat(run.settings):
            self._client.log_param(self._id, key, value[:_MAX_PARAMETER])

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        from mlflow.exceptions import MlflowException

        return MlflowException, sqlite3.Error, OSError

    def log_values(self, values: dict[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(tag, value, now, epoch) for tag, value in values.items()])

    def log_picture(self, tag: str, path: Path, image_hw: tuple[int, int], epoch: int) -> None:
        self._client.log_artifact(self._id, str(path))

    def close(self, is_finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if is_finished else "KILLED")


class WandbLogger:
    """Writes a run of the project ``detect``; offline, each resumption adds a folder that has the same run id."""

    def __init__(self, run: LoggedRun) -> None:
        import wandb

        number = _known_ids(run).get("wandb", "")
        if not number:
            number = secrets.token_hex(4)
            _keep_id(run, "wandb", number)
        # Neither code, nor console output, nor facts about the machine are part of a training's record.
        quiet = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=number,
            name=run.folder.name,
            dir=run.folder,
            config=run.settings,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=quiet,
        )

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        from wandb.errors import Error

        return Error, OSError

    def log_values(self, values: dict[str, float], epoch: int) -> None:
        self._run.log(values, step=epoch)

    def log_picture(self, tag: str, path: Path, image_hw: tuple[int, int], epoch: int) -> None:
        import wandb

        self._run.log({tag: wandb.Image(str(path))}, step=epoch)

    def close(self, is_finished: bool) -> None:
        self._run.finish(exit_code=0 if is_finished else 1)


KINDS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoardLogger,
    "mlflow": MLflowLogger,
    "wandb": WandbLogger,
}
"""Loggers by their names, which are those of their packages, too."""
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""Environment in which the libraries tell their makers nothing."""


def check_loggers(names: Iterable[str]) -> None:
    """Import the libraries of loggers.

    Raises:
        InputError: there is no such logger, or its package is not installed.
    """
    for name in names:
        if name not in KINDS:
            raise InputError(f"logger: {name!r} is not allowed{did_you_mean(name, KINDS)}")
        os.environ |= {key: value for key, value in _QUIET.items() if key not in os.environ}
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing = error.name or name
            raise InputError(
                f"logger {name}: needs the package {missing}: pip install 'detect-small[{name}]'"
            ) from None


class Loggers:
    """The loggers of a run. One that fails is reported in one line and left out from then on; the training goes on.

    Only the main process logs.

    Args:
        names: keys of ``KINDS``.
        run: the training.
    """

    def __init__(self, names: Iterable[str], run: LoggedRun) -> None:
        self._open: dict[str, Logger] = {}
        for name in names if is_main_process() else ():
            try:
                self._open[name] = KINDS[name](run)
            except KINDS[name].errors() as error:
                _report(name, error)

    def log_values(self, values: dict[str, float], epoch: int) -> None:
        self._each(lambda logger: logger.log_values(values, epoch))

    def log_picture(self, tag: str, path: Path, image_hw: tuple[int, int], epoch: int) -> None:
        self._each(lambda logger: logger.log_picture(tag, path, image_hw, epoch))

    def close(self, is_finished: bool) -> None:
        self._each(lambda logger: logger.close(is_finished))

    def _each(self, record: Callable[[Logger], None]) -> None:
        for name, logger in list(self._open.items()):
            try:
                record(logger)
            except logger.errors() as error:
                _report(name, error)
                del self._open[name]


def _local_store(place: Path) -> str:
    """Make the folder of MLflow's database and return its address; SQLite's error comes at once, MLflow tries 100 s."""
    place.mkdir(exist_ok=True)
    path = place / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN IMMEDIATE")
    return f"sqlite:///{quote(str(path))}"


def _report(name: str, error: Exception) -> None:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = (reason.strip().splitlines() or [type(error).__name__])[0]
    LOGGER.warning("logger %s: %s; the training goes on without it", name, first)


def _known_ids(run: LoggedRun) -> dict[str, str]:
    return {} if run.resumed_after is None else _read_ids(run.folder / IDS)


def _read_ids(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(one, str) for one in content.values()):
        raise InputError(f"{path}: is damaged; move it away to resume with new runs of the loggers")
    return content


def _keep_id(run: LoggedRun, name: str, number: str) -> None:
    write_json(run.folder / IDS, {**_read_ids(run.folder / IDS), name: number})


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted keys (``recipe.optimizer.lr``), values as text."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
