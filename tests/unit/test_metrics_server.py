"""The cluster add-on metrics-server, against a cluster in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from components.clusters import metrics_server
from components.clusters.add_on import OURS
from components.clusters.metrics_server import API_SERVICE, METRICS, _MetricsServerProvider, objects
from labs.cluster import Object, Refused
from labs.engines import kubernetes as handlers
from labs.errors import LabError
from tests.unit import add_ons

PROPS = {"kubeconfig": "text", "image": "labs/metrics-server:a"}

NODES = ("control-plane", "worker")


@dataclass
class Api(add_ons.Api):
    """A cluster of two nodes; `seen` are those that are measured when metrics-server is there."""

    marks: dict[str, str] = field(default_factory=lambda: {"APIService": API_SERVICE})
    seen: tuple[str, ...] = NODES

    def items(self, path: str, **query: Any) -> list[Object]:
        if path == f"{METRICS}/nodes" and API_SERVICE not in self.there:
            raise Refused(404, "not found")
        if path.endswith("/nodes"):
            return [{"metadata": {"name": name}} for name in (self.seen if METRICS in path else NODES)]
        return super().items(path, **query)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    monkeypatch.setattr(metrics_server, "cluster", lambda _kubeconfig: found)
    for module, name in ((metrics_server, "MEASURED"), (handlers, "GONE")):
        monkeypatch.setattr(module, name, 0.0)
    return found


def test_it_is_applied_and_awaited_and_then_the_same(api: Api) -> None:
    made = _MetricsServerProvider().create(dict(PROPS))
    applied = api.done("PATCH")
    assert len(applied) == len(objects("x")) and applied[0] == "/ServiceAccount/metrics-server"
    assert applied[-1] == API_SERVICE
    (container,) = api.there["/Deployment/metrics-server"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == PROPS["image"]
    assert not _MetricsServerProvider().diff("", made.outs, dict(PROPS)).changes
    assert _MetricsServerProvider().diff("", made.outs, {**PROPS, "image": "another"}).changes
    api.seen = ("worker",)
    assert _MetricsServerProvider().diff("", made.outs, dict(PROPS)).changes


def test_a_node_that_is_not_measured_is_told_and_nothing_stays(api: Api) -> None:
    api.seen = ("worker",)
    with pytest.raises(LabError, match="for metrics-server to measure every node; last state: nothing of control-pl"):
        _MetricsServerProvider().create(dict(PROPS))
    assert api.there == {}


def test_what_is_refused_half_way_is_told_and_nothing_stays(api: Api) -> None:
    api.refuses = "Service"
    with pytest.raises(LabError, match="the Service metrics-server in the namespace kube-system was refused: forb"):
        _MetricsServerProvider().create(dict(PROPS))
    assert api.there == {}


def test_another_lab_finds_it_and_leaves_it_where_it_is(api: Api) -> None:
    _MetricsServerProvider().create(dict(PROPS))
    api.seen = ()
    with pytest.raises(LabError, match="nothing of control-plane, worker yet"):
        _MetricsServerProvider().create(dict(PROPS))
    assert API_SERVICE in api.there and not api.done("DELETE")


def test_that_of_somebody_else_is_used_as_it_is(api: Api) -> None:
    api.there[API_SERVICE] = {"metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"k8s-app": "theirs"}}}
    _MetricsServerProvider().create(dict(PROPS))
    assert api.calls == []


def test_its_pod_meets_the_restricted_standard() -> None:
    (pod,) = [each["spec"]["template"]["spec"] for each in objects("x") if each["kind"] == "Deployment"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["requests"]) == set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert {"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP"} <= set(container["args"])


def test_all_of_it_is_known_to_be_the_labs(api: Api) -> None:
    for each in objects("x"):
        assert OURS.items() <= each["metadata"]["labels"].items()
        assert each["metadata"].get("namespace", "kube-system") == "kube-system"
