"""Ctrl-C at any point: what is under way ends, nothing new starts, and the next command goes on from there."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from harness import Lab, node, start, wait_for

from labs.engines.embedded import EmbeddedEngine
from labs.errors import ExitCode, Interrupted
from labs.waiting import interruption

ENGINE = EmbeddedEngine()

GRAPH = (
    node("quick"),
    node("slow", props={"seconds": 20}),
    node("next", uses={"slow": "slow"}),
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_ends_at_once_in_order_and_both_ways_lead_on(lab: Lab, number: int) -> None:
    process = start("up", lab.over(*GRAPH))
    wait_for(lambda: lab.things() == {"quick@": "whole", "slow@": "half"}, "one thing made, another under way")
    os.kill(process.pid or 0, number)
    process.join(timeout=5)
    assert process.exitcode == ExitCode.INTERRUPTED
    assert lab.things() == {"quick@": "whole"}, "what was under way cleaned up, what depends on it did not start"
    lab.journal()
    faster = (GRAPH[0], node("slow"), GRAPH[2])
    ENGINE.up(lab.over(*faster), lab.watch)
    assert set(lab.things().values()) == {"whole"} and "create quick@" not in lab.done()
    ENGINE.down(lab.stack, lab.watch)
    assert lab.things() == {}


def test_down_ends_at_once_and_the_next_down_takes_the_rest(lab: Lab) -> None:
    graph = (node("base"), node("slow", props={"seconds_to_go": 1}, uses={"base": "base"}), node("quick"))
    ENGINE.up(lab.over(*graph), lab.watch)
    process = start("down", lab.stack)
    wait_for(lambda: "quick@" not in lab.things(), "a deletion to be done")
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(timeout=5)
    assert process.exitcode == ExitCode.INTERRUPTED
    assert set(lab.things()) == {"base@", "slow@"}
    ENGINE.down(lab.stack, lab.watch)
    assert lab.things() == {} and not lab.stack.directory.exists()


def test_the_same_process_can_go_on_after_an_interruption(lab: Lab) -> None:
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(Interrupted, match=r"interrupted; \d resources exist .*: run `up` to go on or `down`"):
        ENGINE.up(lab.over(*GRAPH), lab.watch)
    timer.join()
    assert signal.getsignal(signal.SIGINT) is before and not interruption.is_set()
    ENGINE.down(lab.stack, lab.watch)
    assert lab.things() == {}


def test_a_second_signal_acts_as_ever(lab: Lab) -> None:
    deaf = lab.over(node("deaf", props={"seconds": 20, "deaf": True}))
    process = start("up", deaf)
    wait_for(lab.things, "the thing to be under way")
    for _ in range(2):
        os.kill(process.pid or 0, signal.SIGTERM)
        process.join(timeout=0.5)
    assert process.exitcode == -signal.SIGTERM
    ENGINE.down(lab.stack, lab.watch)
    assert lab.things() == {}
