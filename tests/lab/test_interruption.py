"""Ctrl-C and kill -9 at any moment: `up` converges, `down` removes everything."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence

import pytest

from labs.paths import PROJECT_ROOT
from tests.lab.conftest import NOTHING, RunLab, remains, wait_for_line

COMMAND = [str(PROJECT_ROOT / "lab")]


IN_CONTAINERS = ("--platform", "docker")


@pytest.mark.parametrize("phase", ["secrets made", "home made", "metadata-database made", "migration made"])
def test_ctrl_c_in_a_first_up_leaves_nothing(name: str, phase: str) -> None:
    _interrupted(name, phase)


@pytest.mark.usefixtures("docker")
def test_ctrl_c_while_containers_start_leaves_nothing(name: str) -> None:
    _interrupted(name, "scheduler made", *IN_CONTAINERS)


def _interrupted(name: str, phase: str, *arguments: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "up", "local", "--name", name, "--engine", "embedded", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as up:
        wait_for_line(up, phase)
        os.killpg(up.pid, signal.SIGINT)
        _, rest = up.communicate(timeout=120)
    assert up.returncode == 130, rest
    assert rest.strip().splitlines()[-1].startswith("lab: "), rest
    assert "Traceback" not in rest
    assert remains(name) == NOTHING


def _killed(arguments: Sequence[str], after: float) -> None:
    """Start a command and SIGKILL it and its whole process group some seconds later, if it still runs."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=after)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _converges(lab: RunLab, name: str, rounds: int, seed: int, *arguments: str) -> None:
    up = ("up", "local", "--name", name, "--engine", "embedded", *arguments)
    moments = random.Random(seed)
    begun = time.monotonic()
    done = lab(*up)
    assert done.returncode == 0, done.stderr
    longest = time.monotonic() - begun
    for number in range(rounds):
        verb = moments.choice(["up", "down"])
        if verb == "up":
            assert lab("down", name).returncode in (0, 2)
            assert remains(name) == NOTHING
        after = moments.uniform(0.3, longest if verb == "up" else 4.0)
        _killed(up if verb == "up" else ("down", name), after)
        where = f"round {number}: {verb} killed after {after:.1f} s"
        done = lab(*up)
        assert done.returncode == 0, f"{where}\n{done.stderr}"
        status = lab("status", name, "--json")
        assert status.returncode == 0, f"{where}\n{status.stdout}"
        assert len(json.loads(status.stdout)["services"]) == 5
    _killed(("down", name), moments.uniform(0.3, 3.0))
    done = lab("down", name)
    assert done.returncode in (0, 2), done.stderr  # 2: the killed one was done already
    assert remains(name) == NOTHING


def test_killed_commands_converge(lab: RunLab, name: str) -> None:
    _converges(lab, name, rounds=2, seed=2)


@pytest.mark.long
def test_twenty_killed_commands_converge(lab: RunLab, name: str) -> None:
    _converges(lab, name, rounds=20, seed=20)


@pytest.mark.long
@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("rounds", [2, 20])
def test_killed_commands_converge_in_containers(lab: RunLab, name: str, rounds: int) -> None:
    _converges(lab, name, rounds, rounds, *IN_CONTAINERS)
