"""The trials of a search: their values depend on seed and number alone, and each has one owner at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from detect.errors import InputError
from detect.sweep.ledger import JOURNAL, Ledger, Trial, best_trial, import_optuna
from detect.sweep.plan import Parameter
from tests.sweep.small import SWEEP, make_plan_in, open_ledger


@pytest.fixture
def plan(tmp_path):
    return make_plan_in(tmp_path)


@pytest.fixture
def take():
    """Claim a trial; the locks are let go when the test ends."""
    claims = []

    def claim(ledger: Ledger, total: int):
        found = ledger.claim(total)
        claims.extend([found] if found else [])
        return found

    yield claim
    for found in claims:
        found.log.close()


@pytest.fixture
def take_all(take):
    """Claim every trial that there is."""

    def claim(ledger: Ledger, total: int) -> list:
        return list(iter(lambda: take(ledger, total), None))

    return claim


def test_nothing_yet(plan, take):
    ledger = open_ledger(plan)
    assert ledger.trials() == []
    assert best_trial([]) is None
    assert take(ledger, 0) is None


def test_values_are_of_the_space(plan, take_all):
    ledger = open_ledger(plan)
    values = [claim.values for claim in take_all(ledger, 40)]
    assert all(0.001 <= each["optimizer.lr"] <= 0.1 for each in values)
    assert all(0.8 <= each["optimizer.momentum"] <= 0.99 for each in values)
    assert {each["batch_size"] for each in values} == {2, 4}
    assert {each["epochs"] for each in values} == {1, 2, 3}
    assert {type(each["epochs"]) for each in values} == {int}
    # Logarithmic: half of the rates are below the geometric mean of the ends, 0.01. Of 40, 20 +- 4 standard deviations
    # of 3.2; uniform, there would be 0.09 * 40 = 4.
    assert 8 <= sum(each["optimizer.lr"] < 0.01 for each in values) <= 32
    assert len({each["optimizer.lr"] for each in values}) == 40


GRID = """\
name: grid
model: yolov5n-spd
data: shapes
metric: AP
sampler: grid
space:
  batch_size: {choices: [2, 4]}
  optimizer.lr: {choices: [0.001, 0.01, 0.1]}
"""


def test_a_grid_has_each_point_once(tmp_path, take, take_all):
    """In the order of the file, also where the second half is another process's."""
    plan = make_plan_in(tmp_path, GRID)
    assert plan.config.num_trials == 6
    halves = take_all(open_ledger(plan), 3) + take_all(open_ledger(plan), 6)
    assert [tuple(claim.values.values()) for claim in halves] == [
        *((2, 0.001), (2, 0.01), (2, 0.1)),
        *((4, 0.001), (4, 0.01), (4, 0.1)),
    ]
    assert make_plan_in(tmp_path, GRID + "trials: 9\n").config.num_trials == 6
    assert make_plan_in(tmp_path, GRID + "trials: 4\n").config.num_trials == 4


def test_a_grid_of_a_range(tmp_path):
    text = GRID.replace("{choices: [2, 4]}", "{low: 2, high: 4}")
    with pytest.raises(InputError, match=r"space\.batch_size: has a range; a grid needs choices"):
        make_plan_in(tmp_path, text)


def test_values_are_the_same_whoever_asks(tmp_path, take_all, take):
    """In one go; by two that take turns; interrupted and continued."""
    straight = [claim.values for claim in take_all(open_ledger(make_plan_in(tmp_path / "straight")), 6)]
    shared = make_plan_in(tmp_path / "shared")
    pair = [open_ledger(shared), open_ledger(shared)]
    turns = [take(pair[i % 2], 6) for i in range(6)]
    assert [claim.values for claim in turns] == straight
    assert [claim.number for claim in turns] == list(range(6))
    stopped = make_plan_in(tmp_path / "stopped")
    first = open_ledger(stopped)
    for claim in take_all(first, 3):
        first.release(claim, 1.0)
    again = take_all(open_ledger(stopped), 6)
    assert [claim.values for claim in again] == straight
    other = take_all(open_ledger(make_plan_in(tmp_path / "other", SWEEP.replace("seed: 3", "seed: 4"))), 6)
    assert all(claim.values != values for claim, values in zip(other, straight, strict=True))


def test_values_do_not_change_between_versions(plan, take):
    """A search that was begun can be continued, and a published one repeated."""
    claim = take(open_ledger(plan), 1)
    expected = {"optimizer.lr": 0.0763785540, "optimizer.momentum": 0.8964579867, "batch_size": 4, "epochs": 1}
    assert claim.values == pytest.approx(expected)


def test_finished_trials_stay(plan, take):
    ledger = open_ledger(plan)
    good, bad = take(ledger, 2), take(ledger, 2)
    ledger.finish(good, 0.25, 3.0)
    ledger.finish(bad, "error: the disk is full", 1.0)
    again = open_ledger(plan)
    assert again.trials() == [
        Trial(0, "complete", good.values, 0.25, 3.0, ""),
        Trial(1, "failed", bad.values, None, 1.0, "error: the disk is full"),
    ]
    assert take(again, 2) is None
    assert take(again, 3).number == 2


def test_an_interrupted_trial_comes_first_and_its_time_adds_up(plan, take):
    ledger = open_ledger(plan)
    ledger.release(take(ledger, 4), 5.0)
    assert ledger.trials()[0].state == "unfinished"
    claim = take(open_ledger(plan), 4)
    assert claim.number == 0
    assert ledger.finish(claim, 0.5, 2.0).seconds == 7.0


def test_a_trial_that_somebody_works_on_is_left_alone(plan, take):
    ledger, other = open_ledger(plan), open_ledger(plan)
    claim = take(ledger, 1)
    assert take(other, 1) is None
    ledger.release(claim, 0.0)
    assert take(other, 1).number == 0


def test_a_training_that_outlives_its_search_keeps_its_trial(plan, take):
    """The lock is on the log, and the process that writes the log holds it."""
    ledger = open_ledger(plan)
    claim = take(ledger, 1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=claim.log) as training:
        claim.log.close()
        assert take(open_ledger(plan), 1) is None
        training.communicate(b"\n", timeout=30)
    assert take(open_ledger(plan), 1).number == 0


def test_values_that_were_not_written_to_the_end(plan, take):
    """The machine stopped between two records: the trial is told as failed, not trained with half of its values."""
    claim = take(open_ledger(plan), 2)
    claim.log.close()
    journal = plan.folder / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    ledger = open_ledger(plan)
    assert take(ledger, 2).number == 1
    assert ledger.trials()[0].state == "failed"
    assert ledger.trials()[0].problem == "the machine stopped while its values were being written"


@pytest.mark.parametrize("content", ["nonsense\n{}\n", "{}\n"])
def test_a_damaged_journal(plan, content):
    plan.folder.mkdir()
    (plan.folder / JOURNAL).write_text(content)
    with pytest.raises(InputError, match=r"journal.log: is damaged; another --out starts anew"):
        open_ledger(plan)


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"Optuna is not installed.*: pip install 'detect-small\[sweep\]'"):
        import_optuna()


def test_the_best_is_the_first_of_equals():
    trials = [Trial(i, "complete", {}, score, 1.0, "") for i, score in enumerate([-1.0, 0.5, 0.5])]
    assert best_trial([*trials, Trial(3, "failed", {}, None, 1.0, "x")]) is trials[1]
    assert best_trial(trials[:1]) is trials[0]


def test_a_range_of_one_value(tmp_path, take):
    ledger = Ledger(tmp_path, (Parameter("epochs", 2, 2), Parameter("optimizer.lr", 0.1, 0.1, log=True)), seed=0)
    assert take(ledger, 1).values == {"epochs": 2, "optimizer.lr": 0.1}
