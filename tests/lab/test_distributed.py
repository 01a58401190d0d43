"""The labs whose tasks run elsewhere, each as a whole: bad secrets, the log of a running task, mutations, the end."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from labs import processes
from labs.lab import Lab
from labs.paths import run_directory
from labs.waiting import until
from tests.lab.conftest import RunLab, running, turns_red
from tests.lab.mutations import MUTATIONS, Mutation

pytestmark = pytest.mark.long

ARGUMENTS = {"celery": ["--with", "flower"], "edge": [], "multi": [], "ha": []}

TASK = 30
"""Seconds that the tasks take during which a lab goes down; nobody waits for them."""

on_celery = pytest.mark.parametrize("up", ["celery"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def up(request: pytest.FixtureRequest, lab: RunLab) -> Iterator[Lab]:
    """The lab of that name, up; taken down at the end, while tasks run, with proof that nothing is left."""
    target = request.param
    with running(lab, target, f"t-{target}", *ARGUMENTS[target]) as up:
        yield up
        start_tasks(up)
        begun = time.monotonic()
    assert time.monotonic() - begun < TASK - 5  # they began a moment before


def start_tasks(up: Lab) -> tuple[Any, Any]:
    """A task instance that is running now, and goes on for a while; and the lab's Airflow."""
    from labs.airflow import Airflow  # its client takes a second to import

    airflow = Airflow(up.outputs["api_url"], up.outputs["admin_user"], up.outputs["admin_password"])
    run = airflow.trigger("35_01_04_executor_parallelism", {"tasks": 4, "seconds": TASK})

    def started() -> tuple[Any, str]:
        instances = airflow.task_instances(run)
        found = [ti for ti in instances if ti.state == "running" and "Filling up" in airflow.log(ti)]
        return (found[0] if found else None), str({ti.label: ti.state for ti in instances})

    return until(started, what="a task to run and to log", timeout=60), airflow


def outsider(up: Lab, service: str, command: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    """A command with the environment of a service, but for what is changed, run to its end outside the lab."""
    environment = processes.marked(str(run_directory(up.name)), service)[0].environ()
    del environment[processes.LAB_MARK]
    with tempfile.TemporaryDirectory() as home:
        environment |= {"AIRFLOW_HOME": home, processes.SERVICE_MARK: "stranger", **changes}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=home)


def pids(up: Lab, lab: RunLab) -> dict[str, tuple[str, int]]:
    status = json.loads(lab("status", up.name, "--json").stdout)
    return {service["name"]: (service["state"], service["pid"]) for service in status["services"]}


@on_celery
def test_flower_asks_for_the_login_of_the_lab(up: Lab, lab: RunLab) -> None:
    address = up.outputs["services"]["flower"][0]["endpoints"]["http"]
    assert f"http://{address}" in lab("open", up.name).stdout

    def get(path: str, password: str = "") -> tuple[int, str]:
        request = urllib.request.Request(f"http://{address}{path}")
        if password:
            request.add_header("Authorization", f"Basic {b64encode(f'admin:{password}'.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    assert [get("/workers")[0], get("/workers", "guessed")[0], get("/api/workers")[0]] == [401, 401, 401]
    code, workers = get("/api/workers?refresh=1", up.outputs["admin_password"])
    assert code == 200
    assert {name.partition("@")[0] for name in json.loads(workers)} == {"default-1", "heavy-1", "io-1", "compute-1"}


@on_celery
def test_redis_refuses_a_wrong_password_and_the_lab_goes_on(up: Lab, lab: RunLab) -> None:
    before = pids(up, lab)
    worker = processes.marked(str(run_directory(up.name)), "default-1")[0]
    url = re.sub("//:[^@]+@", "//:guessed@", worker.environ()["AIRFLOW__CELERY__BROKER_URL"])
    command = ["airflow", "celery", "worker", "--skip-serve-logs", "--celery-hostname", "stranger@%h"]
    done = outsider(up, "default-1", command, AIRFLOW__CELERY__BROKER_URL=url)
    assert done.returncode == 1
    assert "invalid username-password pair or user is disabled" in done.stderr
    assert pids(up, lab) == before
    assert lab("verify", up.name, "-k", "35_03_01").returncode == 0


@on_celery
def test_a_worker_grows_and_shrinks_with_its_load(up: Lab, lab: RunLab) -> None:
    from labs.airflow import Airflow
    from scenarios.celery import Celery
    from scenarios.faulting_process import ProcessServices
    from scenarios.judge import max_concurrent

    celery = Celery(up.outputs, ProcessServices(run_directory(up.name), up.outputs["services"]))

    def configured(*arguments: str) -> None:
        done = lab("up", "celery", "--name", up.name, *ARGUMENTS["celery"], *arguments)
        assert done.returncode == 0, done.stderr

    def pool(wanted: int, timeout: float) -> None:
        def probe() -> tuple[bool | None, str]:
            found = celery.pool("io-1")
            return (True if found == wanted else None), f"it has {found}"

        until(probe, what=f"io-1 to have {wanted} processes", timeout=timeout)

    before = pids(up, lab)
    configured("--config", "workers.io.autoscale=[4,1]")
    try:
        after = pids(up, lab)
        assert [name for name in before if before[name] != after[name]] == ["io-1"]
        pool(1, timeout=10)
        airflow = Airflow(up.outputs["api_url"], up.outputs["admin_user"], up.outputs["admin_password"])
        run = airflow.trigger("35_03_02_multiple_queues", {"sources": 6, "wait": 8, "cpu_seconds": 0.1})
        pool(4, timeout=60)
        assert airflow.wait(run).state == "success"
        waited = [ti for ti in airflow.task_instances(run) if ti.queue == "io_bound"]
        assert {ti.hostname for ti in waited} == {"io-1"}
        assert max_concurrent(waited) == 4
        pool(1, timeout=90)  # Celery looks every 30 s, and leaves a pool alone for 30 s after it has grown
    finally:
        configured()


@pytest.mark.parametrize("up", ARGUMENTS, indirect=True, scope="module")
def test_the_log_of_a_running_task_has_no_complaint(up: Lab) -> None:
    ti, airflow = start_tasks(up)
    text = airflow.log(ti)
    assert "Could not read" not in text
    assert "attempt=1.log" in text.splitlines()[0], "the log does not say where it was read"


@pytest.mark.parametrize(
    ("up", "mutation"),
    [pytest.param(name, each, id=f"{name}-{each.name}") for name in ARGUMENTS for each in MUTATIONS[name]],
    indirect=["up"],
    scope="module",
)
def test_a_verifier_fails_when_its_point_is_broken(up: Lab, lab: RunLab, mutation: Mutation) -> None:
    turns_red(lab, up, mutation)
