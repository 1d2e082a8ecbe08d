"""A lone process. What several say to one another is in ``tests/training/process_runs.py``."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from detect.errors import InputError
from detect.runtime import device, distributed, logs
from detect.runtime.device import select_device


def test_alone():
    with distributed.init_distributed():
        assert (distributed.num_processes(), distributed.rank(), distributed.is_main_process()) == (1, 0, True)
        assert distributed.local_rank() is None
        assert distributed.rank_slice(5) == slice(0, 5)
        assert distributed.shard([3, 1, 2]) == [3, 1, 2]
        assert distributed.all_reduce_sum([1, 0.1]) == [1, 0.1]
        assert [part.tolist() for part in distributed.all_gather(np.arange(3))] == [[0, 1, 2]]
        assert distributed.broadcast_text("é \udcff") == "é \udcff"
        with distributed.main_process_first():
            distributed.barrier("nobody")


def test_the_variables_of_torchrun_must_be_complete(monkeypatch):
    """Batch systems set RANK alone; that starts no group."""
    monkeypatch.setenv("RANK", "1")
    with distributed.init_distributed():
        assert distributed.num_processes() == 1


def test_restarts(monkeypatch):
    assert distributed.num_restarts() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert distributed.num_restarts() == 2


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
    logs.set_log_prefix("process 3", logging.WARNING)
    logs.LOGGER.info("not told")
    logs.LOGGER.warning("told")
    assert capsys.readouterr().err == "process 3: warning: told\n"
