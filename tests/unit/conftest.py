"""Unit tests: no lab, no network."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs: what a scenario asks of a lab; here for those that are imported")
