"""Tests on a real Docker daemon: they say aloud when there is none."""

from __future__ import annotations

import pytest

from labs import node_image
from labs.daemon import daemon
from labs.errors import LabError


@pytest.fixture(scope="session", autouse=True)
def docker_answers() -> None:
    """Ends every test here as skipped, with the reason, where no daemon answers."""
    try:
        with daemon():
            pass
    except LabError as error:
        pytest.skip(f"NOT RUN: {error}")


@pytest.fixture(scope="session")
def node_image_is_there() -> None:
    """Ends a test as skipped, with the reason, where a kind cluster would first take minutes of building."""
    with daemon() as client:
        if node_image.at_hand(client) is None:
            pytest.skip("NOT RUN: there is no node image for kind clusters; `lab images pull node`, or `build node`")
