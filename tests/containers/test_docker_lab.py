"""A whole lab in containers, as a user drives it: up, a DAG run, unchanged, down to nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from components.platforms.docker.inspection import remaining
from labs.airflow import Airflow
from labs.daemon import OWNER, daemon
from labs.paths import PROJECT_ROOT, lab_directory, run_directory

DAG = "35_01_02_portable_dag"


def lab(*arguments: str) -> str:
    """Run the command line to its end; its standard output."""
    done = subprocess.run([PROJECT_ROOT / "lab", *arguments], capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps(name: str, of: str) -> list[Any]:
    return list(
        json.loads(lab("preview", of, "--platform", "docker", "--engine", "embedded", "--name", name, "--json"))
    )


@pytest.mark.parametrize("kind", ["local", pytest.param("celery", marks=pytest.mark.long)])
def test_a_lab_in_containers_runs_a_dag_and_goes_without_a_trace(kind: str) -> None:
    name = f"t-docker-{kind}"
    home = str(run_directory(name))
    lab("images", "build")
    try:
        outputs = json.loads(lab("up", kind, "--platform", "docker", "--engine", "embedded", "--name", name, "--json"))
        airflow = Airflow(outputs["api_url"], outputs["admin_user"], outputs["admin_password"])
        airflow.wait_for_dag(DAG, file=f"{DAG}.py")
        run = airflow.wait(airflow.trigger(DAG, None), 180)
        assert run.state == "success", airflow.explain(run)

        _only_the_api_is_published(home, outputs)
        changes = [step for step in steps(name, kind) if step["operation"] not in ("same",)]
        assert changes == []
        states = json.loads(lab("status", name, "--json"))["services"]
        assert {state["state"] for state in states} == {"RUNNING"}
        assert "scheduler" in lab("logs", name, "scheduler", "-n", "5")
    finally:
        begun = time.monotonic()
        lab("down", name)
        assert time.monotonic() - begun < 60
    assert remaining(home) == []
    assert not lab_directory(name).exists()


def _only_the_api_is_published(home: str, outputs: dict[str, Any]) -> None:
    port = urlsplit(outputs["api_url"]).port
    with daemon() as client:
        containers = client.containers.list(filters={"label": f"{OWNER}={home}"})
        bound = {
            (each["HostIp"], int(each["HostPort"]))
            for container in containers
            for bindings in container.attrs["NetworkSettings"]["Ports"].values()
            for each in bindings or ()
        }
    assert bound == {("127.0.0.1", port)}
    listening = {c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening if address.port == port} == {"127.0.0.1"}
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
