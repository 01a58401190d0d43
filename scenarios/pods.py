"""A lab's namespace and its pods, as the Kubernetes API shows them: the life of each, and why one came to grief.

Pods of tasks are deleted as they end, so what there is to know of one is in the events of a watch, which give each
version of it as the API server stored it.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from labs.airflow import log_text
from labs.errors import LabError
from labs.runs import Run
from labs.waiting import until
from scenarios.observing import Observation

if TYPE_CHECKING:
    from labs.cluster import Object

ZONE = "topology.kubernetes.io/zone"

GPU = "nvidia.com/gpu.present"

DONE = "airflow_executor_done"
"""Label that the executor gives to an ended pod that it keeps on purpose."""

IMAGE_TROUBLE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}

REFUSED = re.compile(
    r'[Pp]ods? \\*"(?P<pod>[^"\\]+)\\*" is (?P<why>(?:forbidden|invalid): .+?)\\*", ?\\*"reason', re.DOTALL
)
"""The API's answer as the executor logs it, with its quotes escaped as often as the log format does it."""


@dataclass(frozen=True)
class Sighting:
    """One event of a watch: a version of a pod.

    Attributes:
        at: when it was received, epoch seconds.
        kind: ADDED, MODIFIED or DELETED.
    """

    at: float
    kind: str
    pod: Object


def image_of(pod: Object) -> str:
    """The image of a pod's first container."""
    return str(pod["spec"]["containers"][0]["image"])


@dataclass(frozen=True)
class Life:
    """One pod from its first version to its last, in order."""

    sightings: tuple[Sighting, ...]

    @property
    def first(self) -> Object:
        """The pod as it was created."""
        return self.sightings[0].pod

    @property
    def last(self) -> Object:
        """The pod as it was last seen."""
        return self.sightings[-1].pod

    @property
    def name(self) -> str:
        return str(self.first["metadata"]["name"])

    @property
    def uid(self) -> str:
        """What tells the pod from another one of that name."""
        return str(self.first["metadata"]["uid"])

    @property
    def task_id(self) -> str:
        return str(self.first["metadata"].get("annotations", {}).get("task_id", ""))

    @property
    def label(self) -> str:
        """Its task instance as people write it: `load`, or `load[3]` when it is mapped."""
        index = self.first["metadata"].get("annotations", {}).get("map_index")
        return self.task_id if index is None else f"{self.task_id}[{index}]"

    @property
    def try_number(self) -> int:
        return int(self.first["metadata"]["annotations"]["try_number"])

    @property
    def labels(self) -> dict[str, str]:
        """Its labels when last seen."""
        return dict(self.last["metadata"].get("labels", {}))

    @property
    def node(self) -> str:
        """Where it ran; "" for one that no node was found for."""
        return str(self.last["spec"].get("nodeName", ""))

    @property
    def gone(self) -> bool:
        """Whether it was deleted."""
        return self.sightings[-1].kind == "DELETED"

    def phases(self) -> list[str]:
        """Its phases, each as often as it began."""
        return phases(self.sightings)

    def spec(self, container: str = "base") -> Object:
        """What a container, of whatever kind, was to be."""
        every = [*self.first["spec"].get("initContainers", ()), *self.first["spec"]["containers"]]
        return next(dict(each) for each in every if each["name"] == container)

    def ended(self, container: str = "base") -> Object | None:
        """How a container ended, in any version of the pod; None for one that did not."""
        for sighting in reversed(self.sightings):
            found = statuses(sighting.pod).get(container, {})
            ended = found.get("state", {}).get("terminated") or found.get("lastState", {}).get("terminated")
            if ended:
                return dict(ended)
        return None

    def row(self) -> dict[str, Any]:
        """What a report shows of it."""
        return {"task": self.task_id, "try": self.try_number, "pod": self.name, "node": self.node, **story(self)}


def writable_claims(life: Life) -> set[str]:
    """The claims that a pod's first container may write to."""
    mounts = life.first["spec"]["containers"][0].get("volumeMounts", ())
    writable = {each["name"] for each in mounts if not each.get("readOnly")}
    volumes = [each for each in life.first["spec"].get("volumes", ()) if each["name"] in writable]
    return {each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each}


def story(life: Life) -> dict[str, Any]:
    """The phases of a pod, and whether it is there still."""
    return {"phases": " ▶ ".join(life.phases()), "kept": not life.gone}


def phases(sightings: Sequence[Sighting]) -> list[str]:
    """The phases through which a pod went, in order, without repetition."""
    found: list[str] = []
    for sighting in sightings:
        phase = str(sighting.pod.get("status", {}).get("phase", ""))
        if found[-1:] != [phase]:
            found.append(phase)
    return found


def statuses(pod: Object) -> dict[str, Object]:
    """The status of each container, init containers among them, by name."""
    status = pod.get("status", {})
    return {
        each["name"]: each for kind in ("initContainerStatuses", "containerStatuses") for each in status.get(kind, ())
    }


def messages(log: str) -> str:
    """A pod's log as Airflow shows that of a task: `time level message` for its messages, other lines as they are."""
    found: list[Any] = []
    for line in log.splitlines():
        try:
            message = json.loads(line)
            found.append(message if "event" in message else line)
        except (ValueError, TypeError):
            found.append(line)
    return log_text(found)


def moment(text: str) -> float:
    """A time of the Kubernetes API as epoch seconds; most have no fractions."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def spans(life: Life) -> dict[str, tuple[float, float | None]]:
    """When each container ran, as (start, end) in epoch seconds, in the order of their starts."""
    found: dict[str, tuple[float, float | None]] = {}
    for sighting in life.sightings:
        for name, status in statuses(sighting.pod).items():
            running, ended = status["state"].get("running"), status["state"].get("terminated")
            if running and running.get("startedAt"):
                found.setdefault(name, (moment(running["startedAt"]), None))
            if ended and ended.get("startedAt") and ended.get("finishedAt"):
                found[name] = (moment(ended["startedAt"]), moment(ended["finishedAt"]))
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


@dataclass(frozen=True)
class Cause:
    """Why a pod does not do its work.

    Attributes:
        kind: in one word: memory, image, unschedulable, init, volume, evicted, deadline, exit; "" for no trouble.
        words: for a learner.
        proof: what of the pod or its events says so.
    """

    kind: str
    words: str
    proof: str


def cause(life: Life, events: Sequence[Object]) -> Cause:
    """Why a pod came to grief, from every version of it and its events."""
    for sighting in reversed(life.sightings):
        found = _cause(sighting.pod, events)
        if found.kind:
            return found
    return Cause("", "nothing is wrong with the pod", f"phase {life.phases()[-1]}")


def _cause(pod: Object, events: Sequence[Object]) -> Cause:
    status, init = pod.get("status", {}), {each["name"] for each in pod["spec"].get("initContainers", ())}
    if status.get("reason") == "Evicted":
        return Cause("evicted", "its node took the pod down to save itself", str(status.get("message")))
    if status.get("reason") == "DeadlineExceeded":
        return Cause("deadline", "it took longer than activeDeadlineSeconds", str(status.get("message")))
    for name, each in statuses(pod).items():
        ended, waiting = each["state"].get("terminated", {}), each["state"].get("waiting", {})
        if ended.get("reason") == "OOMKilled":
            words = "it wanted more memory than limits.memory, and the kernel killed it"
            return Cause("memory", words, f"{name}: OOMKilled, exit code {ended.get('exitCode')}")
        if waiting.get("reason") in IMAGE_TROUBLE:
            proof = f"{name}: {waiting['reason']}: {waiting.get('message', '')}"
            return Cause("image", "its image cannot be pulled: no such name, no way there, or no right to it", proof)
        if name in init and ended.get("exitCode"):
            words = f"the init container {name} failed, so base never started"
            return Cause("init", words, f"{name} ended with {ended['exitCode']}")
        if name == "base" and ended.get("exitCode") and ended.get("startedAt"):  # else it was deleted unstarted
            return Cause("exit", "its container ended with an error of its own", f"base ended with {ended['exitCode']}")
    if status.get("phase") == "Pending":
        for condition in status.get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return Cause("unschedulable", "no node fits what it asks for", str(condition.get("message")))
        for event in events:
            if event.get("reason") == "FailedMount":
                return Cause("volume", "something that it mounts is not there", str(event.get("message")))
    return Cause("", "", "")


REFUSALS = {
    "exceeded quota": ("quota", "the namespace's quota is used up: a pod beyond it is refused, not queued"),
    "violates PodSecurity": ("security", "it asks for rights that the namespace's Pod Security does not give"),
    "serviceaccount": ("account", "it names a service account that does not exist"),
    "invalid: ": ("template", "its template, with the override, makes no pod that there could be: see the field named"),
}
"""Part of the API's words → why it refused to create a pod."""


@dataclass(frozen=True)
class Refusal:
    """A pod that the API refused to create; `kind` is quota, security, account, template, or "" for another one."""

    pod: str
    kind: str
    words: str
    proof: str


def refusals(log: str) -> list[Refusal]:
    """The pods that could not be created, by the scheduler's log."""
    found: dict[str, Refusal] = {}
    for match in REFUSED.finditer(log):
        why = match["why"].replace("\\", "")
        kind, words = next((each for part, each in REFUSALS.items() if part in why), ("", "it is refused"))
        found.setdefault(match["pod"], Refusal(match["pod"], kind, words, why))
    return list(found.values())


def slug(task_id: str) -> str:
    """A task's id as it stands in the name of its pod."""
    return re.sub(r"[^a-z0-9]+", "-", task_id.lower()).strip("-")


class Namespace:
    """The namespace of one lab, on its cluster.

    Args:
        outputs: the lab's.
    """

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        from labs.cluster import cluster  # its client takes seconds to import, and most labs need none

        given = outputs["cluster"]
        config = yaml.safe_load(Path(given["kubeconfig"]).read_text())
        self.kubeconfig = yaml.safe_dump({**config, "current-context": given["context"]})
        self.api = cluster(self.kubeconfig)
        self.name = str(given["namespace"])

    def beside(self, name: str) -> Namespace:
        """Another namespace of the lab."""
        other = copy(self)
        other.name = name
        return other

    def path(self, kind: str, name: str = "") -> str:
        """Where things of the core API are: `pods`, `events`, `resourcequotas`."""
        return f"/api/v1/namespaces/{self.name}/{kind}" + (f"/{name}" if name else "")

    def pods(self, **labels: str) -> list[Object]:
        """The pods with these labels."""
        return self.api.items(self.path("pods"), labelSelector=",".join(f"{k}={v}" for k, v in labels.items()))

    def pods_of(self, run: Run) -> list[Object]:
        """The pods of a run that are there now."""
        return [each for each in self.pods(kubernetes_executor="True") if _belongs(each, run)]

    def airflow_image(self) -> str:
        """The image of the lab's Airflow, as its scheduler has it."""
        return image_of(self.pods(component="scheduler")[0])

    def events(self, uid: str) -> list[Object]:
        """What Kubernetes said of a pod, even one that is gone, the oldest first."""
        found = self.api.items(self.path("events"), fieldSelector=f"involvedObject.uid={uid}")
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    def nodes(self) -> dict[str, Object]:
        """The cluster's nodes by name."""
        return {each["metadata"]["name"]: each for each in self.api.items("/api/v1/nodes")}

    def nodes_with(self, label: str, value: str) -> set[str]:
        """The names of the nodes with that label."""
        return {name for name, each in self.nodes().items() if each["metadata"]["labels"].get(label) == value}

    def log(self, pod: str, container: str = "base") -> str:
        """What a container has said so far; "" when it has said nothing, or is gone."""
        with suppress(LabError):
            return self.api.text("GET", self.path("pods", f"{pod}/log"), container=container)
        return ""

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        """Delete a thing, if it is there.

        Args:
            grace: seconds between SIGTERM and SIGKILL; None: as the pod itself says.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **({} if grace is None else {"gracePeriodSeconds": grace})}
        try:
            self.api.request("DELETE", self.path(kind, name), body)
        except LabError as error:
            if getattr(error, "status", 0) != 404:
                raise

    def patch(self, path: str, change: Object) -> Object:
        """Merge a change into what is at a path."""
        return self.api.request("PATCH", path, change, kind="application/merge-patch+json")

    @contextmanager
    def made(self, kind: str, thing: Object) -> Iterator[Object]:
        """A thing of the core API that is there while the block runs."""
        name = thing["metadata"]["name"]
        self.delete(kind, name)
        created = self.api.request("POST", self.path(kind), thing)
        try:
            yield created
        finally:
            self.delete(kind, name)

    @contextmanager
    def labelled(self, node: str, label: str, value: str) -> Iterator[None]:
        """A node that has one more label while the block runs."""
        path = f"/api/v1/nodes/{node}"
        self.patch(path, {"metadata": {"labels": {label: value}}})
        try:
            yield
        finally:
            self.patch(path, {"metadata": {"labels": {label: None}}})

    @contextmanager
    def watched(self) -> Iterator[History]:
        """Every version of every pod while the block runs, and until the history is asked no more."""
        history = History(self)
        try:
            yield history
        finally:
            history.close()


def client_of(namespace: Namespace) -> Any:
    """A client of its own, as streams change the one that they go through."""
    from kubernetes.config.kube_config import new_client_from_config_dict

    return new_client_from_config_dict(yaml.safe_load(namespace.kubeconfig), persist_config=False)


def execute(namespace: Namespace, pod: str, container: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a container to its end, as `kubectl exec` does.

    Raises:
        LabError: the container cannot be entered.
    """
    from kubernetes.client import CoreV1Api
    from kubernetes.client.exceptions import ApiException
    from kubernetes.stream import stream

    client = client_of(namespace)
    try:
        channel = stream(
            CoreV1Api(client).connect_get_namespaced_pod_exec,
            pod,
            namespace.name,
            container=container,
            command=list(command),
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
        )
    except ApiException as error:
        raise LabError(f"pod {pod} cannot be entered ({error.reason}); see whether it still runs") from error
    try:
        channel.run_forever(timeout=120)
        code = channel.returncode
        return subprocess.CompletedProcess(
            list(command), 1 if code is None else code, channel.read_stdout(), channel.read_stderr()
        )
    finally:
        channel.close()
        channel.sock.shutdown()  # to close is not enough where the API has done so first
        client.close()


def _belongs(pod: Object, run: Run) -> bool:
    told = pod["metadata"].get("annotations", {})
    return (told.get("dag_id"), told.get("run_id")) == (run.dag_id, run.run_id)


class History:
    """What a watch has seen of a namespace's pods since this began, and what the containers of tasks said."""

    def __init__(self, namespace: Namespace) -> None:
        self._api, self._path = namespace.api, namespace.path("pods")
        self._sightings: list[Sighting] = []
        self._readers: dict[tuple[str, str], threading.Thread] = {}
        self._logs: dict[tuple[str, str], str] = {}
        self._over = threading.Event()
        self._failure: Exception | None = None
        self._version = self._now()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _now(self) -> str:
        return str(self._api.request("GET", self._path, limit=1)["metadata"]["resourceVersion"])

    def _follow(self) -> None:
        try:
            while not self._over.is_set():
                # one second each, from where the last one ended: nothing is missed in between
                since = self._version
                for line in self._api.lines(self._path, watch="true", resourceVersion=since, timeoutSeconds=1):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"the watch of pods ended: {event['object'].get('message')}")
                    self._sightings.append(Sighting(time.time(), event["type"], event["object"]))
                    self._version = event["object"]["metadata"]["resourceVersion"]
                    self._listen(event["object"])
        except Exception as error:
            self._failure = error

    def _listen(self, pod: Object) -> None:
        """Read the log of each container from its start to its end, as it goes with the pod."""
        if pod["metadata"].get("labels", {}).get("kubernetes_executor") != "True":
            return
        for container, status in statuses(pod).items():
            key = (str(pod["metadata"]["uid"]), container)
            if key not in self._readers and not status["state"].get("waiting"):
                self._readers[key] = threading.Thread(
                    target=self._read, args=(key, str(pod["metadata"]["name"])), daemon=True
                )
                self._readers[key].start()

    def _read(self, key: tuple[str, str], pod: str) -> None:
        path, container = f"{self._path}/{pod}/log", key[1]
        with suppress(LabError):  # of a pod that went faster than it could be asked
            while True:
                try:
                    self._logs[key] = self._api.text("GET", path, container=container, follow="true")
                    return
                except LabError:  # it said nothing for a minute, or is gone
                    self._logs[key] = self._api.text("GET", path, container=container)
                if self._over.is_set():
                    return

    def close(self) -> None:
        """End the watch, and the reading of what has ended."""
        self._over.set()
        self._thread.join(timeout=90)
        for reader in self._readers.values():
            reader.join(timeout=5)

    def said(self, life: Life, container: str = "base") -> str:
        """What a container said from its start to its end, as far as it could be read; "" for nothing."""
        return messages(self._logs.get((life.uid, container), ""))

    def sightings(self) -> list[Sighting]:
        """All of them so far, in order.

        Raises:
            Exception: that which ended the watch; a history with a hole proves nothing.
        """
        if self._failure:
            raise self._failure
        return list(self._sightings)

    def lives(self, run: Run) -> list[Life]:
        """The pods of a run, in the order of their creation."""
        found: dict[str, list[Sighting]] = {}
        for sighting in self.sightings():
            if _belongs(sighting.pod, run):
                found.setdefault(sighting.pod["metadata"]["uid"], []).append(sighting)
        return [Life(tuple(each)) for each in found.values()]

    def wait_quiet(self, run: Run, seconds: float = 4.0) -> None:
        """Wait until none of a run's pods runs or is on its way out, and none has changed for some seconds."""

        def quiet() -> tuple[bool | None, str]:
            lives = [life for life in self.lives(run) if not life.gone]
            busy = [
                life.name
                for life in lives
                if life.phases()[-1] == "Running"
                or "deletionTimestamp" in life.last["metadata"]
                or time.time() - life.sightings[-1].at < seconds
            ]
            return (None if busy else True), f"{', '.join(busy)} going on"

        until(quiet, what=f"the pods of run {run.run_id} to come to rest", timeout=90, interval=0.5)


@dataclass(frozen=True)
class PodRun:
    """A run that has ended, and its pods.

    Attributes:
        seen: the run as Airflow shows it.
        lives: its pods, in the order of their creation.
        events: what Kubernetes said of each pod, by its uid.
        history: with what each container said.
    """

    seen: Observation
    lives: Sequence[Life]
    events: Mapping[str, Sequence[Object]]
    history: History

    def of(self, task_id: str) -> list[Life]:
        """The pods of a task, the first try first."""
        return [life for life in self.lives if life.task_id == task_id]

    def one(self, task_id: str) -> Life:
        """The only pod of a task."""
        (life,) = self.of(task_id)
        return life

    def causes(self) -> dict[str, Cause]:
        """Task → why its last pod came to grief."""
        return {life.task_id: cause(life, self.events[life.uid]) for life in self.lives}

    def xcom(self, task_id: str) -> Any:
        """What a task returned."""
        return self.seen.xcom(task_id)

    def log(self, task_id: str, container: str = "base") -> str:
        """What the last pod of a task said while it was there: Airflow's own copy may have gone with it."""
        return self.history.said(self.of(task_id)[-1], container)

    def told(self, life: Life) -> list[str]:
        """The events of a pod, as `Reason: message`."""
        return [f"{event.get('reason')}: {event.get('message')}" for event in self.events[life.uid]]


def pod_run(namespace: Namespace, seen: Observation) -> PodRun:
    """A run whose pods were watched, with what is known of them now."""
    assert seen.history is not None
    lives = seen.history.lives(seen.run)
    return PodRun(seen, lives, {life.uid: namespace.events(life.uid) for life in lives}, seen.history)


@contextmanager
def pod_runs(namespace: Namespace, run_dag: Callable[..., Observation]) -> Iterator[Callable[..., PodRun]]:
    """Gives `run(conf=None, …)`, as `run_dag` is called; on the way out no pod of these runs is kept."""
    runs: list[Run] = []

    def run(conf: Mapping[str, Any] | None = None, **options: Any) -> PodRun:
        seen = run_dag(conf, settle=True, **options)
        runs.append(seen.run)
        assert seen.history is not None, "nobody watched the pods"
        return pod_run(namespace, seen)

    try:
        yield run
    finally:
        for each in runs:
            for pod in namespace.pods_of(each):
                namespace.delete("pods", pod["metadata"]["name"], grace=1)
