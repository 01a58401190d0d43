"""NodePorts of labs that share a cluster: each has its own, and one that is taken is told before anything is made."""

from __future__ import annotations

from typing import Any

import pytest
from pulumi.output import UNKNOWN

from components.clusters.kind import NODE_PORTS
from components.platforms.kubernetes import resources
from components.platforms.kubernetes.resources import _PublishedPortProvider
from labs.errors import LabError, UsageError

PROVIDER = _PublishedPortProvider()


class Api:
    """A cluster whose Services have these NodePorts, by namespace."""

    def __init__(self, taken: dict[str, list[int]]) -> None:
        self.services = [
            {
                "metadata": {"namespace": namespace, "name": "airflow-api-server"},
                "spec": {"ports": [{"port": 8080, "nodePort": number} for number in numbers]},
            }
            for namespace, numbers in taken.items()
        ]

    def items(self, path: str, **_query: Any) -> list[Any]:
        return self.services


def asked(monkeypatch: pytest.MonkeyPatch, taken: dict[str, list[int]], wanted: int = 0) -> dict[str, Any]:
    """What is asked for on a kind cluster, of which NodePort n leads to port n of this machine."""
    api = Api(taken)
    monkeypatch.setattr(resources, "cluster", lambda _kubeconfig: api)
    monkeypatch.setattr(resources, "published", lambda _nodes, number: f"127.0.0.1:{number}")
    given = {"kubeconfig": "text", "nodes": ["t"], "namespace": "airflow-b", "service": "airflow-api-server"}
    return {**given, "wanted": wanted, "others": []}


def test_two_labs_have_two_ports_and_each_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = NODE_PORTS.start
    assert PROVIDER.create(asked(monkeypatch, {})).outs["number"] == first  # type: ignore[index]
    assert PROVIDER.create(asked(monkeypatch, {"airflow-a": [first]})).outs["number"] == first + 1  # type: ignore[index]
    assert PROVIDER.create(asked(monkeypatch, {"airflow-b": [first]})).outs["number"] == first  # type: ignore[index]


def test_what_a_lab_has_chosen_for_one_service_is_not_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    first = NODE_PORTS.start
    flower = {**asked(monkeypatch, {}), "service": "airflow-flower", "others": [first]}
    assert PROVIDER.create(flower).outs["number"] == first + 1  # type: ignore[index]


def test_a_port_that_another_lab_has_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = asked(monkeypatch, {"airflow-a": [30009]}, wanted=30009)
    said = "no free NodePort of the cluster leads to port 30009 of this machine; leave out --port, or take a cluster"
    with pytest.raises(UsageError, match=said):
        PROVIDER.check({}, wanted)  # as `preview` and `up` do first
    assert PROVIDER.check({}, asked(monkeypatch, {"airflow-b": [30009]}, wanted=30009)).inputs["wanted"] == 30009
    assert not PROVIDER.check({}, {**wanted, "kubeconfig": UNKNOWN}).failures, "the cluster is made by this very `up`"


def test_more_labs_than_ports_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="the NodePorts 30007 to 30014 of the cluster are all taken; take a lab down"):
        PROVIDER.create(asked(monkeypatch, {"airflow-a": list(NODE_PORTS)}))
