"""The embedded engine's docker resources against a recording daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from docker.errors import APIError, NotFound

from labs.engines import docker as handlers
from labs.engines.docker import ContainerProvider, NetworkProvider, VolumeProvider, arguments
from labs.errors import LabError, UsageError

URN = "urn:pulumi:t::airflow-labs::docker:index/container:Container::scheduler"
LABELS = [{"label": "owner", "value": "/labs/t"}]


@dataclass
class Thing:
    """A container, network or volume as the docker package shows it."""

    daemon: Recorder
    kind: str
    name: str
    labels: dict[str, str]
    id: str
    status: str = "created"
    networks: set[str] = field(default_factory=set)

    @property
    def attrs(self) -> dict[str, Any]:
        if self.kind == "containers":
            on = {each: {"NetworkID": each} for each in self.networks}
            return {"Config": {"Labels": self.labels}, "NetworkSettings": {"Networks": on}}
        return {"Labels": self.labels, "Mountpoint": f"/volumes/{self.name}"}

    def __getattr__(self, verb: str) -> Any:
        def act(*things: Thing, **given: Any) -> None:
            self.daemon.calls.append((verb, self.name, given))
            for thing in things:
                thing.networks.add(self.id)
            if verb in self.daemon.refuses:
                raise APIError("refused", explanation="no such luck")
            if verb in ("start", "restart", "unpause"):
                self.status = "running"
            if verb == "remove":
                self.daemon.things.remove(self)

        return act


@dataclass
class Collection:
    daemon: Recorder
    kind: str

    def list(self, names: list[str]) -> list[Thing]:
        return [thing for thing in self.daemon.things if thing.kind == self.kind and thing.name in names]

    def get(self, name: str) -> Thing:
        for thing in self.daemon.things:
            if thing.kind == self.kind and name in (thing.name, thing.id):
                return thing
        raise NotFound("not there")

    def create(self, name: str, **given: Any) -> Thing:
        self.daemon.calls.append(("create", name, given))
        made = Thing(self.daemon, self.kind, name, given["labels"], f"{self.kind}-{len(self.daemon.calls)}")
        self.daemon.things.append(made)
        return made


@dataclass
class Recorder:
    """A daemon that does nothing but remember."""

    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)

    def __getattr__(self, kind: str) -> Collection:
        return Collection(self, kind)

    def verbs(self) -> list[str]:
        return [verb for verb, _, _ in self.calls]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    @contextmanager
    def daemon() -> Iterator[Recorder]:
        yield recorder

    monkeypatch.setattr(handlers, "daemon", daemon)
    return recorder


def container(**changes: Any) -> dict[str, Any]:
    """Inputs of a container, numbers as the engine gives them."""
    return {"name": "lab-scheduler", "image": "airflow:1", "labels": LABELS, "memory": 512.0, **changes}


def test_a_container_is_made_as_the_program_says(recorder: Recorder) -> None:
    news = container(
        command=["airflow", "scheduler"],
        envs=["A=1"],
        capabilities={"drops": ["ALL"]},
        readOnly=True,
        mounts=[{"type": "bind", "source": "/dags", "target": "/lab/dags", "readOnly": True}],
        networksAdvanced=[{"name": "lab", "aliases": ["scheduler"]}],
        ports=[{"internal": 8080.0, "external": 28080.0, "ip": "127.0.0.1"}],
        healthcheck={"tests": ["CMD", "true"], "interval": "30s"},
    )
    ContainerProvider().check(URN, {}, news)
    id_, outputs = ContainerProvider().create(URN, news)
    assert recorder.verbs() == ["create", "start"]
    _, name, given = recorder.calls[0]
    assert name == "lab-scheduler"
    assert given["command"] == ["airflow", "scheduler"]
    assert given["cap_drop"] == ["ALL"]
    assert given["read_only"] is True
    assert given["mem_limit"] == 512 * 2**20
    assert given["ports"] == {"8080/tcp": ("127.0.0.1", 28080)}
    assert given["mounts"][0]["Source"] == "/dags" and given["mounts"][0]["ReadOnly"] is True
    assert given["network"] == "lab"
    assert given["networking_config"]["lab"]["Aliases"] == ["scheduler"]
    assert given["healthcheck"] == {"test": ["CMD", "true"], "interval": 30 * 10**9, "retries": 3}
    assert (id_, outputs) == (recorder.things[0].id, news)


@pytest.mark.parametrize(
    ("provider", "changes", "sentence"),
    [
        (ContainerProvider(), {"privileged": True}, r"the container scheduler has the property privileged, which"),
        (ContainerProvider(), {"ports": [{"hostPort": 1.0}]}, r"ports of the container scheduler has .* hostPort"),
        (NetworkProvider(), {"ipv6": True}, r"the network scheduler has the property ipv6"),
        (VolumeProvider(), {"driverOpts": {}}, r"the volume scheduler has the property driverOpts"),
    ],
)
def test_a_property_that_is_not_known_is_named(provider: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        provider.check(URN, {}, {"name": "lab", "labels": LABELS, **changes})


@pytest.mark.parametrize("missing", ["name", "labels"])
def test_what_the_engine_could_not_find_again_is_refused(missing: str) -> None:
    news = container()
    del news[missing]
    with pytest.raises(UsageError, match=f"lacks the property {missing}"):
        ContainerProvider().check(URN, {}, news)


def test_what_the_program_leaves_out_is_as_docker_has_it() -> None:
    given = arguments(container(ports=[{"internal": 80.0, "external": 81.0}], logOpts={"max-size": "1m"}))
    assert given["ports"] == {"80/tcp": ("0.0.0.0", 81)}
    assert given["log_config"] == {"Type": "", "Config": {"max-size": "1m"}}
    assert "memswap_limit" not in given


def test_a_container_on_two_networks_is_refused() -> None:
    with pytest.raises(UsageError, match="asks for 2 networks"):
        arguments(container(networksAdvanced=[{"name": "one"}, {"name": "two"}]))


def test_somebody_elses_container_is_neither_adopted_nor_removed(recorder: Recorder) -> None:
    theirs = Thing(recorder, "containers", "lab-scheduler", {"owner": "/labs/other"}, "theirs")
    recorder.things.append(theirs)
    with pytest.raises(LabError, match="there is a container lab-scheduler that is not of this lab"):
        ContainerProvider().create(URN, container())
    ContainerProvider().delete(URN, "", container())
    assert recorder.calls == []


def test_what_an_interrupted_create_left_is_made_anew(recorder: Recorder) -> None:
    recorder.things.append(Thing(recorder, "containers", "lab-scheduler", {"owner": "/labs/t", "more": "1"}, "left"))
    ContainerProvider().create(URN, container())
    assert recorder.verbs() == ["remove", "create", "start"]


def test_a_container_that_does_not_start_is_removed_and_told(recorder: Recorder) -> None:
    recorder.refuses = {"start"}
    with pytest.raises(LabError, match="the container lab-scheduler could not be made: no such luck"):
        ContainerProvider().create(URN, container())
    assert recorder.things == []


def test_memory_changes_in_place_and_an_image_does_not(recorder: Recorder) -> None:
    provider, olds = ContainerProvider(), container()
    id_, _ = provider.create(URN, olds)
    same, more, other = (provider.diff(URN, id_, olds, container(**c)) for c in ({}, {"memory": 1.0}, {"image": "b"}))
    assert not same.changes
    assert more.changes and not more.replaces
    assert other.replaces == ("image",) and other.delete_before_replace
    provider.update(URN, id_, olds, container(memory=1024.0, memorySwap=2048.0))
    verb, _, given = recorder.calls[-1]
    assert (verb, given["mem_limit"], given["memswap_limit"]) == ("update", 2**30, 2**31)
    provider.update(URN, id_, olds, container(cpus="1.5"))
    assert (recorder.calls[-1][2]["cpu_quota"], recorder.calls[-1][2]["cpu_period"]) == (150_000, 100_000)
    without = {key: value for key, value in olds.items() if key != "memory"}
    assert provider.diff(URN, id_, olds, without).replaces == ("memory",)


def test_a_container_off_its_network_is_put_back_under_its_names(recorder: Recorder) -> None:
    network, provider = NetworkProvider(), ContainerProvider()
    net = {"name": "lab", "labels": LABELS}
    news = container(networksAdvanced=[{"name": "lab", "aliases": ["scheduler-1", "scheduler"]}])
    first, _ = network.create(URN, net)
    id_, _ = provider.create(URN, news)
    recorder.things[1].networks = {first}
    assert not provider.diff(URN, id_, news, news).changes
    recorder.things[1].networks = set()
    assert provider.diff(URN, id_, news, news).changes
    provider.update(URN, id_, news, news)
    assert recorder.calls[-2:] == [
        ("connect", "lab", {"aliases": ["scheduler-1", "scheduler"]}),
        ("restart", "lab-scheduler", {"timeout": 0}),
    ]
    assert not provider.diff(URN, id_, news, news).changes
    network.delete(URN, first, net)
    assert provider.diff(URN, id_, news, news).changes  # and nothing fails in a preview
    network.create(URN, net)
    assert provider.diff(URN, id_, news, news).changes  # it has the name, and is another one
    job = {**news, "mustRun": False}
    assert not provider.diff(URN, id_, job, job).changes


def test_a_stopped_container_is_started_again_and_a_lost_one_made_anew(recorder: Recorder) -> None:
    provider, news = ContainerProvider(), container()
    id_, _ = provider.create(URN, news)
    recorder.things[0].status = "exited"
    drift = provider.diff(URN, id_, news, news)
    assert drift.changes and not drift.replaces
    provider.update(URN, id_, news, news)
    assert recorder.things[0].status == "running"
    recorder.things.clear()
    assert provider.diff(URN, id_, news, news).replaces == ("id",)


@pytest.mark.parametrize(("status", "verb"), [("exited", "start"), ("paused", "unpause"), ("restarting", "restart")])
def test_a_container_that_does_not_run_is_brought_back_by_its_own_way(
    recorder: Recorder, status: str, verb: str
) -> None:
    provider, news = ContainerProvider(), container()
    id_, _ = provider.create(URN, news)
    recorder.things[0].status = status
    assert provider.diff(URN, id_, news, news).changes
    provider.update(URN, id_, news, news)
    assert recorder.verbs()[-1] == verb and recorder.things[0].status == "running"


def test_a_job_that_has_ended_is_no_drift(recorder: Recorder) -> None:
    provider, news = ContainerProvider(), container(mustRun=False)
    id_, _ = provider.create(URN, news)
    recorder.things[0].status = "exited"
    assert not provider.diff(URN, id_, news, news).changes


def test_a_service_is_asked_to_end_before_it_goes(recorder: Recorder) -> None:
    news = container(destroyGraceSeconds=7.0)
    id_, outputs = ContainerProvider().create(URN, news)
    ContainerProvider().delete(URN, id_, outputs)
    assert recorder.calls[-2:] == [
        ("stop", "lab-scheduler", {"timeout": 7}),
        ("remove", "lab-scheduler", {"v": True, "force": True}),
    ]
    ContainerProvider().delete(URN, id_, outputs)  # gone already


@pytest.mark.parametrize("provider", [NetworkProvider(), VolumeProvider()])
def test_networks_and_volumes_come_and_go(recorder: Recorder, provider: Any) -> None:
    news = {"name": "lab", "labels": LABELS}
    id_, outputs = provider.create(URN, provider.check(URN, {}, news))
    assert not provider.diff(URN, id_, outputs, news).changes
    assert provider.diff(URN, id_, outputs, {**news, "name": "other"}).replaces
    recorder.things[0].labels = {"owner": "/labs/other"}  # a volume is known by its name alone
    assert provider.diff(URN, id_, outputs, news).replaces == ("id",)
    with pytest.raises(LabError, match="that is not of this lab"):
        provider.create(URN, news)
    recorder.things[0].labels = {"owner": "/labs/t"}
    provider.delete(URN, id_, outputs)
    assert recorder.things == []
