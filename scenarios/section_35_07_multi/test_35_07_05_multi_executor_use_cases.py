"""Patterns for several executors: fast and heavy, development and production, sites and centre, cost.

Hint: the log of `costs` has the table, and a warning for each executor that this lab does not have.
"""

import pytest

pytestmark = [
    pytest.mark.needs(executor=("LocalExecutor", "KubernetesExecutor"), section="35.7"),
    pytest.mark.needs(executor="CeleryExecutor"),
    pytest.mark.needs(executor="EdgeExecutor"),
]

FAST, STAGES, SITES = "fast_and_heavy", "development_and_production", "sites_and_centre"
PATTERNS = ("LocalExecutor", "CeleryExecutor", "EdgeExecutor", "KubernetesExecutor")
"""The executors that the patterns are about, as `costs` names them."""

PRICES = {"worker_price": 3, "pod_price": 7, "pod_start": 11, "tasks_per_hour": 120}


@pytest.fixture(scope="module")
def used(run_dag):
    """A run with prices of its own."""
    return run_dag(PRICES)


@pytest.fixture(scope="module")
def expected(words, executor):
    """Task → the word that it uses for its executor, and where that leads."""
    celery, pod = ("celery", "CeleryExecutor"), ("KubernetesExecutor", "KubernetesExecutor")
    large = pod if "KubernetesExecutor" in words else celery
    local = ("LocalExecutor", "LocalExecutor") if "LocalExecutor" in words else (None, executor)
    return {
        **{f"{FAST}.fast_{number}": celery for number in (1, 2, 3)},
        f"{FAST}.heavy": large,
        f"{STAGES}.in_development": local,
        f"{STAGES}.in_production": celery,
        **{f"{SITES}.sensor_{number}": ("edge", "EdgeExecutor") for number in (1, 2)},
        f"{SITES}.process": large,
    }


def test_each_pattern_uses_its_executors(used, executed, expected, evidence):
    """Airflow recorded what each task of a pattern asked for, and that executor has its trace."""
    ran_on = executed(used)
    found = {task: (used.one(task).executor, ran_on[task]) for task in expected}
    evidence("tasks", [{"task": task, "executor": word, "ran on": where} for task, (word, where) in found.items()])
    assert found == expected
    told = used.xcom("costs")["tasks"]
    assert {task: (each["executor"], each["ran_on"]) for task, each in told.items()} == expected


@pytest.mark.needs(executor="LocalExecutor")
def test_development_and_production_agree(used, evidence):
    """The same code gives the same value on two executors, in two places."""
    stages = {stage: used.xcom(f"{STAGES}.{stage}") for stage in ("in_development", "in_production")}
    evidence("told", list(stages.values()))
    assert {told["value"] for told in stages.values()} == {1236.7}
    assert [told["hostname"] for told in stages.values()] == ["scheduler", "default-1"]


def test_only_small_results_travel(used, evidence):
    """Each sensor's task leaves one figure for its thousand readings; the centre takes the larger one."""
    sensors = [used.xcom(f"{SITES}.sensor_{number}")["value"] for number in (1, 2)]
    evidence("values", {"sensors": sensors, "centre": used.xcom(f"{SITES}.process")["value"]})
    assert sensors == [21.45, 22.45]
    assert used.xcom(f"{SITES}.process")["value"] == max(sensors)


def test_the_costs_follow_from_the_prices(used, expected, evidence):
    """Each task's cost as a pod is its time and a pod's start, at the price and frequency that the run was given."""
    table = used.xcom("costs")["costs"]
    evidence("costs", [{"task": task, **row} for task, row in table.items()])
    assert set(table) == set(expected)
    for task, row in table.items():
        seconds = used.xcom(task)["seconds"]
        hourly = PRICES["pod_price"] * (seconds + PRICES["pod_start"]) / 3600 * PRICES["tasks_per_hour"]
        assert row["pods"] == pytest.approx(hourly)
        assert row["worker"] == PRICES["worker_price"]
        assert row["cheaper"] == ("pods" if hourly < PRICES["worker_price"] else "a worker")


def test_what_is_missing_is_named(used, words, evidence):
    """Executors that a pattern wants and the list does not have are named, not passed over."""
    told = used.xcom("costs")["missing"]
    evidence("missing", told)
    assert told == [name for name in PATTERNS if name not in words] != []
    for name in told:
        assert f"{name} is not configured here" in used.log("costs")


@pytest.mark.needs(executor="KubernetesExecutor")
def test_large_tasks_are_pods(used, evidence):
    """The Kubernetes half of the patterns: `heavy` and `process` run in pods."""
    lives = {life.task_id: life for life in used.history.lives(used.run)}
    evidence("pods", [life.row() for life in lives.values()])
    assert set(lives) == {f"{FAST}.heavy", f"{SITES}.process"}
    assert {used.xcom(task)["ran_on"] for task in lives} == {"KubernetesExecutor"}
