"""How the services of a lab in containers are broken, with a daemon that a test plays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from scenarios import faulting_docker
from scenarios.faulting_docker import DockerServices


class Container:
    """Ends only in its second request, as if the first had been interrupted while Docker was at it."""

    name = "lab-worker-1"

    def __init__(self) -> None:
        self.status = "running"
        self.asked: list[str] = []

    def stop(self, timeout: int) -> None:
        self._asked(f"stop within {timeout} s")

    def kill(self) -> None:
        self._asked("kill")

    def start(self) -> None:
        if self.status != "running":  # as Docker's own: else it has nothing to do
            self.status = "started again"

    def _asked(self, what: str) -> None:
        self.asked.append(what)
        if len(self.asked) == 1:
            raise KeyboardInterrupt
        self.status = "exited"


@pytest.fixture
def container() -> Container:
    return Container()


@pytest.fixture
def services(container: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> DockerServices:
    containers = SimpleNamespace(get=lambda _name: container, list=lambda **_given: [container])

    @contextmanager
    def daemon() -> Iterator[Any]:
        yield SimpleNamespace(containers=containers)

    monkeypatch.setattr(faulting_docker, "daemon", daemon)
    replica = {"name": "worker-1", "host": f"docker://{container.name}", "endpoints": {}}
    return DockerServices(tmp_path, {"worker": [replica]})


@pytest.mark.parametrize(
    ("way", "asked"),
    [("stop", ["stop within 30 s", "stop within 30 s"]), ("lose", ["kill", "stop within 0 s"])],
)
def test_an_interrupted_stop_is_seen_through_so_that_the_service_can_be_started(
    services: DockerServices, container: Container, way: str, asked: list[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        getattr(services, way)("worker-1")
    assert container.asked == asked
    assert services.states() == {"worker-1": "EXITED"}  # a fault starts what does not run
    services.start("worker-1")
    assert container.status == "started again"
