"""Folders that two processes want at the same time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detect.errors import InputError
from detect.runtime.files import LOCK_NAME, claim_new_folder, held_folder

FORK = multiprocessing.get_context("fork")


def test_the_first_free_name(tmp_path):
    assert claim_new_folder(tmp_path / "runs/a") == tmp_path / "runs/a"
    (tmp_path / "runs/a-2").write_text("a file")
    assert claim_new_folder(tmp_path / "runs/a") == tmp_path / "runs/a-3"
    assert (tmp_path / "runs/a-3").is_dir()


def test_all_at_once(tmp_path):
    """Eight processes that start at one signal get eight folders."""
    start, answers = FORK.Event(), FORK.SimpleQueue()

    def ask() -> None:
        start.wait()
        answers.put(claim_new_folder(tmp_path / "run").name)

    processes = [FORK.Process(target=ask) for _ in range(8)]
    for process in processes:
        process.start()
    start.set()
    found = {answers.get() for _ in processes}
    for process in processes:
        process.join()
    assert found == {"run", *(f"run-{number}" for number in range(2, 9))}


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[int]:
    """The number of a process that holds a folder until it is killed."""
    held = FORK.Event()

    def hold() -> None:
        with held_folder(folder):
            held.set()
            signal.pause()

    process = FORK.Process(target=hold)
    process.start()
    assert held.wait(30)
    yield process.pid
    process.kill()
    process.join()


def test_one_at_a_time(tmp_path):
    with (
        held_elsewhere(tmp_path / "out") as number,
        pytest.raises(InputError, match=rf"out: process {number} on .* writes its results there at this moment"),
        held_folder(tmp_path / "out"),
    ):
        raise AssertionError("both hold it")
    assert (tmp_path / "out" / LOCK_NAME).exists()
    with held_folder(tmp_path / "out"):  # who was killed holds nothing
        assert (tmp_path / "out" / LOCK_NAME).read_text().startswith(f"process {os.getpid()} on ")
        (tmp_path / "out/best.pt").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["best.pt"]


def test_a_worker_does_not_inherit_it(tmp_path):
    """A worker process may outlive a run that was killed; --resume need not wait for it."""
    with held_folder(tmp_path / "out"):
        worker = FORK.Process(target=signal.pause)
        worker.start()
        (tmp_path / "out/best.pt").touch()
    with held_elsewhere(tmp_path / "out"):
        pass
    worker.kill()
    worker.join()


def test_an_empty_folder_vanishes(tmp_path):
    with pytest.raises(InputError, match="of the block"), held_folder(tmp_path / "a/out"):
        raise InputError("of the block")
    assert not (tmp_path / "a/out").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError), held_folder(tmp_path / "out"):
        pass
