"""A whole lab in containers, as a user drives it: up, a DAG run, unchanged, down to nothing."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from labs.airflow import Airflow
from labs.daemon import OWNER, daemon
from labs.lab import Lab
from labs.paths import PROJECT_ROOT, run_directory
from tests.lab.conftest import NOTHING, remains, turns_red
from tests.lab.mutations import MUTATIONS

DAG = "35_01_02_portable_dag"


def run_lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [str(PROJECT_ROOT / "lab"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)


def lab(*arguments: str) -> str:
    """Run the command line to its end, which is a good one; its standard output."""
    done = run_lab(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps(name: str, of: str) -> list[Any]:
    return list(
        json.loads(lab("preview", of, "--platform", "docker", "--engine", "embedded", "--name", name, "--json"))
    )


@pytest.mark.parametrize(
    "kind", ["local", *(pytest.param(each, marks=pytest.mark.long) for each in ("celery", "edge", "multi", "ha"))]
)
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

        lab("verify", name, "-k", "published_ports")
        for mutation in (*MUTATIONS["docker"], *MUTATIONS.get(f"{kind}-docker", ())):
            turns_red(run_lab, Lab.of(name), mutation)
        _docker_shows_no_secret(home)
        changes = [step for step in steps(name, kind) if step["operation"] not in ("same",)]
        assert changes == []
        states = json.loads(lab("status", name, "--json"))["services"]
        assert {state["state"] for state in states} == {"RUNNING"}
        assert "scheduler" in lab("logs", name, outputs["services"]["scheduler"][0]["name"], "-n", "5")
    finally:
        begun = time.monotonic()
        lab("down", name)
        assert time.monotonic() - begun <= 10
    assert remains(name) == NOTHING


def _docker_shows_no_secret(home: str) -> None:
    lines = [line for file in Path(home).glob("secrets-*") for line in file.read_text().splitlines()]
    settings = [shlex.split(line)[1].partition("=") for line in lines]
    secrets = {value for _, _, value in settings}
    secrets |= {url.password for each in secrets if (url := urlsplit(each)).password}
    assert len(secrets) >= 5 and all(len(secret) > 7 for secret in secrets)
    with daemon() as client:
        containers = client.containers.list(all=True, filters={"label": f"{OWNER}={home}"})
        shown = [str(container.attrs) for container in containers]
        shown += [str(container.image.attrs) + str(container.image.history()) for container in containers]
    assert len(shown) > 10
    assert [secret for secret in secrets if any(secret in text for text in shown)] == []
