"""Items that a thread computes ahead: their order, their number, errors, and the end of the thread."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from detect.runtime.prefetch import prefetch

PATIENCE_S = 30


class Numbers:
    """Numbers from 0, with what has become of them.

    Args:
        count: of the numbers.
        fails: raise an error after the last one.
    """

    def __init__(self, count: int, *, fails: bool = False) -> None:
        self.count, self.fails = count, fails
        self.made: list[threading.Event] = [threading.Event() for _ in range(count)]
        self.is_closed = False

    def __call__(self) -> Generator[int, None, None]:
        try:
            for number in range(self.count):
                self.made[number].set()
                yield number
            if self.fails:
                raise OSError("no more")
        finally:
            self.is_closed = True


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")] == []


@pytest.mark.parametrize("size", [1, 3, 50])
def test_all_in_order(size: int) -> None:
    numbers = Numbers(20)
    assert list(prefetch(numbers(), size)) == list(range(20))
    assert numbers.is_closed


def test_nothing() -> None:
    assert list(prefetch(Numbers(0)(), 2)) == []


def test_the_next_ones_are_made_while_one_is_used() -> None:
    """With 0 in use, 1 and 2 are made, and 3 is not before 1 is taken."""
    numbers = Numbers(9)
    ahead = prefetch(numbers(), 2)
    assert not numbers.made[0].is_set()  # the thread begins with the first one
    assert next(ahead) == 0
    assert numbers.made[2].wait(PATIENCE_S)
    assert not numbers.made[3].wait(0.05)
    assert next(ahead) == 1
    assert numbers.made[3].wait(PATIENCE_S)
    ahead.close()


def test_an_error_comes_in_its_place() -> None:
    numbers = Numbers(5, fails=True)
    ahead = prefetch(numbers(), 3)
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="no more"):
        next(ahead)
    assert numbers.is_closed


def test_a_user_who_stops_early() -> None:
    numbers = Numbers(1000)
    things = numbers()  # somebody else holds it too
    ahead = prefetch(things, 2)
    next(ahead)
    ahead.close()
    assert numbers.is_closed
    assert not numbers.made[10].is_set()


def test_one_behind_the_other() -> None:
    """An end and an error go through both; the first one is closed as well."""
    for fails in (False, True):
        numbers = Numbers(1000, fails=fails)
        ahead = prefetch(prefetch(numbers(), 2), 3)
        assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
        ahead.close()
        assert numbers.is_closed
    with pytest.raises(OSError, match="no more"):
        list(prefetch(prefetch(Numbers(4, fails=True)(), 2), 3))
