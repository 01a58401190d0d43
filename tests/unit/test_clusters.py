"""Clusters: kind's configuration, contexts of a kubeconfig, and what a cluster must be for a lab."""

from __future__ import annotations

import base64
import contextlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components.clusters import kind
from components.clusters.base import DEFAULT, check_spread, check_usable, with_namespace
from components.clusters.context import kubeconfig_files, read_context
from components.clusters.kind import NODE_PORTS, Users, cluster_name, configuration, lacks_sys_resource, name_servers
from components.clusters.metrics_server import check_measured
from components.platforms.kubernetes.resources import _NodeImageProvider, open_to
from labs.cluster import Refused
from labs.errors import LabError, UsageError
from stacks.configuration import check_cluster


def made(**changes: Any) -> dict[str, Any]:
    return configuration(
        "t", **{"ports": range(40000, 40008), "folder": Path("/labs"), "built": True, "bounded": False, **changes}
    )


def test_a_kind_cluster_has_two_zones_and_repels_from_the_second() -> None:
    _, first, second = made()["nodes"]
    assert first["labels"] == {"topology.kubernetes.io/zone": "a"} and "kubeadmConfigPatches" not in first
    assert second["labels"] == {"topology.kubernetes.io/zone": "b", "nvidia.com/gpu.present": "true"}
    (patch,) = map(yaml.safe_load, second["kubeadmConfigPatches"])
    assert patch["nodeRegistration"]["taints"] == [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    ]


def test_node_ports_lead_to_loopback_alone() -> None:
    mappings = made()["nodes"][0]["extraPortMappings"]
    assert [each["containerPort"] for each in mappings] == list(NODE_PORTS)
    assert mappings[0] == {"containerPort": 30007, "hostPort": 40000, "listenAddress": "127.0.0.1"}
    assert {each["listenAddress"] for each in mappings} == {"127.0.0.1"}
    assert made()["networking"]["apiServerAddress"] == "127.0.0.1"


@pytest.mark.parametrize("built", [True, False])
def test_only_the_built_image_gets_name_servers_of_ours(built: bool) -> None:
    kubelet, *_ = map(yaml.safe_load, made(built=built)["kubeadmConfigPatches"])
    assert ("resolvConf" in kubelet) is built
    assert any("config_path" in patch for patch in made(built=built)["containerdConfigPatches"]) is built


def test_a_machine_without_sys_resource_is_told_to_the_nodes() -> None:
    assert not lacks_sys_resource("CapBnd:\t000001ffffffffff\n")
    assert lacks_sys_resource("Name:\tx\nCapBnd:\t000001fffeffffff\n")
    found = made(bounded=True)
    kubelet, *_ = map(yaml.safe_load, found["kubeadmConfigPatches"])
    assert kubelet["featureGates"] == {"KubeletInUserNamespace": True}
    assert any("restrict_oom_score_adj = true" in patch for patch in found["containerdConfigPatches"])
    assert made(built=False)["containerdConfigPatches"] == []


def test_pods_ask_no_name_server_on_loopback() -> None:
    assert name_servers("nameserver 127.0.0.53\n", "search x\nnameserver 10.0.0.2\n") == "nameserver 10.0.0.2\n"
    assert name_servers("nameserver 127.0.0.53\n") == "nameserver 192.0.2.1\n"


@pytest.mark.parametrize(
    ("status", "taints", "ready"),
    [("True", ["nvidia.com/gpu"], True), ("True", [kind.NOT_READY], None), ("False", [], None)],
)
def test_a_node_is_ready_when_pods_may_go_there(status: str, taints: list[str], ready: bool | None) -> None:
    node = {
        "metadata": {"name": "n"},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]},
        "status": {"conditions": [{"type": "Ready", "status": status}]},
    }
    assert kind._ready(SimpleNamespace(items=lambda _path: [node]))[0] is ready  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "started", "told"),
    [("n1", "11:59:59", None), ("n1", "12:00:00", True), ("n2", "11:59:59", True)],
    ids=["as before", "started again", "on a node that was never stopped"],
)
def test_a_node_that_was_stopped_is_believed_when_it_says_what_runs(node: str, started: str, told: bool | None) -> None:
    state = {"state": {"running": {"startedAt": f"2026-01-01T{started}Z"}}}
    pod = {
        "metadata": {"namespace": "t", "name": "p"},
        "spec": {"nodeName": node},
        "status": {"containerStatuses": [state, {"state": {"waiting": {}}}]},
    }
    woken = {"n1": datetime(2026, 1, 1, 12, tzinfo=timezone.utc)}
    assert kind._told(SimpleNamespace(items=lambda _path: [pod]), woken)[0] is told  # type: ignore[arg-type]
    assert kind._told(SimpleNamespace(items=lambda _path: [pod]), {})[0] is True  # type: ignore[arg-type]


def test_labs_share_a_cluster_unless_told_otherwise() -> None:
    assert cluster_name("one", False) == cluster_name("two", False)
    assert cluster_name("one", True) == "airflow-lab-one"


def test_a_cluster_goes_with_the_last_lab_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "cache_root", lambda: tmp_path)
    homes = []
    for lab in ("one", "two", "crashed"):
        (tmp_path / lab).mkdir()
        homes.append(str(tmp_path / lab / "run"))
    with Users("t") as users:
        for home in homes:
            users.note(home, True)
        (tmp_path / "crashed").rmdir()
        assert users.note(homes[0], False) == [homes[1]]
    with Users("t") as users:
        assert users.known() == {homes[1]}
        assert users.note(homes[1], False) == []
        assert users.known() == set()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text("certificate")
    path = tmp_path / "config"
    values = {
        "current-context": "other",
        "contexts": [
            {"name": "mine", "context": {"cluster": "c", "user": "u"}},
            {"name": "lost", "context": {"cluster": "gone", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://c", "certificate-authority": "ca.pem"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_context_is_taken_alone_with_its_files_in_it(kubeconfig: Path) -> None:
    found = yaml.safe_load(read_context("mine", [kubeconfig.parent / "absent", kubeconfig]))
    assert found["current-context"] == "mine" and len(found["contexts"]) == 1
    (cluster,) = found["clusters"]
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"certificate"
    named = yaml.safe_load(with_namespace(yaml.safe_dump(found), "airflow-x"))
    assert named["contexts"][0]["context"]["namespace"] == "airflow-x"
    exported = kubeconfig.parent / "of-a-lab"
    exported.write_text(yaml.safe_dump(named))
    assert read_context("mine", [exported]) == read_context("mine", [kubeconfig])


def test_a_wrong_context_is_told_with_those_that_there_are(kubeconfig: Path) -> None:
    with pytest.raises(
        UsageError, match=r"has a context 'mien': did you mean mine\? use mine, lost, or set KUBECONFIG"
    ):
        read_context("mien", [kubeconfig])
    with pytest.raises(UsageError, match="there is none at all"):
        read_context("mine", [kubeconfig.parent / "absent"])
    with pytest.raises(LabError, match="has no cluster 'gone', which its context names"):
        read_context("lost", [kubeconfig])
    (kubeconfig.parent / "ca.pem").unlink()
    with pytest.raises(LabError, match=r"names a certificate-authority that cannot be read .*; correct it"):
        read_context("mine", [kubeconfig])


def test_kubeconfigs_are_looked_for_where_kubectl_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    assert kubeconfig_files() == [Path("/a"), Path("/b")]
    monkeypatch.delenv("KUBECONFIG")
    assert kubeconfig_files() == [Path.home() / ".kube" / "config"]


@dataclass
class Api:
    """A cluster of that version and these storage classes, whose user may not do what is forbidden."""

    minor: int = 34
    forbidden: tuple[str, ...] = ()
    classes: tuple[str, ...] = ("standard *",)
    hides: bool = False
    metrics: int = 404
    nodes: Sequence[dict[str, Any]] = ()

    def version(self) -> tuple[int, int]:
        return 1, self.minor

    def may(self, verb: str, resource: str, namespace: str = "", group: str = "") -> bool:
        return f"{verb} {resource}" not in self.forbidden

    def items(self, path: str) -> list[dict[str, Any]]:
        if path == "/api/v1/nodes":
            return list(self.nodes)
        if self.hides:
            raise Refused(403, "storageclasses is forbidden")
        pairs = [each.partition(" ") for each in self.classes]
        return [
            {"metadata": {"name": name, **({"annotations": {DEFAULT: "true"}} if mark else {})}}
            for name, mark, _ in pairs
        ]

    def found(self, path: str) -> dict[str, Any] | None:
        if self.metrics not in (200, 404):
            raise Refused(self.metrics, "error trying to reach service")
        return {} if self.metrics == 200 else None


@pytest.mark.parametrize(
    ("api", "sentence"),
    [
        (Api(minor=20), r"it runs Kubernetes 1\.20; the labs need 1\.30 or newer: upgrade it, or name another cluster"),
        (Api(forbidden=("create namespaces",)), "it does not let this user create a namespace; ask for the right"),
        (Api(forbidden=("list nodes",)), "it does not let this user list nodes; ask for the right to, or name another"),
        (Api(forbidden=("list services",)), "it does not let this user list the Services of all namespaces, whose"),
        (Api(forbidden=("create roles",)), "it does not let this user create Roles; ask for the right to"),
        (Api(classes=()), "it has no default storage class, .*: install a storage provisioner there"),
        (Api(classes=("fast", "slow")), "it has no default storage class, .*: make fast or slow the default one"),
    ],
)
def test_a_cluster_that_no_lab_can_use_is_refused(api: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_usable(api, "it")


@pytest.mark.parametrize("api", [Api(), Api(classes=("fast", "slow *")), Api(hides=True)])
def test_a_cluster_that_a_lab_can_use_is_taken(api: Any) -> None:
    check_usable(api, "it")


@pytest.mark.parametrize("metrics", [404, 503])
def test_a_cluster_of_the_users_has_the_add_on_already_or_is_refused(metrics: int) -> None:
    check_measured(Api(metrics=200), "it")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no metrics-server that answers: install it there .*, or leave out --with"):
        check_measured(Api(metrics=metrics), "it")  # type: ignore[arg-type]


def test_a_lab_with_several_of_a_role_needs_two_zones() -> None:
    def node(zone: str, *taints: str, **spec: Any) -> dict[str, Any]:
        given = [{"key": key, "effect": "NoSchedule"} for key in taints]
        labels = {"topology.kubernetes.io/zone": zone} if zone else {}
        return {"metadata": {"labels": labels}, "spec": {"taints": given, **spec}}

    check_spread(Api(nodes=[node("a"), node("b", "nvidia.com/gpu")]), "it")  # type: ignore[arg-type]
    for other in (node("a"), node(""), node("b", "dedicated"), node("b", unschedulable=True)):
        with pytest.raises(
            UsageError, match="it has nodes for pods in 1 zones, and a lab with several of a role needs"
        ):
            check_spread(Api(nodes=[node("a"), other]), "it")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not let this user create a priority class"):
        check_spread(Api(forbidden=("create priorityclasses",), nodes=[node("a"), node("b")]), "it")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", "kindd", "context:", "eks"])
def test_a_cluster_is_kind_or_a_context(wrong: str) -> None:
    assert check_cluster("context:a:b")[2] == "a:b"
    with pytest.raises(UsageError, match="use kind, or context:NAME"):
        check_cluster(wrong)


def test_images_go_where_pods_may_be() -> None:
    def node(name: str, *taints: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name},
            "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]},
        }

    nodes = [node("master", "node-role.kubernetes.io/control-plane"), node("a"), node("b", "nvidia.com/gpu")]
    assert open_to(nodes, every=True) == ["a", "b"]
    assert open_to(nodes, every=False) == ["a"]


def test_an_image_that_a_node_tells_nothing_of_is_refused_unless_it_has_too_many_to_tell() -> None:
    def node(*images: str) -> dict[str, Any]:
        return {"metadata": {"name": "a"}, "spec": {}, "status": {"images": [{"names": [each]} for each in images]}}

    check = _NodeImageProvider._check
    check([node("docker.io/labs/airflow:1")], ["a"], "labs/airflow:1")
    check([node()], [], "labs/airflow:1")
    check([node(*(f"x:{number}" for number in range(50)))], ["a"], "labs/airflow:1")
    with pytest.raises(
        LabError, match=r"the node a lacks the image labs/airflow:1, .* build it with `lab images build`"
    ):
        check([node("docker.io/labs/airflow:2")], ["a"], "labs/airflow:1")


def test_an_image_that_a_node_cannot_take_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "unpacking\nctr: no space left on device\n")

    monkeypatch.setattr(kind.subprocess, "run", failing)
    (tmp_path / "image.tar").touch()
    with pytest.raises(
        LabError, match=r"the node a could not take an image \(ctr: no space left on device\); make room"
    ):
        kind.load(["a"], tmp_path / "image.tar")


def test_the_api_server_goes_to_the_pods_of_an_add_on_itself() -> None:
    routing = "enable-aggregator-routing"
    _, *patches = map(yaml.safe_load, made()["kubeadmConfigPatches"])
    found = {each["apiVersion"].rpartition("/")[2]: each["apiServer"]["extraArgs"] for each in patches}
    assert found == {"v1beta3": {routing: "true"}, "v1beta4": [{"name": routing, "value": "true"}]}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "ERROR: no\nCommand Output: 1f\ndocker: Error response: port is already allocated.\n",
            "docker: Error .*ated.",
        ),
        ("noise\nERROR: no such image\nnoise\n", "no such image"),
        ("the last word\n", "the last word"),
        ("", "no word"),
    ],
)
def test_what_kind_could_not_do_is_told_by_who_refused_it(
    said: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind.node_image, "kind_command", lambda: "kind")
    monkeypatch.setattr(kind.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", said))
    with pytest.raises(LabError, match=f"^`kind create cluster` failed: {told}$"):
        kind.kind("create", "cluster", "--name", "a")


def test_a_cluster_of_which_no_lab_is_left_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(kind, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(kind, "kind", lambda *arguments: removed.append(arguments[-1]))
    (tmp_path / "here").mkdir()
    for name, lab in (("used", "here"), ("left", "gone")):
        (tmp_path / f"kind-{name}.json").write_text(f'["{tmp_path / lab / "run"}"]')
    assert kind.collect() == ["the kind cluster left, of which no lab is left"]
    assert removed == ["left"] and (tmp_path / "kind-used.json").exists()


def test_nodes_that_stand_still_are_started_for_what_is_to_go_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes: list[Any] = []
    ran: list[str] = []

    def run(name: str) -> tuple[str, list[str]]:
        ran.append(name)
        raise LabError("waited 180 s for the nodes")

    monkeypatch.setattr(kind, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(kind, "daemon", contextlib.nullcontext)
    monkeypatch.setattr(kind, "node_containers", lambda _client, _name: nodes)
    monkeypatch.setattr(kind, "_run", run)
    home, other = (tmp_path / lab / "run" for lab in ("one", "other"))
    for each in (home, other):
        each.mkdir(parents=True)
    with Users("airflow-lab-one") as users:
        users.note(str(home), True)

    kind.wake(home)  # the cluster is gone
    nodes = [SimpleNamespace(name="a", status="running"), SimpleNamespace(name="b", status="running")]
    kind.wake(home)
    assert ran == []
    nodes[1].status = "exited"
    kind.wake(other)  # which uses none
    with pytest.raises(LabError, match=r"180 s .*; if no lab there need live, .* `docker rm -f a b`, and run `down`"):
        kind.wake(home)
    assert ran == ["airflow-lab-one"]
