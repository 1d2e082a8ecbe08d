"""Frames within a deadline: from frame to frame the instance (SDPoint) is chosen by the times of those before.

The time of a frame is taken as the product of the instance's own milliseconds and of the machine's slowdown, which all
instances share. Both are exponential averages, which begin with the measured table of the instances and with the first
frame.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from detect.errors import InputError
from detect.inference.network import InferenceNetwork

Result = TypeVar("Result")

HEADROOM = 0.85
"""Share of the deadline that a chosen instance is expected to need at most."""
RUN, MAX_RUN = 10, 160
"""Frames in a row with headroom for a better instance before it is taken; each failure doubles them, up to a limit."""
FALL, MEAN, OWN = 0.1, 0.2, 0.02
"""Shares of a new time in the averages: of the slowdown's peak while it falls, of its mean, of an instance's own."""


class DeadlineController:
    """Choice of a level, an instance, for each frame: down at once after a late one, up after a run with headroom.

    A late frame is followed by the best level that is expected to fit into ``HEADROOM``. Expected times use the peak of
    the slowdown, which rises at once and falls slowly, so that they are those of the slower frames.

    Args:
        deadline_ms: D, above 0.
        table_ms: milliseconds of each level, ascending, as measured somewhere.
    """

    def __init__(self, deadline_ms: float, table_ms: Sequence[float]) -> None:
        self._deadline_ms, self._own_ms = deadline_ms, list(table_ms)
        self._peak = self._mean = 1.0
        self._has_begun = False
        self._needed_run, self._run = RUN, 0
        self._trial = 0  # frames after a rise until it counts as a success
        self.level = self._fitting()
        """Position of the next frame's instance; 0 is the cheapest."""

    def expected_ms(self, level: int) -> float:
        """Time that a frame of a level is expected to need."""
        return self._peak * self._own_ms[level]

    def observe(self, ms: float) -> None:
        """Take in the time of a frame of ``level``, and choose the next frame's."""
        self._learn(ms)
        if ms > self._deadline_ms:
            self._fall()
            return
        if self._trial == 1:
            self._needed_run = RUN
        self._trial = max(self._trial - 1, 0)
        best = self._fitting()
        self._run = self._run + 1 if best > self.level else 0
        if self._run >= self._needed_run:
            self.level, self._run, self._trial = best, 0, self._needed_run

    def _learn(self, ms: float) -> None:
        slowdown = ms / self._own_ms[self.level]
        if not self._has_begun:
            self._peak, self._mean, self._has_begun = slowdown, slowdown, True
        self._mean += MEAN * (slowdown - self._mean)
        self._own_ms[self.level] += OWN * (ms / self._mean - self._own_ms[self.level])
        self._peak = max(slowdown, self._peak + FALL * (slowdown - self._peak))

    def _fall(self) -> None:
        if self._trial:  # the rise came too early
            self._needed_run = min(2 * self._needed_run, MAX_RUN)
        self.level, self._run, self._trial = min(self._fitting(), max(self.level - 1, 0)), 0, 0

    def _fitting(self) -> int:
        """The best level that is expected to have headroom; the cheapest if none has."""
        limit_ms = HEADROOM * self._deadline_ms
        return max((n for n in range(len(self._own_ms)) if self.expected_ms(n) <= limit_ms), default=0)


class FrameTimes:
    """Times of any number of frames in little memory: rounded to 0.1 ms and counted."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.late = 0

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, ms: float, *, is_late: bool) -> None:
        self._counts[round(10 * ms)] += 1
        self.late += is_late

    def joined(self, other: FrameTimes) -> FrameTimes:
        """The times of both."""
        both = FrameTimes()
        both._counts, both.late = self._counts + other._counts, self.late + other.late
        return both

    def percentile(self, percent: int) -> float:
        """The smallest time, in ms, that at least ``percent`` % of the frames do not exceed (nearest rank)."""
        below = 0
        for tenths, count in sorted(self._counts.items()):
            below += count
            if 100 * below >= percent * len(self):
                return tenths / 10
        raise ValueError("there are no frames")


class Deadline:
    """A network whose instance is chosen for each frame, with the times of the frames; of one run.

    Nothing else may choose an instance in the meantime.

    Args:
        network: with measured instances, of which those on the Pareto front by milliseconds are used.
        deadline_ms: maximum time from a frame's pixels to its result.
        clock: seconds.

    Raises:
        InputError: the deadline is not above 0, or the network has no measured instances.
    """

    def __init__(
        self, network: InferenceNetwork, deadline_ms: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if not deadline_ms > 0:
            raise InputError(f"deadline: must be above 0 ms, found {deadline_ms:g}")
        self.deadline_ms, self._network, self._clock = deadline_ms, network, clock
        menu = network.menu()
        self._metric, self._levels = menu.metric, menu.front_ms
        self._controller = DeadlineController(deadline_ms, [entry.ms for entry in self._levels])
        self._times = [FrameTimes() for _ in self._levels]
        self._used: int | None = None

    def run(self, predict: Callable[[], Result]) -> Result:
        """Return the result of ``predict`` for a frame, with the chosen instance in the network.

        Before the first frame each instance predicts it once, uncounted: a first run takes longer.
        """
        if self._used is None:
            for entry in self._levels:
                self._network.use(entry.name)
                predict()
            self._used = len(self._levels) - 1
        level, start = self._controller.level, self._clock()
        if level != self._used:
            self._network.use(self._levels[level].name)
            self._used = level
        result = predict()
        ms = 1000 * (self._clock() - start)
        self._times[level].add(ms, is_late=ms > self.deadline_ms)
        self._controller.observe(ms)
        return result

    @property
    def times(self) -> dict[str, FrameTimes]:
        """Times of the frames by instance, cheapest first."""
        return {entry.name: times for entry, times in zip(self._levels, self._times, strict=True)}

    def lines(self) -> list[str]:
        """Table of the frames of each instance, best first, with the late ones; one line where there was no frame."""
        total = FrameTimes()
        for times in self._times:
            total = total.joined(times)
        if not total:
            return [f"deadline {self.deadline_ms:g} ms: no frame"]
        columns = f"{'frames':>8}{'share':>8}{'late':>7}{'p50 ms':>9}{'p95 ms':>9}"
        rows = [
            f"{entry.name:<14}{entry.cost:>7.3f}{entry.metric:>7.3f}{_numbers(times, len(total))}"
            for entry, times in zip(reversed(self._levels), reversed(self._times), strict=True)
            if times
        ]
        late = f"{total.late} of {len(total)} frames late ({total.late / len(total):.1%})"
        return [
            f"deadline {self.deadline_ms:g} ms: {late}",
            f"{'instance':<14}{'cost':>7}{self._metric:>7}{columns}",
            *rows,
            f"{'all':<28}{_numbers(total, len(total))}",
        ]


def _numbers(times: FrameTimes, total: int) -> str:
    share, p50, p95 = len(times) / total, times.percentile(50), times.percentile(95)
    return f"{len(times):>8}{share:>8.1%}{times.late:>7}{p50:>9.1f}{p95:>9.1f}"
