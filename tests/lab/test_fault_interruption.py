"""Ctrl-C while a fault is under way: the lab is healed before the command ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from components.platforms.process.supervisor import Supervisor
from labs.errors import ExitCode
from labs.paths import PROJECT_ROOT, run_directory
from labs.waiting import until
from tests.lab.conftest import RunLab

SERVICES = ("metadata-database", "api-server", "scheduler", "dag-processor", "triggerer")


@pytest.mark.long
def test_an_interrupted_verification_heals_what_it_broke(name: str, lab: RunLab) -> None:
    assert lab("up", "local", "--name", name).returncode == 0
    supervisor = Supervisor(run_directory(name))

    def state(service: str) -> str:
        return str(supervisor.info(service)["statename"])

    def stopped() -> tuple[bool | None, str]:
        assert verification.poll() is None, "the verification ended before it was seen to stop the API server"
        seen = state("api-server")
        return (True if seen in ("STOPPING", "STOPPED") else None), seen  # it is started again soon after its end

    command = [str(PROJECT_ROOT / "lab"), "verify", name, "-k", "api_server_restarted"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    ) as verification:
        until(stopped, what="the fault to land", timeout=120, interval=0.02)
        os.killpg(verification.pid, signal.SIGINT)  # what a terminal sends
        assert verification.wait(timeout=180) == ExitCode.INTERRUPTED

    assert {service: state(service) for service in SERVICES} == dict.fromkeys(SERVICES, "RUNNING")
    assert not (Path(run_directory(name)) / "dags" / "probes").exists()
    assert lab("verify", name, "-k", "task_process_killed").returncode == 0
