"""What the docker platform asks of Docker for a whole lab, with a provider that makes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

from components.platforms.docker import resources
from components.platforms.docker.platform import MOVES, exports, probe_command, still_alive
from components.platforms.docker.resources import _HostFileProvider, _HostFolderProvider, _ReadyProvider
from components.secrets import NAMES
from labs.engines.base import PROJECT
from labs.engines.docker import ContainerProvider
from labs.engines.values import Values
from labs.errors import LabError, UsageError
from labs.lab import Lab
from labs.paths import lab_directory
from labs.verify import check_verifiable
from labs.waiting import WaitTimeout
from tests.unit.pretending import Pretender, outputs_of


class Containers(Pretender):
    """A daemon that is pretended."""

    def given(self, name: str, news: Values) -> dict[str, Values]:
        return {
            "LabSecrets": {each: f"hidden-{each}" for each in NAMES},
            "LoopbackPort": {"port": "28099"},
            "Volume": {"mountpoint": f"/volumes/{name}"},
        }

    def containers(self) -> dict[str, Values]:
        return {name: inputs for (kind, name), inputs in self.made.items() if kind == "Container"}


@dataclass
class Declared:
    """A lab as its program declares it."""

    pretender: Containers
    outputs: dict[str, Any]

    def first(self, role: str) -> str:
        """The name of the only service of a role, or of the first of several."""
        return str(self.outputs["services"][role][0]["name"])


@pytest.fixture(scope="module", params=["local", "celery", "edge", "multi", "ha"])
def declared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Declared:
    pretender = Containers()
    outputs = outputs_of(request.param, "docker", pretender, tmp_path_factory.mktemp("engine"))
    return Declared(pretender, outputs)


def test_every_service_has_a_container_that_cannot_harm(declared: Declared) -> None:
    containers = declared.pretender.containers()
    services = {replica["name"] for group in declared.outputs["services"].values() for replica in group}
    assert {*services, "migration"} <= set(containers)
    for name, inputs in containers.items():
        ContainerProvider().check(f"urn:pulumi:t::{PROJECT}::docker:index/container:Container::{name}", {}, inputs)
        assert inputs["readOnly"] is True
        assert inputs["securityOpts"] == ["no-new-privileges:true"]
        assert inputs["capabilities"]["drops"] == ["ALL"]
        assert inputs["logOpts"] == {"max-size": "10m", "max-file": "2"}
        owner = name.endswith("-owner")  # gives a volume to the user of the others, and has no network
        assert inputs["user"] == ("0:0" if owner else "50000:0")
        assert inputs["capabilities"].get("adds", []) == (["CHOWN"] if owner else [])
        assert inputs["networkMode"] == "none" if owner else inputs["networksAdvanced"][0]["aliases"][0] == name
        assert inputs["memorySwap"] == inputs["memory"] > 0 and 0 < float(inputs["cpus"]) <= 2
        assert inputs["restart"] == ("unless-stopped" if name in services else "no")
        probe = inputs.get("healthcheck", {})
        assert bool(probe) == (name in services), f"{name} has the probe {probe}"
        assert not probe or (probe["tests"][0] == "CMD" and len(probe["tests"]) > 1 and probe["interval"] == "30s")


def test_replicas_are_behind_the_alias_of_their_role_and_each_behind_its_own_name(declared: Declared) -> None:
    behind: dict[tuple[str, str], set[str]] = {}
    for name, inputs in declared.pretender.containers().items():
        for network in inputs.get("networksAdvanced", ()):
            for alias in network["aliases"]:
                behind.setdefault((network["name"], alias), set()).add(name)
    main = declared.pretender.made["Network", "network"]["name"]
    for role, group in declared.outputs["services"].items():
        names = {replica["name"] for replica in group}
        assert role == "edge-worker" or behind[main, role] == names  # sites are not replicas: each has its network
        for name in names:
            assert {name} in [found for (_, alias), found in behind.items() if alias == name]
    if declared.outputs["lab"] == "ha":
        assert behind[main, "api-server"] == {"api-server-1", "api-server-2"}
        assert behind[main, "worker"] == {"zone-a-1", "zone-b-1"}


def test_no_secret_is_where_inspect_shows_it(declared: Declared) -> None:
    shown = json.dumps(declared.pretender.containers())
    for name in NAMES:
        assert f"hidden-{name}" not in shown
    text = declared.pretender.made["HostFile", f"{declared.first('scheduler')}-secrets"]["text"]
    assert "hidden-database_password" in text and "hidden-jwt_secret" in text


def test_only_the_api_is_published_and_on_loopback(declared: Declared) -> None:
    ports = {name: inputs["ports"] for name, inputs in declared.pretender.containers().items() if inputs.get("ports")}
    entrance = "load-balancer" if "load-balancer" in declared.outputs["services"] else "api-server"
    assert ports == {entrance: [{"internal": 8080.0, "external": 28099.0, "ip": "127.0.0.1"}]}
    assert declared.outputs["api_url"] == "http://127.0.0.1:28099"
    environment = declared.pretender.containers()[declared.first("scheduler")]["envs"]
    assert f"AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://{entrance}:8080/execution/" in environment
    assert "AIRFLOW__API__BASE_URL=http://127.0.0.1:28099" in environment


def test_services_see_their_folders_and_no_others(declared: Declared) -> None:
    containers = declared.pretender.containers()
    seen = {
        name: {m["target"]: m.get("readOnly", False) for m in inputs["mounts"]} for name, inputs in containers.items()
    }
    scheduler = seen[declared.first("scheduler")]
    assert scheduler["/lab/airflow"] is False
    assert scheduler["/lab/airflow/airflow.cfg"] is True
    assert scheduler["/lab/dags/section_35_01_concepts"] is True
    assert scheduler["/lab/dags"] is True
    exchange = declared.outputs["paths"]["exchange"]
    assert scheduler[exchange] is False  # under the same path as on this machine
    assert declared.outputs["paths"]["logs"] == "/volumes/airflow/logs"
    assert set(seen["metadata-database"]) == {"/lab/metadata-database-data", "/run/lab/secrets"}
    assert "/lab/migration-script/migrate.py" in seen["migration"]


def test_a_site_is_on_a_network_with_the_api_server_alone(declared: Declared) -> None:
    networks = {name: inputs for (kind, name), inputs in declared.pretender.made.items() if kind == "Network"}
    sites = [
        name for name in declared.pretender.containers() if name.startswith("site-") and not name.endswith("-owner")
    ]
    assert set(networks) == {"network", *(f"{site}-network" for site in sites)}
    on: dict[str, set[str]] = {}
    for name, inputs in declared.pretender.containers().items():
        for network in inputs.get("networksAdvanced", ()):
            on.setdefault(network["name"], set()).add(name)
    joined = [inputs for (kind, _), inputs in declared.pretender.made.items() if kind == "Joined"]
    assert {(each["network"], each["alias"]) for each in joined} == {
        (networks[f"{site}-network"]["name"], "api-server") for site in sites
    }
    for site in sites:
        assert on[networks[f"{site}-network"]["name"]] == {site}
        assert site not in on[networks["network"]["name"]]
        entry = declared.pretender.containers()[site]["entrypoints"][2]
        assert entry.startswith(f"rm -f /lab/{site}-home/registered.pid; ")  # which an earlier run has left


def test_everything_carries_the_labels_of_the_lab(declared: Declared) -> None:
    for (kind, name), inputs in declared.pretender.made.items():
        if kind in ("Container", "Network", "Volume"):
            labels = {each["label"]: each["value"] for each in inputs["labels"]}
            assert labels["tier"] == "airflow" and labels["release"].endswith("-declared"), (kind, name)
            assert labels["airflow-executor-labs.lab-directory"].endswith("/run")
            assert inputs["name"].startswith(f"airflow-lab-{labels['release']}")


def test_each_probe_has_a_command_but_that_of_a_log() -> None:
    blank: dict[str, Any] = {"http": "", "healthy": [], "tcp": "", "log": "", "file": ""}
    assert probe_command(blank) == []
    assert probe_command({**blank, "log": "ready"}) == []
    assert probe_command({**blank, "file": "/lab/registered"}) == ["test", "-e", "/lab/registered"]
    assert probe_command({**blank, "tcp": "broker:6379"})[-1] == "exec 3<>/dev/tcp/broker/6379"
    assert probe_command({**blank, "http": "http://x/health", "healthy": ["a.b"]})[-2:] == ["http://x/health", "a.b"]


def test_a_service_that_listens_is_alive_while_it_answers_and_another_one_while_it_moves() -> None:
    blank: dict[str, Any] = {"http": "", "healthy": [], "tcp": "", "log": "", "file": ""}
    for listens in ({**blank, "tcp": "broker:6379"}, {**blank, "http": "http://x/health"}):
        assert still_alive(listens) == probe_command(listens)
    for other in (blank, {**blank, "log": "ready"}, {**blank, "file": "/lab/registered"}):
        assert still_alive(other) == ["sh", "-c", MOVES]


def test_settings_reach_a_shell_as_they_are() -> None:
    assert exports({"B": "$x 'y'", "A": "1"}) == "export A=1\nexport B='$x '\"'\"'y'\"'\"''\n"


def test_a_file_is_changed_where_a_container_sees_it(tmp_path: Path) -> None:
    home = tmp_path / "lab"
    _HostFolderProvider().create({"path": str(home), "mode": 0o700, "folders": []})
    assert home.stat().st_mode & 0o777 == 0o700
    props = {"path": str(home / "passwords.json"), "text": "one", "writable": True}
    provider = _HostFileProvider()
    provider.create(props)
    inode, mode = (home / "passwords.json").stat().st_ino, (home / "passwords.json").stat().st_mode & 0o777
    assert mode == 0o666
    assert provider.diff("", props, {**props, "text": "two"}).changes
    provider.update("", props, {**props, "text": "two", "writable": False})
    assert (home / "passwords.json").stat().st_ino == inode
    assert (home / "passwords.json").stat().st_mode & 0o777 == 0o644
    provider.delete("", props)
    assert not (home / "passwords.json").exists()


ENDED = 1767225600.0
"""The moment at which `Container` says that its run before ended, a tenth of a second before this one."""


class Container:
    """A container whose state and log a test chooses."""

    name = "lab-scheduler"

    def __init__(self, *, status: str = "running", code: int = 0, restarts: int = 0, log: str = "", probe: int = 0):
        self.attrs = {
            "State": {
                "Status": status,
                "ExitCode": code,
                "StartedAt": "2026-01-01T00:00:00.1Z",
                "FinishedAt": "2026-01-01T00:00:00Z",
            },
            "RestartCount": restarts,
        }
        self.log, self.probe, self.stopped = log, probe, False

    def reload(self) -> None:
        """Docker starts one with a log of "loop" over and over."""
        self.attrs["RestartCount"] += self.log == "loop"

    def logs(self, *, since: float | None = ENDED, tail: int) -> bytes:
        """A line of a run before, and what this one said a moment before Docker noted that it had begun."""
        if since is not None and since > ENDED:
            return b""
        return self.log.encode() if since == ENDED else f"the run before\n{self.log}".encode()

    def exec_run(self, _test: list[str]) -> tuple[int, bytes]:
        return self.probe, b"Traceback\nConnection refused"

    def stop(self, timeout: int) -> None:
        self.stopped = True


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`ready(container, **props)`: wait for a container as `up` does."""

    def wait(container: Container | None, *, since: dict[str, Any] | None = None, **changes: Any) -> Any:
        class Client:
            class containers:
                @staticmethod
                def get(_name: str) -> Container:
                    if container is None:
                        raise NotFound("gone")
                    return container

        @contextmanager
        def daemon() -> Iterator[type[Client]]:
            yield Client

        monkeypatch.setattr(resources, "daemon", daemon)
        props = {"name": "scheduler", "container": "id", "health": {"timeout": 0.1}, "test": [], "job": False}
        if since is not None:
            return _ReadyProvider().diff("id", since, {**props, **changes}).changes
        return _ReadyProvider().create({**props, **changes}).outs

    return wait


def test_a_container_is_ready_when_its_probe_says_so(ready: Any) -> None:
    ready(Container())
    ready(Container(), test=["true"])
    ready(Container(log="Starting the scheduler"), health={"timeout": 1, "log": "Starting the"})
    ready(Container(status="exited"), job=True)
    ready(Container(restarts=3, log="ready"), health={"timeout": 1, "log": "ready"})  # Docker has helped it before
    with pytest.raises(WaitTimeout, match="its log does not match the run before yet"):
        ready(Container(), health={"timeout": 0.1, "log": "the run before"})


def test_a_service_that_was_started_again_is_waited_for_anew(ready: Any) -> None:
    service, job = Container(), Container(status="exited")
    outs, done = ready(service), ready(job, job=True)
    assert not ready(service, since=outs)
    assert ready(service, since=outs, health={"timeout": 1})
    assert ready(None, since=outs)
    service.attrs["State"]["StartedAt"] = job.attrs["State"]["StartedAt"] = "2026-01-01T00:09:00.1Z"
    assert ready(service, since=outs)
    assert not ready(job, since=done, job=True)
    run = {**service.attrs["State"], "StartedAt": outs["started"]}
    for change in ({"Status": "restarting"}, {"Health": {"Status": "unhealthy"}}):
        service.attrs["State"] = {**run, **change}
        assert ready(service, since=outs)


@pytest.mark.parametrize(
    ("container", "changes", "sentence"),
    [
        (
            Container(status="exited", code=1, log="no database"),
            {},
            r"scheduler ended while it started; .*\nno database",
        ),
        (Container(restarts=1, log="loop"), {}, r"scheduler ended while it started; .*\nloop"),
        (Container(status="exited", code=3, log="bad"), {"job": True}, r"scheduler failed; .*\nbad"),
        (None, {}, "the container of scheduler went away while it started"),
    ],
)
def test_a_container_that_ends_is_told_with_its_last_lines(
    ready: Any, container: Container | None, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(LabError, match=sentence):
        ready(container, **changes)
    assert container is None or container.stopped  # or Docker would start it again and again


def test_a_container_that_is_never_ready_is_told_with_what_its_probe_said(ready: Any) -> None:
    with pytest.raises(WaitTimeout, match="last state: Connection refused"):
        ready(Container(probe=1), test=["probe"])


def test_a_lab_without_a_daemon_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    lab = Lab.request("local", name="t-no-daemon", platform="docker", engine="embedded")
    with pytest.raises(LabError, match="no Docker daemon answers"):
        lab.up()
    assert not lab_directory("t-no-daemon").exists()


def test_scenarios_refuse_a_lab_that_they_cannot_look_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_verifiable("docker")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check_verifiable("process")
    with pytest.raises(UsageError, match="only root of a Linux machine may do: verify as root, or on"):
        check_verifiable("docker")
