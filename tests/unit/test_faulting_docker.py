"""How the services of a lab in containers are broken, with a daemon that a test plays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from labs.errors import LabError
from scenarios import faulting_docker
from scenarios.faulting_docker import DockerServices


class Container:
    """Ends only in its second request, as if the first had been interrupted while Docker was at it."""

    name = "lab-worker-1"
    short_id = "0123456789ab"

    def __init__(self) -> None:
        self.status = "running"
        self.asked: list[str] = []
        self.on: dict[str, Any] = {"lab": {"Aliases": [self.short_id, "worker-1", "worker"]}}

    @property
    def attrs(self) -> dict[str, Any]:
        url = "http://load-balancer:8080/execution/"
        return {
            "Config": {"Env": ["A=b=c", f"AIRFLOW__CORE__EXECUTION_API_SERVER_URL={url}"]},
            "NetworkSettings": {"Networks": self.on},
        }

    def reload(self) -> None:
        """It is always as it is now."""

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
        networks = SimpleNamespace(get=lambda _name: Network())
        yield SimpleNamespace(containers=containers, networks=networks)

    monkeypatch.setattr(faulting_docker, "daemon", daemon)
    replica = {"name": "worker-1", "host": f"docker://{container.name}", "endpoints": {}}
    return DockerServices(tmp_path, {"worker": [replica]})


class Network:
    """A network that a container is on or off."""

    def disconnect(self, container: Container) -> None:
        container.on = {}

    def connect(self, container: Container, aliases: list[str]) -> None:
        container.on = {"lab": {"Aliases": aliases}}


@pytest.mark.parametrize(
    ("reached", "others", "whole"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_a_container_is_cut_off_from_the_address_that_it_was_told_and_gets_its_names_back(
    services: DockerServices,
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    reached: bool,
    others: bool,
    whole: bool,
) -> None:
    asked: list[Any] = []

    def run(service: str, command: list[str]) -> Any:
        asked.append((service, *command[3:]))
        return SimpleNamespace(returncode=0 if reached else 1, stderr="gaierror: unknown\n")

    def refused(service: str) -> list[str]:
        return [] if others else [service]

    monkeypatch.setattr(services, "run", run)
    monkeypatch.setattr(services, "refused", refused)
    assert services.cannot_cut_off() == ""
    proofs = []
    with suppress(LabError), services.cut_off("worker-1") as proof:
        assert container.on == {}
        proofs.append(proof())
    assert asked == [("worker-1", "load-balancer", "8080")]
    assert container.on == {"lab": {"Aliases": ["worker-1", "worker"]}}
    assert proofs == (
        ["worker-1 is on no network, others reach load-balancer:8080; it gets gaierror: unknown"] if whole else []
    )


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
