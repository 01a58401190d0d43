"""New secrets for a running lab: nothing runs while they take the place of the old ones.

A task reports to the API server with a token that the old secret has signed, and so does one that waits in a broker.
So pools give no slots until all have ended, and give them again when the lab is up with its new secrets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_client.client import PoolApi, PoolPatchBody

from labs.airflow import PAGE, Airflow, AirflowError
from labs.errors import LabError
from labs.waiting import WaitTimeout, until

PATIENCE = 600.0
"""Seconds for what runs to end; workers are given less, where nothing else is said."""


def hold(airflow: Airflow, record: Path, tell: Callable[[str], None]) -> None:
    """Let no task start any more, and wait until none runs or waits to be run.

    Args:
        record: where to write what `release` gives back.

    Raises:
        LabError: Airflow is not reached, or tasks do not end; then they start as before.
    """
    try:
        if not record.exists():  # else an `up` that did not end holds them already
            record.write_text(json.dumps({name: slots for name, (slots, _) in _pools(airflow).items()}))
        _resize(airflow, dict.fromkeys(json.loads(record.read_text()), 0))
    except AirflowError as error:
        record.unlink(missing_ok=True)
        raise LabError(f"tasks cannot be kept from starting ({error}); run `up` without --rotate first") from error

    def idle() -> tuple[bool | None, str]:
        busy = {name: tasks for name, (_, tasks) in _pools(airflow).items() if tasks}
        return (None if busy else True), ", ".join(f"{tasks} in the pool {name}" for name, tasks in busy.items())

    tell("no task starts until the lab has its new secrets; waiting for those that run …")
    try:
        until(idle, what="running tasks to end", timeout=PATIENCE, interval=0.5)
    except BaseException as error:
        release(airflow, record)
        if isinstance(error, WaitTimeout):
            raise LabError(
                f"{error}; the lab keeps its secrets: end these tasks, and run `up --rotate` again"
            ) from error
        raise


def release(airflow: Airflow, record: Path) -> None:
    """Let tasks start again, where an `up` has kept them from it."""
    if record.exists():
        _resize(airflow, json.loads(record.read_text()))
        record.unlink()


def _pools(airflow: Airflow) -> dict[str, tuple[int, int]]:
    """Slots of each pool, and how many of them are taken by what runs or waits to be run."""
    listed = airflow.call(PoolApi(airflow.client).get_pools, limit=PAGE).pools
    return {pool.name: (pool.slots, pool.running_slots + pool.queued_slots) for pool in listed}


def _resize(airflow: Airflow, slots: Mapping[str, int]) -> None:
    for name, number in slots.items():
        body = PoolPatchBody(slots=number)
        airflow.call(PoolApi(airflow.client).patch_pool, pool_name=name, pool_patch_body=body, update_mask=["slots"])
