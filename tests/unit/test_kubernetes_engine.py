"""The embedded engine's Kubernetes resources against a recording API."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pulumi.output import UNKNOWN

from labs import processes
from labs.cluster import Object, Refused, Unreachable
from labs.engines import kubernetes as handlers
from labs.engines.drift import drifts, told
from labs.engines.kubernetes import ObjectProvider
from labs.engines.providers import find
from labs.engines.values import Secret, transform
from labs.errors import LabError, UsageError
from labs.waiting import WaitTimeout

URN = "urn:pulumi:t::airflow-labs::kubernetes:core/v1:ConfigMap::settings"
OURS = {"airflow-executor-labs/lab": "x.t"}


def thing(kind: str = "ConfigMap", name: str = "settings", **fields: Any) -> Object:
    metadata = {"name": name, "namespace": "lab", "labels": dict(OURS)}
    version = {"Deployment": "apps/v1", "Job": "batch/v1"}.get(kind, "v1")
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def merged(there: Any, applied: Any) -> Any:
    """What applying makes of what is there: items of lists go by their names, and what others own stays."""
    if isinstance(there, dict) and isinstance(applied, dict):
        return {**there, **{key: merged(there.get(key), value) for key, value in applied.items()}}
    if isinstance(there, list) and isinstance(applied, list) and all("name" in each for each in (*there, *applied)):
        named, ours = ({each["name"]: each for each in items} for items in (there, applied))
        return [merged(named.get(name), ours.get(name, each)) for name, each in {**named, **ours}.items()]
    return copy.deepcopy(applied)


@dataclass
class Api:
    """A cluster in memory: what is applied is there, and `status` says what its controllers make of it."""

    objects: dict[str, Object] = field(default_factory=dict)
    status: dict[str, Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    classes: list[Object] = field(default_factory=list)
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    refuses: str = ""
    reason: str = "Failed"
    keeps: bool = False
    counter: int = 0
    meanwhile: Callable[[str], None] = lambda _path: None
    writes: dict[str, str] = field(default_factory=dict)

    def path(self, api_version: str, kind: str, name: str = "", namespace: str = "") -> str:
        if kind == "Widget":
            raise Refused(404, "no such kind")
        return f"/{kind}/{namespace}/{name}"

    def found(self, path: str) -> Object | None:
        if path.endswith("/serviceaccounts/default"):
            return {"kind": "ServiceAccount"}
        found = copy.deepcopy(self.objects.get(path))
        if found is not None:
            found["status"] = self.status.get(found["kind"], {})
        return found

    def items(self, path: str, **query: Any) -> list[Object]:
        if path.endswith("/storageclasses"):
            return self.classes
        if path.endswith("/events"):
            return [{"reason": self.reason, "message": "no such image", "lastTimestamp": "1"}]
        if path.endswith("/"):  # all of a kind
            key, _, value = query["labelSelector"].partition("=")
            found = [each for there, each in self.objects.items() if there.startswith(path)]
            marks = [each["metadata"].get("labels", {}).get(key) for each in found]
            return [each for each, mark in zip(found, marks, strict=True) if mark and value in ("", mark)]
        return self.pods if path.endswith("/pods") else []

    def text(self, method: str, path: str, **query: Any) -> str:
        return "Traceback: no database"

    def request(self, method: str, path: str, body: Object | None = None, **query: Any) -> Object:
        self.calls.append((method, path, {"body": body, **query}))
        if method == "PATCH":
            if self.refuses:
                raise Refused(422, self.refuses)
            assert body is not None
            body = transform(body, lambda leaf: self.writes.get(leaf, leaf))
            before = self.objects.get(path)
            if query.get("dryRun") and before is not None:
                self.meanwhile(path)
                return merged(self.objects[path], body)
            if before is None:
                self.counter += 1
            uid = before["metadata"]["uid"] if before else f"uid-{self.counter}"
            self.objects[path] = copy.deepcopy(body)
            self.objects[path]["metadata"] |= {"uid": uid, "generation": 1, "resourceVersion": "1"}
            return copy.deepcopy(self.objects[path])
        if method == "DELETE" and not self.keeps:
            self.objects.pop(path, None)
        return {}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    monkeypatch.setattr(handlers, "cluster", lambda _kubeconfig: found)
    monkeypatch.setattr(handlers, "TIMEOUT", 0.1)
    monkeypatch.setattr(handlers, "GONE", 0.1)
    return found


PROVIDER = ObjectProvider("kubeconfig")


def test_a_provider_is_told_its_cluster_by_the_program() -> None:
    found = find(handlers.PROVIDERS, "kubernetes:apps/v1:Deployment", {"kubeconfig": "text"})
    assert found == ObjectProvider("text")
    assert find(handlers.PROVIDERS, "kubernetes:apps/v1:Deployment") == ObjectProvider("")


def test_an_object_is_applied_by_its_manager_with_whole_numbers(api: Api) -> None:
    id_, outputs = PROVIDER.create(URN, thing(data={"port": 8080.0}))
    (method, path, given) = api.calls[-1]
    assert (method, path, id_) == ("PATCH", "/ConfigMap/lab/settings", "lab/settings")
    assert given["kind"] == "application/apply-patch+yaml"
    assert given["fieldManager"] == "airflow-executor-labs" and given["fieldValidation"] == "Strict"
    assert given["body"]["data"] == {"port": 8080} and isinstance(given["body"]["data"]["port"], int)
    assert outputs["uid"] == "uid-1"
    assert not PROVIDER.diff(URN, id_, outputs, thing(data={"port": 8080.0})).changes


def test_what_is_not_of_the_lab_is_neither_adopted_nor_removed(api: Api) -> None:
    foreign = thing()
    foreign["metadata"] = {**foreign["metadata"], "labels": {"app": "else"}, "uid": "theirs"}
    api.objects["/ConfigMap/lab/settings"] = foreign
    with pytest.raises(LabError, match="there is a ConfigMap settings in the namespace lab that is not of this lab"):
        PROVIDER.create(URN, thing())
    PROVIDER.delete(URN, "lab/settings", thing())
    assert not [call for call in api.calls if call[0] in ("PATCH", "DELETE")]


def test_an_object_without_a_name_or_labels_is_refused() -> None:
    nameless = thing()
    del nameless["metadata"]["name"]
    with pytest.raises(UsageError, match=r"settings lacks metadata\.name, by which"):
        PROVIDER.check(URN, {}, nameless)


def test_what_the_api_server_refuses_is_told_in_its_words(api: Api) -> None:
    api.refuses = ".spec.contianers: field not declared in schema"
    with pytest.raises(LabError, match=r"the ConfigMap settings in the namespace lab was refused: \.spec\.contianers"):
        PROVIDER.create(URN, thing())


def test_a_port_that_another_lab_took_meanwhile_is_told_with_its_cure(api: Api) -> None:
    api.refuses = "spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated"
    with pytest.raises(LabError, match="already allocated; something else took it just now: run `up` again"):
        PROVIDER.create(URN, thing("Service", spec={}))


def test_a_change_is_made_in_place_unless_the_api_server_lets_nobody(api: Api) -> None:
    _, outputs = PROVIDER.create(URN, thing(data={"a": "1"}))
    change = PROVIDER.diff(URN, "lab/settings", outputs, thing(data={"a": "2"}))
    assert change.changes and not change.replaces
    assert PROVIDER.update(URN, "lab/settings", outputs, thing(data={"a": "2"}))["uid"] == "uid-1"
    claim = thing("PersistentVolumeClaim", spec={"storageClassName": "a"})
    other = thing("PersistentVolumeClaim", spec={"storageClassName": "b"})
    assert "spec" in PROVIDER.diff(URN, "", {**claim, "uid": ""}, other).replaces
    workload = thing("Deployment", spec={"selector": {"a": "1"}, "replicas": 1.0})
    assert not PROVIDER.diff(
        URN, "", {**workload, "uid": ""}, thing("Deployment", spec={**workload["spec"], "replicas": 2.0})
    ).replaces


def test_an_object_moves_with_a_namespace_that_is_not_there_yet(api: Api) -> None:
    _, outputs = PROVIDER.create(URN, thing())
    for metadata in (UNKNOWN, {**thing()["metadata"], "namespace": UNKNOWN}):
        assert PROVIDER.diff(URN, "", outputs, {**thing(), "metadata": metadata}).replaces
    assert not ObjectProvider().diff(URN, "", outputs, thing()).changes  # nobody knows the cluster yet


def test_what_somebody_removed_or_replaced_is_made_again(api: Api) -> None:
    _, outputs = PROVIDER.create(URN, thing())
    api.objects["/ConfigMap/lab/settings"]["metadata"]["uid"] = "another"
    anew = PROVIDER.diff(URN, "lab/settings", outputs, thing())
    assert (anew.replaces, told(anew.drift, {})) == (("uid",), "drift: somebody made it anew")
    api.objects["/ConfigMap/lab/settings"]["metadata"] |= {"uid": outputs["uid"], "deletionTimestamp": "now"}
    going = PROVIDER.diff(URN, "lab/settings", outputs, thing())
    assert (going.replaces, told(going.drift, {})) == (("uid",), "drift: it is gone")
    api.objects.clear()
    gone = PROVIDER.diff(URN, "lab/settings", outputs, thing())
    assert (gone.replaces, told(gone.drift, {})) == (("uid",), "drift: it is gone")


def workload() -> Object:
    container = {"name": "scheduler", "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "1"}}}
    template = {"spec": {"containers": [container]}}
    return thing("Deployment", spec={"selector": {"matchLabels": {"a": "1"}}, "replicas": 1.0, "template": template})


def made(api: Api, wanted: Object) -> tuple[Object, Object]:
    """What an `up` remembers of it, and the object itself, to be changed by hand."""
    api.status["Deployment"] = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1}
    _, outputs = PROVIDER.create(URN, wanted)
    return outputs, api.objects[handlers._path(api, wanted)]  # type: ignore[arg-type]


def drift_of(outputs: Object, wanted: Object) -> str:
    """In words; there is a change to be made where there is one, and no other."""
    found = PROVIDER.diff(URN, "", outputs, wanted)
    assert bool(found.changes) == bool(found.drift) and not found.replaces
    return told(found.drift, wanted)


def test_what_somebody_changed_is_drift_field_by_field(api: Api) -> None:
    outputs, there = made(api, workload())
    assert drift_of(outputs, workload()) == ""
    there["spec"]["replicas"] = 3
    assert drift_of(outputs, workload()) == "drift: spec.replicas is 3, not 1"
    there["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "2"
    del there["metadata"]["labels"]["airflow-executor-labs/lab"]
    assert "spec.template.spec.containers.scheduler.env.A.value is 2, not 1" in drift_of(outputs, workload())
    assert "metadata.labels.airflow-executor-labs/lab is gone" in drift_of(outputs, workload())
    PROVIDER.update(URN, "", outputs, workload())
    assert drift_of(outputs, workload()) == ""


def test_what_others_own_is_no_drift(api: Api) -> None:
    scaled = workload()
    del scaled["spec"]["replicas"]
    outputs, there = made(api, scaled)
    there["spec"] |= {"replicas": 5, "progressDeadlineSeconds": 600}
    there["metadata"] |= {"annotations": {"deployment.kubernetes.io/revision": "2"}, "generation": 7}
    there["metadata"] |= {"managedFields": [{}], "resourceVersion": "9"}
    there["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "B", "value": "of a webhook"})
    assert drift_of(outputs, scaled) == ""


def test_a_value_is_compared_as_the_api_server_writes_it(api: Api) -> None:
    api.writes = {"1000m": "1"}
    milli = workload()
    milli["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1000m"
    outputs, _ = made(api, milli)
    assert "'cpu': '1'" in str(api.objects) and drift_of(outputs, milli) == ""


def test_what_is_written_between_two_looks_is_looked_at_again(api: Api) -> None:
    scaled = workload()
    del scaled["spec"]["replicas"]
    outputs, there = made(api, scaled)
    there["spec"]["replicas"] = 1

    def grow(_path: str) -> None:
        if there["spec"]["replicas"] == 1:
            there["spec"]["replicas"], there["metadata"]["resourceVersion"] = 2, "2"

    api.meanwhile = grow
    assert drift_of(outputs, scaled) == ""


def test_a_trial_changes_nothing(api: Api) -> None:
    outputs, there = made(api, workload())
    there["spec"]["replicas"] = 3
    drift_of(outputs, workload())
    assert api.objects[handlers._path(api, workload())]["spec"]["replicas"] == 3  # type: ignore[arg-type]


def test_no_secret_is_told() -> None:
    found, wanted = {"data": {"password": "YWJj", "user": "a"}}, {"data": {"password": "ZGVm", "user": "b"}}
    changes = list(drifts(found, wanted))
    marked = {"data": {"password": Secret("ZGVm"), "user": "b"}}
    assert told(changes, marked) == "drift: data.password is another, data.user is a, not b"
    assert told(changes, {"data": Secret(wanted["data"])}) == "drift: data.password is another, data.user is another"


def test_of_many_fields_a_few_are_told_and_of_long_ones_only_that_they_are_others() -> None:
    many = list(drifts({str(number): 0 for number in range(9)}, {str(number): 1 for number in range(9)}))
    assert told(many, {}) == "drift: 0 is 0, not 1, 1 is 0, not 1, 2 is 0, not 1, 6 more"
    assert told(list(drifts({"text": "x" * 99}, {"text": "y"})), {}) == "drift: text is another"
    assert told(list(drifts({"a": [{}]}, {"a": []})), {}) == "drift: a.0 was added"


def test_a_kind_that_the_cluster_lacks_has_no_objects(api: Api) -> None:
    widget = thing("Widget")
    PROVIDER.delete(URN, "lab/settings", widget)
    assert api.calls == []


def pod(reason: str = "", ended: int | None = None, message: str = "") -> Object:
    state: Object = {"waiting": {"reason": reason, "message": message}} if reason else {"running": {}}
    if ended is not None:
        state = {"terminated": {"exitCode": ended, "reason": "Error"}}
    status = {"containerStatuses": [{"name": "scheduler", "state": state}]}
    return {"metadata": {"name": "scheduler-1", "namespace": "lab"}, "status": status}


DEPLOYMENT = thing("Deployment", spec={"replicas": 1, "selector": {"matchLabels": {"a": "1"}}})


def test_a_deployment_is_awaited_until_its_pods_are_available(api: Api) -> None:
    api.status["Deployment"] = {
        "observedGeneration": 1,
        "updatedReplicas": 1,
        "availableReplicas": 1,
        "replicas": 1,
    }
    PROVIDER.create(URN, DEPLOYMENT)
    api.status["Deployment"] = {**api.status["Deployment"], "replicas": 2}  # the old one is still there
    with pytest.raises(WaitTimeout, match="waited 0 s for the Deployment settings in the namespace lab"):
        PROVIDER.update(URN, "", DEPLOYMENT, DEPLOYMENT)


def test_of_what_an_autoscaler_scales_none_is_enough_and_no_number_is_applied(api: Api) -> None:
    scaled = thing("Deployment", spec={"selector": {"matchLabels": {"a": "1"}}})
    api.status["Deployment"] = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1}
    _, outputs = PROVIDER.create(URN, scaled)  # the API server says 1 where nobody does
    assert "replicas" not in api.calls[0][2]["body"]["spec"]
    api.objects["/Deployment/lab/settings"]["spec"]["replicas"] = 0
    api.status["Deployment"] = {"observedGeneration": 1}
    handlers.wait_ready(api, thing("Deployment"))  # type: ignore[arg-type]
    assert not PROVIDER.diff(URN, "", outputs, scaled).changes


def test_a_kind_is_ready_when_it_is_established_and_has_no_conditions_at_first(api: Api) -> None:
    wanted = thing("CustomResourceDefinition", spec={})
    api.status["CustomResourceDefinition"] = {"conditions": None}
    with pytest.raises(WaitTimeout, match="last state: not established yet"):
        PROVIDER.create(URN, wanted)
    api.status["CustomResourceDefinition"] = {"conditions": [{"type": "Established", "status": "True"}]}
    PROVIDER.create(URN, wanted)


def test_a_scaled_object_is_ready_when_its_query_is_answered(api: Api) -> None:
    wanted = thing("ScaledObject", spec={})
    api.status["ScaledObject"] = {"conditions": [{"type": "Ready", "status": "False", "message": "no such host"}]}
    with pytest.raises(WaitTimeout, match="last state: no such host"):
        PROVIDER.create(URN, wanted)
    api.status["ScaledObject"] = {"conditions": [{"type": "Ready", "status": "True", "message": "defined"}]}
    PROVIDER.create(URN, wanted)


def test_a_pod_that_cannot_be_is_told_with_its_own_events(api: Api) -> None:
    api.pods = [pod("ImagePullBackOff", message="not found")]
    with pytest.raises(
        WaitTimeout, match=r"pod scheduler-1: scheduler: ImagePullBackOff not found; Failed: no such image"
    ):
        PROVIDER.create(URN, DEPLOYMENT)


def test_an_image_that_cannot_be_pulled_is_not_waited_for_to_the_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.pods = [pod("ErrImagePull", message="not found")]
    monkeypatch.setattr(handlers, "PULLED", 0.0)
    with pytest.raises(WaitTimeout):  # the pod is one of before
        PROVIDER.create(URN, DEPLOYMENT)
    api.status["Deployment"] = {"observedGeneration": 1, "updatedReplicas": 1}
    with pytest.raises(LabError, match=r"the Deployment .* cannot start: .*scheduler: ErrImagePull not found"):
        PROVIDER.create(URN, DEPLOYMENT)


def test_what_has_no_pod_is_told_with_what_refused_it(api: Api) -> None:
    quota = {"type": "ReplicaFailure", "status": "True", "message": 'pods "scheduler-1" is forbidden: exceeded quota'}
    api.status["Deployment"] = {"conditions": [quota]}
    with pytest.raises(WaitTimeout, match=r"available of 1; pods .* is forbidden: exceeded quota"):
        PROVIDER.create(URN, DEPLOYMENT)
    api.reason = "FailedCreate"
    stateful = thing("StatefulSet", spec={"replicas": 1, "selector": {"matchLabels": {"service": "broker"}}})
    with pytest.raises(WaitTimeout, match=r"; FailedCreate: no such image"):
        PROVIDER.create(URN, stateful)


def test_a_container_that_ends_again_and_again_is_not_waited_for(api: Api) -> None:
    api.pods = [pod("CrashLoopBackOff")]
    api.status["Deployment"] = {"observedGeneration": 1, "updatedReplicas": 0}
    with pytest.raises(WaitTimeout):  # the pods may be those of before
        PROVIDER.create(URN, DEPLOYMENT)
    api.status["Deployment"] = {"observedGeneration": 1, "updatedReplicas": 1}
    with pytest.raises(
        LabError, match=r"cannot start: pod scheduler-1: scheduler: CrashLoopBackOff; Failed: .*\nTraceback"
    ):
        PROVIDER.create(URN, DEPLOYMENT)


def test_a_job_that_failed_is_told_with_the_end_of_its_log(api: Api) -> None:
    job = thing("Job", spec={"template": {}, "selector": {"matchLabels": {"job": "1"}}})
    api.status["Job"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    PROVIDER.create(URN, job)
    api.objects.clear()
    api.pods = [pod(ended=3)]
    api.status["Job"] = {"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit"}]}
    with pytest.raises(
        LabError, match=r"failed \(backoff limit\): pod scheduler-1: scheduler ended with 3 .*\nTraceback"
    ):
        PROVIDER.create(URN, job)


def test_a_claim_names_the_storage_class_that_is_absent(api: Api) -> None:
    claim = thing("PersistentVolumeClaim", spec={"storageClassName": "fast"})
    api.classes = [{"metadata": {"name": "standard"}, "volumeBindingMode": "WaitForFirstConsumer"}]
    with pytest.raises(LabError, match="the storage class fast, which the cluster lacks: use one of standard"):
        PROVIDER.create(URN, claim)
    api.objects.clear()
    PROVIDER.create(URN, thing("PersistentVolumeClaim", spec={"storageClassName": "standard"}))  # a pod must come first
    api.objects.clear()
    with pytest.raises(LabError, match="names no storage class, and none is the default"):
        PROVIDER.create(URN, thing("PersistentVolumeClaim", spec={}))


def test_a_volume_is_there_when_its_controller_has_seen_it(api: Api) -> None:
    api.status["PersistentVolume"] = {"phase": "Pending"}
    with pytest.raises(WaitTimeout, match="last state: Pending"):
        PROVIDER.create(URN, thing("PersistentVolume"))
    api.status["PersistentVolume"] = {"phase": "Available"}
    PROVIDER.create(URN, thing("PersistentVolume"))


def test_a_volume_must_be_seen_there_twice(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[str]()
    api.status["PersistentVolume"] = {"phase": "Available"}
    real = api.found
    monkeypatch.setattr(api, "found", lambda path: (looks.append(path), real(path))[1])
    handlers.wait_ready(api, handlers.apply(api, thing("PersistentVolume")))  # type: ignore[arg-type]
    assert len(looks) == 2


def test_what_could_not_be_made_is_not_left(api: Api) -> None:
    api.status["Job"] = {"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit"}]}
    with pytest.raises(LabError, match="backoff limit"):
        PROVIDER.create(URN, thing("Job", spec={"template": {}}))
    assert api.objects == {}


def test_a_claim_goes_with_the_pods_that_have_it(api: Api) -> None:
    api.classes = [{"metadata": {"name": "standard"}, "volumeBindingMode": "WaitForFirstConsumer"}]
    claim = thing("PersistentVolumeClaim", "logs", spec={"storageClassName": "standard"})
    _, outputs = PROVIDER.create(URN, claim)
    has = {"volumes": [{"name": "logs", "persistentVolumeClaim": {"claimName": "logs"}}]}
    api.pods = [{"metadata": {"name": "task"}, "spec": has}, {"metadata": {"name": "other"}, "spec": {}}]
    PROVIDER.delete(URN, "lab/logs", outputs)
    deleted = [path for method, path, _ in api.calls if method == "DELETE"]
    assert "/api/v1/namespaces/lab/pods/task" in deleted and "/api/v1/namespaces/lab/pods/other" not in deleted


def test_what_nobody_waits_for_is_not_awaited(api: Api) -> None:
    lazy = copy.deepcopy(DEPLOYMENT)
    lazy["metadata"]["annotations"] = {"pulumi.com/skipAwait": "true"}
    PROVIDER.create(URN, lazy)


def test_a_delete_is_done_when_the_object_and_its_pods_are_gone(api: Api) -> None:
    api.status["Deployment"] = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1}
    _, outputs = PROVIDER.create(URN, DEPLOYMENT)
    api.pods = [pod()]
    with pytest.raises(WaitTimeout, match="last state: 1 of its pods are there"):
        PROVIDER.delete(URN, "", outputs)
    api.pods = []
    PROVIDER.create(URN, DEPLOYMENT)
    PROVIDER.delete(URN, "", outputs)
    assert api.objects == {}
    method, _, given = api.calls[-1]
    assert method == "DELETE" and given["body"]["preconditions"] == {"uid": "uid-2"}


def test_pods_that_go_are_given_the_time_that_they_have(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.status["Deployment"] = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1}
    patient = copy.deepcopy(DEPLOYMENT)
    patient["spec"]["template"] = {"spec": {"terminationGracePeriodSeconds": 3}}
    _, outputs = PROVIDER.create(URN, patient)
    api.pods, given = [pod()], []
    monkeypatch.setattr(handlers, "until", lambda _probe, *, timeout, **_: given.append(timeout))
    PROVIDER.update(URN, "", outputs, patient)
    PROVIDER.delete(URN, "", outputs)
    assert given == [3.1, 3.1], "those of before end first"


def test_what_was_in_a_cluster_that_is_gone_went_with_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    _, outputs = PROVIDER.create(URN, thing())

    def nobody(*_: object, **__: object) -> Object:
        raise Unreachable("nobody answers")

    monkeypatch.setattr(api, "found", nobody)
    settings = {"kubeconfig": "text", "deleteUnreachable": "true"}
    found = find(handlers.PROVIDERS, "kubernetes:core/v1:ConfigMap", settings)
    found.delete(URN, "", outputs)
    with pytest.raises(Unreachable, match="nobody answers"):
        PROVIDER.delete(URN, "", outputs)


def test_pods_get_little_time_when_the_whole_lab_goes(api: Api) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab", "labels": dict(OURS)}}
    api.status["Namespace"] = {"phase": "Active"}
    _, outputs = PROVIDER.create(URN, namespace)
    with processes.going_down():
        PROVIDER.delete(URN, "lab", outputs)
    assert ("DELETE", "/api/v1/namespaces/lab/pods", {"body": None, "gracePeriodSeconds": 2}) in api.calls
    assert ("DELETE", "/api/v1/namespaces/lab/persistentvolumeclaims", {"body": None}) in api.calls


def test_what_keeps_an_object_is_told(api: Api) -> None:
    _, outputs = PROVIDER.create(URN, thing())
    api.keeps = True
    api.objects["/ConfigMap/lab/settings"]["metadata"]["finalizers"] = ["example/hold"]
    with pytest.raises(WaitTimeout, match="to be gone; last state: finalizers example/hold"):
        PROVIDER.delete(URN, "lab/settings", outputs)
