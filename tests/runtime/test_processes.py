"""A lone process. What several say to one another is in ``tests/training/process_runs.py``."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from detect.errors import InputError
from detect.runtime import device, logs, processes
from detect.runtime.device import select_device


def test_alone():
    with processes.joined():
        assert (processes.num_processes(), processes.rank(), processes.is_first()) == (1, 0, True)
        assert processes.local_rank() is None
        assert processes.own_share(5) == slice(0, 5)
        assert processes.dealt([3, 1, 2]) == [3, 1, 2]
        assert processes.add_up([1, 0.1]) == [1, 0.1]
        assert [part.tolist() for part in processes.gather(np.arange(3))] == [[0, 1, 2]]
        assert processes.as_first_says("é \udcff") == "é \udcff"
        with processes.first_goes_first():
            processes.meet("nobody")


def test_the_variables_of_torchrun_must_be_complete(monkeypatch):
    """Batch systems set RANK alone; that starts no group."""
    monkeypatch.setenv("RANK", "1")
    with processes.joined():
        assert processes.num_processes() == 1


def test_restarts(monkeypatch):
    assert processes.num_restarts() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert processes.num_restarts() == 2


def test_each_process_has_its_gpu(monkeypatch):
    """The device is chosen without being used, but for the current one, which NCCL takes."""
    chosen = []
    monkeypatch.setattr(device, "local_rank", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert select_device("auto") == select_device("cuda") == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")] * 2
    assert select_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(device, "local_rank", lambda: 2)
    with pytest.raises(InputError, match="PyTorch sees 2 GPUs; start at most one process for each with torchrun"):
        select_device("auto")


def test_who_speaks(monkeypatch, capsys):
    monkeypatch.setattr(logs.LOGGER, "handlers", [])
    monkeypatch.setattr(logs.LOGGER, "level", logging.NOTSET)
    monkeypatch.setattr(logs.LOGGER, "propagate", logs.LOGGER.propagate)
    logs.configure_logging()
    logs.speak_as("process 3", logging.WARNING)
    logs.LOGGER.info("not told")
    logs.LOGGER.warning("told")
    assert capsys.readouterr().err == "process 3: warning: told\n"
