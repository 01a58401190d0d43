"""What verifiers make of pods: the judging alone, on pods as the Kubernetes API gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labs.runs import Run
from labs.waiting import until
from scenarios.pods import (
    Cause,
    History,
    Life,
    Sighting,
    cause,
    messages,
    moment,
    refusals,
    slug,
    spans,
    writable_claims,
)

RUN = Run("probe", "run 1", "success")


def pod(phase: str, *, init: Any = (), containers: Any = (), **status: Any) -> dict[str, Any]:
    """A pod with these statuses, as (name, state) pairs."""

    def told(found: Any) -> list[dict[str, Any]]:
        return [{"name": name, "state": state} for name, state in found]

    return {
        "metadata": {
            "name": "probe-work-1",
            "uid": "u1",
            "annotations": {"dag_id": "probe", "run_id": "run 1", "task_id": "work", "try_number": "1"},
        },
        "spec": {
            "containers": [{"name": "base"}],
            "initContainers": [{"name": name} for name, _ in init],
        },
        "status": {
            "phase": phase,
            "initContainerStatuses": told(init),
            "containerStatuses": told(containers),
            **status,
        },
    }


def life(*pods: dict[str, Any], gone: bool = False) -> Life:
    kinds = ["ADDED", *["MODIFIED"] * (len(pods) - 1)]
    seen = [Sighting(float(number), kind, each) for number, (kind, each) in enumerate(zip(kinds, pods, strict=True))]
    return Life((*seen, *([Sighting(99.0, "DELETED", pods[-1])] if gone else [])))


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    times = {"startedAt": "2026-01-01T00:00:05Z", "finishedAt": "2026-01-01T00:00:07Z"}
    return {"terminated": {"exitCode": code, "reason": reason, **times}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:05Z"}}


def test_the_life_of_a_pod() -> None:
    found = life(
        pod("Pending"),
        pod("Pending"),
        pod("Running", containers=[("base", RUNNING)]),
        pod("Succeeded", containers=[("base", ended(0, "Completed"))]),
        gone=True,
    )
    assert found.phases() == ["Pending", "Running", "Succeeded"]
    assert (found.gone, found.task_id, found.try_number, found.node) == (True, "work", 1, "")
    assert found.ended() == ended(0, "Completed")["terminated"]
    assert found.ended("proxy") is None
    start = moment("2026-01-01T00:00:05Z")
    assert spans(found) == {"base": (start, start + 2)}


@pytest.mark.parametrize(
    ("seen", "events", "kind", "proof"),
    [
        (pod("Failed", containers=[("base", ended(137, "OOMKilled"))]), [], "memory", "exit code 137"),
        (pod("Succeeded", containers=[("base", ended(0, "OOMKilled"))]), [], "memory", "exit code 0"),
        (pod("Pending", containers=[("base", waiting("ErrImagePull", "refused"))]), [], "image", "refused"),
        (pod("Pending", containers=[("base", waiting("ImagePullBackOff"))]), [], "image", "ImagePullBackOff"),
        (pod("Failed", init=[("setup", ended(3))], containers=[("base", waiting("PodInitializing"))]), [], "init", "3"),
        (pod("Failed", containers=[("base", ended(1))]), [], "exit", "base ended with 1"),
        (pod("Failed", reason="Evicted", message="low on disk"), [], "evicted", "low on disk"),
        (pod("Failed", reason="DeadlineExceeded"), [], "deadline", ""),
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]),
            [],
            "unschedulable",
            "0/3 nodes",
        ),
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "True"}]),
            [{"reason": "Scheduled", "message": ""}, {"reason": "FailedMount", "message": 'secret "x" not found'}],
            "volume",
            "not found",
        ),
    ],
)
def test_the_cause_of_a_pods_plight(seen: Any, events: Any, kind: str, proof: str) -> None:
    found = cause(life(pod("Pending"), seen), events)
    assert found.kind == kind
    assert proof in found.proof
    assert found.words


def test_a_cause_is_found_in_versions_before_the_last() -> None:
    passed = pod("Pending", containers=[("base", waiting("ErrImagePull"))])
    for then in (waiting("ContainerCreating"), {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}):
        assert cause(life(passed, pod("Pending", containers=[("base", then)])), ()).kind == "image"


@pytest.mark.parametrize(
    "healthy",
    [
        pod("Running", init=[("proxy", RUNNING)], containers=[("base", RUNNING)]),
        pod("Succeeded", init=[("setup", ended(0, "Completed"))], containers=[("base", ended(0, "Completed"))]),
        pod("Pending", containers=[("base", waiting("ContainerCreating"))]),
    ],
)
def test_a_healthy_pod_has_no_cause(healthy: dict[str, Any]) -> None:
    assert cause(life(healthy), [{"reason": "Scheduled", "message": ""}]) == Cause(
        "", "nothing is wrong with the pod", f"phase {healthy['status']['phase']}"
    )


PLAIN = (
    'HTTP response body: {"kind":"Status","status":"Failure","message":"pods \\"p-large-x1\\" is forbidden: exceeded '
    'quota: used-up, requested: requests.memory=512Mi, used: requests.memory=1Gi, limited: requests.memory=1Mi",'
    '"reason":"Forbidden","code":403}'
)
STRANGER = (
    'body: {"message":"pods \\"p-unknown-account-y2\\" is forbidden: error looking up service account ns/none: '
    'serviceaccount \\"none\\" not found","reason":"Forbidden"}'
)
UNSAFE = (
    'body: {"message":"pods \\"p-privileged-z3\\" is forbidden: violates PodSecurity \\"restricted:latest\\": '
    'privileged (container \\"base\\" must not set securityContext.privileged=true)","reason":"Forbidden"}'
)
IMPOSSIBLE = (
    'body: {"message":"Pod \\"p-limit-below-request-w4\\" is invalid: spec.containers[0].resources.requests: Invalid '
    'value: \\"640Mi\\": must be less than or equal to memory limit of 384Mi","reason":"Invalid","details":{}}'
)


@pytest.mark.parametrize("escaped", [False, True])
def test_what_the_api_refused_is_in_the_schedulers_log(escaped: bool) -> None:
    log = "\n".join([PLAIN, "between", STRANGER, UNSAFE, UNSAFE, IMPOSSIBLE])
    found = refusals(log.replace("\\", "\\\\").replace('"', '\\"') if escaped else log)
    assert [(each.pod, each.kind) for each in found] == [
        ("p-large-x1", "quota"),
        ("p-unknown-account-y2", "account"),
        ("p-privileged-z3", "security"),
        ("p-limit-below-request-w4", "template"),
    ]
    assert "requested: requests.memory=512Mi" in found[0].proof
    assert 'serviceaccount "none" not found' in found[1].proof
    assert found[3].proof.endswith('"640Mi": must be less than or equal to memory limit of 384Mi')


def test_a_log_without_refusals() -> None:
    assert refusals("Creating kubernetes pod for job is x, with pod name p-large-x1") == []


def test_messages_of_a_pods_log() -> None:
    said = '{"timestamp": "t", "level": "info", "event": "two\\nlines"}\nplain\n{"no": "message"}\n5'
    assert messages(said) == 't info two\nlines\nplain\n{"no": "message"}\n5'


def test_a_tasks_id_in_a_pods_name() -> None:
    assert slug("image_missing") == "image-missing"


def test_the_claims_that_a_pod_may_write_to() -> None:
    seen = pod("Pending")
    seen["spec"] = {
        "containers": [
            {
                "name": "base",
                "volumeMounts": [{"name": "home"}, {"name": "dags", "readOnly": True}, {"name": "shared"}],
            },
            {"name": "sidecar", "volumeMounts": [{"name": "other"}]},
        ],
        "volumes": [
            {"name": "home", "emptyDir": {}},
            *(
                {"name": each, "persistentVolumeClaim": {"claimName": f"a-{each}"}}
                for each in ("dags", "shared", "other")
            ),
        ],
    }
    assert writable_claims(life(seen)) == {"a-shared"}
    assert writable_claims(life(pod("Pending"))) == set()


class Api:
    """A cluster's API that answers watches with what it is given, one text each, and then with nothing."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), []

    def request(self, _method: str, _path: str, **_query: Any) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": "7"}}

    def text(self, _method: str, _path: str, **_query: Any) -> str:
        return "said"

    def lines(self, _path: str, **query: Any) -> list[str]:
        self.asked.append(query["resourceVersion"])
        return self.texts.pop(0).splitlines() if self.texts else []


class Place:
    """A namespace as a history needs it."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def path(self, kind: str) -> str:
        return f"/{kind}"


def event(kind: str, version: str, phase: str, uid: str = "u1", run: str = "run 1") -> str:
    found = pod(phase, containers=[("base", RUNNING)])
    found["metadata"] |= {"uid": uid, "resourceVersion": version, "labels": {"kubernetes_executor": "True"}}
    found["metadata"]["annotations"] = {**found["metadata"]["annotations"], "run_id": run}
    return json.dumps({"type": kind, "object": found})


def wait_for(history: History, count: int) -> None:
    def seen() -> tuple[bool | None, str]:
        return (True if len(history.sightings()) >= count else None), "fewer"

    until(seen, what="the watch to be read", timeout=5, interval=0.01)


def test_a_history_goes_on_where_a_watch_ended() -> None:
    api = Api(
        event("ADDED", "8", "Pending") + "\n" + event("MODIFIED", "9", "Running") + "\n",
        event("ADDED", "10", "Pending", uid="u2", run="another") + "\n",
        event("DELETED", "11", "Succeeded"),
    )
    history = History(Place(api))  # type: ignore[arg-type]
    wait_for(history, 4)
    history.close()
    assert api.asked[:4] == ["7", "9", "10", "11"]
    (mine,) = history.lives(RUN)
    assert mine.phases() == ["Pending", "Running", "Succeeded"]
    assert mine.gone
    assert history.said(mine) == "said"
    assert history.said(mine, "proxy") == ""


def test_a_history_with_a_hole_is_none() -> None:
    api = Api('{"type": "ERROR", "object": {"message": "too old resource version"}}')
    history = History(Place(api))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="too old resource version"):
        wait_for(history, 1)
    history.close()
