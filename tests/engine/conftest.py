"""The stack that engine tests work on."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import PROGRAM, Lab

from labs.engines.base import Stack


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    world = tmp_path / "world"
    world.mkdir()
    return Lab(Stack("test", PROGRAM, {}, tmp_path / "state"), world)
