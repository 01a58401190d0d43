"""A wait ends with a value, a sentence, or an interruption, and never later than it must."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from labs.errors import ExitCode, Interrupted
from labs.waiting import WaitTimeout, interruptible, interruption, until


def test_the_value_is_returned_as_soon_as_there_is_one() -> None:
    states = iter([(None, "starting"), (None, "starting"), ("ready", "up")])
    assert until(lambda: next(states), what="it to start", timeout=5, interval=0.001) == "ready"


def test_a_false_value_is_a_value() -> None:
    assert until(lambda: (0, "counted"), what="a count", timeout=0) == 0


def test_a_time_out_names_the_condition_the_last_state_and_the_last_lines() -> None:
    details = []

    def detail() -> str:
        details.append("asked")
        return "line 1\nline 2"

    with pytest.raises(WaitTimeout) as caught:
        until(lambda: (None, "503"), what="the API server", timeout=0.02, interval=0.005, detail=detail)
    assert str(caught.value) == "waited 0 s for the API server; last state: 503\nline 1\nline 2"
    assert details == ["asked"] and caught.value.exit_code == ExitCode.FAILED


def test_a_probe_is_tried_even_without_time() -> None:
    assert until(lambda: ("there", ""), what="it", timeout=0) == "there"


def test_an_exception_of_the_probe_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        until(lambda: (1 / 0, "never"), what="it", timeout=5)


def test_an_interruption_ends_a_long_wait_at_once() -> None:
    threading.Timer(0.05, interruption.set).start()
    began = time.monotonic()
    try:
        with pytest.raises(Interrupted, match="interrupted while waiting for the scheduler"):
            until(lambda: (None, "starting"), what="the scheduler", timeout=60, interval=60)
    finally:
        interruption.clear()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_and_the_second_acts_as_ever(number: int) -> None:
    received = []
    before = signal.signal(number, lambda *_: received.append("second"))
    try:
        with interruptible():
            os.kill(os.getpid(), number)
            assert interruption.wait(5) and received == []
            os.kill(os.getpid(), number)
            assert received == ["second"]
        assert not interruption.is_set(), "the next command can wait again"
        os.kill(os.getpid(), number)
        assert received == ["second", "second"]
    finally:
        signal.signal(number, before)


def test_an_inner_interruptible_leaves_the_outer_one_in_charge() -> None:
    with interruptible():
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.wait(5)
        assert interruption.is_set(), "the outer one still has to learn of it"
    assert not interruption.is_set()


def test_other_threads_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
