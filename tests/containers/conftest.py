"""Tests on a real Docker daemon: they say aloud when there is none."""

from __future__ import annotations

import pytest

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
