"""The cluster add-on KEDA, against a cluster in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from components.clusters import keda
from components.clusters.add_on import OURS
from components.clusters.keda import KINDS, MARK, METRICS, OPERATOR, PODS, _KedaProvider, check_counted, objects
from labs.cluster import Object, Refused
from labs.engines import kubernetes as handlers
from labs.errors import LabError, UsageError
from tests.unit import add_ons

PROPS = {"kubeconfig": "text", "operator": "labs/keda:a", "adapter": "labs/keda-adapter:a"}


@dataclass
class Api(add_ons.Api):
    """A cluster with KEDA: its adapter answers as it should, or does not."""

    marks: dict[str, str] = field(default_factory=lambda: {"scaledobjects.keda.sh": MARK})
    answers: bool = True
    operator_ready: bool = True

    def found(self, path: str) -> Object | None:
        if path == METRICS and not self.answers and MARK in self.there:
            raise Refused(503, "unavailable")
        if path in (KINDS, METRICS):
            return {} if MARK in self.there else None
        return super().found(path)

    def items(self, path: str, **query: Any) -> list[Object]:
        if path != PODS or query:
            return super().items(path)
        ready = [{"type": "Ready", "status": str(self.operator_ready)}]
        return [{"metadata": {"name": "p", "namespace": "keda", "labels": OPERATOR}, "status": {"conditions": ready}}]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    monkeypatch.setattr(keda, "cluster", lambda _kubeconfig: found)
    for module, name in ((keda, "WORKS"), (handlers, "GONE")):
        monkeypatch.setattr(module, name, 0.0)
    return found


def test_kinds_come_first_and_each_program_is_of_its_image(api: Api) -> None:
    made = _KedaProvider().create(dict(PROPS))
    applied = api.done("PATCH")
    assert len(applied) == len(objects("x", "y"))
    assert [path.split("/")[1] for path in applied[1:6]] == ["CustomResourceDefinition"] * 5 and applied[0] == MARK
    images = {
        name: api.there[f"/Deployment/{name}"]["spec"]["template"]["spec"]["containers"][0]["image"]
        for name in ("keda-operator", "keda-metrics-apiserver")
    }
    assert images == {"keda-operator": PROPS["operator"], "keda-metrics-apiserver": PROPS["adapter"]}
    assert not _KedaProvider().diff("", made.outs, dict(PROPS)).changes
    assert _KedaProvider().diff("", made.outs, {**PROPS, "adapter": "another"}).changes
    api.answers = False
    assert _KedaProvider().diff("", made.outs, dict(PROPS)).changes


@pytest.mark.parametrize("lacking", ["answers", "operator_ready"])
def test_what_does_not_work_is_told_and_nothing_stays(api: Api, lacking: str) -> None:
    setattr(api, lacking, False)
    with pytest.raises(LabError, match="for KEDA to work; last state: "):
        _KedaProvider().create(dict(PROPS))
    assert api.there == {}


def test_that_of_somebody_else_is_used_as_it_is(api: Api) -> None:
    api.there[MARK] = {"metadata": {"name": "scaledobjects.keda.sh", "labels": {"app": "theirs"}}}
    api.operator_ready = False  # wherever theirs is
    _KedaProvider().create(dict(PROPS))
    assert api.calls == []


def test_a_cluster_of_the_users_has_it_already_or_is_refused() -> None:
    there = Api(there={MARK: {}})
    check_counted(there, "it")  # type: ignore[arg-type]
    there.answers = False
    for api in (Api(), there):
        with pytest.raises(
            UsageError, match="it has no KEDA that answers: install it there as its makers say, or leav"
        ):
            check_counted(api, "it")  # type: ignore[arg-type]


def test_its_pods_meet_the_restricted_standard_and_all_of_it_is_the_labs() -> None:
    found = objects("x", "y")
    for each in found:
        assert OURS.items() <= each["metadata"]["labels"].items()
    pods = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment"]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
