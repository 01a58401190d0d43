"""Workers of one queue that become more and fewer: whoever decides it here, and a curve of that, seen from outside.

Where a lab has an autoscaler of pods, that is looked at; elsewhere Celery's own, which changes a worker's processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from components.platforms.kubernetes.names import SERVICE
from labs.runs import TaskInstance
from labs.waiting import until
from scenarios.celery import Celery
from scenarios.faulting import late_fails
from scenarios.pods import Namespace

if TYPE_CHECKING:
    from labs.cluster import Object
    from labs.lab import Lab

QUEUE = GROUP = "compute"
"""A queue that one group of workers serves, and no portable DAG needs."""

FIXED = f"{GROUP}-1"
"""The only worker of that group where nobody scales it: it runs one task at once."""


@dataclass(frozen=True)
class Look:
    """One look at a queue and its workers.

    Attributes:
        at: epoch seconds.
        waiting: messages in the broker.
        running: tasks of the run that run, as Airflow says.
        slots: tasks that workers which are ready can run at once.
        paid: the same of all that are there, whether they start, work or end.
    """

    at: float
    waiting: int
    running: int
    slots: int
    paid: int


@dataclass(frozen=True)
class Elastic:
    """How the group grows in a lab.

    Attributes:
        by: in words.
        shape: what the lab is reconfigured with for it.
        least: tasks at once when there is nothing to do; `most` when there is much.
        burst: parameters of 35.9.1 for a burst that is noticed.
        calm: seconds after the last task within which it is small again.
        bounds: where the object is that has the bounds, and what it calls them; nothing where pods are not scaled.
        measures: namespace and Deployments of what it looks with; nothing where pods are not scaled.
    """

    by: str
    shape: Mapping[str, Any]
    least: int
    most: int
    burst: Mapping[str, Any]
    calm: float
    bounds: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()


def elastic_in(lab: Lab) -> Elastic:
    """What scales the group here; a check in a lab where nothing can be seen of it is not applicable."""
    if lab.platform == "kubernetes" and "keda" in lab.outputs["extras"]:
        return Elastic(
            by="KEDA, by tasks",
            shape={
                "workers": {GROUP: {"longest": 180}},
                "autoscaling": {GROUP: {"by": "tasks", "least": 0, "most": 3}},
            },
            least=0,
            most=3,
            burst={"tasks": 12, "seconds": 12},
            calm=240,
            bounds=("/apis/keda.sh/v1alpha1", "scaledobjects", "minReplicaCount", "maxReplicaCount"),
            measures=("keda", "keda-operator", "keda-metrics-apiserver"),
        )
    if lab.platform == "kubernetes" and "metrics-server" in lab.outputs["extras"]:
        return Elastic(
            by="HorizontalPodAutoscaler, by CPU",
            # a worker that is idle uses some 20 thousandths, one that starts a task every 15 s some 100 more
            shape={"workers": {GROUP: {"longest": 180}}, "autoscaling": {GROUP: {"least": 1, "most": 3, "cpu": 150}}},
            least=1,
            most=3,
            burst={"tasks": 12, "seconds": 15, "computes": 0.5},
            calm=300,
            bounds=("/apis/autoscaling/v2", "horizontalpodautoscalers", "minReplicas", "maxReplicas"),
            measures=("kube-system", "metrics-server"),
        )
    if lab.outputs.get("cluster", {}).get("kind") == "context":
        pytest.skip("needs an autoscaler, or processes of workers that this machine sees: add --with keda")
    return Elastic(
        by="Celery's --autoscale",
        shape={"workers": {GROUP: {"autoscale": [4, 1]}}},
        least=1,
        most=4,
        burst={"tasks": 12, "seconds": 3},
        calm=90,  # of which Celery keeps a process for 30
    )


class Meter:
    """Looks at the queue and its workers.

    Args:
        namespace: where their pods are; None where processes are counted.
    """

    def __init__(self, celery: Celery, namespace: Namespace | None) -> None:
        self._celery, self._namespace = celery, namespace
        self.curve: list[Look] = []

    def look(self, instances: Sequence[TaskInstance] = ()) -> Look:
        """One more point of the curve."""
        running = sum(ti.state == "running" and ti.queue == QUEUE for ti in instances)
        slots, paid = self._workers()
        self.curve.append(Look(time.time(), self._celery.waiting(QUEUE)[QUEUE], running, slots, paid))
        return self.curve[-1]

    def pods(self) -> list[Object]:
        """Those of the group that have not ended."""
        assert self._namespace
        return pods_of(self._namespace, GROUP, FIXED)

    def _workers(self) -> tuple[int, int]:
        if not self._namespace:
            processes = self._celery.pool(FIXED)
            return processes, processes
        pods = self.pods()
        return sum(map(stays, pods)), len(pods)

    def wait(self, slots: int, timeout: float) -> float:
        """Wait until there are so many slots, and nothing beside them that is paid for; how many seconds that took."""
        began = time.time()

        def probe() -> tuple[float | None, str]:
            seen = self.look()
            done = seen.slots == seen.paid == slots
            return (seen.at - began if done else None), f"{seen.slots} slots, {seen.paid} paid for"

        with late_fails():
            return until(probe, what=f"{slots} slots of {GROUP} to be there", timeout=timeout, interval=1)


def pods_of(namespace: Namespace, *services: str) -> list[Object]:
    """The pods of services that have not ended."""
    found = namespace.api.items(namespace.path("pods"), labelSelector=f"{SERVICE} in ({','.join(services)})")
    return [pod for pod in found if pod["status"].get("phase") not in ("Succeeded", "Failed")]


def stays(pod: Object) -> bool:
    """Whether a pod is ready, and not on its way out."""
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
    return ready and "deletionTimestamp" not in pod["metadata"]


def paid_seconds(curve: Sequence[Look]) -> float:
    """Slot-seconds below a curve: what there was at one look was there until the next."""
    return sum((after.at - before.at) * before.paid for before, after in pairwise(curve))


def rows(curve: Sequence[Look], most: int = 40) -> list[dict[str, Any]]:
    """A curve for the report: the looks at which something has changed, seconds from the first one on."""
    changed = [curve[0], *(now for last, now in pairwise(curve) if _levels(last) != _levels(now))]
    step = -(-len(changed) // most)
    return [{**asdict(look), "at": round(look.at - curve[0].at, 1)} for look in changed[::step]]


def _levels(look: Look) -> tuple[int, ...]:
    return look.waiting, look.running, look.slots, look.paid


@contextmanager
def rebounded(namespace: Namespace, elastic: Elastic) -> Iterator[Callable[[int, int], None]]:
    """Gives what sets an autoscaler's bounds, least and most; they are as before afterwards."""
    root, kind, least, most = elastic.bounds
    path = f"{root}/namespaces/{namespace.name}/{kind}/airflow-{GROUP}"

    def put(fewest: int, largest: int) -> None:
        namespace.patch(path, {"spec": {least: fewest, most: largest}})

    try:
        yield put
    finally:
        put(elastic.least, elastic.most)
