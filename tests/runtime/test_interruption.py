from __future__ import annotations

import os
import signal

import pytest

from detect.runtime.interruption import StopRequest, Terminated, stop_requests


@pytest.fixture
def heard():
    """Both signals as a program in the foreground has them; a shell may let background jobs ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_the_block_ends_itself(number, expected):
    steps = []
    with pytest.raises(KeyboardInterrupt) as caught, stop_requests() as stop:  # noqa: PT012
        for step in range(5):
            if step == 2:
                os.kill(os.getpid(), number)
            steps.append(step)
            if stop:
                break
        steps.append("whole")
    assert steps == [0, 1, 2, "whole"]
    assert caught.type is expected
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("heard")
def test_nobody_asked():
    with stop_requests() as stop:
        assert not stop


@pytest.mark.usefixtures("heard")
def test_a_second_signal_ends_it_where_it_is():
    with pytest.raises(Terminated), stop_requests():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the block went on")


@pytest.mark.usefixtures("heard")
def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop


@pytest.mark.usefixtures("heard")
def test_an_error_of_the_block_is_what_is_told():
    with pytest.raises(ValueError, match="of the block"), stop_requests():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("of the block")


@pytest.mark.usefixtures("heard")
def test_what_may_end_anywhere():
    """A first signal ends such a part at once; outside of it the block ends itself."""
    steps = []
    with pytest.raises(Terminated), stop_requests() as stop:  # noqa: PT012
        with stop.immediate():
            steps.append("before")
        with stop.immediate():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("after")
    assert steps == ["before"]


@pytest.mark.usefixtures("heard")
def test_who_asked_before_does_not_wait():
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        with stop.immediate():
            raise AssertionError("it began")


def test_another_process_was_asked():
    assert type(StopRequest().exception()) is KeyboardInterrupt
