"""Loggers of a training: what MLflow and Weights & Biases hold after it, read back with their own packages."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.errors import InputError
from detect.training.loggers import LoggedRun, Loggers, check_loggers
from detect.training.recorder import Recorder
from detect.training.settings import RunRequest, run_config
from tests.tools.running import TRAIN, make_world, run_here

ROOT = Path(__file__).parents[2]
LEVELDB_BLOCK = 32768


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ("tensorboard",)),
        ("logger: wandb", ("wandb",)),
        ("logger: [mlflow, tensorboard]", ("mlflow", "tensorboard")),
        ("logger: []", ()),
    ],
)
def test_the_experiments_loggers(tmp_path: Path, line: str, expected: tuple[str, ...]) -> None:
    """A word or a list; what the request names takes their place."""
    path = tmp_path / "run.yaml"
    path.write_text(f"model: yolov5n\ndata: shapes\n{line}\n")
    assert run_config(RunRequest(run=str(path))).logger == expected
    assert run_config(RunRequest(run=str(path), logger=["mlflow", "mlflow"])).logger == ("mlflow",)
    assert run_config(RunRequest(run=str(path), logger=["none"])).logger == ()
    path.write_text("model: yolov5n\ndata: shapes\nlogger: [mlflo]\n")
    with pytest.raises(InputError, match=r"logger.*: 'mlflo' is not allowed; did you mean 'mlflow'"):
        run_config(RunRequest(run=str(path)))


def test_an_unknown_logger() -> None:
    with pytest.raises(InputError, match="logger: 'mlflo' is not allowed; did you mean 'mlflow'"):
        check_loggers(["tensorboard", "mlflo"])


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=rf"logger {name}: needs the package {name}: pip install 'detect-small\[{name}\]'"
    ):
        check_loggers([name])


def test_a_logger_that_cannot_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its folder is a file; the training goes on, and nothing is logged a second time."""
    (tmp_path / "run").write_text("")
    with caplog.at_level(logging.WARNING):
        loggers = Loggers(["tensorboard"], LoggedRun(tmp_path / "run", {}))
        loggers.log_values({"loss/box": 1.0}, 1)
        loggers.close(is_finished=True)
    (line,) = caplog.messages
    assert line.startswith("logger tensorboard: ")
    assert line.endswith("; the training goes on without it")


def _log_to_a_full_disk(folder: Path, output: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    logging.getLogger("detect").addHandler(logging.FileHandler(output))
    with Recorder(LoggedRun(folder, {}), ["tensorboard"]) as recorder:
        for epoch in range(1, 31):  # 30 events take over 1 kB, the table 250 bytes
            recorder.epoch(epoch, {"loss/box": 1.0})
    os._exit(0)


def test_a_full_disk_ends_the_logger_only(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    process = multiprocessing.get_context("fork").Process(
        target=_log_to_a_full_disk, args=(tmp_path / "run", tmp_path / "lines")
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert (tmp_path / "lines").read_text().splitlines() == [
        "logger tensorboard: File too large; the training goes on without it"
    ]
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 31


@pytest.mark.slow
def test_nothing_is_imported_unless_asked(tmp_path: Path) -> None:
    """A training without loggers, in a process of its own: none of the three packages is there after it."""
    make_world(tmp_path)
    program = (
        "import sys, detect; detect.train('tiny.yaml', 'data.yaml', recipe='recipe.yaml', out='run', device='cpu', "
        "epochs=1, logger=[]); print(sorted({'tensorboard', 'mlflow', 'wandb'} & {*sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list((tmp_path / "run").glob("events*"))


def _stopped_and_resumed(folder: Path, *loggers: str) -> list[dict[str, float]]:
    """Train for two of three epochs, kill the run by taking away its last epoch, resume; give the values by epoch."""
    make_world(folder)
    words = (*TRAIN, "--out", "runs/mine", "--epochs", 3, "--logger", *loggers)
    ended = run_here(folder, *words, "--set", "evaluation.every=1")
    assert ended.code == 0, ended.error
    run = folder / "runs" / "mine"
    (run / "previous.pt").replace(run / "last.pt")  # as after a power cut in epoch 3
    ended = run_here(folder, "train.py", "--resume", "--out", "runs/mine", "--device", "cpu")
    assert ended.code == 0, ended.error
    assert "logger " not in ended.error
    lines = [line.split(",") for line in (run / "results.csv").read_text().splitlines()]
    return [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # MLflow on SQLAlchemy 2.1
def test_mlflow(tmp_path: Path) -> None:
    """One run holds the metrics of all epochs, the settings and the pictures, and has ended."""
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'detect-small[mlflow]'")
    pytest.importorskip("sqlalchemy", reason="MLflow without SQLAlchemy has no local store")
    from mlflow import MlflowClient

    rows = _stopped_and_resumed(tmp_path, "mlflow")
    folder = tmp_path / "runs" / "mlflow"
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("detect")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert json.loads((tmp_path / "runs" / "mine" / "loggers.json").read_text()) == {"mlflow": run.info.run_id}
    assert run.data.params["recipe.optimizer.lr"] == "0.003"
    history = client.get_metric_history(run.info.run_id, "loss/box")
    assert {one.step: pytest.approx(one.value, rel=1e-5) for one in history} == {
        epoch + 1: row["loss/box"] for epoch, row in enumerate(rows)
    }
    pictures = {path.name for path in folder.rglob("*.jpg")}
    assert pictures == {"train_batch.jpg", "val_predictions.jpg"}
    assert not list((tmp_path / "runs" / "mine").glob("events*"))


def _wandb_records(file: Path) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format behind a header of 7 bytes."""
    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if LEVELDB_BLOCK - at % LEVELDB_BLOCK < 7:
            at += LEVELDB_BLOCK - at % LEVELDB_BLOCK
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""


def _wandb_history(file: Path) -> list[dict[str, Any]]:
    """The values of an offline run, by step."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for data in _wandb_records(file):
        record = Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            found.append({one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in items})
    return found


@pytest.mark.slow
def test_wandb(tmp_path: Path) -> None:
    """Both parts of a resumed run have one id, and between them the values of all epochs."""
    pytest.importorskip("wandb", reason="W&B is not installed: pip install 'detect-small[wandb]'")
    rows = _stopped_and_resumed(tmp_path, "wandb")
    run = tmp_path / "runs" / "mine"
    number = json.loads((run / "loggers.json").read_text())["wandb"]
    files = sorted((run / "wandb").glob(f"offline-run-*/run-{number}.wandb"))
    assert len(files) == 2
    values = [one for file in files for one in _wandb_history(file)]
    losses = {one["_step"]: one["loss/box"] for one in values if "loss/box" in one}
    assert losses == {epoch + 1: pytest.approx(row["loss/box"], rel=1e-5) for epoch, row in enumerate(rows)}
    assert {path.parent.name for path in run.glob("wandb/*/files/media/images/*/predictions_*.jpg")} == {"val"}
    said = {path.name for path in (run / "wandb").rglob("*") if path.suffix in (".txt", ".json", ".log")}
    assert not said & {"wandb-metadata.json", "requirements.txt"}  # the machine


def test_pictures_reach_tensorboard_as_jpeg(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Recorder(LoggedRun(tmp_path, {}), ["tensorboard"]) as recorder:
        recorder.picture("train/batch", np.zeros((4, 6, 3), np.uint8), 1)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    (picture,) = accumulator.Images("train/batch")
    assert picture.encoded_image_string == (tmp_path / "train_batch.jpg").read_bytes()
