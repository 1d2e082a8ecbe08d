"""Threads: found by their times, given up where others need the cores. Memory: kept for the next step or returned."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.runtime import cpu, threads
from detect.runtime.cpu import LoadMeter, ThreadTuner

CPU = torch.device("cpu")


class Machine:
    """Time and free cores, as a test says them."""

    def __init__(self, cores: float) -> None:
        self.cores, self.seconds = cores, 0.0

    def free_cores(self) -> float:
        return self.cores

    def clock(self) -> float:
        return self.seconds


def tuner_of(machine: Machine) -> ThreadTuner:
    return ThreadTuner(machine, machine.clock)  # type: ignore[arg-type]


def work(tuner: ThreadTuner, seconds: dict[int, float], times: int, limit: int = 8) -> list[int]:
    counts = []
    for _ in range(times):
        counts.append(tuner.count(limit))
        tuner.record(seconds[counts[-1]])
    return counts


def test_fewer_threads_are_tried_as_long_as_they_are_faster():
    # 4 is faster than 8, 2 is not faster than 4: five runs each, then 4 for good; 1 is never tried.
    tuner = tuner_of(Machine(8))
    assert work(tuner, {8: 3.0, 4: 2.0, 2: 2.5}, 17) == [8] * 5 + [4] * 5 + [2] * 5 + [4] * 2
    assert tuner.is_settled


def test_the_first_run_of_a_number_prepares_and_does_not_count():
    tuner = tuner_of(Machine(2))
    for seconds in (9.0, *[1.0] * 4, 1.0, *[2.0] * 4):  # of two threads the last four, 1.0; of one thread 2.0
        tuner.count(2)
        tuner.record(seconds)
    assert tuner.count(2) == 2


def test_one_thread_needs_no_trial():
    tuner = tuner_of(Machine(8))
    assert tuner.count(1) == 1
    assert tuner.is_settled


@pytest.mark.parametrize(
    ("free", "expected"),
    [(8.0, 8), (7.7, 8), (7.69, 7), (3.2, 3), (1.2, 1), (0.4, 1)],  # a share of 0.3 of a core may be taken
)
def test_threads_leave_the_cores_that_others_take(free, expected):
    machine = Machine(8)
    tuner = tuner_of(machine)
    work(tuner, {8: 1.0, 4: 2.0}, 10)  # settled at 8
    machine.cores, machine.seconds = free, 2.0
    assert tuner.count(8) == expected


def test_the_load_is_looked_at_once_a_second():
    machine = Machine(8)
    tuner = tuner_of(machine)
    work(tuner, {8: 1.0, 4: 2.0}, 10)
    machine.cores, machine.seconds = 1.0, 0.9
    assert tuner.count(8) == 8
    machine.seconds = 1.0
    assert tuner.count(8) == 1


def test_cores_that_stay_free_for_two_looks_are_tried_anew():
    machine = Machine(2)
    tuner = tuner_of(machine)
    work(tuner, {2: 1.0, 1: 2.0}, 10, limit=2)
    for second, cores, expected in ((1, 1.0, 1), (2, 2.0, 1), (3, 1.0, 1), (4, 2.0, 1), (5, 2.0, 2)):
        machine.cores, machine.seconds = cores, float(second)
        assert tuner.count(2) == expected, second
    assert not tuner.is_settled


@pytest.mark.parametrize("keep", [False, True])
def test_unused_cores_are_tried_again_after_two_seconds_and_then_after_four(keep):
    machine = Machine(2)
    tuner = tuner_of(machine)
    assert work(tuner, {2: 2.0, 1: 1.0}, 10, limit=2) == [2] * 5 + [1] * 5
    if keep:
        tuner.keep()
    machine.seconds = 1.9
    assert tuner.count(2) == 1
    machine.seconds = 3.0
    again = [1] * 11 if keep else [2] * 5 + [1] * 6
    assert work(tuner, {2: 2.0, 1: 1.0}, 11, limit=2) == again
    for second, expected in ((5.9, 1), (7.0, 1 if keep else 2)):
        machine.seconds = second
        assert tuner.count(2) == expected, second


def test_a_load_that_comes_during_the_trial_ends_it():
    machine = Machine(4)
    tuner = tuner_of(machine)
    work(tuner, {4: 1.0}, 2, limit=4)
    machine.cores, machine.seconds = 1.1, 1.0
    assert tuner.count(4) == 1
    assert tuner.is_settled


def test_idle_time_and_own_time_are_free_cores(monkeypatch):
    # In 2 s: 3 s idle over all cores, 1 s computed here: (3 + 1) / 2 = 2 cores.
    meter = LoadMeter()
    readings = iter([(10.0, 5.0, 100.0), (13.0, 6.0, 102.0)])
    monkeypatch.setattr(meter, "_read", lambda: next(readings))
    meter.free_cores()
    assert meter.free_cores() == 2.0


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_real_meter_gives_at_most_the_cores_of_the_machine():
    meter = LoadMeter()
    _burn(0.3)
    # The system counts in hundredths of a second, for each core: 0.01 * cores / 0.3 s.
    assert 0 < meter.free_cores() <= os.cpu_count() * 1.1 + 0.1


def test_the_time_of_workers_is_own_time():
    meter = LoadMeter()
    before = meter._read()[1]
    worker = multiprocessing.get_context("fork").Process(target=_burn, args=(0.3,))
    worker.start()
    worker.join()
    assert meter._read()[1] - before >= 0.29


@pytest.fixture
def free_choice(monkeypatch):
    """Two threads that may be chosen among, as in a process without OMP_NUM_THREADS."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(cpu, "_PROCESS", cpu._Process())
    monkeypatch.setattr(threads, "_CHOICE", threads._Choice())
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_work_leaves_the_number_of_threads_of_the_program_as_it_was(free_choice):
    cpu._PROCESS.tuner = ThreadTuner(Machine(1))
    inside = []
    for _ in range(8):
        with cpu.tuned_threads(CPU):
            inside.append(torch.get_num_threads())
        assert torch.get_num_threads() == 2
    assert set(inside) == {1, 2}


def test_settling_tries_until_the_number_is_known(free_choice):
    calls = []
    cpu.tune_threads(lambda: calls.append(torch.get_num_threads()), CPU)
    assert calls == [2] * 5 + [1] * 5


@pytest.mark.parametrize("count", [1, 2])
def test_a_fixed_number_is_taken_as_it_is(free_choice, count):
    threads.use_threads(count)
    for _ in range(7):
        with cpu.tuned_threads(CPU):
            assert torch.get_num_threads() == count
    cpu.tune_threads(lambda: pytest.fail("there is nothing to be settled"), CPU)


def test_zero_gives_the_choice_back(free_choice):
    threads.use_threads(2)
    threads.use_threads(0)
    cpu.tune_threads(lambda: None, CPU)
    assert cpu._PROCESS.tuner.is_settled


def test_a_busy_machine_is_told_once_with_a_hint_for_programs_that_only_import(free_choice, monkeypatch, caplog):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with caplog.at_level(logging.INFO, "detect"):
        for _ in range(2):
            machine = Machine(1.0)
            tuner = tuner_of(machine)
            tuner.count(2)
            machine.seconds = 1.0
            tuner.count(2)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("other programs use the processor: computing with 1 of 2 threads while they do")
    assert "OMP_WAIT_POLICY=PASSIVE or OMP_NUM_THREADS before torch is imported" in line


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "30000"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None"), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_tools_bound_the_spinning_unless_the_user_has_said_how_to_wait(given, expected):
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os; from detect.runtime.startup import start_tool; start_tool(); print(os.getenv('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


# ------------------------------------------------------------------------------------------------- memory


def forked(measure):
    """What a function returns in a process of its own, whose allocator is not that of the tests."""
    answers = multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(target=lambda: answers.put(measure()))
    process.start()
    process.join()
    assert process.exitcode == 0
    return answers.get()


def page_faults() -> int:
    """Page faults of 20 rounds, each of which touches 16 x 1024 pages: 4 MiB blocks, as activations are."""
    cpu.keep_freed_memory()

    def work() -> None:
        blocks = [np.ones(2**20, np.float32) for _ in range(16)]
        del blocks

    for _ in range(5):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_freed_memory_is_used_again() -> None:
    """Without the call, glibc returns the blocks at most starts: 327,060 faults."""
    assert forked(page_faults) < 1024


def resident_mib() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024


def residence() -> tuple[int, int, int]:
    """Resident MiB with 200 MB in small blocks, after they were freed, and after they were returned."""
    blocks = [bytes(10_000) for _ in range(20_000)]
    last = bytes(10_000)  # behind them: the heap cannot become shorter
    full = resident_mib()
    del blocks
    kept = resident_mib()
    cpu.return_freed_memory()
    del last
    return full, kept, resident_mib()


@pytest.mark.skipif(sys.platform != "linux", reason="about glibc")
def test_freed_memory_goes_back() -> None:
    full, kept, returned = forked(residence)
    assert kept > full - 20
    assert returned < full - 150
