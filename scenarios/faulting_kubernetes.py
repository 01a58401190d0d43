"""The services of a lab on the kubernetes platform, as faults need them, and the faults that only a cluster has.

Nodes of kind are containers of this machine, so the processes of pods are its own: they are killed and frozen like any
other, and the kubelet starts a container again in its pod. Pods are deleted as faults of their own; what is stopped is
scaled to none. On other clusters pods are all there is to see, and to kill.
Source: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
"""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import urllib3
import yaml

from labs import processes
from labs.cluster import Refused
from labs.daemon import daemon
from labs.errors import LabError
from labs.runs import TaskInstance
from labs.waiting import until
from scenarios import cutting
from scenarios.faulting import Fault, Faults, Incarnation, Services, frozen_processes, late_fails
from scenarios.machine import keeps, lives, moving, resume, told
from scenarios.network import SOON, answers, policies
from scenarios.pods import Namespace, client_of, execute, moment, statuses

if TYPE_CHECKING:
    from labs.cluster import Object
    from labs.lab import Lab

QUICKLY = 1
"""Seconds between SIGTERM and SIGKILL for what is killed. With 0 the API would forget a pod that may still run."""

NODE_LOST = 150
"""Seconds in which a node that is gone is seen to be: its lease is missed for 40, in newer releases for 50."""

GIVEN_UP = 300
"""Seconds in which a container that stands still is started again: its liveness probe must fail six times, every 30 s,
and then it has the time to end that every pod of its kind has."""

NO_SECRETS = ("PGCONNECT_TIMEOUT",)
"""Settings that come with the secret ones."""

LASTING = ("AIRFLOW__CELERY__BROKER_URL",)
"""Settings whose secret stays when the lab gets new ones."""

SHOWN = (
    ("/api/v1", "pods"),
    ("/api/v1", "configmaps"),
    ("/api/v1", "events"),
    ("/apis/apps/v1", "deployments"),
    ("/apis/apps/v1", "statefulsets"),
    ("/apis/batch/v1", "jobs"),
)
"""Where whoever looks at a lab looks, and no secret is to be."""

PATIENTLY = 60
"""Seconds between SIGTERM and SIGKILL for what is evicted, as `kubectl drain --grace-period=60` gives them: a worker
ends what it runs."""

GROW = """
import os, time
for _ in range(128):
    if not os.fork():
        held = bytearray(24 * 2**20)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
"""Takes 3 GiB in parts so small that the kernel, at the limit, kills what else is there before one of them: it takes
the largest process first. With control groups version 2 it kills the whole container in any case.
https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files (memory.oom.group)"""

TOO_MANY = 429
"""What the API answers where a budget forbids an eviction.
https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/"""


@dataclass
class Drain:
    """How a node was drained.

    Attributes:
        refusals: each time that a budget kept a service's pod: the service, when, and the API's own words.
        evicted: when each service's pod was let go, epoch seconds.
    """

    fault: Fault
    refusals: list[tuple[str, float, str]] = field(default_factory=list)
    evicted: dict[str, float] = field(default_factory=dict)

    @property
    def last(self) -> float:
        """Seconds from the beginning until the last pod was let go."""
        return max(self.evicted.values()) - self.fault.at


@dataclass
class ByHand:
    """Objects that somebody changed by hand.

    Attributes:
        expected: what `preview` says of each, by its kind and its name in the program.
        secret: a value that nobody may tell.
        before: what they were, by their paths.
    """

    expected: dict[tuple[str, str], str] = field(default_factory=dict)
    secret: str = base64.b64encode(b"[core]\nload_examples = False\n").decode()
    before: dict[str, Object] = field(default_factory=dict)


@dataclass
class Rotation:
    """Secrets that became others.

    Attributes:
        olds: by the name of the setting, or by what it is for.
        news: the same.
        at: when the first pod with new ones was made, epoch seconds.
        said: what `preview` and `up` told.
    """

    olds: dict[str, str]
    news: dict[str, str] = field(default_factory=dict)
    at: float = 0.0
    said: str = ""


@dataclass(frozen=True)
class Pod:
    """One life of a pod: a container that is restarted in it begins another."""

    name: str
    namespace: str
    uid: str
    restarts: int

    @property
    def id(self) -> str:
        return f"{self.uid}/{self.restarts}"


class KubernetesServices:
    """A lab's Deployments and StatefulSets, and their pods.

    Args:
        namespace: the lab's own.
        services: of the lab's outputs; each names its `workload`, such as `deployment/airflow-scheduler`, and the
            `namespace` of that.
    """

    def __init__(self, namespace: Namespace, services: Mapping[str, list[dict[str, Any]]]) -> None:
        self._namespace = namespace
        replicas = [replica for group in services.values() for replica in group]
        self._workloads = {replica["name"]: str(replica["workload"]) for replica in replicas}
        self._spaces = {replica["name"]: namespace.beside(str(replica["namespace"])) for replica in replicas}
        self._endpoints = {replica["name"]: sorted(replica["endpoints"].values()) for replica in replicas}
        self._scaled = {replica["name"] for replica in replicas if "autoscaling" in replica}
        self._sizes: dict[str, int] = {}

    # -- looking

    def workload(self, service: str) -> str:
        """What the objects of a service are called."""
        return self._workloads[service].rpartition("/")[2]

    def _path(self, service: str) -> str:
        kind, _, name = self._workloads[service].partition("/")
        return f"/apis/apps/v1/namespaces/{self._spaces[service].name}/{kind}s/{name}"

    def _pods(self, service: str) -> list[Object]:
        labels = self._namespace.api.request("GET", self._path(service))["spec"]["selector"]["matchLabels"]
        return self._spaces[service].pods(**labels)

    def _pod(self, service: str) -> Object | None:
        """The pod of a service, not one that is on its way out."""
        staying = [each for each in self._pods(service) if "deletionTimestamp" not in each["metadata"]]
        return max(staying, key=lambda each: str(each["metadata"]["creationTimestamp"]), default=None)

    def states(self) -> dict[str, str]:
        # how many there are of what an autoscaler scales, and which, changes by itself
        return {each: self._state(self._pod(each)) for each in self._workloads if each not in self._scaled}

    @staticmethod
    def _state(pod: Object | None) -> str:
        if pod is None:
            return "STOPPED"
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        return "RUNNING" if ready else str(pod["status"].get("phase", "Pending")).upper() + ", NOT READY"

    def incarnation(self, service: str) -> Incarnation:
        pod = self._pod(service)
        if pod is None or pod["status"].get("phase") != "Running":
            return Incarnation(service, "", ())
        members = _members(pod)
        if not members:
            return as_pod(service, pod)
        pids = {process.pid for process in members}
        main = min((p for p in members if parent(p) not in pids), key=processes.number)
        return Incarnation(service, str(main.pid), (main, *(p for p in members if p.pid != main.pid)))

    def task_pod(self, ti: TaskInstance) -> Incarnation:
        """The pod that executes a task instance.

        Raises:
            LabError: there is none.
        """
        found = self._namespace.api.found(self._namespace.path("pods", ti.hostname)) if ti.hostname else None
        if found is None:
            raise LabError(f"the pod {ti.hostname!r} of {ti.label} is none of this lab's")
        return as_pod(ti.label, found)

    def pod(self, life: Pod) -> Object | None:
        """A pod as it is now; None when it is gone."""
        space = self._namespace.beside(life.namespace)
        found = space.api.found(space.path("pods", life.name))
        return found if found and found["metadata"]["uid"] == life.uid else None

    def service_pod(self, service: str) -> Incarnation:
        """The pod of a service.

        Raises:
            LabError: there is none.
        """
        pod = self._pod(service)
        if pod is None:
            raise LabError(f"{service} has no pod")
        return as_pod(service, pod)

    def task(self, ti: TaskInstance) -> Incarnation:
        try:
            process = self.process(ti.hostname, int(ti.pid or 0))
        except psutil.NoSuchProcess as error:
            raise LabError(
                f"process {ti.pid} of {ti.label}, in pod {ti.hostname}, is none of this machine's"
            ) from error
        return Incarnation(ti.label, str(process.pid), (process, *process.children(recursive=True)))

    def process(self, service: str, number: int) -> psutil.Process:
        pod = self._namespace.api.found(self._namespace.path("pods", service))
        if pod is None and service in self._workloads:
            pod = self._pod(service)
        for process in _members(pod or {}):
            if processes.number(process) == number:
                return process
        raise psutil.NoSuchProcess(number, msg=f"{service} has no such process on this machine")

    def run(
        self, service: str, command: Sequence[str], *, text: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        pod = self._pod(service)
        if pod is None:
            raise LabError(f"{service} has no pod to run {command[0]} in")
        from components.platforms.docker.platform import ENTRY  # pulumi takes a while to import

        settings = [f"{key}={value}" for key, value in variables.items()]
        # the end of an input cannot be told through the API: a shell gives it to the command
        piped = ["/bin/sh", "-c", 'text=$1; shift; printf %s "$text" | "$@"', "sh", text] if text else []
        whole = ["/bin/sh", "-c", ENTRY, service, "env", *settings, *piped, *command]
        container = str(pod["spec"]["containers"][0]["name"])
        return execute(self._spaces[service], str(pod["metadata"]["name"]), container, whole)

    def remains(self, incarnation: Incarnation) -> list[str]:
        found = []
        for part in incarnation.parts:
            if isinstance(part, psutil.Process):
                found += [told(part)] if lives(part) else []
                continue
            space = self._namespace.beside(part.namespace)
            pod = space.api.found(space.path("pods", part.name))
            if pod is not None and life_of(pod) == part and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                found.append(f"{part.id} pod {part.name}")
        return found

    def strays(self) -> list[str]:
        found = []
        for service in set(self._workloads) - self._scaled:  # of those, several are no strays
            current = self._pod(service)
            for pod in self._pods(service):
                if current is None or pod["metadata"]["uid"] != current["metadata"]["uid"]:
                    found.append(f"{pod['metadata']['uid']} pod {pod['metadata']['name']} of {service}")
        return found

    def on(self, node: str) -> list[str]:
        """The services whose pods are on a node."""
        pods = {service: self._pod(service) or {} for service in self._workloads}
        return [service for service, pod in pods.items() if pod.get("spec", {}).get("nodeName") == node]

    def host(self, service: str) -> str:
        pod = self._pod(service) or {}
        return str(pod.get("status", {}).get("podIP", ""))

    @contextmanager
    def connection(self, service: str, port: int) -> Iterator[socket.socket]:
        """Through the API, as `kubectl port-forward` does it."""
        from kubernetes.client import CoreV1Api
        from kubernetes.stream import portforward

        (pod,) = self.service_pod(service).parts
        with closing(client_of(self._namespace)) as client:
            api = CoreV1Api(client).connect_get_namespaced_pod_portforward
            with closing(portforward(api, pod.name, pod.namespace, ports=str(port))) as forwarded:
                connection: socket.socket = forwarded.socket(port)
                connection.settimeout(10)
                yield connection

    def sockets(self, service: str, port: int | str) -> list[str]:
        # a pod's own side of a connection knows the address of the Service; the node changes it on the way
        found = self._namespace.api.request("GET", self._spaces[service].path("services", self.workload(service)))
        return [f"{found['spec']['clusterIP']}:{port}"]

    def addresses(self, service: str) -> list[str]:
        return self._endpoints[service]

    def refused(self, service: str) -> list[str]:
        # Services are known in the cluster alone: there the kubelet's probes say whether something answers
        ready = self._state(self._pod(service)) == "RUNNING"
        return [address for address in self._endpoints[service] if not self._answers(address, ready)]

    @staticmethod
    def _answers(address: str, ready: bool) -> bool:
        host, _, port = address.rpartition(":")
        return keeps(host, int(port)) if host in ("127.0.0.1", "localhost") else ready

    def root(self, service: str) -> Path:
        for process in _members(self._pod(service) or {}):
            return Path(f"/proc/{process.pid}/root")
        raise LabError(f"this machine does not see the files of {service}: its pod runs elsewhere")

    def ended(self, service: str) -> int:
        for status in statuses(self._pod(service) or {}).values():
            if "terminated" in status.get("lastState", {}):
                return int(status["lastState"]["terminated"]["exitCode"])
        raise LabError(f"nothing tells how the last life of {service} ended: its pod went with it")

    # -- breaking

    def kill(self, incarnation: Incarnation) -> None:
        main = incarnation.parts[0]
        if isinstance(main, psutil.Process):
            main.kill()
        else:
            self._namespace.beside(main.namespace).delete("pods", main.name, grace=QUICKLY)

    def stop(self, service: str) -> None:
        self._scale(service, 0)
        self._wait_for_none(service)

    def lose(self, service: str) -> None:
        pods = self._pods(service)
        self._scale(service, 0)
        for pod in pods:
            self._spaces[service].delete("pods", str(pod["metadata"]["name"]), grace=QUICKLY)
        self._wait_for_none(service)

    def start(self, service: str) -> None:
        self._scale(service, self._sizes.get(service, 1))

    def _scale(self, service: str, replicas: int) -> None:
        path = f"{self._path(service)}/scale"
        now = int(self._namespace.api.request("GET", path)["spec"].get("replicas", 0))
        if now:
            self._sizes[service] = now
        self._namespace.patch(path, {"spec": {"replicas": replicas}})

    @contextmanager
    def scaled(self, service: str, replicas: int) -> Iterator[Callable[[int], None]]:
        """More pods of a service that has one, as `kubectl scale` makes them; gives what scales it again meanwhile.

        Afterwards it is as before, and what the further pods kept is gone.
        """
        space, first = self._spaces[service], f"{self.workload(service)}-0"
        try:
            self._scale(service, replicas)
            yield lambda number: self._scale(service, number)
        finally:
            self._scale(service, 1)

            def alone() -> tuple[bool | None, str]:
                names = [str(pod["metadata"]["name"]) for pod in self._pods(service)]
                return (True if names == [first] else None), f"its pods are {', '.join(names)}"

            until(alone, what=f"{service} to have one pod", timeout=90)
            for claim in space.api.items(space.path("persistentvolumeclaims")):
                name = str(claim["metadata"]["name"])
                if self.workload(service) in name and not name.endswith(first):
                    space.delete("persistentvolumeclaims", name)

    def _wait_for_none(self, service: str) -> None:
        def none() -> tuple[bool | None, str]:
            names = [str(pod["metadata"]["name"]) for pod in self._pods(service)]
            return (None if names else True), f"{', '.join(names)} still there"

        until(none, what=f"{service} to stop", timeout=180)  # a busy node takes its time to clear up after a pod

    def freeze(self, service: str) -> Incarnation:
        if not self._processes(service):
            raise LabError(f"{service} cannot be frozen: its processes are not on this machine")
        return frozen_processes(service, lambda: self._processes(service))

    def thaw(self, service: str) -> None:
        resume(self._processes(service))

    def _processes(self, service: str) -> list[psutil.Process]:
        """What of a service this machine sees, the main process first."""
        return [part for part in self.incarnation(service).parts if isinstance(part, psutil.Process)]

    def awake(self, incarnation: Incarnation) -> list[str]:
        return moving(incarnation.parts)

    def forget(self, service: str) -> list[str]:
        raise LabError(f"what {service} keeps is a volume of the cluster, whose files this machine does not see")

    def small_disk(self, folder: Path) -> AbstractContextManager[Callable[[], str]]:
        raise LabError(f"{folder} cannot be put on a disk of its own: what this machine mounts no pod sees")

    def cannot_cut_off(self) -> str:
        seen = any(_members(self._pod(service) or {}) for service in self._workloads)
        return "" if seen else "needs nodes that are containers of this machine, as those of kind are"

    @contextmanager
    def cut_off(self, service: str) -> Iterator[Callable[[], str]]:
        pod = self._pod(service)
        if pod is None:
            raise LabError(f"{service} has no pod to cut off")
        server = self.host("api-server")

        def proof() -> str:
            tried = self.run(service, ["python", "-c", cutting.CONNECT, server, "8080"])
            if tried.returncode == 0 or self.refused("api-server"):
                raise LabError(f"{service} is cut off, but reaches the API server, or nobody does")
            gone = dropped()
            if not gone:
                raise LabError(f"{service} reaches nobody, but its node has dropped nothing of what it sent")
            return f"its node dropped {gone} packets, others reach the API server; it gets {tried.stderr.strip()}"

        # a NetworkPolicy would leave connections that exist, and not every network enforces one
        with cutting.cut_in_node(str(pod["spec"]["nodeName"]), str(pod["status"]["podIP"])) as dropped:
            yield proof


def essence(thing: Object) -> Object:
    """What of an object somebody wanted; a Service that is made anew gets another address."""
    given = {"clusterIP", "clusterIPs"}
    spec = {key: value for key, value in thing.get("spec", {}).items() if key not in given}
    return {"labels": thing["metadata"].get("labels"), "spec": spec, "data": thing.get("data")}


def password_in(value: str) -> str:
    """The password of a URL, of a connection or of the file of the admin's, or the value itself.

    >>> password_in("redis://:hidden@airflow-redis:6379/0"), password_in('{"admin": "hidden"}'), password_in("hidden")
    ('hidden', 'hidden', 'hidden')
    """
    if value.startswith("{"):
        inside = json.loads(value)
        return str(inside.get("password") or inside["admin"])
    return urlsplit(value).password or value


def without(rules: Sequence[Object], services: Sequence[str]) -> list[Object]:
    """The rules of a NetworkPolicy's ingress without these services among the pods that they let in."""
    from components.platforms.kubernetes.names import SERVICE  # pulumi takes a while to import

    kept_out = {"key": SERVICE, "operator": "NotIn", "values": list(services)}
    changed = deepcopy(list(rules))
    for peer in (peer for rule in changed for peer in rule["from"]):
        peer["podSelector"].setdefault("matchExpressions", []).append(kept_out)
    return changed


def life_of(pod: Object) -> Pod:
    """The present life of a pod."""
    restarts = sum(int(each.get("restartCount", 0)) for each in pod["status"].get("containerStatuses", ()))
    metadata = pod["metadata"]
    return Pod(str(metadata["name"]), str(metadata["namespace"]), str(metadata["uid"]), restarts)


def as_pod(name: str, pod: Object) -> Incarnation:
    """A pod as what there is to break."""
    life = life_of(pod)
    return Incarnation(name, life.id, (life,))


def api_process(namespace: Namespace) -> psutil.Process:
    """The API server of a kind cluster, which is a process of this machine.

    Raises:
        LabError: that of another cluster is not.
    """
    masters = namespace.nodes_with("node-role.kubernetes.io/control-plane", "")
    with daemon() as client:
        for node in masters:
            table = client.containers.get(node).top()
            place, command = table["Titles"].index("PID"), table["Titles"].index("CMD")
            for row in table["Processes"]:
                if row[command].split()[0].endswith("kube-apiserver"):
                    return psutil.Process(int(row[place]))
    raise LabError("no API server of this cluster is a process of this machine; only a kind cluster's is")


def went(pod: Pod) -> str:
    """What is said of a pod that is gone."""
    return f"pod {pod.name} ({pod.uid}) is gone"


def killed(pod: Object) -> str:
    """What shows that the kernel has killed a task's pod for its memory.

    Raises:
        LabError: nothing does.
    """
    ended = statuses(pod).get("base", {}).get("state", {}).get("terminated", {})
    if (ended.get("reason"), ended.get("exitCode")) != ("OOMKilled", 137):
        raise LabError(f"the pod was to be killed for its memory, but its container base shows {ended or 'no end'}")
    return f"pod {pod['metadata']['name']} ({pod['metadata']['uid']}): base was OOMKilled, exit code 137"


def parent(process: psutil.Process) -> int:
    """The pid of a process's parent; 0 when it has ended."""
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return 0


def _members(pod: Object) -> list[psutil.Process]:
    """The live processes of a pod's first container on this machine, by the control group that its runtime made."""
    ids = [
        str(each.get("containerID", "")).rpartition("/")[2]
        for each in pod.get("status", {}).get("containerStatuses", ())
    ]
    first = next(iter(ids), "")
    found = []
    for process in psutil.process_iter() if first else ():
        with contextlib.suppress(OSError, psutil.Error):
            if first in Path(f"/proc/{process.pid}/cgroup").read_text() and lives(process):
                found.append(process)
    return found


def pod_host(services: Services, service: str) -> Any:
    """A testinfra host for the pod that a service has now; needs no kubectl."""
    from testinfra.backend.base import BaseBackend, CommandResult
    from testinfra.host import Host

    class Backend(BaseBackend):  # type: ignore[misc]
        NAME = "kubernetes"

        def run(self, command: str, *args: str, **_: Any) -> CommandResult:
            line = self.get_command(command, *args)
            done = services.run(service, ["/bin/sh", "-c", line])
            return self.result(done.returncode, line, done.stdout.encode(), done.stderr.encode())

    return Host(Backend(service))


class ClusterFaults(Faults):
    """The faults of a lab on a cluster: those of every lab, and those that only a cluster has.

    Where the database or its pool is lost, most other programs end, too, and all start anew on the nodes' same cores.
    """

    recovery = 240.0

    def __init__(self, namespace: Namespace, services: KubernetesServices, *args: Any) -> None:
        super().__init__(services, *args)
        self._namespace, self._cluster = namespace, services

    @contextmanager
    def pod_deleted(self, *services: str) -> Iterator[Fault]:
        """Services' pods that are deleted together; the block runs when others are in their places and healthy."""
        with self._fault(f"pod of {', '.join(services)} deleted", *services) as fault:
            self._end(fault, [self._cluster.service_pod(service) for service in services], self._delete)
            fault.since = time.time()
            self._recovered(fault, *services)
            yield fault

    def task_pods_deleted(self, *instances: TaskInstance) -> AbstractContextManager[Fault]:
        """The pods of running tasks, deleted as `kubectl delete pod` does it, but with less patience."""
        return self._task_pods("deleted", instances, self._delete)

    def task_pods_evicted(self, *instances: TaskInstance) -> AbstractContextManager[Fault]:
        """The pods of running tasks, evicted as `kubectl drain` does it with every pod of a node.

        Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
        """
        return self._task_pods("evicted", instances, self._evict)

    def task_pods_out_of_memory(self, *instances: TaskInstance) -> AbstractContextManager[Fault]:
        """The pods of running tasks, which grow past their memory limit until the kernel kills them."""
        return self._task_pods("out of memory", instances, self._grow, self._killed)

    @contextmanager
    def _task_pods(
        self,
        what: str,
        instances: Sequence[TaskInstance],
        end: Callable[[Pod], None],
        landed: Callable[[Pod], str] = went,
    ) -> Iterator[Fault]:
        with self._fault(f"pods of {', '.join(ti.label for ti in instances)} {what}") as fault:
            self._end(fault, [self._cluster.task_pod(ti) for ti in instances], end, landed)
            yield fault

    def _end(
        self,
        fault: Fault,
        olds: Sequence[Incarnation],
        end: Callable[[Pod], None],
        landed: Callable[[Pod], str] = went,
    ) -> None:
        for old in olds:
            end(old.parts[0])
        for old in olds:
            self._gone(fault, old)
            fault.prove("landed", landed(old.parts[0]))

    def _grow(self, pod: Pod) -> None:
        # in the background: an answer would not outlive the container
        command = ["/bin/sh", "-c", 'python -c "$1" >/dev/null 2>&1 &', "sh", GROW]
        execute(self._namespace.beside(pod.namespace), pod.name, "base", command)

    def _killed(self, pod: Pod) -> str:
        return killed(self._cluster.pod(pod) or {})

    def _delete(self, pod: Pod) -> None:
        self._namespace.beside(pod.namespace).delete("pods", pod.name, grace=QUICKLY)

    def _evict(self, pod: Pod, grace: int = QUICKLY) -> None:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name},
            "deleteOptions": {"gracePeriodSeconds": grace},
        }
        space = self._namespace.beside(pod.namespace)
        space.api.request("POST", space.path("pods", f"{pod.name}/eviction"), body)

    @contextmanager
    def stood_still(self, service: str) -> Iterator[Fault]:
        """A service whose processes are stopped until Kubernetes starts it again; the block runs before that.

        Nobody lets them go on: what a container's liveness probe misses for long enough is the kubelet's to end.
        """
        (pod,) = self._cluster.service_pod(service).parts
        name = f"{service} stands still"

        def again() -> tuple[bool | None, str]:
            now = self._cluster.pod(pod)
            return (True if now and life_of(now).restarts > pod.restarts else None), "it is as it was"

        with self._fault(name) as fault:
            try:
                old = self._services.freeze(service)
                fault.prove("landed", self._asleep(old))
                yield fault
                with late_fails():
                    until(again, what=f"Kubernetes to start {service} again", timeout=GIVEN_UP, interval=1)
                fault.gone.append(old)
            finally:
                self._services.thaw(service)
                fault.since = time.time()

    @contextmanager
    def drained(self, node: str, *away: str, notice: int = PATIENTLY) -> Iterator[Drain]:
        """A node that is drained as `kubectl drain` does it; where some are named, when those elsewhere are just away.

        The node takes no new pods, and those of the lab's services on it are evicted: one that a budget protects is
        asked for again and again. The block runs when all of them are gone from the node, and others are healthy in
        their places. Afterwards the node takes pods again, and gets those back that it had.

        Args:
            away: services that stand in for some on the node; their pods are deleted, and replaced by Deployments.
            notice: seconds that a pod is given to end what it does.
        """
        moved = self._cluster.on(node)
        with self._fault(f"node {node} drained", *moved, *away) as fault:
            olds = [self._cluster.service_pod(service) for service in moved]
            budgets, drain = [self._budget(service) for service in away], Drain(fault)
            try:
                self._take_pods(node, False)
                self._end(fault, [self._cluster.service_pod(service) for service in away], self._delete)
                with late_fails():
                    for budget in budgets:
                        self._wait_for_no_slack(budget)
                    self._evict_all(olds, drain, notice)
                    self._wait_for_empty(node, olds)
                    fault.gone += olds
                    fault.since = time.time()
                    self._recovered(fault, *moved, *away)
                fault.prove("landed", f"{len(olds)} pods were evicted from {node}, the last after {drain.last:.0f} s")
                yield drain
            finally:
                self._take_pods(node, True)
                for service in set(moved) - set(self._cluster.on(node)):
                    with contextlib.suppress(LabError):  # one that has no pod yet will get it there
                        (part,) = self._cluster.service_pod(service).parts
                        self._namespace.beside(part.namespace).delete("pods", part.name)
                fault.since = time.time()
                with late_fails():
                    back = f"{node} to have its pods back"
                    until(lambda: self._is_back(node, moved), what=back, timeout=NODE_LOST, interval=1)
                fault.prove("the node is back", f"it takes pods, and has {', '.join(sorted(moved))} again")

    def _take_pods(self, node: str, willing: bool) -> None:
        self._namespace.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": None if willing else True}})

    def _budget(self, service: str) -> str:
        """Where the budget of a service's role is, which has the same label as its pod."""
        (part,) = self._cluster.service_pod(service).parts
        space = self._namespace.beside(part.namespace)
        component = self._namespace.api.request("GET", space.path("pods", part.name))["metadata"]["labels"]["component"]
        path = f"/apis/policy/v1/namespaces/{space.name}/poddisruptionbudgets"
        (budget,) = self._namespace.api.items(path, labelSelector=f"component={component}")
        return f"{path}/{budget['metadata']['name']}"

    def _wait_for_no_slack(self, budget: str) -> None:
        """Wait until a budget lets no further pod go: it learns of a loss a little later."""

        def used_up() -> tuple[bool | None, str]:
            left = int(self._namespace.api.request("GET", budget)["status"]["disruptionsAllowed"])
            return (None if left else True), f"it allows {left}"

        until(used_up, what="the budget to be used up", timeout=20, interval=0.1)

    def _evict_all(self, olds: Sequence[Incarnation], drain: Drain, notice: int) -> None:
        left = list(olds)

        def evicted() -> tuple[bool | None, str]:
            for old in list(left):
                try:
                    self._evict(old.parts[0], notice)
                except Refused as error:
                    if error.status != TOO_MANY:
                        raise
                    drain.refusals.append((old.name, time.time(), error.said))
                else:
                    drain.evicted[old.name] = time.time()
                    left.remove(old)
            return (None if left else True), f"the budget keeps {', '.join(old.name for old in left)}"

        until(evicted, what="the budgets to let all pods of the node go", timeout=120, interval=0.5)

    def _wait_for_empty(self, node: str, olds: Sequence[Incarnation]) -> None:
        def empty() -> tuple[bool | None, str]:
            there = [each for old in olds for each in self._cluster.remains(old)]
            return (None if there else True), "; ".join(there)

        until(empty, what=f"the pods of {node} to end", timeout=PATIENTLY + 30, interval=0.5)

    def _is_back(self, node: str, services: Sequence[str]) -> tuple[bool | None, str]:
        elsewhere = sorted(set(services) - set(self._cluster.on(node)))
        return (None if elsewhere else True), f"{', '.join(elsewhere)} elsewhere"

    @contextmanager
    def add_on_lost(self, namespace: str, *deployments: str, back: Callable[[], tuple[Any, str]]) -> Iterator[Fault]:
        """A cluster add-on whose Deployments, of one replica each, have none while the block runs.

        Args:
            back: probe of its working again.
        """
        space = self._namespace.beside(namespace)

        def scale(replicas: int) -> None:
            for each in deployments:
                path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{each}/scale"
                space.patch(path, {"spec": {"replicas": replicas}})

        def gone() -> tuple[str | None, str]:
            labels = [self._selector(space, each) for each in deployments]
            names = [pod["metadata"]["name"] for each in labels for pod in space.pods(**each)]
            return (None if names else f"no pod of {', '.join(deployments)} is there"), ", ".join(names)

        with self._fault(f"{', '.join(deployments)} lost") as fault:
            try:
                scale(0)
                fault.prove("landed", until(gone, what=f"{', '.join(deployments)} to be gone", timeout=60))
                yield fault
                fault.prove("still gone at the end of the block", str(gone()[0]))
            finally:
                scale(1)
                with late_fails():
                    until(back, what=f"{', '.join(deployments)} to work again", timeout=240, interval=1)
                fault.prove("the add-on is back", "it works")

    def _selector(self, space: Namespace, deployment: str) -> dict[str, str]:
        path = f"/apis/apps/v1/namespaces/{space.name}/deployments/{deployment}"
        labels: dict[str, str] = self._namespace.api.request("GET", path)["spec"]["selector"]["matchLabels"]
        return labels

    @contextmanager
    def shut_out(self, service: str, clients: Sequence[str], replaced: str) -> Iterator[Fault]:
        """A service whose NetworkPolicy lets some of its clients in no longer while the block runs.

        A policy is about who may connect: what is connected stays so on many networks, until it has to connect again.

        Args:
            clients: services that run Airflow's image.
            replaced: the one of them whose pod is deleted meanwhile, so that its successor has to connect.
        """
        path = policies(self._namespace.name, self._cluster.workload(service))
        before = self._namespace.api.request("GET", path)["spec"]["ingress"]
        (known,) = self._cluster.addresses(service)
        address = f"{self._cluster.host(service)}:{known.rpartition(':')[2]}"

        def refused(clients: Sequence[str]) -> tuple[str | None, str]:
            told = {each: answers(partial(self._cluster.run, each), [address])[address] for each in clients}
            let_in = [each for each, answer in told.items() if not answer]
            return (None if let_in else str(told)), f"{', '.join(let_in)} get a connection"

        def shut(clients: Sequence[str]) -> str:
            what = f"{service} to be shut to {', '.join(clients)}"
            return until(lambda: refused(clients), what=what, timeout=SOON)

        with self._fault(f"{service} shut to {', '.join(clients)}", replaced) as fault:
            try:
                self._namespace.patch(path, {"spec": {"ingress": without(before, clients)}})
                fault.prove("landed", f"{address} is shut: {shut(clients)}")
                self._end(fault, [self._cluster.service_pod(replaced)], self._delete)
                yield fault
                # the successor may have given up, and wait for its next start
                fault.prove("still shut at the end of the block", shut([each for each in clients if each != replaced]))
            finally:
                self._namespace.patch(path, {"spec": {"ingress": before}})
                fault.since = time.time()

    @contextmanager
    def quota(self, hard: Mapping[str, str]) -> Iterator[Callable[[Mapping[str, str]], None]]:
        """A ResourceQuota that lets no further pod in; gives what raises it."""
        thing = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "fault"},
            "spec": {"hard": dict(hard)},
        }
        with self._fault(f"quota {dict(hard)}") as fault, self._namespace.made("resourcequotas", thing):

            def counted() -> tuple[str | None, str]:
                status = self._namespace.api.request("GET", self._namespace.path("resourcequotas", "fault"))["status"]
                used, limit = status.get("used", {}), status.get("hard", {})
                return (f"used {used} of {limit}" if used and limit == dict(hard) else None), "not counted yet"

            fault.prove("landed", until(counted, what="the quota to be counted", timeout=30))

            def raised(more: Mapping[str, str]) -> None:
                path = self._namespace.path("resourcequotas", "fault")
                self._namespace.patch(path, {"spec": {"hard": dict(more)}})
                fault.prove("raised", f"{dict(more)}")

            yield raised

    @contextmanager
    def changed_by_hand(self, lab: Lab) -> Iterator[ByHand]:
        """Objects of a lab that are changed or deleted as with `kubectl`; the block puts them back."""
        hand = ByHand()
        processor, triggerer, server = (
            next(each for each in self._cluster.states() if each.startswith(role))
            for role in ("dag-processor", "triggerer", "api-server")
        )
        apps, core, network = "/apis/apps/v1", "/api/v1", "/apis/networking.k8s.io/v1"
        number = self._at(apps, "deployments", processor)
        variable = self._at(apps, "deployments", triggerer)
        label, text = self._at(core, "serviceaccounts", triggerer), self._at(core, "configmaps", "migration-script")
        secret = self._at(core, "secrets", "airflow-cfg")
        gone = [self._at(core, "services", server), self._at(network, "networkpolicies", "inside")]
        api, patch = self._namespace.api, self._namespace.patch
        hand.before = {
            path: essence(api.request("GET", path)) for path in (number, variable, label, text, secret, *gone)
        }
        (container,) = hand.before[variable]["spec"]["template"]["spec"]["containers"]
        dags = next(each["value"] for each in container["env"] if each["name"] == "AIRFLOW__CORE__DAGS_FOLDER")
        elsewhere = {"name": container["name"], "env": [{"name": "AIRFLOW__CORE__DAGS_FOLDER", "value": "/tmp"}]}  # noqa: S108
        where = f"spec.template.spec.containers.{container['name']}.env.AIRFLOW__CORE__DAGS_FOLDER.value"
        hand.expected = {
            ("Deployment", processor): "drift: spec.replicas is 0, not 1",
            ("Deployment", triggerer): f"drift: {where} is /tmp, not {dags}",
            ("ServiceAccount", triggerer): "drift: metadata.labels.tier is gone",
            ("ConfigMap", "migration-script"): "drift: data.migrate.py is another",
            ("Secret", "airflow-cfg"): "drift: data.airflow.cfg is another",
            ("Service", server): "drift: it is gone",
            ("NetworkPolicy", "inside"): "drift: it is gone",
        }
        with self._fault("objects changed by hand", processor, triggerer) as fault:
            fault.gone += [self._cluster.service_pod(each) for each in (processor, triggerer)]
            try:
                patch(f"{number}/scale", {"spec": {"replicas": 0}})
                change = {"spec": {"template": {"spec": {"containers": [elsewhere]}}}}
                api.request("PATCH", variable, change, kind="application/strategic-merge-patch+json")
                patch(label, {"metadata": {"labels": {"tier": None}}})
                patch(text, {"data": {"migrate.py": "print()"}})
                patch(secret, {"data": {"airflow.cfg": hand.secret}})
                for path in gone:
                    api.request("DELETE", path)
                same = self._as_before(hand)
                if same:
                    raise LabError(f"{', '.join(same)} could not be changed by hand")
                fault.prove("landed", f"{len(hand.before)} objects are not as they were, {len(gone)} of them gone")
                yield hand
                differ = sorted(set(hand.before) - set(self._as_before(hand)))
                assert not differ, f"not as before: {', '.join(differ)}"
                fault.prove("put back", f"{len(hand.before)} objects are as they were")
            finally:
                lab.up()
                fault.since = time.time()

    def _at(self, group: str, kind: str, name: str) -> str:
        return f"{group}/namespaces/{self._namespace.name}/{kind}/airflow-{name}"

    def _as_before(self, hand: ByHand) -> list[str]:
        """Paths of what is there, and as it was."""
        now = {path: self._namespace.api.found(path) for path in hand.before}
        return [path for path, found in now.items() if found and essence(found) == hand.before[path]]

    @contextmanager
    def secrets_rotated(self, lab: Lab) -> Iterator[Rotation]:
        """A lab that is given new secrets, whatever runs; the block runs when it has them."""
        with self._fault("secrets rotated", *self._cluster.states()) as fault:
            rotation, said = Rotation(self._secrets()), []
            asked = lab.rotated()
            said += [f"{step.name} {step.reason}" for step in asked.preview()]
            fault.gone += [self._cluster.service_pod(each) for each in self._told_secrets()]
            outputs = asked.up(lambda event: said.append(str(event))).outputs
            self._airflow.use(outputs["admin_password"])
            rotation.news, rotation.said = self._secrets(), "\n".join(said)
            same = {name for name, old in rotation.olds.items() if rotation.news[name] == old}
            assert same <= set(LASTING), f"still the same: {', '.join(sorted(same))}"
            pods = [
                self._cluster.pod(part) for each in fault.gone for part in self._cluster.service_pod(each.name).parts
            ]
            rotation.at = min(moment(pod["metadata"]["creationTimestamp"]) for pod in pods if pod)
            fault.prove("landed", f"others are {', '.join(sorted(set(rotation.olds) - same))}")
            fault.since = time.time()
            self._recovered(fault, *(each.name for each in fault.gone))
            yield rotation

    def _told_secrets(self) -> list[str]:
        """The services that are told a secret."""
        return [each for each in self._cluster.states() if not each.startswith(("load-balancer", "broker"))]

    def _secrets(self) -> dict[str, str]:
        """Every secret that the lab's services have, by what it is."""
        found: dict[str, str] = {}
        for each in self._namespace.api.items(self._namespace.path("secrets")):
            for key, encoded in (each.get("data") or {}).items():
                text = base64.b64decode(encoded).decode()
                if key == "secrets":  # what the shell of a container reads
                    found |= dict(word.split("=", 1) for word in shlex.split(text) if "=" in word)
                elif key in ("passwords.json", "password"):
                    found[f"{key} of {each['metadata']['name']}"] = text
        return {name: password_in(value) for name, value in found.items() if value and name not in NO_SECRETS}

    def shown(self, rotation: Rotation) -> list[str]:
        """Where a secret, old or new, can be read that is no Secret."""
        values = {*rotation.olds.values(), *rotation.news.values()}
        api, space = self._namespace.api, self._namespace.name
        places = {"what was told": rotation.said}
        for group, kind in SHOWN:
            places[kind] = json.dumps(api.items(f"{group}/namespaces/{space}/{kind}"))
        return [place for place, text in places.items() if any(value in text for value in values)]

    @contextmanager
    def image_missing(self, lab: Lab) -> Iterator[Fault]:
        """A lab whose task pods are to be of an image that nobody has."""
        tag = "kubernetes_executor.worker_container_tag"
        with self._fault("image of task pods missing") as fault, lab.reconfigured({tag: "no-such-tag"}):
            yield fault

    @contextmanager
    def node_stopped(self, node: str) -> Iterator[Fault]:
        """A node whose container is stopped while the block runs, with all that is on it."""
        with self._fault(f"node {node} stopped") as fault, daemon() as client:
            container = client.containers.get(node)  # kind calls both the same
            try:
                container.stop(timeout=1)
                with late_fails():
                    seen = until(lambda: self._readiness(node, False), what=f"{node} to be lost", timeout=NODE_LOST)
                fault.prove("landed", f"its container is stopped, and the control plane says {seen}")
                yield fault
            finally:
                container.start()
                until(lambda: self._readiness(node, True), what=f"{node} to be ready again", timeout=NODE_LOST)
                fault.prove("the node is back", "it is ready")

    def _readiness(self, node: str, wanted: bool) -> tuple[str | None, str]:
        conditions = self._namespace.nodes()[node]["status"]["conditions"]
        (ready,) = [each for each in conditions if each["type"] == "Ready"]
        told = f"Ready is {ready['status']}: {ready.get('reason')}"
        return (told if (ready["status"] == "True") is wanted else None), told

    @contextmanager
    def kubernetes_api_silent(self) -> Iterator[Fault]:
        """An API of Kubernetes that accepts connections and answers nothing while the block runs."""
        with self._fault("Kubernetes API silent") as fault:
            server = api_process(self._namespace)
            try:
                server.suspend()
                fault.prove("landed", self._unanswered(server))
                yield fault
                fault.prove("still silent at the end of the block", self._unanswered(server))
            finally:
                server.resume()
                until(self._api_answers, what="the Kubernetes API to answer again", timeout=90, interval=1)

    def _unanswered(self, server: psutil.Process) -> str:
        config = yaml.safe_load(self._namespace.kubeconfig)
        address = config["clusters"][0]["cluster"]["server"]
        try:
            with urllib3.PoolManager(cert_reqs="CERT_NONE", retries=False, assert_hostname=False) as pool:
                pool.request("GET", f"{address}/livez", timeout=3)
        except urllib3.exceptions.HTTPError as error:
            return f"process {server.pid} is {server.status()}; asked, it gives {type(error).__name__}"
        raise LabError(f"{address} answers, although its process {server.pid} is stopped")

    def _api_answers(self) -> tuple[bool | None, str]:
        try:
            self._namespace.api.request("GET", self._namespace.path("pods"), limit=1)
        except LabError as error:
            return None, str(error)
        return True, "answers"
