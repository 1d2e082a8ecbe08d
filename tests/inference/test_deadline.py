"""The controller of the slider, with times that are worked out by hand, and what a run counts."""

from __future__ import annotations

import pytest

from detect.errors import InputError
from detect.inference.deadline import MAX_RUN, RUN, Deadline, DeadlineController, FrameTimes
from detect.inference.instances import InstanceEntry, InstanceMenu

TABLE = [30.0, 60.0, 80.0]
"""Of three levels; with a deadline of 100 ms each may be expected to need 85."""


def feed(controller: DeadlineController, *times_ms: float) -> list[int]:
    """The levels after each of some frames."""
    levels = []
    for ms in times_ms:
        controller.observe(ms)
        levels.append(controller.level)
    return levels


@pytest.mark.parametrize(("deadline", "level"), [(100, 2), (94.2, 2), (94, 1), (71, 1), (70, 0), (1, 0)])
def test_the_first_level_is_the_best_of_the_table(deadline: float, level: int) -> None:
    """80 / 0.85 is 94.12, 60 / 0.85 is 70.6; the cheapest is taken where nothing fits."""
    assert DeadlineController(deadline, TABLE).level == level


def test_a_late_frame_goes_down_at_once_and_as_far_as_needed() -> None:
    """At 1.375 times the table 60 ms become 82.5; at 1.5 times 90, above 85, and 30 become 45."""
    assert feed(DeadlineController(100, TABLE), 81, 99.9, 110) == [2, 2, 1]
    assert feed(DeadlineController(100, TABLE), 81, 99.9, 120) == [2, 2, 0]
    assert feed(DeadlineController(20, TABLE), 31, 32) == [0, 0]  # there is nothing below


def test_up_after_a_run_with_headroom() -> None:
    """The slowdown's peak falls from 1.5 by a tenth of what is above 1: to 1 + 0.5 * 0.9^n after n frames.

    60 ms fit below 1.417, from the second frame on, so that the run is complete with the eleventh; 80 would need 1.06.
    """
    controller = DeadlineController(100, TABLE)
    feed(controller, 80, 120)
    assert feed(controller, *[30] * 12) == [0] * 10 + [1, 1]


def test_a_frame_without_headroom_begins_the_run_again() -> None:
    controller = DeadlineController(100, TABLE)
    feed(controller, 80, 120)
    # 45 ms are 1.5 times the table again.
    assert feed(controller, *[30] * 10, 45, *[30] * 12) == [0] * 21 + [1, 1]


def failures(controller: DeadlineController, frames: int) -> list[int]:
    """Frames before each late one, where the second of two levels needs 101 ms and the first 30."""
    found, since = [], 0
    for _ in range(frames):
        since += 1
        is_up = controller.level == 1
        controller.observe(101 if is_up else 30)
        if is_up:
            found.append(since)
            since = 0
    return found


def test_a_rise_that_fails_makes_the_next_one_wait_longer() -> None:
    """Each run is twice as long, and the rise itself one frame more."""
    controller = DeadlineController(100, [30, 31])
    feed(controller, 30)
    waits = failures(controller, 1500)
    assert waits[0] == 1  # the first level was the second one
    assert [wait // RUN for wait in waits[1:6]] == [1, 2, 4, 8, 16]
    assert max(waits) < 1.5 * MAX_RUN


def test_a_rise_that_lasts_is_no_failure() -> None:
    controller = DeadlineController(100, TABLE)
    feed(controller, 80, 120)
    assert feed(controller, *[30] * 11, *[60] * 40)[-1] == 2
    feed(controller, 120)
    assert 1 in feed(controller, *[30] * 13)


def test_a_table_of_another_machine() -> None:
    """Ten times as slow as this one: it begins with the cheapest, and the first run of frames leads to the best."""
    controller = DeadlineController(100, [300, 600, 800])
    assert controller.level == 0
    assert feed(controller, *[30] * RUN) == [0] * (RUN - 1) + [2]
    assert controller.expected_ms(2) == pytest.approx(80)


def test_an_instance_that_the_table_flatters_is_learnt() -> None:
    """Its own milliseconds beside the other's grow from 1.03 times, by each of its frames, towards 3.4 times."""
    controller = DeadlineController(100, [30, 31])
    failures(controller, 1500)
    assert controller.expected_ms(1) / controller.expected_ms(0) > 1.2


def test_percentiles_are_the_nearest_rank() -> None:
    times = FrameTimes()
    for ms in (10, 20, 30, 40.04, 50):
        times.add(ms, is_late=ms > 35)
    assert [times.percentile(percent) for percent in (1, 20, 50, 80, 95, 100)] == [10, 10, 30, 40, 50, 50]
    both = times.joined(times)
    assert (len(times), times.late, len(both), both.late) == (5, 2, 10, 4)
    with pytest.raises(ValueError, match="there are no frames"):
        FrameTimes().percentile(50)


class Machine:
    """A network and its clock: each frame takes the instance's milliseconds, times ``slowdown``."""

    def __init__(self) -> None:
        entries = (
            InstanceEntry("plain", 1.0, 1000, 80.0, 0.5),
            InstanceEntry("1@0.5", 0.3, 300, 30.0, 0.2),
            InstanceEntry("2@0.5", 0.7, 700, 60.0, 0.4),
            InstanceEntry("2@0.75", 0.8, 800, 90.0, 0.3),  # slower and worse than others
        )
        self._menu = InstanceMenu(entries, "AP", "shapes val, 32 px")
        self.now_ms, self.slowdown, self.used = 0.0, 1.0, "plain"

    def menu(self) -> InstanceMenu:
        return self._menu

    def use(self, name: str) -> None:
        self.used = self._menu.entry(name).name

    def clock(self) -> float:
        return self.now_ms / 1000

    def predict(self) -> str:
        self.now_ms += self.slowdown * self._menu.entry(self.used).ms
        return self.used


def test_the_frames_of_a_run() -> None:
    machine = Machine()
    deadline = Deadline(machine, 100, machine.clock)  # type: ignore[arg-type]
    assert deadline.lines() == ["deadline 100 ms: no frame"]
    assert [deadline.run(machine.predict) for _ in range(3)] == ["plain"] * 3
    assert machine.now_ms == 30 + 60 + 80 + 3 * 80  # each instance of the front once, before the first frame
    machine.slowdown = 1.5
    assert [deadline.run(machine.predict) for _ in range(2)] == ["plain", "1@0.5"]
    assert {name: len(times) for name, times in deadline.times.items()} == {"1@0.5": 1, "2@0.5": 0, "plain": 4}
    assert deadline.lines() == [
        "deadline 100 ms: 1 of 5 frames late (20.0%)",
        "instance         cost     AP  frames   share   late   p50 ms   p95 ms",
        "plain           1.000  0.500       4   80.0%      1     80.0    120.0",
        "1@0.5           0.300  0.200       1   20.0%      0     45.0     45.0",
        "all                                5  100.0%      1     80.0    120.0",
    ]


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_deadlines_that_cannot_be(value: float) -> None:
    with pytest.raises(InputError, match=r"^deadline: must be above 0 ms, found"):
        Deadline(Machine(), value)  # type: ignore[arg-type]
