"""kill -9 at any moment leaves a state from which `up` converges and `down` removes everything."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from harness import Lab, Node, node, start, wait_for

from labs.engines.embedded import EmbeddedEngine

ENGINE = EmbeddedEngine()


def graph(home: str, size: int, *, seconds: float = 0.15) -> list[Node]:
    """Makes, updates, replaces and deletes, depending on what was before."""
    props = {"seconds": seconds, "seconds_to_go": seconds}
    return [
        node("base", props={**props, "home": home}),
        node("strict", props={**props, "home": home}, options={"delete_before_replace": True}),
        node("user", props=props, uses={"base": "base"}),
        node("moved", props=props, uses={"home": "strict"}),
        node("sized", props={**props, "size": size}),
        *(node(f"only{home[1:]}{index}", props=props, after=["user"]) for index in range(2)),
    ]


def test_twenty_random_kills_of_up_and_down_all_converge(lab: Lab) -> None:
    chance = random.Random(35)
    outcomes = []
    home = 1
    for round_ in range(20):
        home = 3 - home  # so that there is always something to do
        wanted = graph(f"/{home}", chance.randint(1, 2))
        verb = chance.choice(["up", "up", "down"]) if lab.things() else "up"
        process = start(verb, lab.over(*wanted))
        time.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        process.join()
        outcomes.append("killed" if process.exitcode == -9 else "ended")
        if chance.random() < 0.7:
            home = chance.randint(1, 2)
            wanted = graph(f"/{home}", chance.randint(1, 2), seconds=0)
            outputs = ENGINE.up(lab.over(*wanted), lab.watch)
            expected = {outputs[item["name"]].split(":")[0] for item in wanted if item["name"] != "moved"}
            moved = {name for name in lab.things() if name.startswith("moved@")}
            assert set(lab.things()) == expected | moved and len(moved) == 1, f"round {round_}"
            assert all(content.startswith("whole") for content in lab.things().values()), f"round {round_}"
            checkpoint = json.loads((lab.stack.directory / "checkpoint.json").read_text())
            assert checkpoint["pending"] == checkpoint["condemned"] == []
        else:
            ENGINE.down(lab.stack, lab.watch)
            assert lab.things() == {} and not lab.stack.directory.exists(), f"round {round_}"
    assert outcomes.count("killed") >= 12, "a test that kills nothing proves nothing"


@pytest.fixture
def killed(lab: Lab):
    """A lab whose last `up` was killed with `a` half done."""

    def kill(*wanted: Node, verb: str = "up") -> None:
        lab.journal()
        process = start(verb, lab.over(*wanted))
        journal = Path(f"{lab.world}.journal")
        last = f'"{wanted[-1]["name"]}@' if wanted else "begin"
        wait_for(lambda: journal.exists() and last in journal.read_text(), "the last operation to begin")
        if wanted:  # what begins is written down a moment before it is there
            wait_for(lambda: any(f'"{thing}'.startswith(last) for thing in lab.things()), "its thing to be there")
        process.kill()
        process.join()
        lab.journal()

    return kill


SLOW = {"seconds": 20}


def test_a_half_made_thing_is_finished_by_up(lab: Lab, killed) -> None:
    killed(node("a", props=SLOW))
    assert lab.things() == {"a@": "half"}
    ENGINE.up(lab.over(node("a", props={"seconds": 0})), lab.watch)
    assert lab.things() == {"a@": "whole"}


def test_a_half_made_thing_with_other_inputs_is_removed_by_up(lab: Lab, killed) -> None:
    killed(node("a", props={**SLOW, "home": "/1"}))
    with_less = {"seconds": 0, "home": "/2"}
    assert [step.reason for step in ENGINE.preview(lab.over(node("a", props=with_less)))][1:] == [
        "left by an interrupted run",
        "new",
    ]
    ENGINE.up(lab.over(node("a", props=with_less)), lab.watch)
    assert lab.things() == {"a@_2": "whole"}


def test_a_thing_replaced_back_and_forth_across_a_kill_is_there(lab: Lab, killed) -> None:
    there, back = node("a", props={"home": "/1"}), node("a", props={"home": "/2"})
    ENGINE.up(lab.over(there), lab.watch)
    killed(back, node("b", uses={"a": "a"}, props=SLOW))
    assert set(lab.things()) == {"a@_1", "a@_2", "b@"}, "the old one was still to be deleted"
    ENGINE.up(lab.over(there), lab.watch)
    assert lab.things() == {"a@_1": "whole"}


def test_a_half_made_thing_that_left_the_program_is_removed_by_up(lab: Lab, killed) -> None:
    killed(node("a", props=SLOW))
    ENGINE.up(lab.over(node("b")), lab.watch)
    assert lab.things() == {"b@": "whole"}


def test_an_update_that_did_not_end_is_done_again_even_when_the_program_went_back(lab: Lab, killed) -> None:
    ENGINE.up(lab.over(node("a", props={"size": 1})), lab.watch)
    killed(node("a", props={"size": 2, **SLOW}))
    (step,) = [step for step in ENGINE.preview(lab.over(node("a", props={"size": 1}))) if step.name == "a"]
    assert (step.operation, step.reason) == ("update", "its last update did not finish")
    ENGINE.up(lab.over(node("a", props={"size": 1})), lab.watch)
    assert lab.done() == ["update a@"]
    ENGINE.up(lab.over(node("a", props={"size": 1})), lab.watch)
    assert lab.done() == []


def test_a_deletion_that_did_not_end_is_done_again_before_the_thing_is_made_anew(lab: Lab, killed) -> None:
    ENGINE.up(lab.over(node("a", props={"seconds_to_go": 0.5})), lab.watch)
    killed(verb="down")
    ENGINE.up(lab.over(node("a")), lab.watch)
    assert lab.done() == ["delete a@", "create a@"]
    assert lab.things() == {"a@": "whole"}
