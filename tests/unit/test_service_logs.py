"""What services say, from a place on: in a file, and with Docker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound

from components.platforms.kubernetes import inspection
from labs import daemon
from labs.cluster import Refused
from labs.service_logs import ContainerLog, FileLog, service_logs


def test_each_replica_has_the_log_of_its_platform(tmp_path: Path) -> None:
    outputs = {
        "services": {
            "scheduler": [{"name": "scheduler", "host": "local://", "log": str(tmp_path / "scheduler.log")}],
            "worker": [{"name": "io-1", "host": "docker://lab-io-1", "log": "lab-io-1"}],
        }
    }
    assert service_logs(outputs) == {
        "scheduler": FileLog(tmp_path / "scheduler.log"),
        "io-1": ContainerLog("lab-io-1"),
    }
    assert service_logs({}) == {}


def test_a_file_is_read_from_where_it_ended(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "log")
    log.path.write_text("before\n")
    since = log.now()
    with log.path.open("a") as file:
        file.write("after\n")
    assert (log.read(), log.read(since)) == ("before\nafter\n", "after\n")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("there", "since 12.5"),
        ("gone", "(there is no such container)"),
        ("going", "(there is no such container)"),
    ],
)
def test_a_container_is_asked_for_what_came_after(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    class Container:
        def logs(self, since: float | None) -> bytes:
            return f"since {since}".encode()

    class Client:
        class containers:
            @staticmethod
            def get(container: str) -> Container:
                if container == "gone":
                    raise NotFound("gone")
                if container == "going":
                    raise APIError("dead or marked for removal", response=conflict)
                return Container()

    conflict = requests.Response()
    conflict.status_code = 409

    @contextmanager
    def answers() -> Iterator[Any]:
        yield Client

    monkeypatch.setattr(daemon, "daemon", answers)
    assert ContainerLog(name).read(12.5) == said


@pytest.mark.parametrize(
    ("status", "said"), [(400, "(its container has not started)"), (404, "(its pod went just now)"), (403, None)]
)
def test_a_pod_may_go_before_its_log_is_read(monkeypatch: pytest.MonkeyPatch, status: int, said: str | None) -> None:
    class Api:
        def text(self, *_: object, **__: object) -> str:
            raise Refused(status, "in its words")

    pod = {"metadata": {"name": "old", "namespace": "lab"}, "spec": {"containers": [{"name": "scheduler"}]}}
    monkeypatch.setattr(inspection, "_cluster", lambda _outputs: (Api(), ["lab"]))
    monkeypatch.setattr(inspection, "_pods", lambda _api, _namespaces: {"scheduler": pod})
    if said is None:
        with pytest.raises(Refused, match="in its words"):
            inspection.read_log({}, "scheduler", 0)
    else:
        assert inspection.read_log({}, "scheduler", 0) == said
