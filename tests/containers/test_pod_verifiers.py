"""The kubernetes lab on a kind cluster, as a whole: each verifier of pods fails when its point is broken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from labs.lab import Lab
from labs.paths import PROJECT_ROOT
from tests.lab.conftest import turns_red
from tests.lab.mutations import MUTATIONS, Mutation

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("node_image_is_there")]

NAME = "t-pods"


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [str(PROJECT_ROOT / "lab"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)


@pytest.fixture(scope="module")
def up() -> Iterator[Lab]:
    """The lab, up, with all that its verifiers can look at; taken down at the end."""
    done = lab("up", "kubernetes", "--name", NAME, "--with", "log-store")
    assert done.returncode == 0, done.stderr
    yield Lab.of(NAME)
    done = lab("down", NAME)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mutation", MUTATIONS["kubernetes"], ids=lambda mutation: mutation.name)
def test_a_verifier_fails_when_its_point_is_broken(up: Lab, mutation: Mutation) -> None:
    turns_red(lab, up, mutation)
