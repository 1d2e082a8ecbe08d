from __future__ import annotations

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detect.config.yaml_files import load_yaml
from detect.errors import InputError
from detect.training.loggers import LoggedRun
from detect.training.recorder import Recorder, write_settings


def events(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def recording(folder, resumed_after=None):
    return Recorder(LoggedRun(folder, {}, resumed_after), ["tensorboard"])


def test_columns_grow(tmp_path):
    """Validation does not happen in every epoch, so its columns come later and have holes."""
    with recording(tmp_path) as recorder:
        recorder.epoch(1, {"loss/box": 0.123456789})
        assert recorder.path.read_text() == "epoch,loss/box\n1,0.123457\n"
        recorder.epoch(2, {"loss/box": 1e-9, "val/AP": 0.5})
        recorder.epoch(3, {"loss/box": 100.0})
    assert recorder.path.read_text() == "epoch,loss/box,val/AP\n1,0.123457,\n2,1e-09,0.5\n3,100,\n"


def test_resuming_drops_the_rows_of_what_is_repeated(tmp_path):
    with recording(tmp_path) as recorder:
        for epoch in (1, 2, 3):
            recorder.epoch(epoch, {"loss/box": epoch})
    with recording(tmp_path, resumed_after=1) as recorder:
        recorder.epoch(2, {"loss/box": 20, "val/AP": 0.5})
    assert recorder.path.read_text() == "epoch,loss/box,val/AP\n1,1,\n2,20,0.5\n"
    found = [(event.step, event.value) for event in events(tmp_path).Scalars("loss/box")]
    assert found == [(1, 1.0), (2, 20.0)]


def test_a_new_run_starts_a_new_table(tmp_path):
    for _ in range(2):
        with recording(tmp_path) as recorder:
            recorder.epoch(1, {"loss/box": 1})
    assert recorder.path.read_text() == "epoch,loss/box\n1,1\n"


def test_resuming_without_a_table(tmp_path):
    with recording(tmp_path, resumed_after=4) as recorder:
        recorder.epoch(5, {"loss/box": 1})
    assert recorder.path.read_text() == "epoch,loss/box\n5,1\n"


@pytest.mark.parametrize("content", ["no table\n1\n", "epoch,loss/box\none,1\n", 'epoch\n"1', "\xff"])
def test_a_damaged_table(tmp_path, content):
    (tmp_path / "results.csv").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"results\.csv: is damaged"):
        recording(tmp_path, resumed_after=1)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_tensorboard(tmp_path):
    with recording(tmp_path) as recorder:
        recorder.epoch(1, {"loss/box": 0.5, "val/AP_S": 0.25})
        recorder.picture("train/batch", np.zeros((4, 6, 3), np.uint8), 1)
    found = events(tmp_path)
    assert found.Tags()["scalars"] == ["loss/box", "val/AP_S"]
    (picture,) = found.Images("train/batch")
    assert (picture.height, picture.width, picture.step) == (4, 6, 1)


@pytest.mark.parametrize("settings", [{"model": "größe", "recipe": {"a": [1, 2.5, None, True]}}, {}])
def test_settings_can_be_read_back(tmp_path, settings):
    write_settings(tmp_path, settings)
    assert load_yaml(tmp_path / "config.yaml") == settings
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == settings
