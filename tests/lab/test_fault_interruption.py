"""Ctrl-C while a fault is under way: the lab is healed before the command ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from labs.errors import ExitCode
from labs.lab import Lab
from labs.paths import PROJECT_ROOT, run_directory
from labs.waiting import until
from scenarios.faulting_docker import DockerServices
from scenarios.faulting_process import ProcessServices
from tests.lab.conftest import NOTHING, RunLab, remains

SERVICES = ("metadata-database", "api-server", "scheduler", "dag-processor", "triggerer")

PLATFORMS = {"process": ProcessServices, "docker": DockerServices}


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
        assert verification.poll() is None, "the verification ended before it was seen to stop the API server"
        seen = services.states()["api-server"]
        return (None if seen == "RUNNING" else True), seen  # it is started again soon after its end

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

    assert services.states() == dict.fromkeys(SERVICES, "RUNNING")
    assert not (Path(run_directory(name)) / "dags" / "probes").exists()
    assert lab("verify", name, "-k", "task_process_killed").returncode == 0
    assert lab("down", name).returncode == 0
    assert remains(name) == NOTHING
