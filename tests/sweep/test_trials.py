"""Trials as processes: on several devices, failing, interrupted and continued."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from detect.config.yaml_files import parse_overrides
from detect.errors import InputError
from detect.runtime.trainings import MAX_LINE
from detect.sweep.ledger import LOG
from detect.sweep.trials import Search, outcome_of, read_score
from tests.sweep.small import SWEEP, TRAINER, make_plan_in, open_ledger


@pytest.fixture
def plan(tmp_path):
    return make_plan_in(tmp_path)


@pytest.fixture
def search(plan, tmp_path):
    """A search whose trainings are of ``TRAINER``."""
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER)
    ledger = open_ledger(plan)
    calls: list[int] = []
    found = Search(plan, ledger, (sys.executable, str(trainer)), lambda: calls.append(len(ledger.trials())))
    found.calls = calls
    return found


def again(search: Search) -> Search:
    """The same search in a new process."""
    return Search(search.plan, open_ledger(search.plan), search.trainings.train, lambda: None)


def starts(search: Search, number: int) -> list[str]:
    return (search.ledger.trial_folder(number) / "starts").read_text().splitlines()


def test_every_trial_is_trained_once(search):
    search.run(["cpu", "mps"])
    trials = search.ledger.trials()
    assert [trial.state for trial in trials] == ["complete"] * 4
    assert [trial.score for trial in trials] == pytest.approx([2 * t.values["optimizer.lr"] for t in trials])
    assert len(search.calls) == 4
    devices = set()
    for trial in trials:
        (line,) = starts(search, trial.number)
        device, *words = line.split()
        assert parse_overrides(words) == {"threads": 1, **trial.values}
        devices.add(device)
    assert devices == {"cpu", "mps"}
    assert (search.ledger.trial_folder(0) / LOG).read_text() == "epoch 1/2\nepoch 2/2\n"


def test_more_trials_later(search, tmp_path):
    search.run(["cpu"])
    more = make_plan_in(tmp_path, SWEEP.replace("trials: 4", "trials: 6"))
    search.plan = more
    again(search).run(["cpu"])
    assert [trial.state for trial in search.ledger.trials()] == ["complete"] * 6
    assert all(len(starts(search, number)) == 1 for number in range(6))


def test_a_failed_trial_does_not_end_the_search(search, caplog, monkeypatch):
    monkeypatch.setattr("detect.sweep.trials.LOGGER.propagate", True)
    (search.plan.folder / "fail").touch()
    search.run(["cpu"])
    trials = search.ledger.trials()
    assert [(trial.state, trial.score, trial.problem) for trial in trials] == [
        ("failed", None, "the loss is not finite")
    ] * 4
    assert "trial 0 failed on cpu: the loss is not finite (" in caplog.text
    (search.plan.folder / "fail").unlink()
    again(search).run(["cpu"])
    assert len(starts(search, 0)) == 1


def test_a_training_without_a_score(search):
    (search.plan.folder / "silent").touch()
    search.run(["cpu"])
    assert search.ledger.trials()[0].problem == "results.csv: cannot be read: No such file or directory"


def test_interrupted_and_continued(search):
    """The signal to end interrupts both trainings, which then go on from their ``last.pt`` with the same values."""
    (search.plan.folder / "wait").touch()
    folders = [search.ledger.trial_folder(number) for number in (0, 1)]

    def end_when_both_train():
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not all((folder / "ready").exists() for folder in folders):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    waiting = threading.Thread(target=end_when_both_train)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        search.run(["cpu", "cpu"])
    waiting.join()
    assert signal.getsignal(signal.SIGTERM) is before
    stopped = search.ledger.trials()
    assert [trial.state for trial in stopped] == ["unfinished", "unfinished"]
    (search.plan.folder / "wait").unlink()
    again(search).run(["cpu"])
    trials = search.ledger.trials()
    assert [trial.state for trial in trials] == ["complete"] * 4
    assert [trial.values for trial in trials[:2]] == [trial.values for trial in stopped]
    assert [starts(search, number)[1:] for number in range(4)] == [["cpu resumed"], ["cpu resumed"], [], []]
    assert trials[0].score == pytest.approx(2 * trials[0].values["optimizer.lr"])
    assert trials[0].seconds > stopped[0].seconds > 0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("epoch,val/AP\n1,0.5\n", 0.5),
        ("epoch,val/AP\n1,0.1\n2,\n3,0.3\n4,0.2\n", 0.3),
        ("epoch,val/AP\n1,nan\n2,-1\n", -1.0),
    ],
)
def test_the_score_is_that_of_the_best_epoch(tmp_path, text, score):
    (tmp_path / "results.csv").write_text(text)
    assert read_score(tmp_path / "results.csv", "AP") == score


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no val/AP"),
        ("epoch,val/AP50\n1,0.5\n", "has no val/AP"),
        ("epoch,val/AP\n1,nan\n", "has no val/AP"),
        ("epoch,val/AP\n1,much\n", "is damaged"),
        ('epoch,val/AP\n1,"0.5\n', "is damaged"),
        ("epoch,val/AP\n1,\udcff\n", "is damaged"),
    ],
)
def test_results_without_a_score(tmp_path, text, message):
    (tmp_path / "results.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=f"results.csv: {message}"):
        read_score(tmp_path / "results.csv", "AP")


@pytest.mark.parametrize(
    ("log", "code", "line"),
    [
        (b"", 1, "ended with exit code 1 without output"),
        (b"\n \n", -9, "ended with signal 9 without output"),
        (b"one\ntwo\n\n", 2, "two"),
        (b"10%\r20%\rerror: no  \x1b[1mdata\n", 2, "no [1mdata"),
        (b"\xff\n", 2, "\ufffd"),
        (b"x" * 1000, 2, "x" * MAX_LINE),
        (b"a\n" * 100_000 + b"last", 2, "last"),
    ],
)
def test_the_last_line_of_a_failed_training(tmp_path, log, code, line):
    (tmp_path / LOG).write_bytes(log)
    assert outcome_of(tmp_path, code, "AP") == line
