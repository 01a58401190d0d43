"""A task says its size once, and each executor is asked for it in its own way.

Hint: on LocalExecutor a large task takes two slots of `default_pool`; *Pool slots* in its details shows it.
"""

import pytest

from labs.comparison import RESULT
from scenarios.changing import pool_slots
from scenarios.judge import max_concurrent, overlap

SMALL, LARGE = ["small_1", "small_2"], ["large_1", "large_2"]


@pytest.fixture(scope="module")
def sized(run_dag):
    """One run with more pool slots than it needs."""
    return run_dag({"seconds": 2})


def test_each_size_becomes_what_the_executor_understands(sized, executor, evidence):
    """A large task has a larger pod on Kubernetes, another queue on Celery, more pool slots elsewhere."""
    details = {task: sized.details(task) for task in [*SMALL, *LARGE]}
    found = {
        task: {"pool slots": ti.pool_slots, "queue": ti.queue, "pod": ti.executor_config != "{}"}
        for task, ti in details.items()
    }
    evidence("tasks", [{"task": task, **got} for task, got in found.items()])
    evidence(RESULT, {task: sized.xcom(task)["size"] for task in found})
    usual = {"pool slots": 1, "queue": "default", "pod": False}
    small, large = {
        "KubernetesExecutor": (usual | {"pod": True}, usual | {"pod": True}),
        "CeleryExecutor": (usual, usual | {"queue": "heavy_compute"}),
    }.get(executor, (usual, usual | {"pool slots": 2}))
    for task, got in found.items():
        expected = large if task in LARGE else small
        assert got == expected, f"{task} got {got}, but on {executor} its size means {expected}"
    assert {ti.pool for ti in details.values()} == {"default_pool"}, "a task is in a pool that may not exist"


def test_the_log_says_what_was_asked(sized, executor, evidence):
    """The log names the arguments into which the sizes were turned for this executor."""
    expected = {"KubernetesExecutor": ["executor_config"], "CeleryExecutor": ["queue"]}
    asked = expected.get(executor, ["pool", "pool_slots"])
    lines = [line for line in sized.log("report").splitlines() if "asks for it by" in line]
    evidence("log", lines)
    assert sized.xcom("report")["adapted"] == asked
    assert [line.partition("info ")[2] for line in lines] == [
        f"{size}: {executor} asks for it by {asked}" for size in ("small", "large")
    ]


@pytest.mark.needs(default_executor="KubernetesExecutor")
def test_each_size_is_that_of_a_pod(sized, evidence):
    """The Kubernetes half: what each pod requests, as the API server stored it."""
    found = {life.task_id: life.spec()["resources"]["requests"] for life in sized.history.lives(sized.run)}
    evidence("requests", found)
    small, large = {"cpu": "100m", "memory": "256Mi"}, {"cpu": "200m", "memory": "384Mi"}
    assert [found[task] for task in (*SMALL, *LARGE)] == [small, small, large, large]


@pytest.mark.needs(executor="LocalExecutor")
def test_a_small_pool_runs_large_tasks_one_after_the_other(sized, airflow, run_dag, evidence):
    """With two slots in the pool, which is what one large task takes, large tasks no longer run together."""
    slots = {task: sized.details(task).pool_slots for task in [*SMALL, *LARGE]}
    with pool_slots(airflow, "default_pool", 2):
        tight = run_dag({"seconds": 1})
    taken = [
        sum(slots[ti.task_id] for ti in look.instances if ti.task_id in slots and ti.state in ("queued", "running"))
        for look in tight.looks
    ]
    together = {name: overlap(*run.all(*LARGE)) for name, run in (("many slots", sized), ("two slots", tight))}
    evidence("seconds in which both large tasks ran", together)
    evidence("slots taken at each look", taken)
    assert together["many slots"] > 0, "even with many slots the large tasks did not run together"
    assert together["two slots"] == 0, "with two slots the large tasks still ran together"
    assert max(taken) <= 2, f"{max(taken)} slots were taken of 2"
    assert max_concurrent(tight.all(*SMALL, *LARGE)) <= 2
