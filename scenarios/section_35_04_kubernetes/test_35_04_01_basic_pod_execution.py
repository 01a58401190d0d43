"""Each task runs in a pod of its own, which is made for it, runs it, and goes.

Hint: `kubectl get pods --watch` in the lab's namespace shows what this verifier sees.
"""

from collections import Counter
from pathlib import Path

import pytest

from scenarios.judge import all_overlap
from scenarios.pods import moment, spans, writable_claims

pytestmark = pytest.mark.needs(executor="KubernetesExecutor", section="35.4")

TASKS = ("first", "second", "report")
NAMESPACES = ("pid", "mnt", "net", "ipc", "uts")
"""What a node keeps apart: processes, file systems, network, memory that processes share, and its name.
https://man7.org/linux/man-pages/man7/namespaces.7.html"""
BATCH = "kubernetes_executor.worker_pods_creation_batch_size"
"""Pods made in one turn of the scheduler.
https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/configurations-ref.html"""
EXCHANGE = "airflow-exchange"
"""A folder of the lab's own, in which any task may leave files for who looks on; Airflow needs none."""


@pytest.fixture(scope="module")
def ran(run_in_pods):
    """One run, and every version of its pods."""
    return run_in_pods({"seconds": 3})


def test_one_pod_for_each_task(ran, evidence):
    """As many pods as tasks, each named by the executor for its task, and by Airflow as the task's host."""
    evidence("pods", [life.row() for life in ran.lives])
    assert Counter(life.task_id for life in ran.lives) == dict.fromkeys(TASKS, 1), "not one pod for each task"
    assert len({life.uid for life in ran.lives}) == len(TASKS)
    for life in ran.lives:
        ti = ran.seen.one(life.task_id)
        assert ti.hostname == life.name, f"Airflow says that {ti.label} ran on {ti.hostname}, its pod is {life.name}"
        marks = {key: life.labels.get(key) for key in ("dag_id", "task_id", "try_number", "kubernetes_executor")}
        assert marks == {
            "dag_id": ti.dag_id,
            "task_id": ti.task_id,
            "try_number": "1",
            "kubernetes_executor": "True",
        }


def test_created_run_terminated(ran, evidence):
    """Every pod goes through its phases once and is deleted; its task runs while the container does."""
    for life in ran.lives:
        ti, (started, ended) = ran.seen.one(life.task_id), spans(life)["base"]
        created = moment(life.first["metadata"]["creationTimestamp"])
        evidence(
            f"{life.task_id}: seconds after the pod was created",
            {
                "container started": started - created,
                "task started": ti.started.timestamp() - created,
                "task ended": ti.ended.timestamp() - created,
                "container ended": ended - created,
            },
        )
        evidence(f"{life.task_id}: events", ran.told(life))
        assert life.phases() == ["Pending", "Running", "Succeeded"]
        assert life.gone, "the pod was kept"
        assert life.sightings[0].kind == "ADDED"
        assert not life.first["spec"].get("nodeName"), "it was bound to a node before it was there"
        assert life.node
        # the container's times are whole seconds
        assert created <= started <= ti.started.timestamp() + 1
        assert ti.ended.timestamp() <= ended + 1
        assert {"Scheduled", "Started"} <= {event["reason"] for event in ran.events[life.uid]}


def test_they_share_nothing(ran, evidence, claim):
    """Neither a path nor a namespace of the node; the file that one left is not there for the other."""
    shared = {}
    for life in ran.lives:
        spec = life.first["spec"]
        kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
        shared[life.task_id] = sorted(kinds)
        asked = [key for key in ("hostPID", "hostIPC", "hostNetwork", "shareProcessNamespace") if spec.get(key)]
        assert not asked, f"the pod of {life.task_id} has {asked}"
        assert "hostPath" not in kinds, f"the pod of {life.task_id} has files of its node"
    evidence("volumes of each pod", shared)
    told = ran.xcom("report")
    assert told["pods"] == [ran.one(task_id).name for task_id in ("first", "second")]
    log = ran.log("second")
    evidence("second says", [line for line in log.splitlines() if "first ran in" in line or "Note of" in line])
    assert told["separate"] is True
    assert "Note of another task in /tmp: None" in log
    containers = {life.last["status"]["containerStatuses"][0]["containerID"] for life in ran.lives}
    evidence("containers", sorted(containers))
    assert len(containers) == len(TASKS), "two tasks had the same container"
    gone = [life.name for life in ran.lives if life.gone]
    claim(
        "KubernetesExecutor creates a new Pod for each task and tears it down when done",
        "seed 003",
        "holds" if len(gone) == len(ran.lives) == len(TASKS) else "wrong",
        {"tasks": len(TASKS), "pods": len(ran.lives), "still there": len(ran.lives) - len(gone)},
    )


@pytest.mark.needs(local="processes")
def test_two_at_once_share_nothing(airflow, services, start_in_pods, evidence, claim):
    """Question 3 of seed 001: as their node sees them, each has processes, files and a network of its own.

    Of a Celery worker, tasks share all of these: see `claims/test_celery_executor.py`. What any two may write to here
    is the exchange folder of these labs.
    """
    busy = start_in_pods("35_01_04_executor_parallelism", "holds a slot", {"tasks": 2, "seconds": 20})
    rows = []
    for ti in busy.wait_for_work("work", 2):
        process = services.process(ti.hostname, ti.pid)
        spaces = {kind: str(Path(f"/proc/{process.pid}/ns/{kind}").readlink()) for kind in NAMESPACES}
        rows.append({"pod": ti.hostname, "process": process.pid, "parent": process.ppid(), **spaces})
    run = airflow.wait(busy.run)
    tasks = [ti for ti in airflow.task_instances(run) if ti.task_id == "work"]
    shared = [what for what in rows[0] if len({row[what] for row in rows}) < len(rows)]
    both = set.intersection(*(writable_claims(life) for life in busy.lives("work")))
    evidence("two tasks at once", rows)
    claim(
        "CeleryExecutor: not as isolated as KubernetesExecutor",
        "seed 001",
        "wrong" if shared or both - {EXCHANGE} else "holds",
        {
            "tasks at once": len(rows),
            "namespaces compared": list(NAMESPACES),
            "shared": shared,
            "claims that both may write to": sorted(both),
        },
    )
    assert run.state == "success", airflow.explain(run)
    assert all_overlap(tasks), "they did not run at once"
    assert not shared, f"they share {', '.join(shared)}: {rows}"
    assert both == {EXCHANGE}, f"both may write to {', '.join(sorted(both))}"


def test_the_log_tells_how_to_look(ran, namespace, evidence):
    """The commands have this lab's namespace and a pod's name in them."""
    lines = [line for line in ran.log("report").splitlines() if "kubectl" in line]
    evidence("commands", lines)
    assert len(lines) == 3
    assert all(f"kubectl -n {namespace.name} " in line for line in lines), f"not the namespace {namespace.name}"
    assert ran.one("report").name in lines[1]


def test_pods_are_made_in_batches(lab, run_in_pods, evidence):
    """Pods for tasks that become ready together come together; one for each turn of the scheduler, one by one."""
    waves = []
    pause = {"scheduler.scheduler_idle_sleep_time": "3"}  # so that turns can be told apart
    for options in ({}, {BATCH: "1"}):
        with lab.reconfigured({**pause, **options}):
            ran = run_in_pods({"tasks": 6, "seconds": 1}, dag_id="35_01_04_executor_parallelism", timeout=240)
        first, *more = (life.sightings[0].at for life in ran.of("work"))
        size = options.get(BATCH, lab.outputs["options"][BATCH])
        waves.append({"pods in a turn": size, "seconds after the first": [at - first for at in more]})
    evidence("pods", waves)
    together, alone = (max(wave["seconds after the first"]) for wave in waves)
    assert alone > 2 * together, f"6 pods came within {together:.1f} s, and within {alone:.1f} s one by one"
