"""A lab's services in a cluster, as `status` and `logs` show them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from components.platforms.kubernetes.names import SERVICE, owner
from components.platforms.process.inspection import ServiceState
from labs import processes
from labs.cluster import OWNER, Cluster, Object, Refused, Unreachable, cluster
from labs.engines.kubernetes import remove
from labs.errors import LabError
from labs.paths import CHECKOUT, state_root

OUTSIDE = (("v1", "Namespace"), ("v1", "PersistentVolume"), ("scheduling.k8s.io/v1", "PriorityClass"))
"""What of a lab is in no namespace: API version and kind; with its namespace everything else goes."""


def _cluster(outputs: Mapping[str, Any]) -> tuple[Cluster, set[str]]:
    """The cluster, and the lab's namespaces there."""
    replicas = [replica for group in outputs["services"].values() for replica in group]
    kubeconfig = Path(outputs["cluster"]["kubeconfig"]).read_text()
    return cluster(kubeconfig), {str(replica["namespace"]) for replica in replicas}


def _pods(api: Cluster, namespaces: Iterable[str]) -> dict[str, Object]:
    """The latest pod of each service, by its name."""
    paths = (f"/api/v1/namespaces/{namespace}/pods" for namespace in namespaces)
    found = [pod for path in paths for pod in api.items(path, labelSelector=SERVICE)]
    found.sort(key=lambda pod: ("deletionTimestamp" not in pod["metadata"], pod["metadata"]["creationTimestamp"]))
    return {pod["metadata"]["labels"][SERVICE]: pod for pod in found}


def remove_all(home: Path) -> None:
    """Remove all that a lab has in a cluster that answers; nothing is no error.

    Raises:
        LabError: something could not be removed.
    """
    with contextlib.suppress(FileNotFoundError, Unreachable):
        api = cluster((home / "kubeconfig").read_text())
        found = _outside(api, f"{OWNER}={owner(home.parent.name)}")
        with ThreadPoolExecutor(max(len(found), 1)) as pool:
            list(pool.map(lambda each: remove(api, each), found))


def collect(kubeconfig: str) -> list[str]:
    """Remove what labs of this checkout that are gone left in a cluster of this machine; says what it was.

    Another machine may have a checkout at the same place, which nothing tells from this one in a cluster of both.

    Raises:
        LabError: something could not be removed.
    """
    removed = []
    with contextlib.suppress(Unreachable), processes.going_down():
        api = cluster(kubeconfig)
        found = _outside(api, OWNER)
        living = {owner(folder.name) for folder in state_root().glob("*")}  # one that has just begun is among them
        for each in found:
            mark = str(each["metadata"]["labels"][OWNER])
            if mark.startswith(f"{CHECKOUT}.") and mark not in living:
                remove(api, each)
                lab = mark.removeprefix(f"{CHECKOUT}.")
                removed.append(f"{each['kind']} {each['metadata']['name']} of the lab {lab}, which is gone")
    return removed


FORBIDDEN = 403
"""What the API answers to who may not ask for that."""


def _outside(api: Cluster, selector: str) -> list[Object]:
    """What with these labels is in no namespace; who may not list a kind has made none of it."""
    found: list[Object] = []
    for version, kind in OUTSIDE:
        try:
            listed = api.items(api.path(version, kind), labelSelector=selector)
        except Refused as error:
            if error.status != FORBIDDEN:
                raise
        else:
            found += [{"apiVersion": version, "kind": kind, **each} for each in listed]
    return found


def inspect(outputs: Mapping[str, Any]) -> list[ServiceState]:
    """The state of each service; the memory is what its cluster measures, 0 where nothing does."""
    api, namespaces = _cluster(outputs)
    pods, used = _pods(api, namespaces), _usage(api, namespaces)
    replicas = [replica for group in outputs["services"].values() for replica in group]
    return [_state(each["name"], pods.get(each["name"]), used, "autoscaling" in each) for each in replicas]


def _state(name: str, pod: Object | None, used: Mapping[str, int], scaled: bool) -> ServiceState:
    if pod is None:
        return ServiceState(name, "SCALED TO NONE" if scaled else "UNKNOWN", 0, 0.0, 0, 0)
    statuses = pod["status"].get("containerStatuses", ())
    began = [each["state"]["running"]["startedAt"] for each in statuses if "running" in each["state"]]
    ready = bool(statuses) and all(each["ready"] for each in statuses)
    uptime = 0.0
    if began:
        start = datetime.fromisoformat(str(max(began))[:19]).replace(tzinfo=timezone.utc)
        uptime = (datetime.now(timezone.utc) - start).total_seconds()
    state = "RUNNING" if ready else "UNHEALTHY" if began else str(pod["status"]["phase"]).upper()
    return ServiceState(name, state, 0, uptime, 0, used.get(pod["metadata"]["name"], 0))


def _usage(api: Cluster, namespaces: set[str]) -> dict[str, int]:
    """Bytes by pod, from the nodes' own kubelets."""
    used = {}
    for node in api.items("/api/v1/nodes"):
        try:
            summary = api.request("GET", f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary")
        except LabError:  # only who may look at nodes gets it
            continue
        for pod in summary.get("pods", ()):
            if pod["podRef"]["namespace"] in namespaces:
                used[str(pod["podRef"]["name"])] = int(pod.get("memory", {}).get("workingSetBytes", 0))
    return used


def show_logs(outputs: Mapping[str, Any], services: Sequence[str], lines: int, follow: bool) -> None:
    """Write the last lines of each service's log to standard output, and go on as they grow."""
    api, namespaces = _cluster(outputs)
    pods = _pods(api, namespaces)
    for name in services:
        pod = pods.get(name)
        _write(f"==> {name} <==\n")
        if pod is not None:
            _write(api.text("GET", _log(pod), container=_container(pod), tailLines=lines))
    if follow:
        with ThreadPoolExecutor(len(services)) as pool:
            list(pool.map(lambda pod: _follow(api, pod), [pods[name] for name in services if name in pods]))


UNREADABLE = {400: "(its container has not started)", 404: "(its pod went just now)"}
"""What the API answers to who asks for a log that is not there, and what that means."""


def read_log(outputs: Mapping[str, Any], service: str, since: float) -> str:
    """The log of a service since a moment, epoch seconds; all that is kept since 0."""
    api, namespaces = _cluster(outputs)
    pod = _pods(api, namespaces).get(service)
    if pod is None:
        return "(it has no pod)"
    moment = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    query: dict[str, Any] = {"sinceTime": moment} if since else {}
    try:
        return api.text("GET", _log(pod), container=_container(pod), **query)
    except Refused as error:
        if error.status not in UNREADABLE:
            raise
        return UNREADABLE[error.status]


def _log(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/log"


def _container(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["name"])


def _follow(api: Cluster, pod: Object) -> None:
    for line in api.lines(_log(pod), container=_container(pod), tailLines=0, follow="true"):
        _write(line)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
