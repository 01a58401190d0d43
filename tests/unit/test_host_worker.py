"""What a worker outside of all platforms is told, and that the line for a shell tells it the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import psutil
import pytest

from labs.errors import LabError
from scenarios.host_worker import HostWorker, host_worker, settings

OUTPUTS = {
    "api_url": "http://127.0.0.1:30007",
    "executors": ["celery:CeleryExecutor", "edge:airflow.providers.edge3.executors.EdgeExecutor"],
    "sections": ["35.6"],
    "paths": {"dags": ""},
}


def test_the_secret_is_read_from_its_file() -> None:
    told = settings(OUTPUTS, Path("/home/x"), Path("/home/x/dags"), Path("/home/x y/secret"))
    assert told["AIRFLOW__EDGE__API_URL"] == "http://127.0.0.1:30007/edge_worker/v1/rpcapi"
    assert told["AIRFLOW__CORE__EXECUTOR"] == ",".join(OUTPUTS["executors"])
    assert shlex.split(told["AIRFLOW__API_AUTH__JWT_SECRET_CMD"]) == ["cat", "/home/x y/secret"]
    assert "AIRFLOW__API_AUTH__JWT_SECRET" not in told


def test_the_line_for_a_shell_is_what_was_started() -> None:
    told, command = {"AIRFLOW_HOME": "/a b", "X": "cat y"}, ["airflow", "edge", "worker"]
    line = HostWorker(Path("/a b"), psutil.Process(), command, told).by_hand()
    assert shlex.split(line) == ["AIRFLOW_HOME=/a b", "X=cat y", *command]


def test_nothing_is_left_of_a_worker_that_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "airflow"
    program.write_text('#!/bin/sh\necho "403 Forbidden"; cat "$AIRFLOW_HOME/secret"; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr("scenarios.host_worker.environment", lambda _name: tmp_path)
    monkeypatch.setattr("scenarios.host_worker.run_directory", lambda _lab: tmp_path / "run")
    said = r"the worker ended with 1 while it started; (.|\n)*403 Forbidden\nhidden"
    with pytest.raises(LabError, match=said), host_worker("edge", OUTPUTS, "hidden", "machine"):
        pytest.fail("it has started")
    assert not (tmp_path / "run" / "host-worker").exists()
