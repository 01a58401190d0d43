"""What tests of more than one kind need."""

from __future__ import annotations

import pytest

from labs import node_image
from labs.daemon import daemon
from labs.errors import LabError


@pytest.fixture(scope="session")
def node_image_is_there() -> None:
    """Ends a test as skipped, with the reason, where a kind cluster cannot be, or first takes minutes of building."""
    try:
        with daemon() as client:
            found = node_image.at_hand(client)
    except LabError as error:
        pytest.skip(f"NOT RUN: {error}")
    if found is None:
        pytest.skip("NOT RUN: there is no node image for kind clusters; `lab images pull node`, or `build node`")
