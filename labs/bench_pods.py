"""`bench pods`: where the time of a task in a pod of its own goes, and what a cluster with such a lab costs.

A trivial run is one of a single task: of a run that has succeeded, the first task is cleared, and the scheduler takes
the run up again for that task alone. Kubernetes gives its own times in whole seconds, so none is used: those of a pod
are when a watch told of it, that of a container's start is containerd's, and the others, also of what happens in the
pod, are Airflow's. All come from one clock, that of the machine under the cluster.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from airflow_client.client import ClearTaskInstancesBody, ClearTaskInstancesBodyTaskIdsInner, TaskInstanceApi
from rich.table import Table

from components.clusters.kind import cluster_name, node_containers
from components.platforms.kubernetes.names import namespace_of
from labs.airflow import Airflow
from labs.bench import NAME, LabMeasurement, client, measure
from labs.console import err, out
from labs.daemon import daemon
from labs.errors import LabError, UsageError
from labs.runs import Run, TaskInstance
from labs.waiting import until
from scenarios.pods import History, Life, Namespace, statuses

TASK = "extract"
"""The first task of `labs.bench.DAG`; it returns three numbers."""

SECOND = f"{NAME}-2"

EVENTS = "ctr --namespace k8s.io events & read -r _; kill $!"
"""Says what a node's containers do until standard input ends; what `docker exec` starts is not ended with it."""

TASK_PART, TRIVIAL = "task, from the DAG's file on", "a trivial run"


def container_starts(events: str) -> dict[str, float]:
    """Container id → when its process started, in epoch seconds, from what `ctr events` has said so far."""
    found = {}
    for line in events.rpartition("\n")[0].splitlines():  # the last one may not be whole yet
        date, clock, _offset, _zone, _namespace, topic, content = line.split(" ", 6)
        if topic == "/tasks/start":
            second, _, fraction = clock.partition(".")
            at = datetime.fromisoformat(f"{date}T{second}+00:00").timestamp() + float(f"0.{fraction or 0}")
            found[str(json.loads(content)["container_id"])] = at
    return found


def parts(run: Run, ti: TaskInstance, life: Life, starts: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each part of a trivial run, one after the other; then of the whole, and until its pod was gone.

    Args:
        life: of its pod, to the end.
        starts: what `container_starts` has found.

    Raises:
        LabError: a part of it was not seen.
    """
    placed = next((sighting.at for sighting in life.sightings if sighting.pod["spec"].get("nodeName")), None)
    container = str(statuses(life.last).get("base", {}).get("containerID", "")).rpartition("/")[2]
    ends = {
        "asked for": _epoch(run.queued),
        "scheduler, until the task is queued": _epoch(ti.queued),
        "executor, until the pod is created": life.sightings[0].at,
        "Kubernetes, until the pod has a node": placed,
        "container start": starts.get(container),
        "interpreter and imports": _epoch(ti.started),
        TASK_PART: _epoch(ti.ended),
        "reconciliation, until the run has ended": _epoch(run.ended),
    }
    seen = {part: at for part, at in ends.items() if at is not None}
    if len(seen) < len(ends):
        raise LabError(f"of pod {life.name} was not seen: {', '.join(ends.keys() - seen.keys())}; run it again")
    found = {part: at - before for (_, before), (part, at) in pairwise(seen.items())}
    return {
        **found,
        TRIVIAL: sum(found.values()),
        "pod gone, after the task's end": life.sightings[-1].at - seen[TASK_PART],
    }


def _epoch(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


@contextlib.contextmanager
def _container_events(nodes: Sequence[str]) -> Iterator[Path]:
    """A file into which the containerd of each node writes what it does while the block runs."""
    with tempfile.NamedTemporaryFile("ab") as log, contextlib.ExitStack() as following:
        for node in nodes:
            command = ["docker", "exec", "-i", node, "sh", "-c", EVENTS]
            following.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log))
        yield Path(log.name)


def _trivial_run(airflow: Airflow, run: Run, history: History, events: Path) -> dict[str, float]:
    body = ClearTaskInstancesBody(
        dry_run=False,
        only_failed=False,
        dag_run_id=run.run_id,
        task_ids=[ClearTaskInstancesBodyTaskIdsInner(TASK)],
    )
    api = TaskInstanceApi(airflow.client)
    airflow.call(api.post_clear_task_instances, patience=0, dag_id=run.dag_id, clear_task_instances_body=body)
    done = airflow.wait(run, states={"success"})
    ti = next(each for each in airflow.task_instances(run) if each.task_id == TASK)

    def gone() -> tuple[Life | None, str]:
        life = next((each for each in history.lives(run) if each.try_number == ti.try_number), None)
        return (life if life and life.gone else None), life.phases()[-1] if life else "not seen"

    life = until(gone, what=f"the pod of {ti.label} to be gone", timeout=60)
    return parts(done, ti, life, container_starts(events.read_text()))


def trivial_runs(outputs: Mapping[str, Any], run: Run, count: int) -> list[dict[str, float]]:
    """The parts of so many trivial runs, one by one, of a run that has succeeded."""
    airflow, found = client(outputs), []
    with daemon() as docker:
        nodes = [node.name for node in node_containers(docker, cluster_name(NAME, dedicated=False))]
    with _container_events(nodes) as events, Namespace(outputs).watched() as history:
        for number in range(count):
            found.append(_trivial_run(airflow, run, history, events))
            err.print(f"run {number + 1}: {found[-1][TRIVIAL]:.2f} s")
    return found


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each part: they need not add up to that of the whole."""
    return {part: statistics.median(run[part] for run in runs) for part in runs[0]}


def bench_pods(runs: int) -> dict[str, Any]:
    """Make a kind cluster with the lab `kubernetes`, run trivially, add a second lab; prints a table, returns figures.

    Raises:
        UsageError: there is a cluster already, so that making it cannot be measured.
    """
    name = cluster_name(NAME, dedicated=False)
    with daemon() as docker:
        if node_containers(docker, name):
            raise UsageError(f"the kind cluster {name} is there: take its labs down first, so that it can be measured")
    trivial: list[dict[str, float]] = []
    beside: list[LabMeasurement] = []

    def meanwhile(outputs: Mapping[str, Any], run: Run) -> None:
        trivial.extend(trivial_runs(outputs, run, runs))
        beside.append(measure("kubernetes", "kubernetes", name=SECOND))
        if Namespace(outputs).api.found(f"/api/v1/namespaces/{namespace_of(SECOND)}"):
            raise LabError(f"`lab down {SECOND}` ended before its namespace had gone")

    first = measure("kubernetes", "kubernetes", meanwhile=meanwhile)
    (second,) = beside
    table = Table("", "measured", "target", box=None, header_style="bold")

    def row(what: str, value: float, limit: float | None = None, unit: str = "s") -> None:
        colour = "default" if limit is None else "green" if value <= limit else "red"
        table.add_row(what, f"[{colour}]{value:.2f} {unit}[/]", "" if limit is None else f"≤ {limit:g} {unit}")

    for part, median in medians(trivial).items():
        row(part, median, 5 if part == TRIVIAL else None)
    row("`up` to the first task's success", first.task, 110)
    row("a second lab on that cluster, to the same", second.task, 35)
    row("idle memory of the cluster with one lab", first.memory / 2**30, 5, "GiB")
    row("`down` of the second lab", second.down, 20)
    row("`down` of the last lab, and of the cluster", first.down, 20)
    out.print(table)
    return {"runs": trivial, "first": asdict(first), "second": asdict(second)}
