"""What all verifiers of the section look at besides Airflow: the broker, the workers and the result backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scenarios.celery import Celery
from scenarios.faulting_process import ProcessServices

if TYPE_CHECKING:
    from labs.lab import Lab


@pytest.fixture(scope="session")
def celery(lab: Lab, services: ProcessServices) -> Celery:
    """The lab's Celery workers."""
    return Celery(lab.outputs["services"], services)
