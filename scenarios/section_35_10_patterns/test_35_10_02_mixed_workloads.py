"""Each kind of work goes where it belongs: to a queue of workers, or to a pod of its size, or on a node with a device.

Hint: the table in the log of `report`; a kind whose queue nobody serves stays queued, see 35.8.1.
"""

import pytest

from labs.comparison import RESULT
from scenarios.judge import sequential
from scenarios.pods import GPU

pytestmark = [
    pytest.mark.needs(section="35.10"),
    pytest.mark.needs(default_executor="CeleryExecutor", because="the LocalExecutor runs tasks of every queue itself"),
]

QUEUES = {"quick": "default", "io": "io_bound", "memory": "heavy_compute", "long": "heavy_compute", "gpu": "gpu"}

PODS = {"memory", "long", "gpu"}
"""Kinds that have pods where there are pods."""

SECONDS = 20
"""How long each long task works: longer than all short ones together."""


@pytest.fixture(scope="module")
def ran(run_dag):
    """One run."""
    return run_dag({"seconds": SECONDS}, timeout=180)


@pytest.fixture(scope="module")
def in_pods(lab):
    """The kinds that have pods here."""
    return PODS if "KubernetesExecutor" in lab.executors else set()


@pytest.fixture(scope="module")
def lives(ran):
    """The pods of the run's tasks, by task; several of those that are mapped."""
    found = {}
    for life in ran.history.lives(ran.run) if ran.history else ():
        found.setdefault(life.task_id, []).append(life)
    return found


def test_each_kind_goes_to_its_place(ran, celery, lives, in_pods, evidence):
    """What a worker's own log says it took, from which queue, and what the cluster had pods for, is all there was."""
    taken = {}
    for each in celery.taken(ran.run):
        taken.setdefault(each.task_id, set()).add(each.queue)
    kinds = [ti.task_id for ti in ran.instances if ti.task_id != "report"]
    evidence("workers took", {task: sorted(queues) for task, queues in taken.items()})
    evidence("pods", [life.row() for each in lives.values() for life in each])
    evidence(RESULT, {kind: kinds.count(kind) for kind in QUEUES})
    assert {kind: kinds.count(kind) for kind in QUEUES} == ran.xcom("report")["kinds"]
    assert taken == {"report": {"default"}} | {kind: {QUEUES[kind]} for kind in QUEUES if kind not in in_pods}
    assert {task: len(each) for task, each in lives.items()} == {kind: kinds.count(kind) for kind in in_pods}
    assert ran.xcom("report")["in_pods"] == sorted(in_pods)


def test_whoever_serves_the_queue_runs_it(ran, celery, in_pods, evidence):
    """Every worker that ran a task was started for its queue; of the GPU's there is one only, where no pod takes it."""
    served = celery.queues()
    rows = [(ti.task_id, ti.hostname) for ti in ran.all(*QUEUES) if ti.task_id not in in_pods]
    evidence("tasks", [{"task": task, "worker": worker} for task, worker in rows])
    assert rows and all(QUEUES[task] in served[worker] for task, worker in rows)
    if "gpu" not in in_pods:
        assert [worker for worker, queues in served.items() if "gpu" in queues] == [ran.one("gpu").hostname]


def test_quick_work_does_not_wait_for_long_work(ran, evidence):
    """By Airflow's own times: two long tasks followed each other, and all quick ones ended before the first did."""
    longs, quicks = ran.all("long"), ran.all("quick")
    first = min(ti.ended for ti in longs)
    evidence("long", [{"from": ti.started, "to": ti.ended, "at": ti.hostname} for ti in longs])
    evidence("quick, seconds before the first long one's end", [(first - ti.ended).total_seconds() for ti in quicks])
    assert len(longs) == 2 and len(quicks) == 4
    assert sequential(longs), "two long tasks ran at once: nothing keeps them from holding all slots"
    assert all(ti.ended < first for ti in quicks), "a quick task ended after a long one"
    assert ran.xcom("report")["quick_behind_long"] is False


def test_what_each_kind_needs_is_seen(ran, evidence):
    """The one held its memory, those that wait used no CPU, and the one without a device computed all the same."""
    memory, waits, gpu = ran.xcom("memory"), ran.xcoms("io"), ran.xcom("gpu")
    evidence("memory, MB at its peak", memory["peak"])
    evidence("share of a CPU while waiting", [each["busy"] for each in waits])
    evidence("devices", gpu["devices"])
    assert memory["peak"] > 150, f"it held {memory['peak']} MB"
    assert all(0 <= each["busy"] < 0.3 for each in waits)
    assert gpu["value"] == sum(number % 7 for number in range(1_000_000))


@pytest.mark.needs(executor="KubernetesExecutor")
def test_pods_are_of_the_size_and_on_the_node(ran, lives, namespace, evidence):
    """As the API server stored them: requests and limit of `memory`; `gpu` on the tainted node, and no other there."""
    gpu = namespace.nodes_with(GPU, "true")
    if not gpu:
        pytest.skip("needs a node with the GPU label, as kind clusters of these labs have one")
    nodes = {f"{task} {life.name}": life.node for task, each in lives.items() for life in each}
    (large,) = lives["memory"]
    evidence("nodes", nodes)
    evidence("memory", large.spec()["resources"])
    resources = large.spec()["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("384Mi", "768Mi")
    assert {task.split()[0] for task, node in nodes.items() if node in gpu} == {"gpu"}


@pytest.mark.needs(platform="kubernetes", replicas="worker")
def test_the_worker_for_gpu_work_is_on_its_node(ran, services, namespace, evidence):
    """Where workers serve the queue, the one that ran it stands on the node with the label, by its pod."""
    gpu, worker = namespace.nodes_with(GPU, "true"), ran.one("gpu").hostname
    if not gpu:
        pytest.skip("needs a node with the GPU label, as kind clusters of these labs have one")
    there = {node: services.on(node) for node in sorted(gpu)}
    evidence("services on nodes for GPU work", there)
    assert any(worker in found for found in there.values()), f"{worker} is on another node"
