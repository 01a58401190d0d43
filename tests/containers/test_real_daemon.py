"""The embedded engine's docker resources on a real daemon, with an image of a few small programs of this machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.platforms.docker.inspection import inspect, remaining, remove_all
from components.platforms.docker.platform import ENTRY, HARDENED, MOVES, SECRETS, aliases, exports
from components.platforms.docker.resources import _ReadyProvider
from components.replicas import replica_names
from labs import gc
from labs.daemon import OWNER, daemon
from labs.engines.docker import ContainerProvider, NetworkProvider, VolumeProvider
from labs.errors import LabError
from labs.waiting import until
from tests.containers.probe_image import probe_image

URN = "urn:pulumi:t::airflow-labs::docker:index/thing:Thing::thing"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with probe_image() as name:
        yield name


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    """The directory, and so the label, of a lab of this test; afterwards nothing carries that label."""
    yield str(tmp_path)
    remove_all(str(tmp_path))
    assert remaining(str(tmp_path)) == []


def inputs(home: str, name: str, **more: Any) -> dict[str, Any]:
    lab = hashlib.sha256(home.encode()).hexdigest()[:12]
    return {"name": f"t-{lab}-{name}", "labels": [{"label": OWNER, "value": home}], **more}


def container(home: str, image: str, script: str, **changes: Any) -> dict[str, Any]:
    """Inputs of a container as the platform makes them, numbers as the engine gives them."""
    camel = {re.sub(r"_(.)", lambda m: m[1].upper(), key): value for key, value in HARDENED.items()}
    return inputs(
        home,
        "thing",
        **{
            **camel,
            "image": image,
            "user": "50000:0",
            "entrypoints": ["/bin/sh", "-c", ENTRY, "thing"],
            "command": ["sh", "-c", script],
            "memory": 64.0,
            "memorySwap": 64.0,
            "restart": "no",
            **changes,
        },
    )


def ready(name: str, **changes: Any) -> None:
    props = {"name": "thing", "container": name, "health": {"timeout": 20}, "test": [], "job": False}
    _ReadyProvider().create({**props, **changes})


def test_a_container_lives_and_dies_as_the_platform_asks(home: str, image: str, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text(exports({"HIDDEN": "it's $secret"}))
    network, volume, thing = NetworkProvider(), VolumeProvider(), ContainerProvider()
    net, vol = inputs(home, "net"), inputs(home, "vol")
    net_id, vol_id = network.create(URN, net)[0], volume.create(URN, vol)[0]
    data = {"type": "volume", "source": vol["name"], "target": "/data", "readOnly": False}
    owner = container(home, image, "", entrypoints=["chown"], command=["50000:0", "/data"], user="0:0", mounts=[data])
    owner |= {"mustRun": False, "networkMode": "none", "capabilities": {"drops": ["ALL"], "adds": ["CHOWN"]}}
    owner_id, _ = thing.create(URN, owner)
    ready(owner_id, job=True)
    thing.delete(URN, owner_id, owner)

    script = 'echo "$HIDDEN" >/data/seen; (: >/etc/here) 2>/dev/null && echo writable; echo begun; sleep 600'
    news = container(
        home,
        image,
        script,
        mounts=[data, {"type": "bind", "source": str(secrets), "target": SECRETS, "readOnly": True}],
        networksAdvanced=[{"name": net["name"], "aliases": ["thing"]}],
        destroyGraceSeconds=1.0,
    )
    id_, outputs = thing.create(URN, thing.check(URN, {}, news))
    ready(id_, health={"timeout": 20, "log": "begun"}, test=[])
    ready(id_, test=["test", "-s", "/data/seen"])
    with daemon() as client:
        found = client.containers.get(id_)
        assert found.exec_run(["cat", "/data/seen"]).output.decode() == "it's $secret\n"
        assert found.logs().decode() == "begun\n"  # its root file system took no file
        shown = found.attrs
    assert "$secret" not in str(shown)
    assert shown["HostConfig"]["CapDrop"] == ["ALL"] and shown["HostConfig"]["ReadonlyRootfs"]
    assert shown["HostConfig"]["Memory"] == shown["HostConfig"]["MemorySwap"] == 64 * 2**20
    assert shown["NetworkSettings"]["Networks"][net["name"]]["Aliases"][0] == "thing"
    (state,) = inspect([("thing", news["name"])])
    assert (state.state, state.processes) == ("RUNNING", 3)  # init, sh, sleep

    assert not thing.diff(URN, id_, outputs, news).changes
    more = {**news, "memory": 128.0, "memorySwap": 128.0, "cpus": "0.5"}
    assert thing.diff(URN, id_, outputs, more).changes and not thing.diff(URN, id_, outputs, more).replaces
    thing.update(URN, id_, outputs, more)
    with daemon() as client:
        limits = client.containers.get(id_).attrs["HostConfig"]
        assert limits["Memory"] == 128 * 2**20 and limits["CpuQuota"] == limits["CpuPeriod"] // 2
        client.containers.get(id_).kill()
    drift = thing.diff(URN, id_, more, more)
    assert drift.changes and not drift.replaces
    thing.update(URN, id_, more, more)
    assert not thing.diff(URN, id_, more, more).changes

    thing.delete(URN, id_, more)
    volume.delete(URN, vol_id, vol)
    network.delete(URN, net_id, net)
    assert remaining(home) == []


def test_the_name_of_a_role_leads_to_all_replicas_that_run(home: str, image: str) -> None:
    net = inputs(home, "net")
    NetworkProvider().create(URN, net)
    ids = {}
    for name in replica_names("thing", 2):
        networks = [{"name": net["name"], "aliases": aliases(name, "thing")}]
        news = container(home, image, "sleep 600", hostname=name, networksAdvanced=networks, entrypoints=[])
        ids[name], _ = ContainerProvider().create(URN, {**news, **inputs(home, name)})
    with daemon() as client:
        first, second = (client.containers.get(each) for each in ids.values())

        def found(name: str) -> set[str]:
            lines = second.exec_run(["getent", "ahostsv4", name]).output.decode().splitlines()
            return {line.split()[0] for line in lines}

        addresses = [each.attrs["NetworkSettings"]["Networks"][net["name"]]["IPAddress"] for each in (first, second)]
        assert found("thing") == set(addresses)
        assert [found(name) for name in ids] == [{address} for address in addresses]
        first.kill()
        first.wait(timeout=20)
        assert found("thing") == {addresses[1]}
        assert found("thing-1") == set()


def test_what_is_off_its_network_is_put_back_under_its_names(home: str, image: str) -> None:
    net = inputs(home, "net")
    net_id, _ = NetworkProvider().create(URN, net)
    made = {}
    for name in ("cut", "other"):
        networks = [{"name": net["name"], "aliases": [name, "role"]}]
        news = container(home, image, "sleep 600", networksAdvanced=networks, entrypoints=[]) | inputs(home, name)
        made[name] = (*ContainerProvider().create(URN, news), news)
    id_ = made["cut"][0]

    def converges() -> None:
        for each, outs, wanted in made.values():
            drift = ContainerProvider().diff(URN, each, outs, wanted)
            assert drift.changes and not drift.replaces
            before = client.containers.get(each).attrs["State"]["StartedAt"]
            ContainerProvider().update(URN, each, outs, wanted)
            assert not ContainerProvider().diff(URN, each, outs, wanted).changes
            assert client.containers.get(each).attrs["State"]["StartedAt"] > before  # and it is waited for anew
            (own,) = client.containers.get(each).attrs["NetworkSettings"]["Networks"].values()
            for name in (each[:12], *wanted["networksAdvanced"][0]["aliases"]):
                assert (
                    own["IPAddress"]
                    in client.containers.get(id_).exec_run(["getent", "ahostsv4", name]).output.decode()
                )

    with daemon() as client:
        for each in made:
            client.networks.get(net_id).disconnect(made[each][0])
        client.containers.get(id_).pause()
        converges()
        for each in made:  # its network goes while it is down, and another one gets the name
            client.containers.get(made[each][0]).kill()
        client.networks.get(net_id).remove()
        again, _ = NetworkProvider().create(URN, net)
        assert again != net_id
        converges()


def test_a_container_that_ends_is_told_with_its_last_lines_and_stays_down(home: str, image: str) -> None:
    news = container(home, image, "", entrypoints=["sh", "-c", "echo no such thing; exit 7"], restart="unless-stopped")
    id_, _ = ContainerProvider().create(URN, {key: value for key, value in news.items() if key != "command"})
    with pytest.raises(LabError, match=r"thing ended while it started; .*\nno such thing"):
        ready(id_, test=["test", "-e", "/never"])
    with daemon() as client:
        assert client.containers.get(id_).status == "exited"


def test_what_ends_again_and_again_is_started_at_once_and_waited_for(home: str, image: str) -> None:
    """Docker waits twice as long before each restart: an `up` does not, once what was missing is there."""
    vol = inputs(home, "vol")
    VolumeProvider().create(URN, vol)
    news = container(
        home,
        image,
        "[ -e /data/there ] || exit 7; sleep 2; echo begun; sleep 600",
        entrypoints=[],
        user="0:0",
        restart="unless-stopped",
        mounts=[{"type": "volume", "source": vol["name"], "target": "/data", "readOnly": False}],
    )
    thing, provider = ContainerProvider(), _ReadyProvider()
    id_, outputs = thing.create(URN, news)
    props = {"name": "thing", "container": id_, "health": {"timeout": 20, "log": "begun"}, "test": [], "job": False}
    with daemon() as client:
        found = client.containers.get(id_)

        def loops() -> tuple[bool | None, str]:
            found.reload()
            count = found.attrs["RestartCount"]
            return (True if count > 3 and found.status == "restarting" else None), f"{count} times, {found.status}"

        until(loops, what="it to end again and again", timeout=30, interval=0.05)
        Path(client.volumes.get(vol["name"]).attrs["Mountpoint"], "there").touch()
        assert thing.diff(URN, id_, outputs, news).changes
        thing.update(URN, id_, outputs, news)
        outs = provider.create(props).outs
        assert b"begun" in found.logs()
        assert not provider.diff("", outs, props).changes
        other = {**props, "health": {"timeout": 30, "log": "begun"}}
        found.reload()
        found.kill()
        assert provider.diff("", outs, props).changes and provider.diff("", outs, other).changes
        thing.update(URN, id_, outputs, news)
        assert provider.diff("", outs, props).changes  # it runs, and is not ready
        outs = provider.update("", outs, other).outs
        assert found.logs().count(b"begun") == 2
        assert not provider.diff("", outs, other).changes


@pytest.mark.parametrize(
    ("script", "healthy"), [("while sleep 0.1; do :; done", True), ("trap : CONT; kill -STOP $$; sleep 600", False)]
)
def test_a_service_that_stands_still_is_unhealthy(home: str, image: str, script: str, healthy: bool) -> None:
    probe = {"tests": ["CMD", "sh", "-c", MOVES], "interval": "1s", "timeout": "5s", "retries": 2}
    news = container(home, image, script, healthcheck=probe, entrypoints=[])
    id_, _ = ContainerProvider().create(URN, news)
    with daemon() as client:

        def probed() -> tuple[bool | None, str]:
            seen = client.containers.get(id_).attrs["State"]["Health"]
            return (True if len(seen["Log"]) > 3 else None), str(seen)

        until(probed, what="four probes", timeout=30, interval=0.2)
        log = client.containers.get(id_).attrs["State"]["Health"]["Log"]
    (state,) = inspect([("thing", news["name"])])
    assert state.state == ("RUNNING" if healthy else "UNHEALTHY"), log
    assert healthy or "stands still" in log[-1]["Output"]


def test_somebody_elses_things_are_refused(home: str, image: str) -> None:
    for provider in (NetworkProvider(), VolumeProvider()):
        theirs = inputs(home, "theirs")
        id_, _ = provider.create(URN, theirs)
        mine = {**theirs, "labels": [{"label": OWNER, "value": "/another/lab"}]}
        with pytest.raises(LabError, match="is not of this lab; remove or rename it"):
            provider.create(URN, mine)
        provider.delete(URN, "", mine)
        assert provider.diff(URN, id_, theirs, theirs).changes is False


def test_what_names_a_lab_that_is_gone_is_collected(tmp_path: Path) -> None:
    gone, living = str(tmp_path / "gone" / "run"), str(tmp_path / "run")
    ids = [NetworkProvider().create(URN, inputs(home, "net"))[0] for home in (gone, living)]
    try:
        assert {gone, living} <= gc._owners()
        assert not Path(gone).parent.exists() and Path(living).parent.exists()
        assert gc._remove(gone) == [f"{inputs(gone, 'net')['name']} of {gone}, which is gone"]
        assert remaining(gone) == []
        assert remaining(living) == [inputs(living, "net")["name"]]
    finally:
        for home in (gone, living):
            remove_all(home)
    assert len(set(ids)) == 2


def test_an_image_that_is_not_there_is_told(home: str) -> None:
    with pytest.raises(LabError, match=r"the container t-\S+-thing could not be made: .*such image"):
        ContainerProvider().create(URN, container(home, "airflow-executor-labs/none:0", "true"))
