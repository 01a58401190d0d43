"""Changes to a lab's Airflow that a scenario makes through the API, as context managers that take them back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow_client.client import (
    DAGApi,
    DAGParsingApi,
    DagSourceApi,
    PoolApi,
    PoolPatchBody,
    TaskApi,
    VariableApi,
    VariableBody,
)

from labs.airflow import Airflow, AirflowError
from labs.waiting import until


@contextmanager
def pool_slots(airflow: Airflow, pool: str, slots: int) -> Iterator[None]:
    """A pool with so many slots."""
    api = PoolApi(airflow.client)

    def resize(slots: int) -> None:
        airflow.call(api.patch_pool, pool_name=pool, pool_patch_body=PoolPatchBody(slots=slots), update_mask=["slots"])

    before = airflow.call(api.get_pool, pool_name=pool).slots
    resize(slots)
    try:
        yield
    finally:
        resize(before)


@contextmanager
def variable(airflow: Airflow, key: str, value: Any) -> Iterator[None]:
    """A Variable that holds `value` as JSON, whatever it held before."""
    api = VariableApi(airflow.client)

    def put(text: str, *, new: bool) -> None:
        body = VariableBody(key=key, value=text)
        if new:
            airflow.call(api.post_variable, variable_body=body, patience=0)
        else:
            airflow.call(api.patch_variable, variable_key=key, variable_body=body)

    try:
        before = airflow.call(api.get_variable, variable_key=key).value
    except AirflowError as error:
        if error.status != 404:
            raise
        before = None
    put(json.dumps(value), new=before is None)
    try:
        yield
    finally:
        if before is None:
            airflow.call(api.delete_variable, variable_key=key)
        else:
            put(before, new=False)


def parsed(airflow: Airflow, dag_id: str, text: str) -> None:
    """Have a DAG's file parsed, and wait until Airflow has it as `text`."""
    request_parsing(airflow, dag_id)
    wait_for_text(airflow, dag_id, text, 90)


def wait_for_text(airflow: Airflow, dag_id: str, text: str, timeout: float) -> None:
    """Wait until Airflow has a DAG's file as `text`."""

    def probe() -> tuple[bool | None, str]:
        api = DagSourceApi(airflow.client)
        found = airflow.call(api.get_dag_source, dag_id=dag_id, accept="application/json").content
        return (True if found == text else None), "another text"

    until(probe, what=f"{dag_id} to be parsed as it is now", timeout=timeout, interval=0.5)


def wait_for_queue(airflow: Airflow, dag_id: str, task_id: str, queue: str) -> None:
    """Have a DAG's file parsed, and wait until a task of it is to go to that queue."""
    request_parsing(airflow, dag_id)

    def probe() -> tuple[bool | None, str]:
        found = airflow.call(TaskApi(airflow.client).get_task, dag_id=dag_id, task_id=task_id).queue
        return (True if found == queue else None), f"it goes to {found}"

    until(probe, what=f"{task_id} of {dag_id} to go to the queue {queue}", timeout=90, interval=0.5)


def request_parsing(airflow: Airflow, dag_id: str) -> None:
    """Ask for a DAG's file to be parsed next, instead of within `[dag_processor] min_file_process_interval`."""
    token = airflow.call(DAGApi(airflow.client).get_dag, dag_id=dag_id).file_token
    try:
        airflow.call(DAGParsingApi(airflow.client).reparse_dag_file, file_token=token)
    except AirflowError as error:
        if error.status != 409:  # asked for already
            raise
