"""From one executor to two, and on to the second alone, while the DAGs of a running lab stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labs import processes
from labs.lab import Lab
from labs.paths import run_directory
from tests.lab.conftest import RunLab, running

pytestmark = pytest.mark.long

DAG = "35_01_02_portable_dag"

STEPS = {
    "LocalExecutor": "scheduler",
    "LocalExecutor,CeleryExecutor": "scheduler",
    "CeleryExecutor,LocalExecutor": "default-1",
    "CeleryExecutor": "default-1",
}
"""The executor list step by step, and where then runs what names no executor."""


def test_a_lab_moves_to_another_executor_and_no_dag_is_touched(lab: RunLab, name: str) -> None:
    found: dict[str, dict[str, Any]] = {}
    with running(lab, "local", name) as up:
        file = next(Path(str(up.outputs["paths"]["dags"])).glob(f"*/{DAG}.py"))
        text = file.read_bytes()
        for executors in STEPS:
            if found:
                shape = [f"executors={executors}", "workers.default.queues=default"]
                done = lab("up", "local", "--name", name, *(part for each in shape for part in ("--config", each)))
                assert done.returncode == 0, done.stderr
            assert lists(Lab.of(name)) == {executors}
            found[executors] = ran(Lab.of(name))
        assert file.read_bytes() == text
    assert {executors: seen["hosts"] for executors, seen in found.items()} == {
        executors: {host} for executors, host in STEPS.items()
    }
    assert {executors: seen["taken"] for executors, seen in found.items()} == {
        executors: found[executors]["tasks"] if host == "default-1" else set() for executors, host in STEPS.items()
    }
    for what in ("checksum", "versions", "tasks"):
        assert all(seen[what] == found["LocalExecutor"][what] for seen in found.values()), f"{what} differ: {found}"
    assert len(found["LocalExecutor"]["versions"]) == 1


def lists(up: Lab) -> set[str]:
    """The executor lists with which the components of Airflow were started."""
    roles = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
    names = [str(replica["name"]) for role in roles for replica in up.outputs["services"].get(role, ())]
    home = str(run_directory(up.name))
    return {processes.marked(home, name)[0].environ()["AIRFLOW__CORE__EXECUTOR"] for name in names}


def ran(up: Lab) -> dict[str, Any]:
    """A run of the DAG: what it computed, where, what a Celery worker wrote down of it, and of which versions."""
    from airflow_client.client import DagVersionApi

    from labs.airflow import Airflow  # its client takes a second to import
    from scenarios.celery import Celery
    from scenarios.faulting_process import ProcessServices

    airflow = Airflow(up.outputs["api_url"], up.outputs["admin_user"], up.outputs["admin_password"])
    airflow.wait_for_dag(DAG)
    run = airflow.wait(airflow.trigger(DAG))
    instances = airflow.task_instances(run)
    assert run.state == "success", airflow.explain(run)
    services = ProcessServices(run_directory(up.name), up.outputs["services"])
    taken = Celery(up.outputs, services).taken(run) if "worker" in up.outputs["services"] else []
    versions = airflow.call(DagVersionApi(airflow.client).get_dag_versions, dag_id=DAG).dag_versions
    return {
        "checksum": airflow.xcom(next(ti for ti in instances if ti.task_id == "load"))["checksum"],
        "hosts": {ti.hostname for ti in instances},
        "tasks": {ti.task_id for ti in instances},
        "taken": {each.task_id for each in taken},
        "versions": {version.version_number for version in versions},
    }
