"""All labs of the process platform on one machine at once: none takes what another has, or notices its end."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack

import pytest

from labs import processes
from labs.lab import Lab
from labs.paths import run_directory
from stacks.catalogue import LABS
from tests.lab.conftest import RunLab, listening, running

pytestmark = pytest.mark.long

ALL = [lab.name for lab in LABS.values() if "process" in lab.platforms]


def services(lab: RunLab, up: Lab) -> dict[str, tuple[str, int]]:
    """Name → state and pid of each service."""
    found = json.loads(lab("status", up.name, "--json").stdout)["services"]
    return {service["name"]: (service["state"], service["pid"]) for service in found}


def test_labs_share_a_machine_and_nothing_else(lab: RunLab) -> None:
    with ExitStack() as stack:
        first = [stack.enter_context(running(lab, target, f"t-beside-{target}")) for target in ALL[:-1]]
        before = [services(lab, up) for up in first]
        with running(lab, ALL[-1], f"t-beside-{ALL[-1]}") as last:
            labs = [*first, last]
            members = [processes.marked(str(run_directory(up.name))) for up in labs]
            taken = Counter(each for found in members for each in {*found, *listening(found)})
            assert [each for each, labs_with_it in taken.items() if labs_with_it > 1] == []
            for up in labs:  # two cores are too few for all at once
                done = lab("verify", up.name, "-k", "35_05_01")
                assert done.returncode == 0, done.stdout
        # one of them came and went
        assert [services(lab, up) for up in first] == before
        assert {state for found in before for state, _ in found.values()} == {"RUNNING"}
