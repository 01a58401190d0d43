"""Labs on a kind cluster, each as a whole: each verifier of pods fails when its point is broken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from labs.lab import Lab
from labs.paths import PROJECT_ROOT
from labs.selftest import EXTRAS
from stacks.catalogue import find_lab
from tests.lab.conftest import turns_red
from tests.lab.mutations import MUTATIONS, Mutation

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("node_image_is_there")]

TARGETS = ("kubernetes", "celery-kubernetes", "edge-kubernetes", "multi-kubernetes", "ha-kubernetes")


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [str(PROJECT_ROOT / "lab"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)


@pytest.fixture(scope="module")
def up(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab of that name, up, with all that its verifiers can look at; taken down at the end."""
    name = f"t-{request.param}"
    extras, *_ = EXTRAS.get(find_lab(request.param).name, [()])
    more = [word for extra in extras for word in ("--with", extra)]
    done = lab("up", request.param, "--engine", "embedded", "--name", name, *more)
    assert done.returncode == 0, done.stderr
    yield Lab.of(name)
    done = lab("down", name)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("up", "mutation"),
    [pytest.param(target, each, id=f"{target}-{each.name}") for target in TARGETS for each in MUTATIONS[target]],
    indirect=["up"],
    scope="module",
)
def test_a_verifier_fails_when_its_point_is_broken(up: Lab, mutation: Mutation) -> None:
    turns_red(lab, up, mutation)
