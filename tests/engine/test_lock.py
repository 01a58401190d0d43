"""One command at a time per stack, whatever happens to the one that holds the lock."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

import pytest
from harness import Lab, node, start, wait_for

from labs.engines.embedded import EmbeddedEngine
from labs.engines.lock import stack_lock
from labs.errors import LabError

ENGINE = EmbeddedEngine()


def test_a_second_command_is_refused_by_name_and_process_and_the_first_goes_on(lab: Lab) -> None:
    stack = lab.over(node("slow", props={"seconds": 2}))
    first = start("up", stack)
    wait_for(lab.things, "the first command to be at work")
    for command in (ENGINE.up, ENGINE.down):
        with pytest.raises(LabError, match=f"`up` of lab test is running as process {first.pid}; wait for it to end"):
            command(stack, lab.watch)
    first.join()
    assert first.exitcode == 0 and lab.things() == {"slow@": "whole"}
    ENGINE.down(stack, lab.watch)


def test_a_killed_holder_holds_nothing(lab: Lab) -> None:
    stack = lab.over(node("slow", props={"seconds": 20}))
    first = start("up", stack)
    wait_for(lab.things, "the first command to be at work")
    first.kill()
    first.join()
    ENGINE.down(stack, lab.watch)
    assert lab.things() == {}


def test_programs_started_under_the_lock_do_not_hold_it(lab: Lab) -> None:
    with stack_lock(lab.stack, "up"):
        descriptors = [
            int(entry.name)
            for entry in Path("/proc/self/fd").iterdir()
            if re.search(r"/lock$", os.path.realpath(entry)) and entry.exists()
        ]
        assert len(descriptors) == 1
        assert not os.get_inheritable(descriptors[0])


def test_a_lock_on_a_file_that_was_removed_protects_nothing(lab: Lab) -> None:
    """Between opening and locking, the holder may end and remove the file; a third would then make a new one."""
    with stack_lock(lab.stack, "up"):
        path = lab.stack.directory / "lock"
        late = os.open(path, os.O_RDWR)
    fcntl.flock(late, fcntl.LOCK_EX)  # of the removed file
    with (
        stack_lock(lab.stack, "down"),
        pytest.raises(LabError, match="`down` of lab test"),
        stack_lock(lab.stack, "up"),
    ):
        pass
    os.close(late)
