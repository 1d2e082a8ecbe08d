"""What a search leaves: table, CSV, HParams, command, picture."""

from __future__ import annotations

import csv
import math
import shlex

import cv2
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detect.sweep.ledger import Trial
from detect.sweep.plan import Parameter
from detect.sweep.report import (
    _heights,
    _ticks,
    draw_parallel_coordinates,
    training_command,
    trials_text,
    write_csv,
    write_hparams,
)
from tests.sweep.small import make_plan_in

SPACE = (Parameter("optimizer.lr", 0.001, 0.1, log=True), Parameter("batch_size", choices=(2, 4)))
TRIALS = [
    Trial(0, "complete", {"optimizer.lr": 0.01, "batch_size": 2}, 0.25, 61.26, ""),
    Trial(1, "failed", {"optimizer.lr": 0.1, "batch_size": 4}, None, 2.0, "error: not finite"),
    Trial(2, "complete", {"optimizer.lr": 0.001, "batch_size": 2}, 0.5, 60.0, ""),
    Trial(3, "unfinished", {"optimizer.lr": 0.05, "batch_size": 4}, None, 0.0, ""),
    Trial(4, "failed", {"optimizer.lr": 0.02}, None, 0.0, "the machine stopped"),
]


def test_the_csv(tmp_path):
    write_csv(tmp_path / "none.csv", [], SPACE, "AP")
    head = "number,state,AP,optimizer.lr,batch_size,seconds,problem\n"
    assert (tmp_path / "none.csv").read_text() == head
    write_csv(tmp_path / "trials.csv", TRIALS, SPACE, "AP")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert rows[0] == ["0", "complete", "0.25", "0.01", "2", "61.3", ""]
    assert rows[1] == ["1", "failed", "", "0.1", "4", "2.0", "error: not finite"]
    assert rows[4] == ["4", "failed", "", "0.02", "", "0.0", "the machine stopped"]


def test_the_table_has_the_best_first():
    lines = trials_text(TRIALS, SPACE, "AP").splitlines()
    assert lines[0].split() == ["trial", "AP", "optimizer.lr", "batch_size", "seconds"]
    assert [line.split()[:2] for line in lines[2:7]] == [
        ["2", "0.5000"],
        ["0", "0.2500"],
        ["1", "failed"],
        ["3", "unfinished"],
        ["4", "failed"],
    ]
    assert lines[7:] == ["trial 1 failed: error: not finite", "trial 4 failed: the machine stopped"]


def test_hparams_are_written_anew(tmp_path):
    for _ in range(2):
        write_hparams(tmp_path / "hparams", TRIALS, "AP")
    assert sorted(path.name for path in (tmp_path / "hparams").iterdir() if path.is_dir()) == ["0000", "0002"]
    (events,) = (tmp_path / "hparams" / "0002").iterdir()
    read = EventAccumulator(str(events)).Reload()
    assert [event.value for event in read.Scalars("val/AP")] == [0.5]
    content = read.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"optimizer.lr" in content


def test_the_command_can_be_typed(tmp_path):
    plan = make_plan_in(tmp_path)
    assert training_command(plan.config, TRIALS[0]) == (
        "detect train --model yolov5n-spd --data shapes --set threads=1 optimizer.lr=0.01 batch_size=2"
    )
    assert shlex.split(training_command(plan.config, TRIALS[2]))[-2] == "optimizer.lr=0.001"


def test_where_lines_cross_the_axes():
    """0.01 is in the middle of 0.001 to 0.1 on a logarithmic scale. Of two choices the first has the lower half, and
    lines through it spread over 0.6 of that: three of them at 0.25 + 0.5 * 0.6 * (-1/3, 0, 1/3)."""
    trials = [
        Trial(0, "complete", {"optimizer.lr": 0.01, "batch_size": 2}, 0.0, 1, ""),
        Trial(1, "complete", {"optimizer.lr": 0.001, "batch_size": 2}, 0.5, 1, ""),
        Trial(2, "complete", {"optimizer.lr": 0.1, "batch_size": 2}, 1.0, 1, ""),
        Trial(3, "failed", {"optimizer.lr": 0.1, "batch_size": 4}, None, 1, "x"),
    ]
    heights = _heights(SPACE, Parameter("AP", 0.0, 2.0), trials)
    assert heights[0] == pytest.approx([0.5, 0.15, 0.0])
    assert heights[1] == pytest.approx([0.0, 0.25, 0.25])
    assert heights[2] == pytest.approx([1.0, 0.35, 0.5])
    assert heights[3] == pytest.approx([1.0, 0.75])


@pytest.mark.parametrize(
    ("parameter", "ticks"),
    [
        (Parameter("epochs", 10, 30), [10, 12, 16, 20, 24, 28, 30]),
        (Parameter("epochs", 1, 3), [1, 2, 3]),
        (Parameter("lr", 0.001, 0.1, log=True), [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]),
        (Parameter("lr", 1e-6, 1.0, log=True), [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
    ],
)
def test_axes_name_their_ends_and_round_numbers(parameter, ticks):
    assert _ticks(parameter, with_ends=True) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("space", "trials"),
    [
        (SPACE, TRIALS),
        pytest.param(SPACE, TRIALS[:1], marks=pytest.mark.slow),
        ((Parameter("epochs", 2, 2),), [Trial(0, "complete", {"epochs": 2}, -1.0, 1, "")]),
        ((Parameter("lr", 0.01, 0.02, log=True),), [Trial(0, "complete", {"lr": 0.015}, 0.0, 1, "")]),
    ],
)
def test_a_picture_is_drawn(tmp_path, space, trials):
    draw_parallel_coordinates(tmp_path / "picture.png", space, trials, "AP", "a $name$ \u4eba")
    height, width, _ = cv2.imread(str(tmp_path / "picture.png")).shape
    # 120 dots per inch: 5.5 inches high, 2 inches and 2.1 for each parameter wide.
    assert (height, width) == (660, math.floor(120 * (2.0 + 2.1 * len(space)) + 1e-6))
