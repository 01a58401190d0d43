"""Kubernetes resources of the embedded engine: any kind of pulumi-kubernetes, by server-side apply.

An operation ends when the object is ready, as with pulumi-kubernetes. What carries other labels than the program gives
it is somebody else's, and is neither adopted nor removed.
Source: https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/managing-resources-with-server-side-apply/
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pulumi.output import UNKNOWN

from labs import processes
from labs.cluster import MANAGER, Cluster, Object, Refused, Unreachable, cluster, events, last_lines, plight
from labs.engines.base import name_of
from labs.engines.deployment import changed_keys
from labs.engines.drift import MISSING, Drift, drifts
from labs.engines.providers import Difference, Provider
from labs.engines.values import Values, plain_outputs
from labs.errors import LabError, UsageError
from labs.waiting import until

SKIP_AWAIT = "pulumi.com/skipAwait"
"""Annotation of what nobody waits for, as in pulumi-kubernetes."""

TIMEOUT = 600.0
"""Seconds until an object must be ready, as in pulumi-kubernetes."""

GONE = 300.0
"""Seconds until what was deleted must be gone, beside those that its pods are given to end."""

IMMUTABLE: Mapping[str, tuple[str, ...]] = {
    "Job": ("spec",),
    "PersistentVolume": ("spec",),
    "PersistentVolumeClaim": ("spec",),
    "Pod": ("spec",),
    "PriorityClass": ("value", "preemptionPolicy"),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
    "Secret": ("type",),
    "StatefulSet": ("spec.selector", "spec.serviceName", "spec.volumeClaimTemplates"),
    "Deployment": ("spec.selector",),
    "StorageClass": ("provisioner", "parameters", "volumeBindingMode", "reclaimPolicy"),
}
"""What the API server lets nobody change, by kind; another name or namespace is another object anyway."""

WRITTEN = frozenset({"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"})
"""Of an object's metadata what nobody can want otherwise."""

LOOKS = 5
"""How often an object is looked at once more that was written between two looks."""

HOPELESS = frozenset({"CreateContainerConfigError", "ErrImageNeverPull", "InvalidImageName", "CrashLoopBackOff"})
"""Reasons for which a container waits that time does not cure."""

UNPULLED = frozenset({"ErrImagePull", "ImagePullBackOff"})
"""Reasons that time may cure, as when a registry is busy."""

PULLED = 60.0
"""Seconds for which an image is waited for that cannot be pulled: the kubelet has tried three times by then."""

TWICE = frozenset({"PersistentVolume"})
"""Kinds that must look ready twice: its controller tells others of it a moment before it has noted it itself, and a
claim that comes in between is looked at again only after 15 s."""

Seen = tuple[bool | None, str]
"""Whether an object is ready, None while it is not, False while an image cannot be pulled; and what was seen."""


class ClusterProvider:
    """`pulumi_kubernetes.Provider`: nothing but the kubeconfig that others are applied with."""

    def check(self, urn: str, olds: Values, news: Values) -> Values:
        return news

    def diff(self, urn: str, id: str, olds: Values, news: Values) -> Difference:
        return Difference(bool(changed_keys(olds, news)))

    def create(self, urn: str, news: Values) -> tuple[str, Values]:
        return name_of(urn), news

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        return news

    def delete(self, urn: str, id: str, outputs: Values) -> None:
        """There is nothing but the resource."""


@dataclass(frozen=True)
class ObjectProvider:
    """Every object of a cluster's API.

    Attributes:
        kubeconfig: of the cluster; "" where it is not known yet.
        delete_unreachable: whether what is in a cluster that does not answer goes without asking, as with
            pulumi-kubernetes.
    """

    kubeconfig: str = ""
    delete_unreachable: bool = False

    def configured(self, settings: Values) -> ObjectProvider:
        """The provider for a cluster."""
        given = settings.get("kubeconfig", "")
        return ObjectProvider("" if given is UNKNOWN else given, settings.get("deleteUnreachable") == "true")

    def check(self, urn: str, olds: Values, news: Values) -> Values:
        metadata = news.get("metadata", {})
        for required in ("name", "labels"):
            if required not in metadata:
                raise UsageError(
                    f"{name_of(urn)} lacks metadata.{required}, by which the embedded engine finds it again"
                )
        return news

    def diff(self, urn: str, id: str, olds: Values, news: Values) -> Difference:
        known = {key: value for key, value in olds.items() if key != "uid"}
        changed = changed_keys(known, news)
        replaces = tuple(key for key in _immutable(news) if _at(known, key) != _at(news, key))
        if not self.kubeconfig or has_unknown_name(news):
            return Difference(bool(changed), replaces, delete_before_replace=True)
        if replaces:
            return Difference(True, replaces, delete_before_replace=True)
        api, applied = self._api(), _object(olds)
        found = _found(api, applied)
        anew = _uid(found) != olds.get("uid")
        if anew or (found and "deletionTimestamp" in found["metadata"]):
            return Difference(True, ("uid",), True, (Drift(found=found if anew and found else MISSING),))
        drift = _drift(api, applied, found) if found else ()
        return Difference(bool(changed or drift), delete_before_replace=True, drift=drift)

    def create(self, urn: str, news: Values) -> tuple[str, Values]:
        api, wanted = self._api(), _object(news)
        found = _found(api, wanted)
        if found is not None and not _owned(found, wanted):
            raise LabError(
                f"there is a {_told(wanted)} that is not of this lab; remove or rename it, or name this lab otherwise "
                "with --name"
            )
        made = apply(api, wanted)
        try:
            wait_ready(api, made)
        except BaseException:
            with contextlib.suppress(LabError):
                remove(api, made)  # it holds on to what it mounts, and a Job that failed is never tried again
            raise
        return _id(wanted), {**news, "uid": _uid(made)}

    def update(self, urn: str, id: str, olds: Values, news: Values) -> Values:
        api = self._api()
        made = apply(api, _object(news))
        wait_ready(api, made, after=_given(olds))
        return {**news, "uid": _uid(made)}

    def delete(self, urn: str, id: str, outputs: Values) -> None:
        api, doomed = self._api(), _object(outputs)
        try:
            found = _found(api, doomed)
        except Unreachable:
            if self.delete_unreachable:
                return
            raise
        if found is not None and _owned(found, doomed):
            remove(api, found)

    def _api(self) -> Cluster:
        if not self.kubeconfig:
            raise LabError("a Kubernetes object names no provider with a kubeconfig, a defect of the program")
        return cluster(self.kubeconfig)


PROVIDERS: Mapping[str, Provider] = {
    "pulumi:providers:kubernetes": ClusterProvider(),
    "kubernetes:*": ObjectProvider(),
}
"""By type token, for the embedded engine."""


def has_unknown_name(values: Values) -> bool:
    """Whether only an `up` knows where an object will be."""
    metadata = values["metadata"]
    return metadata is UNKNOWN or UNKNOWN in (metadata.get("name"), metadata.get("namespace"))


def _object(values: Values) -> Object:
    """The object as the API takes it: whole numbers, no bookkeeping."""
    return plain_outputs({key: value for key, value in values.items() if key != "uid"})


def _immutable(values: Values) -> tuple[str, ...]:
    return ("metadata.name", "metadata.namespace", *IMMUTABLE.get(str(values.get("kind")), ()))


def _at(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _id(wanted: Object) -> str:
    metadata = wanted["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _told(thing: Object) -> str:
    """
    >>> _told({"kind": "Service", "metadata": {"name": "airflow-api-server", "namespace": "lab"}})
    'Service airflow-api-server in the namespace lab'
    """
    metadata = thing["metadata"]
    place = f" in the namespace {metadata['namespace']}" if metadata.get("namespace") else ""
    return f"{thing['kind']!s} {metadata['name']}{place}"


def _path(api: Cluster, thing: Object) -> str:
    metadata = thing["metadata"]
    return api.path(thing["apiVersion"], thing["kind"], metadata["name"], metadata.get("namespace", ""))


def _found(api: Cluster, thing: Object) -> Object | None:
    try:
        path = _path(api, thing)
    except Refused as error:
        if error.status == 404:  # nor is its kind
            return None
        raise
    found = api.found(path)
    return found and {"apiVersion": thing["apiVersion"], "kind": thing["kind"], **found}


def _uid(found: Object | None) -> str:
    return str(found["metadata"]["uid"]) if found else ""


def _owned(found: Object, wanted: Object) -> bool:
    """Whether what was found has all the labels that the program gives to its own."""
    labels = wanted["metadata"].get("labels", {})
    return bool(labels) and labels.items() <= (found["metadata"].get("labels") or {}).items()


def _drift(api: Cluster, applied: Object, found: Object) -> tuple[Drift, ...]:
    """In what an object differs from what applying it once more would make of it.

    So it is the API server that knows defaults and other ways to write a value, and what other managers own, such as
    the number of replicas that an autoscaler keeps, is in both.
    """
    wanted = apply(api, applied, dryRun="All")
    for _ in range(LOOKS):
        if wanted["metadata"].get("resourceVersion") == found["metadata"].get("resourceVersion"):
            break
        found = _found(api, applied) or found  # somebody has just written it
        wanted = apply(api, applied, dryRun="All")
    return tuple(drifts(_kept(found), _kept(wanted)))


def _kept(thing: Object) -> Object:
    """An object without what the API server and controllers write down of it."""
    metadata = {key: value for key, value in thing["metadata"].items() if key not in WRITTEN}
    return {**{key: value for key, value in thing.items() if key != "status"}, "metadata": metadata}


def apply(api: Cluster, wanted: Object, **query: Any) -> Object:
    """Apply an object on the server's side; gives it as the API server has it then.

    Raises:
        LabError: the API server refuses it; in its own words.
    """
    try:
        made = api.request(
            "PATCH",
            _path(api, wanted),
            wanted,
            kind="application/apply-patch+yaml",
            fieldManager=MANAGER,
            force="true",
            fieldValidation="Strict",
            **query,
        )
    except Refused as error:
        cure = "; something else took it just now: run `up` again" if "already allocated" in error.said else ""
        raise LabError(f"the {_told(wanted)} was refused: {error.said}{cure}") from error
    return {"apiVersion": wanted["apiVersion"], "kind": wanted["kind"], **made}


def remove(api: Cluster, found: Object) -> None:
    """Delete, with the pods that it stands for, and wait until all of them are gone."""
    metadata = found["metadata"]
    pods = _pods_path(found)
    options = {"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}}
    with contextlib.suppress(Refused):  # it may be gone, or on its way
        api.request("DELETE", _path(api, found), options)
    if found["kind"] == "PersistentVolumeClaim":
        _release(api, metadata)
    if pods and processes.grace(1e9) < 1e9:
        with contextlib.suppress(Refused):
            api.request("DELETE", pods[0], gracePeriodSeconds=int(processes.SHORT), **pods[1])
    if found["kind"] == "Namespace":  # they wait for their pods, and who empties it looks again only after 5 s
        with contextlib.suppress(Refused):
            api.request("DELETE", f"/api/v1/namespaces/{metadata['name']}/persistentvolumeclaims")

    def gone() -> Seen:
        left = _found(api, found)
        if left is not None and left["metadata"]["uid"] == metadata["uid"]:
            kept = left["metadata"].get("finalizers") or left.get("spec", {}).get("finalizers") or []
            why = [each["message"] for each in _conditions(left).values() if each["status"] == "True"]
            return None, "; ".join([*why, f"finalizers {', '.join(kept)}"] if kept else why) or "it is there"
        remaining = api.items(pods[0], **pods[1]) if pods and found["kind"] != "Namespace" else []
        return (None if remaining else True), f"{len(remaining)} of its pods are there"

    until(gone, what=f"the {_told(found)} to be gone", timeout=GONE + _given(found), interval=0.2)


def _given(workload: Object) -> float:
    """Seconds that the pods of a workload are given to end."""
    return float(_at(workload, "spec.template.spec.terminationGracePeriodSeconds") or 0)


def _release(api: Cluster, claim: Object) -> None:
    """Delete the pods that have a claim, which stays until then: those of tasks, which ended or nobody waits for."""
    path = f"/api/v1/namespaces/{claim['namespace']}/pods"
    for pod in api.items(path):
        volumes = pod["spec"].get("volumes", ())
        if claim["name"] in {each.get("persistentVolumeClaim", {}).get("claimName") for each in volumes}:
            with contextlib.suppress(Refused):
                api.request("DELETE", f"{path}/{pod['metadata']['name']}", gracePeriodSeconds=int(processes.SHORT))


def _pods_path(thing: Object) -> tuple[str, dict[str, Any]] | None:
    """Where the pods of a namespace, or of a workload, are, and what selects them."""
    metadata = thing["metadata"]
    if thing["kind"] == "Namespace":
        return f"/api/v1/namespaces/{metadata['name']}/pods", {}
    labels = thing.get("spec", {}).get("selector", {})
    labels = labels.get("matchLabels") if isinstance(labels, Mapping) and thing["kind"] != "Service" else None
    if not labels:
        return None
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return f"/api/v1/namespaces/{metadata['namespace']}/pods", {"labelSelector": selector}


# Ready


def wait_ready(api: Cluster, made: Object, after: float = 0.0) -> None:
    """Wait until an object is ready.

    Args:
        after: seconds that the pods of before are given to end.

    Raises:
        LabError: it cannot become so; with its pods' own events and last lines.
    """
    ready = READY.get(made["kind"])
    metadata = made["metadata"]
    if ready is None or (metadata.get("annotations") or {}).get(SKIP_AWAIT) == "true":
        return

    looks = 2 if made["kind"] in TWICE else 1
    pulled_by = time.monotonic() + PULLED

    def seen() -> Seen:
        nonlocal looks
        found = _found(api, made)
        if found is None:
            raise LabError(f"the {_told(made)} went away while it was made; run `up` again")
        done, state = ready(api, found)
        if done is False and time.monotonic() > pulled_by:
            raise LabError(f"the {_told(made)} cannot start: {state}")
        looks -= bool(done)
        return (None if looks else True), state

    timeout, what = TIMEOUT + after, f"the {_told(made)}"
    until(seen, what=what, timeout=timeout, interval=0.25, detail=lambda: _trouble(api, made)[1])


def _trouble(api: Cluster, made: Object) -> tuple[set[str], str]:
    """For which reasons the pods of a workload wait, and what ails them, with the last lines of their logs."""
    pods = _pods_path(made)
    found = api.items(pods[0], **pods[1]) if pods else []
    reasons: set[str] = set()
    said = _not_made(api, made) if pods and not found else []
    for pod in found:
        wrong = "" if "deletionTimestamp" in pod["metadata"] else plight(api, pod)
        if not wrong:
            continue
        said.append(wrong)
        status = pod["status"]
        for each in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
            waiting = each["state"].get("waiting", {}).get("reason")
            if waiting:
                reasons.add(waiting)
            if waiting == "CrashLoopBackOff" or each["state"].get("terminated"):
                metadata = pod["metadata"]
                again: dict[str, Any] = {"previous": "true"} if waiting else {}
                said.append(last_lines(api, metadata["namespace"], metadata["name"], each["name"], **again))
    return reasons, "\n".join(said)


def _not_made(api: Cluster, workload: Object) -> list[str]:
    """Why a workload has no pod, such as a quota that is used up: of a Deployment it is a condition."""
    failure = _conditions(workload).get("ReplicaFailure")
    if failure:
        return [str(failure["message"])]
    metadata = workload["metadata"]
    told = events(api, str(metadata.get("namespace", "")), metadata["name"])
    return [line for line in told if line.startswith("FailedCreate")][-1:]


def _conditions(found: Object) -> dict[str, Object]:
    """Conditions by their type; those of a new object may be null."""
    return {each["type"]: each for each in found.get("status", {}).get("conditions") or ()}


def _holds(found: Object, condition: str) -> bool:
    return bool(_conditions(found).get(condition, {}).get("status") == "True")


def _workload(api: Cluster, found: Object, done: bool, state: str, replaced: bool = True) -> Seen:
    """What is seen of a workload; its pods count only once they are those of what was applied last."""
    if done:
        return True, state
    reasons, said = _trouble(api, found)
    if replaced and reasons & HOPELESS:
        raise LabError(f"the {_told(found)} cannot start: {said}")
    return (False if replaced and reasons & UNPULLED else None), "; ".join(filter(None, (state, said)))


def _deployment(api: Cluster, found: Object) -> Seen:
    status, wanted = found.get("status", {}), int(found["spec"].get("replicas", 1))
    current = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    done = current and updated == wanted and available == wanted == status.get("replicas", 0)
    return _workload(
        api, found, done, f"{updated} updated and {available} available of {wanted}", current and updated == wanted
    )


def _stateful_set(api: Cluster, found: Object) -> Seen:
    status, wanted = found.get("status", {}), int(found["spec"].get("replicas", 1))
    current = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
    ready = status.get("readyReplicas", 0)
    latest = status.get("updateRevision") == status.get("currentRevision")
    replaced = current and status.get("updatedReplicas", 0) == wanted
    return _workload(api, found, current and latest and ready == wanted, f"{ready} ready of {wanted}", replaced)


def _job(api: Cluster, found: Object) -> Seen:
    if _holds(found, "Complete"):
        return True, "complete"
    if _holds(found, "Failed"):
        why = _conditions(found)["Failed"].get("message")
        raise LabError(f"the {_told(found)} failed ({why}): {_trouble(api, found)[1]}")
    return _workload(api, found, False, "it has not ended")


def _pod(api: Cluster, found: Object) -> Seen:
    status = found.get("status", {})
    if _holds(found, "Ready") or status.get("phase") == "Succeeded":
        return True, str(status["phase"])
    said = plight(api, found)
    if status.get("phase") == "Failed":
        raise LabError(f"the {_told(found)} failed: {said}")
    return None, said or str(status.get("phase"))


def _service(api: Cluster, found: Object) -> Seen:
    spec, metadata = found["spec"], found["metadata"]
    if not spec.get("selector") or spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName":
        return True, "it selects nothing"
    path = f"/apis/discovery.k8s.io/v1/namespaces/{metadata['namespace']}/endpointslices"
    slices = api.items(path, labelSelector=f"kubernetes.io/service-name={metadata['name']}")
    ends = [end for each in slices for end in each.get("endpoints") or ()]
    ready = any(end.get("conditions", {}).get("ready") for end in ends)
    return (True if ready else None), f"none of its {len(ends)} endpoints is ready"


def _volume(_api: Cluster, found: Object) -> Seen:
    """A claim on one that the controller has not seen yet is looked at again only after 15 s."""
    phase = found.get("status", {}).get("phase")
    return (True if phase in ("Available", "Bound") else None), str(phase)


def _claim(api: Cluster, found: Object) -> Seen:
    if found.get("status", {}).get("phase") == "Bound":
        return True, "bound"
    name = found["spec"].get("storageClassName")
    classes = {each["metadata"]["name"]: each for each in api.items("/apis/storage.k8s.io/v1/storageclasses")}
    if name and name not in classes and not found["spec"].get("volumeName"):
        raise LabError(
            f"the {_told(found)} asks for the storage class {name}, which the cluster lacks: {_offer(classes)}"
        )
    if name is None:
        raise LabError(f"the {_told(found)} names no storage class, and none is the default: {_offer(classes)}")
    if classes.get(name, {}).get("volumeBindingMode") == "WaitForFirstConsumer":
        return True, "bound when a pod comes"
    return None, str(found.get("status", {}).get("phase"))


def _offer(classes: Mapping[str, Object]) -> str:
    return f"use one of {', '.join(classes)}" if classes else "install a provisioner first"


def _namespace(api: Cluster, found: Object) -> Seen:
    if found.get("status", {}).get("phase") != "Active":
        return None, "it is being deleted"
    account = api.found(f"/api/v1/namespaces/{found['metadata']['name']}/serviceaccounts/default")
    return (True if account else None), "its service account is missing"


def _definition(_api: Cluster, found: Object) -> Seen:
    return (True if _holds(found, "Established") else None), "not established yet"


def _served(_api: Cluster, found: Object) -> Seen:
    said = _conditions(found).get("Available", {}).get("message", "not looked at yet")
    return (True if _holds(found, "Available") else None), str(said)


def _scaled_object(_api: Cluster, found: Object) -> Seen:
    """KEDA has found its target, and has asked what it is to count."""
    said = _conditions(found).get("Ready", {}).get("message", "not looked at yet")
    return (True if _holds(found, "Ready") else None), str(said)


READY: Mapping[str, Callable[[Cluster, Object], Seen]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "Job": _job,
    "Pod": _pod,
    "Service": _service,
    "PersistentVolume": _volume,
    "PersistentVolumeClaim": _claim,
    "Namespace": _namespace,
    "CustomResourceDefinition": _definition,
    "APIService": _served,
    "ScaledObject": _scaled_object,
}
"""How to see that an object of a kind is ready; of the others it is enough that they are there."""
