"""Ctrl-C while a fault is under way: the lab is healed before the command ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from components.clusters.kind import cluster_name, node_containers
from labs.daemon import daemon
from labs.errors import ExitCode
from labs.lab import Lab
from labs.paths import PROJECT_ROOT, run_directory
from labs.waiting import until
from scenarios.faulting_docker import DockerServices
from scenarios.faulting_kubernetes import KubernetesServices
from scenarios.faulting_process import ProcessServices
from scenarios.pods import Namespace
from tests.lab.conftest import NOTHING, RunLab, remains

SERVICES = ("metadata-database", "api-server", "scheduler", "dag-processor", "triggerer")

PLATFORMS = {"process": ProcessServices, "docker": DockerServices}


def interrupt(name: str, scenario: str, landed: Callable[[], tuple[bool | None, str]]) -> None:
    """Verify a scenario, and press Ctrl-C as soon as its fault has landed; the command ends when it has healed."""

    def seen() -> tuple[bool | None, str]:
        assert verification.poll() is None, "the verification ended before its fault was seen"
        return landed()

    command = [str(PROJECT_ROOT / "lab"), "verify", name, "-k", scenario]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    ) as verification:
        until(seen, what="the fault to land", timeout=240, interval=0.02)
        os.killpg(verification.pid, signal.SIGINT)  # what a terminal sends
        assert verification.wait(timeout=180) == ExitCode.INTERRUPTED


@pytest.mark.long
@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_interrupted_verification_heals_what_it_broke(
    platform: str, name: str, lab: RunLab, request: pytest.FixtureRequest
) -> None:
    if platform == "docker":
        request.getfixturevalue("docker")
    done = lab("up", "local", "--name", name, "--platform", platform)
    assert done.returncode == 0, done.stderr
    services = PLATFORMS[platform](run_directory(name), Lab.of(name).outputs["services"])

    def stopped() -> tuple[bool | None, str]:
        state = services.states()["api-server"]
        return (None if state == "RUNNING" else True), state  # it is started again soon after its end

    interrupt(name, "api_server_restarted", stopped)
    assert services.states() == dict.fromkeys(SERVICES, "RUNNING")
    assert not (Path(run_directory(name)) / "dags" / "probes").exists()
    assert lab("verify", name, "-k", "task_process_killed").returncode == 0
    assert lab("down", name).returncode == 0
    assert remains(name) == NOTHING


@pytest.mark.long
@pytest.mark.usefixtures("node_image_is_there")
def test_an_interrupted_verification_heals_the_cluster(name: str, lab: RunLab) -> None:
    done = lab("up", "kubernetes", "--name", name)
    assert done.returncode == 0, done.stderr
    outputs = Lab.of(name).outputs
    namespace, server = Namespace(outputs), api_server(cluster_name(name, False))
    services = KubernetesServices(namespace, outputs["services"])

    def stopped() -> tuple[bool | None, str]:
        state = server.status()
        return (True if state == psutil.STATUS_STOPPED else None), state

    interrupt(name, "kubernetes_api_silent", stopped)
    assert server.is_running() and not stopped()[0]
    assert set(services.states().values()) == {"RUNNING"}
    assert namespace.pods(kubernetes_executor="True") == []  # those of the run that was under way
    assert lab("verify", name, "-k", "kubernetes_api_silent").returncode == 0
    assert lab("down", name).returncode == 0
    assert remains(name) == NOTHING


def api_server(cluster: str) -> psutil.Process:
    """The API server of a kind cluster, which is a process of this machine."""
    with daemon() as client:
        node, *_ = node_containers(client, cluster)
        table = node.top()
    pids = {int(row[table["Titles"].index("PID")]) for row in table["Processes"]}
    (found,) = [each for each in psutil.process_iter() if each.pid in pids and each.name() == "kube-apiserver"]
    return found
