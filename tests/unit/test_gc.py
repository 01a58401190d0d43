"""How long labs live, and what is collected of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.clusters import kind
from components.platforms.docker import inspection
from components.platforms.kubernetes import inspection as pods
from components.platforms.kubernetes.names import owner
from labs import daemon, gc
from labs.cluster import OWNER, Refused, Unreachable
from labs.errors import LabError, UsageError
from tests.unit import test_kubernetes_engine
from tests.unit.test_kubernetes_engine import Api


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A checkout with the lab `here`, and the names of what is taken down."""
    down: list[str] = []

    class Lab:
        def __init__(self, name: str) -> None:
            self.name = name

        @classmethod
        def of(cls, name: str) -> Lab:
            return cls(name)

        def down(self, _watch: Any) -> None:
            down.append(self.name)

    (tmp_path / "here" / "engine").mkdir(parents=True)
    monkeypatch.setattr(gc, "engine_directory", lambda name: tmp_path / name / "engine")
    monkeypatch.setattr(gc, "labs_here", lambda: ["here"])
    monkeypatch.setattr(gc, "Lab", Lab)
    monkeypatch.setattr(gc, "_owners", lambda: {str(tmp_path / "here" / "run"), str(tmp_path / "gone" / "run")})
    monkeypatch.setattr(gc, "_remove", lambda home: [f"things of {home}"])
    monkeypatch.setattr(gc, "_images", list)
    monkeypatch.setattr(gc, "cache_root", lambda: tmp_path)
    yield down


def test_only_labs_whose_time_is_over_and_what_has_no_lab_go(labs: list[str], tmp_path: Path) -> None:
    gc.expire("here", 3600)
    assert gc.collect(lambda _event: None) == [f"things of {tmp_path / 'gone' / 'run'}"]
    gc.expire("here", -1)
    assert gc.collect(lambda _event: None)[0] == "lab here, whose time was over"
    assert labs == ["here"]


def test_what_may_not_be_looked_at_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert gc._gone(str(tmp_path / "no" / "run")) and gc._gone(str(tmp_path / "file" / "lab" / "run"))
    assert not gc._gone(str(tmp_path / "run"))

    def refused(*_given: Any, **_more: Any) -> Any:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "stat", refused)
    assert not gc._gone(str(tmp_path / "no" / "run"))


def test_what_another_machines_daemon_has_is_nobodys_business(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, removed = str(tmp_path / "gone" / "run"), []
    thing = SimpleNamespace(name="network", attrs={"Labels": {daemon.OWNER: home}})
    client = SimpleNamespace(info=lambda: {"Name": where}, networks=SimpleNamespace(list=lambda **_: [thing]))
    client.containers = client.volumes = SimpleNamespace(list=lambda **_: [])
    monkeypatch.setattr(daemon, "daemon", lambda: nullcontext(client))
    monkeypatch.setattr(inspection, "remaining", lambda _home: ["network"])
    monkeypatch.setattr(inspection, "remove_all", removed.append)
    for where in ("another", platform.node()):
        here = where != "another"
        assert (home in gc._owners()) == here
        assert gc._remove(home) == ([f"network of {home}, which is gone"] if here else [])
    assert removed == [home]


def test_a_lab_without_a_time_lives_on(labs: list[str]) -> None:
    gc.expire("here", -1)
    gc.expire("here", None)
    assert not gc.expired("here")
    gc.collect(lambda _event: None)
    assert labs == []


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("30m", 1800), ("2h", 7200), ("1d", 86400)])
def test_durations(text: str, seconds: int) -> None:
    assert gc.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "1.5h", "2 weeks"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="write a number and a unit, as 30m, 2h or 1d"):
        gc.seconds_of(text)


api = test_kubernetes_engine.api


@pytest.fixture
def cluster(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Api:
    """The cluster of a checkout with the lab `here`; on it is what is that lab's, and what is not."""
    for module in (kind, gc):
        monkeypatch.setattr(module, "cache_root", lambda: tmp_path / "cache")
    monkeypatch.setattr(pods, "state_root", lambda: tmp_path / "labs")
    monkeypatch.setattr(pods, "cluster", lambda _kubeconfig: api)
    for lab in ("begun", "here"):
        home = tmp_path / "labs" / lab / "run"
        home.mkdir(parents=True)
        with kind.Users(kind.cluster_name(lab, False)) as users:
            users.note(str(home), True)
    (home / "kubeconfig").touch()
    marks = {"here": owner("here"), "gone": owner("gone."), "theirs": "0123abcd.gone", "foreign": None}
    for kind_ in ("Namespace", "PersistentVolume", "PriorityClass"):
        for name, mark in marks.items():
            labels = {OWNER: mark} if mark else {}
            api.objects[f"/{kind_}//{name}"] = {"metadata": {"name": name, "labels": labels, "uid": name}}
    return api


def test_what_a_lab_that_is_gone_left_in_a_cluster_goes_and_nothing_else(cluster: Api) -> None:
    before = set(cluster.objects)
    kinds = ("Namespace", "PersistentVolume", "PriorityClass")
    assert gc._in_cluster() == [f"{kind_} gone of the lab gone, which is gone" for kind_ in kinds]
    assert before - set(cluster.objects) == {f"/{kind_}//gone" for kind_ in kinds}
    assert gc._in_cluster() == []


def test_only_the_end_of_a_cluster_ends_the_removal_in_silence(
    cluster: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "labs" / "here" / "run"
    listed = cluster.items

    def answer(error: LabError, of: str = "/Namespace") -> None:
        def items(path: str, **query: Any) -> Any:
            if path.startswith(of):
                raise error
            return listed(path, **query)

        monkeypatch.setattr(cluster, "items", items)

    answer(Unreachable("it does not answer"))
    pods.remove_all(home)
    assert gc._in_cluster() == []
    answer(Refused(500, "no disk"))
    for removal in (gc._in_cluster, lambda: pods.remove_all(home)):
        with pytest.raises(Refused, match="no disk"):
            removal()
    answer(Refused(403, "forbidden"), "/PersistentVolume")
    pods.remove_all(home)
    left = {path for path in cluster.objects if path.endswith("/here")}
    assert left == {"/PersistentVolume//here"}  # it may not look there, and goes on
    pods.remove_all(tmp_path / "labs" / "begun" / "run")  # that has no kubeconfig
